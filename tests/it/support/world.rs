//! One test's part of the cluster: a namespace, an identity for its operator, and ways to look at what becomes of things.

use std::{io::Write as _, path::PathBuf, time::Duration};

use appbucket_operator::crd::{AppBucket, AppBucketSpec, DEFAULT_REGION, DeletionPolicy, EnvPolicy};
use devcluster::{Env, Minio};
use k8s_openapi::api::{
    core::v1::{Namespace, Secret, ServiceAccount},
    events::v1::Event,
    rbac::v1::{ClusterRoleBinding, RoleBinding},
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::await_condition,
};
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, process::Command, sync::OnceCell};

use super::{DEADLINE, Mc, Operator, Provider, eventually};

/// The ServiceAccount of a world's operator, in its first namespace.
pub const ACCOUNT: &str = "operator";

pub struct World {
    pub env: Env,
    pub client: Client,
    /// The namespace that most tests use.
    pub namespace: String,
    /// All namespaces that the operator watches.
    pub namespaces: Vec<String>,
    /// A folder for this world's files.
    pub dir: PathBuf,
}

impl World {
    /// A new namespace whose name begins with `name`.
    pub async fn new(name: &str) -> Self {
        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        let env = Env::read().unwrap();
        INSTALLED.get_or_init(|| install(&env)).await;
        let client = client(&env).await;
        let mut world = Self { dir: PathBuf::new(), env, client, namespace: String::new(), namespaces: vec![] };
        world.namespace = world.add_namespace(name).await;
        world.dir = world.env.dir.join("worlds").join(&world.namespace);
        std::fs::create_dir_all(&world.dir).unwrap();
        world.create_account(ACCOUNT, &[], &["appbucket-operator-namespaces"]).await;
        world
    }

    /// One more namespace that the operator watches, if it is started after that.
    pub async fn add_namespace(&mut self, name: &str) -> String {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace: Namespace =
            serde_json::from_value(json!({ "metadata": { "generateName": format!("{name}-") } })).unwrap();
        let namespace = namespaces.create(&PostParams::default(), &namespace).await.unwrap().name_any();
        self.namespaces.push(namespace.clone());
        self.bind(ACCOUNT, "appbucket-operator", &namespace).await;
        namespace
    }

    /// Makes a ServiceAccount in this world's first namespace, with those ClusterRoles there and those everywhere.
    pub async fn create_account(&self, name: &str, here: &[&str], everywhere: &[&str]) {
        let account: ServiceAccount = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        accounts.create(&PostParams::default(), &account).await.unwrap();
        for role in here {
            self.bind(name, role, &self.namespace).await;
        }
        for role in everywhere {
            self.bind_everywhere(name, role).await;
        }
    }

    async fn bind(&self, account: &str, role: &str, namespace: &str) {
        let bindings: Api<RoleBinding> = Api::namespaced(self.client.clone(), namespace);
        bindings.create(&PostParams::default(), &serde_json::from_value(self.binding(account, role)).unwrap()).await.unwrap();
    }

    /// Gives an account the rights of a ClusterRole in all namespaces.
    pub async fn bind_everywhere(&self, account: &str, role: &str) {
        let bindings: Api<ClusterRoleBinding> = Api::all(self.client.clone());
        bindings.create(&PostParams::default(), &serde_json::from_value(self.binding(account, role)).unwrap()).await.unwrap();
    }

    fn binding(&self, account: &str, role: &str) -> serde_json::Value {
        json!({
            "metadata": { "name": format!("{}-{account}-{role}", self.namespaces[0]) },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": self.namespaces[0] }],
        })
    }

    /// Starts the operator with that provider, that producer and more arguments.
    pub async fn operator(&self, provider: &Provider, args: &[&str]) -> Operator {
        Operator::start(self, provider, args).await
    }

    /// Notes something that must be found nowhere (`tests/leaks.rs`).
    pub fn keep_secret(&self, secret: &str) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("keep-secret"));
        writeln!(file.unwrap(), "{secret}").unwrap();
    }

    /// The provider of the cluster's own MinIO.
    pub fn minio(&self) -> Provider {
        Provider::Minio(self.env.minio.clone().expect("the cluster has a MinIO"))
    }

    /// A MinIO of this world's own, with more variables in its environment.
    pub async fn own_minio(&self, env: Vec<(&'static str, String)>) -> Minio {
        Minio::start(&self.env.bin, &self.env.pki, &self.dir.join("minio"), env).await.unwrap()
    }

    /// `mc` as the administrator of the cluster's MinIO.
    pub fn mc(&self) -> Mc {
        Mc::administrator(self, &self.env.minio.clone().unwrap())
    }

    pub fn app_buckets(&self) -> Api<AppBucket> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn create(&self, name: &str, spec: AppBucketSpec) -> AppBucket {
        self.app_buckets().create(&PostParams::default(), &AppBucket::new(name, spec)).await.unwrap()
    }

    pub async fn get(&self, name: &str) -> AppBucket {
        self.app_buckets().get(name).await.unwrap()
    }

    pub async fn patch(&self, name: &str, patch: serde_json::Value) -> AppBucket {
        self.app_buckets().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
    }

    pub async fn delete(&self, name: &str) {
        self.app_buckets().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Waits until the object is as `check` wants it.
    pub async fn wait(&self, name: &str, what: &str, check: impl Fn(&AppBucket) -> bool) -> AppBucket {
        self.wait_in(&self.namespace, name, what, check).await
    }

    pub async fn wait_in(&self, namespace: &str, name: &str, what: &str, check: impl Fn(&AppBucket) -> bool) -> AppBucket {
        let api: Api<AppBucket> = Api::namespaced(self.client.clone(), namespace);
        let condition = await_condition(api.clone(), name, |object: Option<&AppBucket>| object.is_some_and(&check));
        if let Ok(object) = tokio::time::timeout(DEADLINE, condition).await {
            return object.unwrap().unwrap();
        }
        let status = api.get_opt(name).await.unwrap().map(|object| serde_json::to_string_pretty(&object.status).unwrap());
        panic!("{name} was not {what} in time; its status: {}\n{}", status.unwrap_or_default(), self.logs());
    }

    pub async fn wait_ready(&self, name: &str) -> AppBucket {
        self.wait(name, "ready", |object| condition(object, "Ready") == "True" && condition(object, "Reconciling").is_empty())
            .await
    }

    /// Waits until the object is `Stalled` for that reason.
    pub async fn wait_stalled(&self, name: &str, reason: &str) -> AppBucket {
        self.wait(name, &format!("Stalled, {reason}"), |object| reason_of(object, "Stalled") == reason).await
    }

    pub async fn wait_gone(&self, name: &str) {
        let gone = await_condition(self.app_buckets(), name, |object: Option<&AppBucket>| object.is_none());
        if tokio::time::timeout(DEADLINE, gone).await.is_err() {
            let status = self.get(name).await.status;
            panic!(
                "{name} was not gone in time; its status: {}\n{}",
                serde_json::to_string_pretty(&status).unwrap(),
                self.logs()
            );
        }
    }

    /// Waits for an Event of that reason about the object; its note.
    pub async fn wait_event(&self, name: &str, reason: &str) -> String {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        eventually(&format!("Event {reason} of {name}"), async || {
            let list = events.list(&ListParams::default()).await.unwrap().items;
            let about =
                list.iter().filter(|event| event.regarding.as_ref().is_some_and(|object| object.name.as_deref() == Some(name)));
            let reasons: Vec<_> = about.clone().filter_map(|event| event.reason.clone()).collect();
            let found = about.clone().find(|event| event.reason.as_deref() == Some(reason));
            found.map(|event| event.note.clone().unwrap_or_default()).ok_or_else(|| reasons.join(", "))
        })
        .await
    }

    /// `kubectl` in this world's namespace. Gives back what it printed, or else what it complained about.
    pub async fn kubectl(&self, args: &[&str], stdin: &str) -> Result<String, String> {
        let mut args = args.to_vec();
        args.extend(["-n", &self.namespace]);
        kubectl(&self.env, &args, stdin).await
    }

    /// The logs of this world's operators.
    pub fn logs(&self) -> String {
        let mut logs = String::new();
        for path in std::fs::read_dir(&self.dir).unwrap().flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "log") {
                let log = std::fs::read_to_string(&path).unwrap();
                let lines: Vec<_> = log.lines().filter(|line| line.contains("appbucket_operator")).collect();
                let end = lines[lines.len().saturating_sub(40)..].join("\n");
                logs.extend(["== ", &path.display().to_string(), "\n", &end, "\n"]);
            }
        }
        logs
    }
}

async fn client(env: &Env) -> Client {
    let config = Kubeconfig::read_from(&env.kubeconfig).unwrap();
    Client::try_from(Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap()).unwrap()
}

async fn install(env: &Env) {
    kubectl(env, &["apply", "-f", "crds", "-f", "deploy/rbac.yaml"], "").await.unwrap();
    let crd = "crd/appbuckets.storage.openfactory.tech";
    kubectl(env, &["wait", "--for=condition=Established", crd, "--timeout=60s"], "").await.unwrap();
}

/// `kubectl` as the administrator. Gives back what it printed, or else what it complained about.
pub async fn kubectl(env: &Env, args: &[&str], stdin: &str) -> Result<String, String> {
    let mut command = Command::new(env.bin.join("kubectl"));
    command.args(args).env("KUBECONFIG", &env.kubeconfig).current_dir(env!("CARGO_MANIFEST_DIR"));
    run(command, stdin).await
}

/// How long a program may run; some do hundreds of requests.
const COMMAND_DEADLINE: Duration = Duration::from_mins(5);

/// Runs a command with that input. Gives back what it printed, or else all that it said.
pub async fn run(mut command: Command, stdin: &str) -> Result<String, String> {
    use std::process::Stdio;
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    // It may end without reading.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes()).await;
    let output = tokio::time::timeout(COMMAND_DEADLINE, child.wait_with_output()).await.expect("a command hangs").unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(out.into_owned()) } else { Err(format!("{out}{err}")) }
}

/// What most tests ask for.
pub fn spec(app_id: &str) -> AppBucketSpec {
    AppBucketSpec {
        app_id: app_id.to_owned(),
        slug: None,
        region: DEFAULT_REGION.to_owned(),
        deletion_policy: DeletionPolicy::Retain,
        secret_name: None,
        env_policy: EnvPolicy::Publish,
    }
}

/// The status of a condition, or nothing.
pub fn condition<'a>(object: &'a AppBucket, type_: &str) -> &'a str {
    find(object, type_).map_or("", |condition| &condition.status)
}

/// The reason of a condition, or nothing.
pub fn reason_of<'a>(object: &'a AppBucket, type_: &str) -> &'a str {
    find(object, type_).map_or("", |condition| &condition.reason)
}

fn find<'a>(object: &'a AppBucket, type_: &str) -> Option<&'a k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    object.status.as_ref().and_then(|status| status.condition(type_))
}

/// One entry of a Secret.
pub fn secret_value(secret: &Secret, key: &str) -> String {
    String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap()
}
