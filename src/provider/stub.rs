//! The honest stub: names and credentials are made and kept, nothing stands behind the endpoint.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use url::Url;

use super::{BucketState, Error, Grant, Kind, Observation, PartState, Provider};
use crate::credentials::SecretKey;

/// A provider that remembers what it was asked for, as long as the process lives, and makes nothing.
pub struct Stub {
    endpoint: Url,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bucket → mark of its owner, if it has one yet.
    buckets: HashMap<String, Option<String>>,
    /// Policy → mark of its owner.
    policies: HashMap<String, String>,
    /// Access key → policy and digest of the secret key.
    users: HashMap<String, (String, [u8; 32])>,
}

impl Stub {
    /// A stub whose credentials name that endpoint.
    #[must_use]
    pub fn new(endpoint: Url) -> Self {
        Self { endpoint, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the maps whole, so a panic elsewhere does not make them wrong.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn bucket(&self, grant: &Grant) -> BucketState {
        match self.buckets.get(&grant.bucket) {
            None => BucketState::Missing,
            Some(Some(mark)) if *mark == grant.owner.mark() => BucketState::Owned,
            Some(_) if self.policy(grant) == PartState::Current => BucketState::Unfinished,
            Some(_) => BucketState::Foreign,
        }
    }

    fn policy(&self, grant: &Grant) -> PartState {
        match self.policies.get(&grant.policy()) {
            None => PartState::Missing,
            Some(mark) if *mark == grant.owner.mark() => PartState::Current,
            Some(_) => PartState::Foreign,
        }
    }

    fn key_works(&self, grant: &Grant, key: &SecretKey) -> bool {
        self.buckets.contains_key(&grant.bucket)
            && self.users.get(&grant.access_key).is_some_and(|user| *user == (grant.policy(), digest(key)))
    }
}

fn digest(key: &SecretKey) -> [u8; 32] {
    Sha256::digest(key.expose()).into()
}

#[async_trait]
impl Provider for Stub {
    fn kind(&self) -> Kind {
        Kind::Stub
    }

    fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    async fn observe(&self, grant: &Grant, key: Option<&SecretKey>) -> Result<Observation, Error> {
        let state = self.state();
        Ok(Observation {
            bucket: state.bucket(grant),
            policy: state.policy(grant),
            user: if state.users.contains_key(&grant.access_key) { PartState::Current } else { PartState::Missing },
            key_works: key.is_some_and(|key| state.key_works(grant, key)),
        })
    }

    async fn put_policy(&self, grant: &Grant) -> Result<(), Error> {
        self.state().policies.insert(grant.policy(), grant.owner.mark());
        Ok(())
    }

    async fn create_bucket(&self, grant: &Grant) -> Result<(), Error> {
        self.state().buckets.entry(grant.bucket.clone()).or_default();
        Ok(())
    }

    async fn mark_bucket(&self, grant: &Grant) -> Result<(), Error> {
        match self.state().buckets.get_mut(&grant.bucket) {
            Some(mark) => *mark = Some(grant.owner.mark()),
            None => return Err(Error::NotFound(format!("there is no bucket {}", grant.bucket))),
        }
        Ok(())
    }

    async fn put_user(&self, grant: &Grant, key: &SecretKey) -> Result<(), Error> {
        self.state().users.insert(grant.access_key.clone(), (grant.policy(), digest(key)));
        Ok(())
    }

    async fn verify(&self, grant: &Grant, key: &SecretKey) -> Result<(), Error> {
        if self.state().key_works(grant, key) {
            return Ok(());
        }
        Err(Error::Unavailable(format!("the credentials do not open bucket {} yet", grant.bucket)))
    }

    async fn delete_bucket(&self, grant: &Grant) -> Result<(), Error> {
        let mut state = self.state();
        if state.bucket(grant) != BucketState::Foreign {
            state.buckets.remove(&grant.bucket);
        }
        Ok(())
    }

    async fn delete_user(&self, grant: &Grant) -> Result<(), Error> {
        self.state().users.remove(&grant.access_key);
        Ok(())
    }

    async fn delete_policy(&self, grant: &Grant) -> Result<(), Error> {
        let mut state = self.state();
        if state.policy(grant) != PartState::Foreign {
            state.policies.remove(&grant.policy());
        }
        Ok(())
    }
}
