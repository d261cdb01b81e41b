//! What is asked and answered at the front doors, in the seed's shapes (`app-object-storage`, "MCP tools").

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    crd::{AppBucket, BucketStatus},
    credentials::Credentials,
    identity::bucket_id,
    producer,
};

/// A bucket that is asked for.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "app_id": "550e8400-e29b-41d4-a716-446655440000", "slug": "my-app-cool-thing-2026" }))]
pub struct AddBucket {
    /// The app that the bucket is for: 1 to 63 characters of A-Z a-z 0-9 . _ -, the first one a letter or a digit.
    #[schema(min_length = 1, max_length = 63, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub app_id: String,
    /// The readable part of the bucket's name. Default: the app id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 63, pattern = "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"))]
    pub slug: Option<String>,
    /// The region that S3 clients sign their requests for. Default: us-east-1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub region: Option<String>,
    /// The name of the AppBucket. Default: made from slug or app id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: Option<String>,
}

/// A bucket that was made.
#[derive(Clone, Serialize, Deserialize, ToSchema, JsonSchema)]
pub struct AddedBucket {
    /// The bucket's id.
    #[schema(example = "buk-a7f3b2c1d9e4f")]
    pub bucket_id: String,
    /// The bucket's name in S3.
    #[schema(example = "my-app-cool-thing-2026-9357b4")]
    pub bucket_name: String,
    /// The URL that S3 clients use.
    #[schema(example = "http://stub-minio-platform.local:9000")]
    pub endpoint_url: String,
    /// The access key id.
    #[schema(example = "AKIAJY4T7ZQXMN2LQWPS")]
    pub access_key: String,
    /// The region that S3 clients sign their requests for.
    #[schema(example = "us-east-1")]
    pub region: String,
    /// "stub" (nothing stands behind the endpoint) or "ready".
    #[schema(example = "stub")]
    pub status: String,
    /// The environment keys that were published; empty if env_published is false.
    pub env_keys: Vec<String>,
    /// Whether the credentials are in the app's environment.
    pub env_published: bool,
    /// The secret key: only if the environment was not published, and only once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<String>,
    /// What to put into the app's environment by hand: there exactly when secret_key is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_payload: Option<EnvPayload>,
    /// Why the environment was not published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_skipped_reason: Option<String>,
    /// What to do next.
    pub next: String,
}

/// The five environment variables.
#[derive(Clone, Serialize, Deserialize, ToSchema, JsonSchema)]
#[allow(non_snake_case, reason = "the names of the environment variables")]
pub struct EnvPayload {
    /// The URL that S3 clients use.
    pub OF_S3_ENDPOINT: String,
    /// The bucket's name.
    pub OF_S3_BUCKET: String,
    /// The access key id.
    pub OF_S3_ACCESS_KEY: String,
    /// The secret key.
    pub OF_S3_SECRET_KEY: String,
    /// The region that S3 clients sign their requests for.
    pub OF_S3_REGION: String,
}

/// A bucket that is still being made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema, JsonSchema)]
pub struct PendingBucket {
    /// The bucket's id.
    #[schema(example = "buk-a7f3b2c1d9e4f")]
    pub bucket_id: String,
    /// The app that it is for.
    pub app_id: String,
    /// Always "provisioning".
    #[schema(example = "provisioning")]
    pub status: String,
    /// Why it is not ready yet.
    pub reason: String,
    /// What to do next.
    pub next: String,
}

/// What is known of a bucket; its secret key is not.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema, JsonSchema)]
pub struct Bucket {
    /// The bucket's id.
    #[schema(example = "buk-a7f3b2c1d9e4f")]
    pub bucket_id: String,
    /// The app that it belongs to.
    #[schema(example = "550e8400-e29b-41d4-a716-446655440000")]
    pub app_id: String,
    /// The bucket's name in S3.
    #[schema(example = "my-app-cool-thing-2026-9357b4")]
    pub bucket_name: String,
    /// The access key id, for reference.
    #[schema(example = "AKIAJY4T7ZQXMN2LQWPS")]
    pub access_key: String,
    /// The URL that S3 clients use.
    #[schema(example = "http://stub-minio-platform.local:9000")]
    pub endpoint_url: String,
    /// The region that S3 clients sign their requests for.
    #[schema(example = "us-east-1")]
    pub region: String,
    /// How it is hosted; always "shared-minio".
    #[schema(example = "shared-minio")]
    pub shape: String,
    /// The host name of the server that it shares with others.
    #[schema(example = "stub-minio-platform.local")]
    pub shared_host: String,
    /// "stub" or "ready".
    #[schema(example = "stub")]
    pub status: String,
    /// Reserved; always null.
    #[schema(required = true)]
    pub notes: Option<String>,
    /// When it was made (RFC 3339).
    #[schema(example = "2026-06-25T14:30:22Z")]
    pub created_at: String,
}

/// Some buckets, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema, JsonSchema)]
pub struct Buckets {
    /// The buckets.
    pub buckets: Vec<Bucket>,
}

fn status_text(status: BucketStatus) -> String {
    match status {
        BucketStatus::Stub => "stub".to_owned(),
        BucketStatus::Ready => "ready".to_owned(),
    }
}

impl Bucket {
    /// What the status of a provisioned object tells.
    #[must_use]
    pub fn of(object: &AppBucket) -> Option<Self> {
        let status = object.status.clone()?;
        Some(Self {
            status: status_text(status.status?),
            bucket_id: status.bucket_id?,
            app_id: object.spec.app_id.clone(),
            bucket_name: status.bucket_name?,
            access_key: status.access_key?,
            endpoint_url: status.endpoint_url?,
            region: status.region?,
            shape: status.shape?,
            shared_host: status.shared_host.unwrap_or_default(),
            notes: None,
            created_at: status.created_at?.0.to_string(),
        })
    }
}

impl AddedBucket {
    /// The answer for a bucket that is done. `credentials` are those that are to be shown.
    #[must_use]
    pub fn of(object: &AppBucket, credentials: Option<&Credentials>) -> Option<Self> {
        let Bucket { bucket_id, app_id, bucket_name, access_key, endpoint_url, region, status, .. } = Bucket::of(object)?;
        let env_published = is_published(object);
        let reason = object.status.as_ref()?.condition(crate::crd::condition::ENV_PUBLISHED).map(|told| told.message.clone());
        Some(Self {
            bucket_id,
            bucket_name,
            endpoint_url,
            access_key,
            region,
            status,
            env_keys: if env_published { producer::keys() } else { vec![] },
            env_published,
            secret_key: credentials.map(|credentials| credentials.secret_key.expose().to_owned()),
            env_payload: credentials.map(EnvPayload::of),
            publish_skipped_reason: reason.filter(|_| !env_published),
            next: next_text(&app_id, env_published, credentials.is_some()),
        })
    }
}

impl EnvPayload {
    fn of(credentials: &Credentials) -> Self {
        let [(_, endpoint), (_, bucket), (_, access_key), (_, secret_key), (_, region)] = credentials.entries();
        Self {
            OF_S3_ENDPOINT: endpoint.to_owned(),
            OF_S3_BUCKET: bucket.to_owned(),
            OF_S3_ACCESS_KEY: access_key.to_owned(),
            OF_S3_SECRET_KEY: secret_key.to_owned(),
            OF_S3_REGION: region.to_owned(),
        }
    }
}

impl PendingBucket {
    /// The answer for a bucket that is not done yet.
    #[must_use]
    pub fn of(object: &AppBucket, next: String) -> Self {
        let told = object.status.as_ref().and_then(|status| status.condition(crate::crd::condition::READY));
        Self {
            bucket_id: bucket_id(object.metadata.uid.as_deref().unwrap_or_default()),
            app_id: object.spec.app_id.clone(),
            status: "provisioning".to_owned(),
            reason: told.map_or_else(|| "the controller has not looked at it yet".to_owned(), |told| told.message.clone()),
            next,
        }
    }
}

pub(super) fn is_published(object: &AppBucket) -> bool {
    object.status.as_ref().and_then(|status| status.env.as_ref()).is_some_and(|env| env.published)
}

/// The seed's words, with the app id cut as it cuts it.
fn next_text(app_id: &str, published: bool, shown: bool) -> String {
    let short: String = app_id.chars().take(8).collect();
    let app = if short == app_id { short } else { format!("{short}...") };
    match (published, shown) {
        (true, _) => format!(
            "deploy_app(app_id='{app}', vm_name=...) - OF_S3_* env vars are already in the app's env. App code: boto3.client('s3', \
             endpoint_url=os.environ['OF_S3_ENDPOINT'], aws_access_key_id=os.environ['OF_S3_ACCESS_KEY'], \
             aws_secret_access_key=os.environ['OF_S3_SECRET_KEY'])."
        ),
        (false, true) => format!(
            "set_app_env(app_id='{app}', set=<env_payload from this response>) then deploy_app(...) - OF_S3_* will land in \
             /etc/openfactory/app.env and boto3 / @aws-sdk/client-s3 will pick it up automatically."
        ),
        (false, false) => format!(
            "The secret key of this bucket was shown once and is not shown again. If it is lost, add another bucket: \
             add_app_bucket(app_id='{app}')."
        ),
    }
}
