//! The status of an `AppBucket`, and the fixed vocabulary of its conditions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator knows of the bucket. Metadata only: the secret key stands in the Secret and nowhere else.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppBucketStatus {
    /// The generation of the spec that this status speaks of; -1 until the operator has looked at the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The bucket's id: "buk-" and 13 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket_id: Option<String>,
    /// The bucket's name in S3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket_name: Option<String>,
    /// The URL that S3 clients use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// The region that S3 clients sign their requests for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The access key id. Its secret key stands in the Secret only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key: Option<String>,
    /// "stub" (the endpoint is fabricated and nothing stands behind it) or "ready". Absent until there is a bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<BucketStatus>,
    /// How the bucket is hosted; always "shared-minio".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<String>,
    /// The host name of the server that the bucket shares with others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_host: Option<String>,
    /// The Secret that holds the credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// The Secret, where tools of the Service Binding specification look for it (servicebinding.io, 1.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,
    /// Whether the credentials are in the app's environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Env>,
    /// The ids of all provisioned buckets of the app, oldest first, this one included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub bucket_refs: Vec<String>,
    /// When the bucket was provisioned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// The last value of the annotation reconcile.fluxcd.io/requestedAt that was acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// Ready, BucketProvisioned, CredentialsReady and EnvPublished; Reconciling, Stalled and Paused only while they are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

impl AppBucketStatus {
    /// The condition of that type, if it is there.
    #[must_use]
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }

    /// Whether the condition of that type is there and `True`.
    #[must_use]
    pub fn is_true(&self, type_: &str) -> bool {
        self.condition(type_).is_some_and(|condition| condition.status == "True")
    }
}

/// Whether a real bucket stands behind the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BucketStatus {
    /// The endpoint is fabricated; nothing stands behind it.
    Stub,
    /// The bucket is real.
    Ready,
}

/// The Secret that holds the credentials, in the namespace of the `AppBucket`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// The Secret's name.
    pub name: String,
}

/// The Secret, as the Service Binding specification wants it named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Binding {
    /// The Secret's name.
    pub name: String,
}

/// Whether the credentials are in the app's environment.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Env {
    /// True where the app's environment holds the credentials of this bucket.
    #[serde(default)]
    pub published: bool,
    /// The environment keys that were published; empty if none.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub keys: Vec<String>,
    /// Why they are not published, or "Published".
    #[serde(default)]
    pub reason: String,
    /// A SHA-256 digest of what was published; it tells whether a publication is current.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// The types of conditions.
pub mod condition {
    /// The credentials in the Secret work (or, in stub mode, are there).
    pub const READY: &str = "Ready";
    /// The bucket, its policy and its user are there.
    pub const BUCKET_PROVISIONED: &str = "BucketProvisioned";
    /// The Secret holds credentials that passed the self-test.
    pub const CREDENTIALS_READY: &str = "CredentialsReady";
    /// The app's environment holds this bucket's credentials.
    pub const ENV_PUBLISHED: &str = "EnvPublished";
    /// Work is under way or is being retried (kstatus; only there when true).
    pub const RECONCILING: &str = "Reconciling";
    /// Somebody has paused it (only there when true).
    pub const PAUSED: &str = "Paused";
    /// Nothing goes on until something changes (kstatus; only there when true).
    pub const STALLED: &str = "Stalled";
}

/// The reasons of conditions and Events.
pub mod reason {
    /// The bucket is real and its credentials work.
    pub const PROVISIONED: &str = "Provisioned";
    /// The endpoint is fabricated; nothing stands behind it.
    pub const STUB: &str = "Stub";
    /// Provisioning has begun.
    pub const PROVISIONING: &str = "Provisioning";
    /// Somebody has paused it.
    pub const PAUSED: &str = "Paused";
    /// Cleaning up before the object goes.
    pub const DELETING: &str = "Deleting";
    /// A Secret of that name is there and not the operator's.
    pub const SECRET_NOT_OWNED: &str = "SecretNotOwned";
    /// The API server refuses the Secret, for example because somebody made it immutable.
    pub const SECRET_REJECTED: &str = "SecretRejected";
    /// A bucket or policy of that name is there and not this object's.
    pub const BUCKET_NOT_OWNED: &str = "BucketNotOwned";
    /// The bucket can't be deleted while it holds something.
    pub const BUCKET_NOT_EMPTY: &str = "BucketNotEmpty";
    /// The app id is in use by another namespace.
    pub const APP_OWNED_BY_ANOTHER_NAMESPACE: &str = "AppOwnedByAnotherNamespace";
    /// The app id is in use by somebody else at the front doors.
    pub const APP_OWNED_BY_ANOTHER_PRINCIPAL: &str = "AppOwnedByAnotherPrincipal";
    /// Strict mode: the namespace may not use this app id.
    pub const APP_ID_NOT_ALLOWED: &str = "AppIdNotAllowed";
    /// The bucket is real and the operator runs in stub mode.
    pub const DEMOTION_REFUSED: &str = "DemotionRefused";
    /// The S3 server can't be reached or is not able to answer.
    pub const BACKEND_UNAVAILABLE: &str = "BackendUnavailable";
    /// The S3 server refuses the operator's credentials.
    pub const BACKEND_DENIED: &str = "BackendDenied";
    /// The S3 server refuses a request as invalid.
    pub const BACKEND_INVALID: &str = "BackendInvalid";
    /// The credentials are in the app's environment.
    pub const PUBLISHED: &str = "Published";
    /// The producer API has been asked and has not answered yet.
    pub const PUBLISHING: &str = "Publishing";
    /// `spec.envPolicy` is `None`.
    pub const DISABLED: &str = "Disabled";
    /// A newer bucket of the app is in its environment.
    pub const SUPERSEDED: &str = "Superseded";
    /// There are no credentials to publish yet.
    pub const NOT_PROVISIONED: &str = "NotProvisioned";
    /// No producer token is configured.
    pub const PRODUCER_TOKEN_MISSING: &str = "ProducerTokenMissing";
    /// The producer API refused the publication.
    pub const PRODUCER_REFUSED: &str = "ProducerRefused";
    /// The producer API can't be reached or is not able to answer.
    pub const PRODUCER_UNAVAILABLE: &str = "ProducerUnavailable";
}
