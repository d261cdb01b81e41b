//! etcd, kube-apiserver and kube-controller-manager.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::{Pki, Process, free_port, write};

/// The audit log tells the tests who wrote what: the content of what the operator writes, and of nothing else. Reads are left
/// out, and so is what the other components do.
const AUDIT_POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: None
    verbs: [get, list, watch]
  - level: None
    users: ["system:kube-controller-manager", "system:apiserver"]
  - level: Request
    resources:
      - group: storage.openfactory.tech
      - group: events.k8s.io
      - group: ""
        resources: [secrets]
  - level: Metadata
"#;

pub(crate) struct ControlPlane {
    // In this order they are ended.
    _controller_manager: Process,
    _api_server: Process,
    _etcd: Process,
}

impl ControlPlane {
    pub async fn start(bin: &Path, pki: &Pki, dir: &Path) -> anyhow::Result<Self> {
        let (etcd, etcd_url) = etcd(bin, pki, dir).await?;
        let (api_server, url) = api_server(bin, pki, dir, &etcd_url).await?;
        let controller_manager = controller_manager(bin, pki, dir, &url).await?;
        kubeconfig(&dir.join("admin.kubeconfig"), &url, pki, Pki::ADMIN)?;
        Ok(Self { _controller_manager: controller_manager, _api_server: api_server, _etcd: etcd })
    }
}

async fn etcd(bin: &Path, pki: &Pki, dir: &Path) -> anyhow::Result<(Process, String)> {
    let (client, peer) = (format!("https://127.0.0.1:{}", free_port()?), format!("http://127.0.0.1:{}", free_port()?));
    let args = flags(&[
        ("data-dir", dir.join("etcd").display().to_string()),
        ("listen-client-urls", client.clone()),
        ("advertise-client-urls", client.clone()),
        ("listen-peer-urls", peer.clone()),
        ("initial-advertise-peer-urls", peer.clone()),
        ("initial-cluster", format!("default={peer}")),
        ("cert-file", text(pki.certificate(Pki::SERVER))),
        ("key-file", text(pki.key(Pki::SERVER))),
        ("trusted-ca-file", text(pki.ca())),
        ("client-cert-auth", "true".to_owned()),
        // The data are thrown away: no need to wait for the disk.
        ("unsafe-no-fsync", "true".to_owned()),
        ("log-level", "warn".to_owned()),
    ]);
    let mut process = Process::start(&bin.join("etcd"), &args, &[], &dir.join("etcd.log"))?;
    answers(&mut process, pki, Pki::API_SERVER, &format!("{client}/health")).await?;
    Ok((process, client))
}

async fn api_server(bin: &Path, pki: &Pki, dir: &Path, etcd: &str) -> anyhow::Result<(Process, String)> {
    let port = free_port()?;
    let policy = write(&dir.join("audit-policy.yaml"), AUDIT_POLICY)?;
    let args = flags(&[
        ("bind-address", "127.0.0.1".to_owned()),
        ("secure-port", port.to_string()),
        ("tls-cert-file", text(pki.certificate(Pki::SERVER))),
        ("tls-private-key-file", text(pki.key(Pki::SERVER))),
        ("client-ca-file", text(pki.ca())),
        ("etcd-servers", etcd.to_owned()),
        ("etcd-cafile", text(pki.ca())),
        ("etcd-certfile", text(pki.certificate(Pki::API_SERVER))),
        ("etcd-keyfile", text(pki.key(Pki::API_SERVER))),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("service-cluster-ip-range", "10.0.0.0/24".to_owned()),
        ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
        ("service-account-key-file", text(pki.public_key(Pki::SERVICE_ACCOUNT))),
        ("service-account-signing-key-file", text(pki.key(Pki::SERVICE_ACCOUNT))),
        ("endpoint-reconciler-type", "none".to_owned()),
        ("audit-policy-file", text(policy)),
        ("audit-log-path", text(dir.join("audit.log"))),
    ]);
    let mut process = Process::start(&bin.join("kube-apiserver"), &args, &[], &dir.join("kube-apiserver.log"))?;
    let url = format!("https://127.0.0.1:{port}");
    answers(&mut process, pki, Pki::ADMIN, &format!("{url}/readyz")).await?;
    Ok((process, url))
}

/// Needed for garbage collection by owner references, namespaces and ServiceAccounts.
async fn controller_manager(bin: &Path, pki: &Pki, dir: &Path, api_server: &str) -> anyhow::Result<Process> {
    let kubeconfig = kubeconfig(&dir.join("controller-manager.kubeconfig"), api_server, pki, Pki::CONTROLLER_MANAGER)?;
    let port = free_port()?;
    let args = flags(&[
        ("kubeconfig", text(kubeconfig)),
        ("bind-address", "127.0.0.1".to_owned()),
        ("secure-port", port.to_string()),
        ("tls-cert-file", text(pki.certificate(Pki::SERVER))),
        ("tls-private-key-file", text(pki.key(Pki::SERVER))),
        ("root-ca-file", text(pki.ca())),
        ("service-account-private-key-file", text(pki.key(Pki::SERVICE_ACCOUNT))),
        // The rights of its controllers are bound to ServiceAccounts (bootstrap policy system:controller:*).
        ("use-service-account-credentials", "true".to_owned()),
        ("leader-elect", "false".to_owned()),
    ]);
    let log = dir.join("kube-controller-manager.log");
    let mut process = Process::start(&bin.join("kube-controller-manager"), &args, &[], &log)?;
    answers(&mut process, pki, Pki::ADMIN, &format!("https://127.0.0.1:{port}/healthz")).await?;
    // Its controllers start after that.
    let account = format!("{api_server}/api/v1/namespaces/default/serviceaccounts/default");
    answers(&mut process, pki, Pki::ADMIN, &account).await?;
    Ok(process)
}

async fn answers(process: &mut Process, pki: &Pki, identity: &str, url: &str) -> anyhow::Result<()> {
    let http = pki.http_client(identity)?;
    process.ready(async || http.get(url).send().await.is_ok_and(|answer| answer.status().is_success())).await
}

fn kubeconfig(path: &Path, server: &str, pki: &Pki, identity: &str) -> anyhow::Result<PathBuf> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "devcluster", "cluster": { "server": server, "certificate-authority": pki.ca() } }],
        "users": [{
            "name": identity,
            "user": { "client-certificate": pki.certificate(identity), "client-key": pki.key(identity) },
        }],
        "contexts": [{ "name": "devcluster", "context": { "cluster": "devcluster", "user": identity } }],
        "current-context": "devcluster",
    });
    // JSON is YAML.
    write(path, config.to_string())
}

fn flags(flags: &[(&str, String)]) -> Vec<String> {
    flags.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}
