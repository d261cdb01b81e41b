//! The `AppBucket` resource: what a person writes (`spec`) and what the operator tells (`status`).

mod generate;
mod status;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

pub use generate::custom_resource_definition;
pub use status::{AppBucketStatus, Binding, BucketStatus, Env, SecretRef, condition, reason};

/// API group of the resource, and prefix of the labels and annotations that the operator owns.
pub const GROUP: &str = "storage.openfactory.tech";
/// Keeps a deleted `AppBucket` until the operator has cleaned up behind it.
pub const FINALIZER: &str = "storage.openfactory.tech/cleanup";
/// Fixes the bucket's name together with the finalizer, before anything outside Kubernetes is made: a crash or a change
/// of `spec.slug` in between can then not lead to a second bucket.
pub const BUCKET_NAME_ANNOTATION: &str = "storage.openfactory.tech/bucket-name";
/// On a Namespace, in strict mode: the app ids, comma separated, that its `AppBuckets` may use.
pub const APP_IDS_ANNOTATION: &str = "storage.openfactory.tech/app-ids";
/// On a Secret: the name of the `AppBucket` that it belongs to.
pub const APPBUCKET_LABEL: &str = "storage.openfactory.tech/appbucket";
/// Who asked for the bucket at the front doors; written by them, never taken from a request.
pub const OWNER_ANNOTATION: &str = "storage.openfactory.tech/owner";
/// With the value `paused`: nothing is done for the object until that is gone.
pub const RECONCILE_ANNOTATION: &str = "storage.openfactory.tech/reconcile";
/// Asks for a reconcile now; the value is an opaque token (Flux's convention, `fluxcd.io/docs`).
pub const REQUESTED_AT_ANNOTATION: &str = "reconcile.fluxcd.io/requestedAt";

/// The region of an `AppBucket` that names none.
pub const DEFAULT_REGION: &str = "us-east-1";

/// What is asked for: a bucket for an app, and where its credentials go.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "storage.openfactory.tech",
    version = "v1alpha1",
    kind = "AppBucket",
    plural = "appbuckets",
    singular = "appbucket",
    shortname = "abkt",
    category = "openfactory",
    namespaced,
    status = "AppBucketStatus",
    derive = "PartialEq",
    doc = "An S3 bucket for an app, with a policy and a key pair of its own. The credentials are written to a Secret as \
           OF_S3_ENDPOINT, OF_S3_BUCKET, OF_S3_ACCESS_KEY, OF_S3_SECRET_KEY and OF_S3_REGION (and as a dotenv file, \
           app.env), and published into the app's environment.",
    selectable = ".spec.appId",
    label("servicebinding.io/provisioned-service", "true"),
    printcolumn(name = "App", type_ = "string", json_path = ".spec.appId", description = "The app that the bucket belongs to"),
    printcolumn(name = "Bucket", type_ = "string", json_path = ".status.bucketName", description = "The bucket's name in S3"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.status", description = "stub or ready"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Env", type_ = "boolean", json_path = ".status.env.published", description = "Whether this bucket's credentials are the app's environment"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpointUrl", priority = 1),
    printcolumn(name = "Region", type_ = "string", json_path = ".status.region", priority = 1),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretRef.name", priority = 1),
    printcolumn(name = "Bucket-ID", type_ = "string", json_path = ".status.bucketId", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name must be at most 63 characters: it becomes a label value and part of the bucket's and the Secret's name"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretName) == has(oldSelf.secretName) && (!has(self.secretName) || self.secretName == oldSelf.secretName)").message("secretName is immutable: pods refer to the Secret by this name; add another AppBucket instead").field_path(".secretName"))]
pub struct AppBucketSpec {
    /// The app that the bucket belongs to: 1 to 63 characters of A-Z, a-z, 0-9, ".", "_" and "-", the first one a letter or
    /// a digit. Immutable. An app belongs to the first namespace that holds a bucket of it; it may have many buckets.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][A-Za-z0-9._-]*$')").message("appId must be 1 to 63 characters of A-Z a-z 0-9 . _ - and start with a letter or a digit"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("appId is immutable: a bucket never changes its app; add another AppBucket instead"))]
    pub app_id: String,

    /// The readable part of the bucket's name, used once, when the bucket is made; a later change renames nothing. Default:
    /// the name of the AppBucket. It is lowercased and cut to fit the rules of S3, and a suffix makes it unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$')").message("slug must be 1 to 63 characters of A-Z a-z 0-9 . _ - and start and end with a letter or a digit"))]
    pub slug: Option<String>,

    /// The region that S3 clients sign their requests for. Immutable.
    #[serde(default = "default_region")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')").message("region must be lowercase letters, digits and -, for example us-east-1"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("region is immutable: a bucket can't move; add another AppBucket instead"))]
    pub region: String,

    /// What becomes of the bucket when the AppBucket is deleted. Retain keeps the bucket, its data and its key pair. Delete
    /// removes the bucket, but only if it is empty (old versions included), then its key pair and policy.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// The name of the Secret for the credentials, in the same namespace. Default: the AppBucket's name with "-s3" behind it.
    /// A Secret of that name that the operator did not make is never touched. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')").message("secretName must be a valid Secret name: lowercase letters, digits, - and ., starting and ending with a letter or a digit"))]
    pub secret_name: Option<String>,

    /// Whether the credentials are published into the app's environment. With Publish, the newest bucket of an app is the one
    /// that its environment holds. With None, they are in the Secret only.
    #[serde(default)]
    pub env_policy: EnvPolicy,
}

fn default_region() -> String {
    DEFAULT_REGION.to_owned()
}

/// What becomes of the bucket when its `AppBucket` is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum DeletionPolicy {
    /// The bucket, its data, policy and user stay.
    #[default]
    Retain,
    /// The bucket goes if it is empty, then its user and policy.
    Delete,
}

/// Whether the credentials are published into the app's environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum EnvPolicy {
    /// The newest bucket of the app is published.
    #[default]
    Publish,
    /// This bucket is not published.
    None,
}

impl AppBucket {
    /// The name of the Secret that holds the credentials.
    #[must_use]
    pub fn secret_name(&self) -> String {
        let default = || format!("{}-s3", self.metadata.name.as_deref().unwrap_or_default());
        self.spec.secret_name.clone().unwrap_or_else(default)
    }

    /// Whether something has a controller reference to this very object.
    #[must_use]
    pub fn controls(&self, metadata: &ObjectMeta) -> bool {
        let mut owners = metadata.owner_references.iter().flatten();
        owners.any(|owner| owner.controller == Some(true) && Some(&owner.uid) == self.metadata.uid.as_ref())
    }

    /// Whether the API server has been asked to delete it.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Whether the operator's finalizer holds it.
    #[must_use]
    pub fn has_finalizer(&self) -> bool {
        self.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER)
    }

    /// `stub` or `ready`, once there is a bucket.
    #[must_use]
    pub fn bucket_status(&self) -> Option<BucketStatus> {
        self.status.as_ref()?.status
    }

    /// Whether somebody has paused it.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.annotation(RECONCILE_ANNOTATION) == Some("paused")
    }

    /// Who asked for it at the front doors; nobody, if it was declared to the API server.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.annotation(OWNER_ANNOTATION)
    }

    /// The value of an annotation.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }
}
