//! What the tests stand on.

mod audit;
mod mc;
mod operator;
mod producer;
mod server;
mod world;

pub use self::{
    audit::{ApiAudit, MinioAudit},
    mc::Mc,
    operator::{Operator, Provider, kubeconfig, write_kubeconfig},
    producer::{Answer, TestProducer},
    server::{Person, Server},
    world::{ACCOUNT, World, condition, kubectl, reason_of, run, secret_value, spec},
};

use std::time::Duration;

/// How long anything that must happen may take. Long, as the machine may be busy; nothing waits for it to pass.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// Serves that app on a free port for as long as the test runs; its URL.
pub async fn serve(app: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

/// Waits until `check` says yes; panics with `what` and what `check` said last when the deadline has passed.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        match check().await {
            Ok(value) => return value,
            Err(last) if tokio::time::Instant::now() > deadline => panic!("{what} did not happen in time: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
