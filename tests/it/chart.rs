//! The Helm chart, with real helm, on a control plane of its own: what it installs reaches all namespaces.

use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use devcluster::{Cluster, Env, Process};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{eventually, kubectl, run, write_kubeconfig};

const CHART: &str = "charts/appbucket-operator";
const SYSTEM: &str = "appbucket-system";

async fn helm(env: &Env, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env.bin.join("helm"));
    command.args(args).env("KUBECONFIG", &env.kubeconfig).env("HOME", &env.dir);
    run(command, "").await
}

async fn get(env: &Env, args: &[&str]) -> Value {
    let args: Vec<_> = ["get", "-o", "json"].iter().chain(args).copied().collect();
    serde_json::from_str(&kubectl(env, &args, "").await.unwrap()).unwrap()
}

/// The command of a Deployment, with its arguments, its environment and a token of its ServiceAccount. Only addresses and paths of
/// the pod are replaced by ones of this machine.
struct Pod {
    process: Process,
    log: PathBuf,
    address: String,
}

impl Pod {
    async fn start(env: &Env, deployment: &str, component: &str) -> Self {
        let spec = get(env, &["-n", SYSTEM, "deployment", deployment]).await["spec"]["template"]["spec"].clone();
        let container = &spec["containers"][0];
        let port = devcluster::free_port().unwrap();
        let address = format!("127.0.0.1:{port}");
        let args = container["args"].as_array().unwrap().iter().map(|arg| {
            let arg = arg.as_str().unwrap();
            arg.replace("0.0.0.0:8081", &address)
                .replace("0.0.0.0:8080", &address)
                .replace("/etc/appbucket-operator/ca/ca.crt", env.pki.ca().to_str().unwrap())
        });
        let account = spec["serviceAccountName"].as_str().unwrap();
        let token = kubectl(env, &["-n", SYSTEM, "create", "token", account], "").await.unwrap();
        let kubeconfig = env.dir.join(format!("{component}.kubeconfig"));
        write_kubeconfig(env, SYSTEM, &token, &kubeconfig);
        let mut variables = vec![("KUBECONFIG", kubeconfig.display().to_string())];
        for variable in container["env"].as_array().into_iter().flatten() {
            let from = &variable["valueFrom"]["secretKeyRef"];
            let secret = get(env, &["-n", SYSTEM, "secret", from["name"].as_str().unwrap()]).await;
            let value = BASE64.decode(secret["data"][from["key"].as_str().unwrap()].as_str().unwrap().as_bytes()).unwrap();
            variables.push((variable["name"].as_str().unwrap(), String::from_utf8(value).unwrap()));
        }
        let log = env.dir.join(format!("{component}.log"));
        let program = Path::new(env!("CARGO_BIN_EXE_appbucket-operator"));
        let mut process = Process::start(program, &args.collect::<Vec<_>>(), &variables, &log).unwrap();
        // The probes of the pod.
        for probe in ["livenessProbe", "readinessProbe"] {
            let url = format!("http://{address}{}", container[probe]["httpGet"]["path"].as_str().unwrap());
            process.ready(async || reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success())).await.unwrap();
        }
        Self { process, log, address }
    }

    /// Ends it; no call of it was forbidden.
    async fn stop(self) {
        assert!(self.process.terminate().await.unwrap().success());
        let log = std::fs::read_to_string(&self.log).unwrap();
        assert!(!log.to_lowercase().contains("forbidden"), "{log}");
    }
}

async fn ready(env: &Env, namespace: &str, status: &str) -> Value {
    let object = eventually(&format!("photos is {status}"), async || {
        let object = get(env, &["-n", namespace, "appbucket", "photos"]).await;
        if object["status"]["status"] == status { Ok(object) } else { Err(object["status"].to_string()) }
    })
    .await;
    kubectl(env, &["-n", namespace, "wait", "--for=condition=Ready", "appbucket/photos", "--timeout=60s"], "").await.unwrap();
    object
}

#[tokio::test]
async fn install_upgrade_uninstall_and_again() {
    let bin = Env::read().unwrap().bin;
    let cluster = Cluster::start(&bin, true).await.unwrap();
    let env = cluster.env(&bin);
    let minio = env.minio.clone().unwrap();

    // Stub mode, all namespaces.
    let install = |verb: &'static str, more: Vec<String>| {
        let args = [verb, "operator", CHART, "-n", SYSTEM, "--set", "log.format=text,log.filter=debug"].map(ToOwned::to_owned);
        args.into_iter().chain(more).collect::<Vec<_>>()
    };
    let run_helm = async |args: Vec<String>| helm(&env, &args.iter().map(String::as_str).collect::<Vec<_>>()).await.unwrap();
    let notes = run_helm(install("install", vec!["--create-namespace".to_owned()])).await;
    assert!(notes.contains("runs with provider stub"), "{notes}");
    kubectl(&env, &["create", "namespace", "team"], "").await.unwrap();
    let deployment = "operator-appbucket-operator";
    let controller = Pod::start(&env, deployment, "controller").await;
    kubectl(&env, &["-n", "team", "apply", "-f", "deploy/examples/appbucket.yaml"], "").await.unwrap();
    let stub = ready(&env, "team", "stub").await;
    controller.stop().await;

    // People with the cluster's own role may declare buckets.
    let can = async |verb: &str| {
        let bind = ["-n", "team", "create", "rolebinding", verb, "--clusterrole=edit", "--user=dev"];
        let _ = kubectl(&env, &bind, "").await;
        eventually("the roles are aggregated", async || {
            kubectl(&env, &["-n", "team", "auth", "can-i", verb, "appbuckets.storage.openfactory.tech", "--as=dev"], "").await
        })
        .await
    };
    assert_eq!(can("create").await.trim(), "yes");

    // MinIO, with the front doors.
    let secret = ["-n", SYSTEM, "create", "secret", "generic", "minio-admin"];
    let keys =
        [format!("--from-literal=accessKey={}", minio.root_user), format!("--from-literal=secretKey={}", minio.root_password)];
    let secret: Vec<_> = secret.into_iter().chain(keys.iter().map(String::as_str)).collect();
    kubectl(&env, &secret, "").await.unwrap();
    let with_minio = [
        "-f".to_owned(),
        format!("{CHART}/values-minio.yaml"),
        "--set".to_owned(),
        format!("minio.endpoint={},minio.caConfigMap=minio-ca,serve.namespace=team", minio.endpoint),
    ];
    run_helm(install("upgrade", with_minio.to_vec())).await;
    let controller = Pod::start(&env, deployment, "controller-minio").await;
    let real = ready(&env, "team", "ready").await;
    assert_eq!(real["status"]["bucketName"], stub["status"]["bucketName"]);
    let serve = Pod::start(&env, &format!("{deployment}-serve"), "serve").await;
    kubectl(&env, &["-n", "team", "create", "serviceaccount", "agent"], "").await.unwrap();
    kubectl(&env, &["-n", "team", "create", "rolebinding", "agent", "--clusterrole=edit", "--serviceaccount=team:agent"], "")
        .await
        .unwrap();
    let token = kubectl(&env, &["-n", "team", "create", "token", "agent", "--audience=appbucket-operator"], "").await.unwrap();
    let answer = reqwest::Client::new()
        .post(format!("http://{}/api/app-infra/buckets", serve.address))
        .bearer_auth(token.trim())
        .json(&json!({ "app_id": "agents" }))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 201, "{}", answer.text().await.unwrap());
    serve.stop().await;
    controller.stop().await;

    // Uninstalled: what people declared stays, with its Secret and the CRD. Installed again, for one namespace, with no right beyond.
    run_helm(["uninstall", "operator", "-n", SYSTEM].map(ToOwned::to_owned).to_vec()).await;
    let before = get(&env, &["-n", "team", "secret", "photos-s3"]).await;
    let cluster = get(&env, &["namespace", "kube-system"]).await["metadata"]["uid"].as_str().unwrap().to_owned();
    let namespaced = ["--set".to_owned(), format!("watchNamespaces={{team}},clusterId={cluster},serve.enabled=false")];
    let args = install("install", with_minio.iter().chain(&namespaced).cloned().collect());
    run_helm(args).await;
    let roles = get(&env, &["clusterroles", "-l", "app.kubernetes.io/instance=operator"]).await;
    let names: Vec<_> =
        roles["items"].as_array().unwrap().iter().map(|role| role["metadata"]["name"].as_str().unwrap()).collect();
    assert!(names.iter().all(|name| name.ends_with("-view") || name.ends_with("-edit")), "{names:?}");
    let controller = Pod::start(&env, deployment, "controller-namespaced").await;
    eventually("all is found again as it was", async || {
        let log = std::fs::read_to_string(&controller.log).unwrap();
        if log.lines().any(|line| line.contains("photos.team") && line.ends_with("nothing to do")) { Ok(()) } else { Err(log) }
    })
    .await;
    assert!(!std::fs::read_to_string(&controller.log).unwrap().contains("acting step="));
    let after = get(&env, &["-n", "team", "secret", "photos-s3"]).await;
    assert_eq!(before["data"], after["data"]);
    controller.stop().await;
}

#[tokio::test]
async fn it_is_linted_and_wrong_values_are_refused_in_clear_words() {
    let env = Env::read().unwrap();
    for values in ["values-stub.yaml", "values-minio.yaml"] {
        helm(&env, &["lint", "--strict", CHART, "-f", &format!("{CHART}/{values}")]).await.unwrap();
    }
    for (set, expected) in [
        ("provider=gcs", "at '/provider': value must be one of 'stub', 'minio'"),
        ("provider=minio", "at '/minio/endpoint'"),
        ("provider=minio,minio.endpoint=minio:9000,minio.existingSecret=x", "at '/minio/endpoint'"),
        ("controller.replicas=-1", "at '/controller/replicas'"),
        ("controller.concurrency=0", "at '/controller/concurrency'"),
        ("controller.leaseDuration=soon", "at '/controller/leaseDuration'"),
        ("watchNamespaces={A}", "at '/watchNamespaces/0'"),
        ("misspelt=1", "additional properties 'misspelt' not allowed"),
    ] {
        let error = helm(&env, &["template", CHART, "--set", set]).await.unwrap_err();
        assert!(error.contains(expected), "{set}: {error}");
    }
    // Umbrella charts pass these on.
    helm(&env, &["template", CHART, "--kube-version", "1.36.0", "--set", "global.x=1,enabled=true"]).await.unwrap();
}

#[test]
fn the_crd_in_the_chart_is_the_one_in_crds() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let (crd, copy) = (read("crds/storage.openfactory.tech_appbuckets.yaml"), read("charts/appbucket-operator/files/crd.yaml"));
    assert!(crd == copy, "the chart's CRD is out of date: run `make crd`");
}

/// Pods that the strictest Pod Security profile lets in, and everything else that the API server checks.
#[tokio::test]
async fn everything_on_is_accepted_by_the_api_server_under_restricted_pod_security() {
    let world = crate::support::World::new("chart").await;
    let enforce = format!("namespace/{}", world.namespace);
    world.kubectl(&["label", &enforce, "pod-security.kubernetes.io/warn=restricted"], "").await.unwrap();
    let set = "crds.install=false,podDisruptionBudget.enabled=true,producer.url=https://p,producer.existingSecret=t,minio.caConfigMap=ca,\
        strictAppIds=true,podLabels.team=x,podAnnotations.a=b,nodeSelector.x=y";
    let values = format!("{CHART}/values-minio.yaml");
    let namespace = world.namespace.clone();
    let args = ["template", "r", CHART, "-n", &namespace, "--kube-version", "1.36.0", "-f", &values, "--set", set];
    let rendered = helm(&world.env, &args).await.unwrap();
    let mut command = Command::new(world.env.bin.join("kubectl"));
    command.args(["apply", "--dry-run=server", "-n", &namespace, "-f", "-"]).env("KUBECONFIG", &world.env.kubeconfig);
    // Warnings, among them those of Pod Security, go to stderr.
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(command.as_std().get_program()).args(command.as_std().get_args());
    shell.env("KUBECONFIG", &world.env.kubeconfig);
    let output = run(shell, &rendered).await.unwrap();
    assert!(output.lines().count() > 12 && !output.contains("Warning"), "{output}");
}

/// The chart's README tells of every value, with its default.
#[test]
fn the_table_of_values_is_complete() {
    fn leaves(value: &Value, path: &str, found: &mut Vec<(String, Value)>) {
        for (key, value) in value.as_object().unwrap() {
            let path = format!("{path}{key}");
            match value {
                Value::Object(fields) if !fields.is_empty() && !path.ends_with("resources") => {
                    leaves(value, &format!("{path}."), found);
                }
                _ => found.push((path, value.clone())),
            }
        }
    }
    let read = |file: &str| std::fs::read_to_string(format!("{CHART}/{file}")).unwrap();
    let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    let (readme, mut found) = (read("README.md"), vec![]);
    leaves(&values, "", &mut found);
    assert!(found.len() > 40);
    for (path, default) in found {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{path}` |")));
        let told = row.and_then(|row| row.split('`').nth(3)).unwrap_or_else(|| panic!("README.md does not tell of {path}"));
        assert_eq!(serde_json::from_str::<Value>(told).unwrap(), default, "{path}");
    }
}
