//! A running front door, and people who knock.

use std::path::Path;

use devcluster::Process;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;

use super::{World, operator::kubeconfig};

const ACCOUNT: &str = "serve";

/// `appbucket-operator serve`, as a process with the rights of its ServiceAccount.
pub struct Server {
    pub url: String,
    process: Process,
}

impl Server {
    /// Starts one more replica in this world, and waits until it is ready.
    pub async fn start(world: &World, args: &[&str]) -> Self {
        let kubeconfig_path = world.dir.join(format!("{ACCOUNT}.kubeconfig"));
        if !kubeconfig_path.exists() {
            world.create_account(ACCOUNT, &["appbucket-serve"], &["appbucket-serve-reviews"]).await;
        }
        let kubeconfig = kubeconfig(world, ACCOUNT).await;
        let port = devcluster::free_port().unwrap();
        let listen = format!("127.0.0.1:{port}");
        let log = world.dir.join(format!("operator-serve-{port}.log"));
        let mut all = vec!["serve", "--listen", &listen];
        if !args.contains(&"--log") {
            all.extend(["--log", "trace"]);
        }
        let all: Vec<_> = all.iter().chain(args).map(|arg| (*arg).to_owned()).collect();
        let env = [("KUBECONFIG", kubeconfig.display().to_string())];
        let program = Path::new(env!("CARGO_BIN_EXE_appbucket-operator"));
        let mut process = Process::start(program, &all, &env, &log).unwrap();
        let url = format!("http://{listen}");
        let ready = async || reqwest::get(format!("{url}/readyz")).await.is_ok_and(|answer| answer.status().is_success());
        process.ready(ready).await.unwrap();
        Self { url, process }
    }

    /// SIGKILL.
    pub fn kill(self) {
        drop(self.process);
    }

    /// A request that nobody has signed.
    pub fn request(&self, method: reqwest::Method, path: &str) -> RequestBuilder {
        reqwest::Client::new().request(method, format!("{}{path}", self.url))
    }
}

/// Somebody who knocks, with the header that says who they are.
#[derive(Clone)]
pub struct Person {
    pub header: &'static str,
    pub value: String,
}

impl Person {
    /// Somebody for whom a trusted program on this machine vouches.
    pub fn email(address: &str) -> Self {
        Self { header: "x-user-email", value: address.to_owned() }
    }

    pub fn guest(id: &str) -> Self {
        Self { header: "x-guest-id", value: id.to_owned() }
    }

    /// A ServiceAccount, with a token for that audience and with those ClusterRoles in the world's namespace.
    pub async fn account(world: &World, name: &str, audience: &str, roles: &[&str]) -> Self {
        world.create_account(name, roles, &[]).await;
        let token = world.kubectl(&["create", "token", name, "--audience", audience], "").await.unwrap();
        world.keep_secret(token.trim());
        Self { header: "authorization", value: format!("Bearer {}", token.trim()) }
    }

    pub async fn post(&self, server: &Server, body: Value, key: Option<&str>) -> (StatusCode, Value) {
        let mut request = server.request(reqwest::Method::POST, "/api/app-infra/buckets").json(&body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.send(request).await
    }

    pub async fn get(&self, server: &Server, path: &str) -> (StatusCode, Value) {
        self.send(server.request(reqwest::Method::GET, path)).await
    }

    /// Sends a request; every answer is JSON, and every error a problem.
    pub async fn send(&self, request: RequestBuilder) -> (StatusCode, Value) {
        let answer = request.header(self.header, &self.value).send().await.unwrap();
        let (status, kind) = (answer.status(), answer.headers()["content-type"].to_str().unwrap().to_owned());
        let text = answer.text().await.unwrap();
        let body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text}"));
        if !status.is_success() {
            assert_eq!(kind, "application/problem+json", "{text}");
            assert_eq!(body["status"], status.as_u16(), "{text}");
            assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{text}");
        }
        (status, body)
    }
}
