//! Counts the calls to another provider.

use std::sync::Arc;

use async_trait::async_trait;
use url::Url;

use super::{Error, Grant, Kind, Observation, Provider};
use crate::{
    credentials::SecretKey,
    metrics::{Classed, Metrics, Operation},
};

/// A provider that is counted, and otherwise the one that it is made of.
pub struct Metered {
    inner: Arc<dyn Provider>,
    metrics: Arc<Metrics>,
}

impl Metered {
    /// Counts the calls to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Provider>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }
}

impl Classed for Error {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

#[async_trait]
impl Provider for Metered {
    fn kind(&self) -> Kind {
        self.inner.kind()
    }

    fn endpoint(&self) -> &Url {
        self.inner.endpoint()
    }

    async fn observe(&self, grant: &Grant, key: Option<&SecretKey>) -> Result<Observation, Error> {
        self.metrics.backend(Operation::Observe, self.inner.observe(grant, key)).await
    }

    async fn put_policy(&self, grant: &Grant) -> Result<(), Error> {
        self.metrics.backend(Operation::PutPolicy, self.inner.put_policy(grant)).await
    }

    async fn create_bucket(&self, grant: &Grant) -> Result<(), Error> {
        self.metrics.backend(Operation::CreateBucket, self.inner.create_bucket(grant)).await
    }

    async fn mark_bucket(&self, grant: &Grant) -> Result<(), Error> {
        self.metrics.backend(Operation::MarkBucket, self.inner.mark_bucket(grant)).await
    }

    async fn put_user(&self, grant: &Grant, key: &SecretKey) -> Result<(), Error> {
        self.metrics.backend(Operation::PutUser, self.inner.put_user(grant, key)).await
    }

    async fn verify(&self, grant: &Grant, key: &SecretKey) -> Result<(), Error> {
        self.metrics.backend(Operation::Verify, self.inner.verify(grant, key)).await
    }

    async fn delete_bucket(&self, grant: &Grant) -> Result<(), Error> {
        self.metrics.backend(Operation::DeleteBucket, self.inner.delete_bucket(grant)).await
    }

    async fn delete_user(&self, grant: &Grant) -> Result<(), Error> {
        self.metrics.backend(Operation::DeleteUser, self.inner.delete_user(grant)).await
    }

    async fn delete_policy(&self, grant: &Grant) -> Result<(), Error> {
        self.metrics.backend(Operation::DeletePolicy, self.inner.delete_policy(grant)).await
    }
}
