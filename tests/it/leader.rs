//! Several controllers, of which one acts.

use k8s_openapi::api::{
    coordination::v1::Lease,
    rbac::v1::{Role, RoleBinding},
};
use kube::{Api, api::PostParams};
use rustix::process::Signal;
use serde_json::json;

use crate::support::{ACCOUNT, Operator, Provider, World, condition, eventually, spec};

const ELECT: [&str; 4] = ["--leader-elect", "true", "--lease-duration", "3s"];

/// A world whose operators may elect a leader, by the rules of deploy/rbac.yaml.
async fn world(name: &str) -> World {
    let world = World::new(name).await;
    let rules = std::fs::read_to_string("deploy/rbac.yaml").unwrap();
    let role: serde_json::Value = serde_saphyr::from_multiple::<serde_json::Value>(&rules)
        .unwrap()
        .into_iter()
        .find(|document| document["kind"] == "Role" && document["metadata"]["name"] == "appbucket-operator-leader")
        .unwrap();
    let role: Role = serde_json::from_value(json!({ "metadata": { "name": "leader" }, "rules": role["rules"] })).unwrap();
    Api::namespaced(world.client.clone(), &world.namespace).create(&PostParams::default(), &role).await.unwrap();
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": { "name": "leader" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "leader" },
        "subjects": [{ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": world.namespace }],
    }))
    .unwrap();
    Api::namespaced(world.client.clone(), &world.namespace).create(&PostParams::default(), &binding).await.unwrap();
    world
}

async fn lease(world: &World) -> Lease {
    Api::<Lease>::namespaced(world.client.clone(), &world.namespace).get("appbucket-operator").await.unwrap()
}

async fn ready(world: &World, name: &str) {
    world.create(name, spec(name)).await;
    world.wait(name, "ready", |object| condition(object, "Ready") == "True").await;
}

fn acted(operator: &Operator) -> bool {
    std::fs::read_to_string(&operator.log).unwrap().contains("acting step=")
}

#[tokio::test]
async fn one_acts_the_other_stands_by_and_takes_over_when_it_is_killed() {
    let world = world("leader-killed").await;
    let leader = world.operator(&Provider::Stub, &ELECT).await;
    leader.wait_log("leading").await;
    let standby = world.operator(&Provider::Stub, &ELECT).await;
    ready(&world, "one").await;
    // Its watches are warm: it has seen what it does not touch.
    standby.wait_log(&format!("AppBucket.v1alpha1.storage.openfactory.tech/one.{}", world.namespace)).await;
    assert!(acted(&leader) && !acted(&standby));
    // A standby that is stopped has nothing to finish.
    let another = world.operator(&Provider::Stub, &ELECT).await;
    another.wait_log("standing by").await;
    let log = another.log.clone();
    assert!(another.stop().await.success());
    assert!(std::fs::read_to_string(log).unwrap().lines().any(|line| line.ends_with("cli: stopped")));
    let before = lease(&world).await.spec.unwrap();
    leader.kill();
    ready(&world, "two").await;
    assert!(acted(&standby));
    let after = lease(&world).await.spec.unwrap();
    assert_ne!(before.holder_identity, after.holder_identity);
    assert_eq!(after.lease_transitions.unwrap(), before.lease_transitions.unwrap() + 1);
}

#[tokio::test]
async fn a_leader_that_is_stopped_hands_over_at_once() {
    let world = world("leader-stopped").await;
    // Nobody could wait for this lease to run out.
    let long = ["--leader-elect", "true", "--lease-duration", "1h"];
    let leader = world.operator(&Provider::Stub, &long).await;
    leader.wait_log("leading").await;
    assert!(leader.stop().await.success());
    assert_eq!(lease(&world).await.spec.unwrap().holder_identity, None);
    let next = world.operator(&Provider::Stub, &long).await;
    next.wait_log("leading").await;
    ready(&world, "one").await;
}

/// SIGSTOP until another leads, then SIGCONT: it ends, and has done nothing more.
#[tokio::test]
async fn a_leader_that_was_paused_does_not_go_on() {
    let world = world("leader-paused").await;
    let mut paused = world.operator(&Provider::Stub, &ELECT).await;
    paused.wait_log("leading").await;
    ready(&world, "one").await;
    let next = world.operator(&Provider::Stub, &ELECT).await;
    paused.signal(Signal::STOP);
    next.wait_log("leading").await;
    // There is something that it would do.
    let steps = |operator: &Operator| std::fs::read_to_string(&operator.log).unwrap().matches("acting step=").count();
    let before = steps(&paused);
    ready(&world, "two").await;
    paused.signal(Signal::CONT);
    eventually("the paused leader ends", async || if paused.has_ended() { Ok(()) } else { Err(String::new()) }).await;
    assert!(std::fs::read_to_string(&paused.log).unwrap().contains("the lease could not be renewed in time"));
    assert_eq!(steps(&paused), before);
}

/// Cut off from the API server: it ends before its lease has run out for others.
#[tokio::test]
async fn a_leader_that_is_cut_off_ends_before_another_may_lead() {
    let world = world("leader-cut-off").await;
    let gate = Gate::open(&world).await;
    let mut leader = Operator::start_with(&world, &Provider::Stub, &ELECT, &gate.kubeconfig).await;
    leader.wait_log("leading").await;
    let standby = world.operator(&Provider::Stub, &ELECT).await;
    gate.close();
    eventually("the leader ends", async || if leader.has_ended() { Ok(()) } else { Err(String::new()) }).await;
    standby.wait_log("leading").await;
    // By their own words: the one had ended before the other began.
    let time = |operator: &Operator, text: &str| {
        let log = std::fs::read_to_string(&operator.log).unwrap();
        let line = log.lines().find(|line| line.contains(text)).unwrap().to_owned();
        line.split_whitespace().next().unwrap().parse::<jiff::Timestamp>().unwrap()
    };
    let (ended, began) = (time(&leader, "the lease could not be renewed in time"), time(&standby, "leader: leading"));
    assert!(ended < began, "{ended}, {began}");
    ready(&world, "one").await;
}

/// A way to the API server that can be closed: connections stay, and nothing comes through.
struct Gate {
    kubeconfig: std::path::PathBuf,
    open: tokio::sync::watch::Sender<bool>,
}

impl Gate {
    async fn open(world: &World) -> Self {
        let kubeconfig = crate::support::kubeconfig(world, ACCOUNT).await;
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&kubeconfig).unwrap()).unwrap();
        let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap().trim_start_matches("https://").to_owned();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        config["clusters"][0]["cluster"]["server"] = format!("https://{}", listener.local_addr().unwrap()).into();
        let kubeconfig = world.dir.join("gate.kubeconfig");
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let (open, watch) = tokio::sync::watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (server, mut watch) = (server.clone(), watch.clone());
                tokio::spawn(async move {
                    let mut server = tokio::net::TcpStream::connect(server).await.unwrap();
                    let closed = async {
                        let _ = watch.wait_for(|open| !open).await;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        () = closed => std::future::pending().await,
                    }
                });
            }
        });
        Self { kubeconfig, open }
    }

    fn close(&self) {
        self.open.send_replace(false);
    }
}
