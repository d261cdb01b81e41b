//! Where buckets come from. Knows nothing of Kubernetes.

mod metered;
pub mod minio;
mod stub;

use async_trait::async_trait;
use url::Url;

pub use metered::Metered;
pub use stub::Stub;

use crate::credentials::SecretKey;

/// The names of one bucket's parts at the provider, and whose they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The bucket's name.
    pub bucket: String,
    /// The name of the user who may use it.
    pub access_key: String,
    /// The region that requests for it are signed for.
    pub region: String,
    /// Whose it is.
    pub owner: Owner,
}

impl Grant {
    /// The name of the bucket's policy.
    #[must_use]
    pub fn policy(&self) -> String {
        format!("appbucket-{}", self.bucket)
    }
}

/// The owner of a bucket, as it is written on the bucket: without this mark no bucket is taken for ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster: the UID of its kube-system namespace.
    pub cluster: String,
    /// Namespace and name of the object, for people; it proves nothing.
    pub object: String,
    /// The UID of the object.
    pub uid: String,
}

impl Owner {
    /// The mark on the policy, which is written before the bucket is made and so tells an unfinished bucket of ours from
    /// somebody else's.
    #[must_use]
    pub fn mark(&self) -> String {
        format!("appbucket-operator/{}/{}", self.cluster, self.uid)
    }
}

/// What stands at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The bucket.
    pub bucket: BucketState,
    /// The policy.
    pub policy: PartState,
    /// The user.
    pub user: PartState,
    /// Whether the key that was handed in opens the bucket.
    pub key_works: bool,
}

/// The state of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketState {
    /// There is none of that name.
    Missing,
    /// It bears our mark.
    Owned,
    /// It does not bear our mark, but its policy does, and it is empty: we were stopped between the two steps.
    Unfinished,
    /// It does not bear our mark, but its policy does, and it holds something: ours if we know that we had finished it.
    Unmarked,
    /// It is somebody else's.
    Foreign,
}

/// The state of a policy or a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartState {
    /// There is none of that name.
    Missing,
    /// It is as it should be.
    Current,
    /// It is ours and was changed.
    Changed,
    /// It bears somebody else's mark, or none.
    Foreign,
}

/// Why a provider did not do what it was asked. Every message is fit for a condition: it holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// What it needs is not there.
    #[error("{0}")]
    NotFound(String),
    /// Something stands in the way, for example the content of a bucket that is to be deleted.
    #[error("{0}")]
    Conflict(String),
    /// It is somebody else's.
    #[error("{0}")]
    NotOwned(String),
    /// The operator's own credentials do not allow it.
    #[error("{0}")]
    Denied(String),
    /// The request itself is refused.
    #[error("{0}")]
    Invalid(String),
    /// It can't be reached, or can't answer now.
    #[error("{0}")]
    Unavailable(String),
}

/// What kind of provider it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing stands behind the endpoint.
    Stub,
    /// Buckets are real.
    Minio,
}

/// A place for buckets.
///
/// # Contract
/// - Each method is one step, idempotent, and may be repeated after it was cut off at any point.
/// - [`observe`](Self::observe) changes nothing. Nothing lists what other tenants have.
/// - No step touches a bucket or policy that is [`Foreign`](BucketState::Foreign), or any object in a bucket. The caller
///   observes first; what deletes checks once more.
/// - A deletion of what is not there succeeds.
///
/// The suite in `tests/it/provider_contract.rs` holds every provider to it.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Which kind it is.
    fn kind(&self) -> Kind;

    /// The URL that apps use.
    fn endpoint(&self) -> &Url;

    /// Looks at the parts of a grant, and whether `key` opens its bucket.
    async fn observe(&self, grant: &Grant, key: Option<&SecretKey>) -> Result<Observation, Error>;

    /// Writes the policy with our mark. To be called before [`create_bucket`](Self::create_bucket).
    async fn put_policy(&self, grant: &Grant) -> Result<(), Error>;

    /// Makes the bucket, without a mark.
    async fn create_bucket(&self, grant: &Grant) -> Result<(), Error>;

    /// Puts our mark on the bucket, and leaves other tags alone.
    async fn mark_bucket(&self, grant: &Grant) -> Result<(), Error>;

    /// Makes the user, or gives it this key, enables it, and attaches the bucket's policy and no other.
    async fn put_user(&self, grant: &Grant, key: &SecretKey) -> Result<(), Error>;

    /// Uses the very key: it must open its bucket and must be refused on another.
    async fn verify(&self, grant: &Grant, key: &SecretKey) -> Result<(), Error>;

    /// Deletes the bucket if it is ours and empty, old versions included: [`Error::Conflict`] with a count otherwise.
    async fn delete_bucket(&self, grant: &Grant) -> Result<(), Error>;

    /// Deletes the user.
    async fn delete_user(&self, grant: &Grant) -> Result<(), Error>;

    /// Deletes the policy if it is ours.
    async fn delete_policy(&self, grant: &Grant) -> Result<(), Error>;
}
