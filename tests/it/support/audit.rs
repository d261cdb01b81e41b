//! Who wrote what: the API server's audit log, and the records that a MinIO posts of each request.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use axum::{Json, Router, extract::State, routing::post};
use jiff::Timestamp;
use serde_json::Value;

use super::{Mc, World, eventually, serve, world::ACCOUNT};

/// What one world's operator wrote to the API server. The log is written before the answer is sent.
pub struct ApiAudit {
    log: PathBuf,
    user: String,
}

impl ApiAudit {
    pub fn of_operator(world: &World) -> Self {
        let user = format!("system:serviceaccount:{}:{ACCOUNT}", world.namespace);
        Self { log: world.env.dir.join("audit.log"), user }
    }

    /// All its writes.
    pub fn writes(&self) -> Vec<ApiWrite> {
        let log = std::fs::read_to_string(&self.log).unwrap();
        let records =
            log.lines().filter(|line| line.contains(&self.user)).map(|line| serde_json::from_str::<Value>(line).unwrap());
        records
            .filter(|record| record["user"]["username"] == self.user.as_str())
            .map(|record| ApiWrite {
                what: format!("{} {}", record["verb"].as_str().unwrap(), record["requestURI"].as_str().unwrap()),
                at: record["requestReceivedTimestamp"].as_str().unwrap().parse().unwrap(),
            })
            .collect()
    }
}

/// One write.
#[derive(Debug)]
pub struct ApiWrite {
    /// Verb and path.
    pub what: String,
    /// When it came in.
    pub at: Timestamp,
}

/// The requests of one MinIO.
pub struct MinioAudit {
    url: String,
    records: Arc<Mutex<Vec<Value>>>,
}

impl MinioAudit {
    pub async fn start() -> Self {
        let records = Arc::<Mutex<Vec<Value>>>::default();
        let app = Router::new()
            .route(
                "/",
                post(async |State(records): State<Arc<Mutex<Vec<Value>>>>, Json(record): Json<Value>| {
                    records.lock().unwrap().push(record);
                }),
            )
            .with_state(records.clone());
        let url = serve(app).await;
        Self { url, records }
    }

    /// The variables that make a MinIO post its records here.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        vec![("MINIO_AUDIT_WEBHOOK_ENABLE_tests", "on".to_owned()), ("MINIO_AUDIT_WEBHOOK_ENDPOINT_tests", self.url.clone())]
    }

    /// What was asked until now. Records come late but in order: a last request marks the end.
    pub async fn calls(&self, mc: &Mc) -> Vec<MinioCall> {
        let mark = format!("mark-{}", rand::random::<u32>());
        let _ = mc.run(&["stat", &format!("s3/{mark}")], "").await;
        eventually("the record of the last request", async || {
            let records = self.records.lock().unwrap().clone();
            let calls: Vec<_> = records.iter().map(MinioCall::of).collect();
            let end = calls.iter().position(|call| call.path.contains(&mark));
            end.map(|end| calls[..end].to_vec()).ok_or_else(|| format!("{} records", calls.len()))
        })
        .await
    }
}

/// One request to MinIO.
#[derive(Clone, Debug)]
pub struct MinioCall {
    /// The name of the call, as MinIO tells it.
    pub name: String,
    /// The path of the request: the bucket, or the admin call.
    pub path: String,
}

/// The calls that change nothing, of those that the operator and `mc` make.
const READS: [&str; 8] = [
    "GetBucketLocation",
    "GetBucketTagging",
    "GetUserInfo",
    "HeadBucket",
    "InfoCannedPolicy",
    "ListBuckets",
    "ListObjectVersions",
    "ListUsers",
];

impl MinioCall {
    fn of(record: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self { name: text(&record["api"]["name"]), path: text(&record["requestPath"]) }
    }

    /// What is not known to be a read counts as a write.
    pub fn is_write(&self) -> bool {
        !READS.contains(&self.name.as_str())
    }
}
