//! A running operator, as a process with the rights of its ServiceAccount.

use std::{
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::atomic::{AtomicUsize, Ordering},
};

use devcluster::{Env, MinioAccess, Process};
use rustix::process::{Pid, Signal, kill_process};

use super::{World, eventually, world::ACCOUNT};

/// What the operator is started with.
pub enum Provider {
    Stub,
    Minio(MinioAccess),
}

pub struct Operator {
    process: Process,
    pub log: PathBuf,
}

impl Operator {
    /// Starts it, and waits until it says so. It logs all there is.
    pub async fn start(world: &World, provider: &Provider, args: &[&str]) -> Self {
        let kubeconfig = kubeconfig(world, ACCOUNT).await;
        Self::start_with(world, provider, args, &kubeconfig).await
    }

    /// The same, with that kubeconfig.
    pub async fn start_with(world: &World, provider: &Provider, args: &[&str], kubeconfig: &Path) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = world.dir.join(format!("operator-{number}.log"));
        let mut env = vec![("KUBECONFIG", kubeconfig.display().to_string())];
        let watched = world.namespaces.join(",");
        let mut all = vec!["controller", "--watch-namespaces", &watched, "--health-listen", "127.0.0.1:0"];
        if !args.contains(&"--log") {
            all.extend(["--log", "trace"]);
        }
        let ca = world.env.pki.ca().display().to_string();
        match provider {
            Provider::Stub => all.extend(["--provider", "stub"]),
            Provider::Minio(access) => {
                all.extend(["--provider", "minio", "--minio-endpoint", &access.endpoint, "--minio-ca-file", &ca]);
                all.extend(["--minio-access-key", &access.root_user]);
                env.push(("APPBUCKET_MINIO_SECRET_KEY", access.root_password.clone()));
                world.keep_secret(&access.root_password);
            }
        }
        // Restarts are not to wait for a lease, except where that is the matter.
        if !args.contains(&"--leader-elect") {
            all.extend(["--leader-elect", "false"]);
        }
        all.extend(args);
        let all: Vec<_> = all.into_iter().map(ToOwned::to_owned).collect();
        let program = Path::new(env!("CARGO_BIN_EXE_appbucket-operator"));
        let mut process = Process::start(program, &all, &env, &log).unwrap();
        process.ready(async || std::fs::read_to_string(&log).unwrap().contains("listening")).await.unwrap();
        Self { process, log }
    }

    /// Asks it to end, and waits.
    pub async fn stop(self) -> ExitStatus {
        self.process.terminate().await.unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.process.id().try_into().unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.process.has_ended()
    }

    /// SIGKILL.
    pub fn kill(self) {
        drop(self);
    }

    /// Asks its health port; the status and the text.
    pub async fn ask(&self, path: &str) -> (u16, String) {
        let log = std::fs::read_to_string(&self.log).unwrap();
        let address = log.split("listening address=").nth(1).unwrap().split_whitespace().next().unwrap();
        let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Waits for a line of the log.
    pub async fn wait_log(&self, text: &str) {
        eventually(&format!("{text} in the log"), async || {
            let log = std::fs::read_to_string(&self.log).unwrap();
            if log.contains(text) { Ok(()) } else { Err(self.process.log_end()) }
        })
        .await;
    }
}

/// The kubeconfig of a ServiceAccount in this world's namespace.
pub async fn kubeconfig(world: &World, account: &str) -> PathBuf {
    let path = world.dir.join(format!("{account}.kubeconfig"));
    if path.exists() {
        return path;
    }
    let token = world.kubectl(&["create", "token", account], "").await.unwrap();
    world.keep_secret(token.trim());
    write_kubeconfig(&world.env, &world.namespace, &token, &path);
    path
}

/// The administrator's kubeconfig with that token and that namespace in place of the administrator's.
pub fn write_kubeconfig(env: &Env, namespace: &str, token: &str, path: &Path) {
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&env.kubeconfig).unwrap()).unwrap();
    config["contexts"][0]["context"]["namespace"] = namespace.into();
    config["users"][0]["user"] = serde_json::json!({ "token": token.trim() });
    std::fs::write(path, config.to_string()).unwrap();
}
