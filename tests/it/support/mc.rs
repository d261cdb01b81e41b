//! MinIO's own client: what it sees does not depend on the operator's code.

use std::path::PathBuf;

use devcluster::MinioAccess;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;
use tokio::process::Command;

use super::{World, secret_value, world::run};

/// `mc`, with one server under the alias `s3`.
pub struct Mc {
    program: PathBuf,
    host: String,
    ca: PathBuf,
    config: PathBuf,
}

impl Mc {
    /// As the administrator.
    pub fn administrator(world: &World, access: &MinioAccess) -> Self {
        Self::new(world, &access.endpoint, &access.root_user, &access.root_password)
    }

    /// As an app, with the Secret's values alone.
    pub fn app(world: &World, secret: &Secret) -> Self {
        let value = |key| secret_value(secret, key);
        Self::new(world, &value("OF_S3_ENDPOINT"), &value("OF_S3_ACCESS_KEY"), &value("OF_S3_SECRET_KEY"))
    }

    fn new(world: &World, endpoint: &str, access_key: &str, secret_key: &str) -> Self {
        let (scheme, address) = endpoint.split_once("://").unwrap();
        Self {
            program: world.env.bin.join("mc"),
            host: format!("{scheme}://{access_key}:{secret_key}@{address}"),
            ca: world.env.pki.ca(),
            config: world.dir.join("mc"),
        }
    }

    /// Runs it. Gives back what it printed, or else what it complained about.
    pub async fn run(&self, args: &[&str], stdin: &str) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command
            .args(["--quiet", "--no-color"])
            .args(args)
            .env("MC_HOST_s3", &self.host)
            .env("SSL_CERT_FILE", &self.ca)
            .env("MC_CONFIG_DIR", &self.config);
        run(command, stdin).await
    }

    /// Runs it and reads its JSON lines.
    pub async fn json(&self, args: &[&str]) -> Result<Vec<Value>, String> {
        let args: Vec<_> = ["--json"].iter().chain(args).copied().collect();
        let output = self.run(&args, "").await?;
        Ok(output.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// Puts an object.
    pub async fn put(&self, bucket: &str, key: &str, content: &str) {
        self.run(&["pipe", &format!("s3/{bucket}/{key}")], content).await.unwrap();
    }

    /// The content of an object.
    pub async fn cat(&self, bucket: &str, key: &str) -> Result<String, String> {
        self.run(&["cat", &format!("s3/{bucket}/{key}")], "").await
    }

    /// All buckets.
    pub async fn buckets(&self) -> Vec<String> {
        let listed = self.json(&["ls", "s3"]).await.unwrap();
        listed.iter().map(|bucket| bucket["key"].as_str().unwrap().trim_end_matches('/').to_owned()).collect()
    }

    pub async fn has_bucket(&self, bucket: &str) -> bool {
        self.buckets().await.iter().any(|found| found == bucket)
    }

    /// All users: access key and policy.
    pub async fn users(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let listed = self.json(&["admin", "user", "ls", "s3"]).await.unwrap();
        listed.iter().map(|user| (text(&user["accessKey"]), text(&user["policyName"]))).collect()
    }

    pub async fn has_user(&self, access_key: &str) -> bool {
        self.users().await.iter().any(|(found, _)| found == access_key)
    }

    /// The policies that the operator made.
    pub async fn policies(&self) -> Vec<String> {
        let listed = self.json(&["admin", "policy", "ls", "s3"]).await.unwrap();
        let names = listed.iter().filter_map(|policy| policy["policy"].as_str().map(ToOwned::to_owned));
        names.filter(|name| name.starts_with("appbucket-")).collect()
    }

    /// The tags of a bucket, as JSON.
    pub async fn tags(&self, bucket: &str) -> Value {
        match self.json(&["tag", "list", &format!("s3/{bucket}")]).await {
            Ok(answer) => answer[0]["tagset"].clone(),
            Err(error) if error.contains("No tags found") => Value::Null,
            Err(error) => panic!("{error}"),
        }
    }
}
