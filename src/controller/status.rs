//! What the status says after a pass. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use url::Url;

use super::{
    environment::{Environment, Retry},
    stop::Stop,
};
use crate::{
    crd::{
        AppBucket, AppBucketStatus, Binding, BucketStatus, Env, REQUESTED_AT_ANNOTATION, SecretRef,
        condition::{BUCKET_PROVISIONED, CREDENTIALS_READY, ENV_PUBLISHED, PAUSED, READY, RECONCILING, STALLED},
        reason,
    },
    identity::Identity,
    producer,
    provider::Kind,
};

/// The order in which conditions stand.
const ORDER: [&str; 7] = [READY, BUCKET_PROVISIONED, CREDENTIALS_READY, ENV_PUBLISHED, RECONCILING, STALLED, PAUSED];

/// What a pass found out.
pub struct Facts<'a> {
    /// The names of what belongs to the object.
    pub identity: &'a Identity,
    /// The URL that apps use.
    pub endpoint: &'a Url,
    /// Which kind of provider it is.
    pub provider: Kind,
    /// Whether the pass reached its end.
    pub outcome: Result<(), &'a Stop>,
    /// How the object stands to its app's environment; `None` where the pass did not get that far.
    pub environment: Option<&'a Environment>,
    /// The app's provisioned buckets, oldest first.
    pub bucket_refs: Vec<String>,
    /// The time for what changes.
    pub now: Timestamp,
}

/// The status after a pass. What a pass that was stopped did not learn stays as it was: an outage makes no working bucket
/// unready.
#[must_use]
pub fn next_status(object: &AppBucket, facts: Facts<'_>) -> AppBucketStatus {
    let Facts { identity, endpoint, provider, outcome, environment, bucket_refs, now } = facts;
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let mut status = object.status.clone().unwrap_or_default();
    status.observed_generation = object.metadata.generation;
    status.last_handled_reconcile_at = object.annotation(REQUESTED_AT_ANNOTATION).map(ToOwned::to_owned);
    status.bucket_refs = bucket_refs;
    let mut conditions = Conditions::new(&status.conditions, object.metadata.generation, &now);

    match outcome {
        Ok(()) => {
            provisioned(&mut status, object, identity, endpoint, provider, &now);
            let (ready, message) = match provider {
                Kind::Stub => {
                    (reason::STUB, "the endpoint is fabricated: the operator runs in stub mode, and nothing stands behind it")
                }
                Kind::Minio => (reason::PROVISIONED, "the bucket is there and its credentials work"),
            };
            conditions.set(READY, "True", ready, message);
            conditions.set(BUCKET_PROVISIONED, "True", ready, &format!("bucket {}", identity.bucket_name));
            conditions.set(CREDENTIALS_READY, "True", ready, &format!("Secret {}", object.secret_name()));
        }
        Err(stop) => stopped(&mut conditions, object, stop),
    }
    match environment {
        Some(environment) => status.env = Some(env(environment, &mut conditions)),
        None => conditions.keep_or(ENV_PUBLISHED, "False", reason::NOT_PROVISIONED, "there are no credentials to publish yet"),
    }
    status.conditions = conditions.finish();
    status
}

fn provisioned(
    status: &mut AppBucketStatus,
    object: &AppBucket,
    identity: &Identity,
    endpoint: &Url,
    provider: Kind,
    now: &Time,
) {
    let Identity { bucket_id, bucket_name, access_key } = identity.clone();
    status.bucket_id = Some(bucket_id);
    status.bucket_name = Some(bucket_name);
    status.access_key = Some(access_key);
    status.endpoint_url = Some(endpoint_text(endpoint));
    status.region = Some(object.spec.region.clone());
    status.status = Some(match provider {
        Kind::Stub => BucketStatus::Stub,
        Kind::Minio => BucketStatus::Ready,
    });
    status.shape = Some("shared-minio".to_owned());
    status.shared_host = endpoint.host_str().map(ToOwned::to_owned);
    status.secret_ref = Some(SecretRef { name: object.secret_name() });
    status.binding = Some(Binding { name: object.secret_name() });
    status.created_at.get_or_insert_with(|| now.clone());
}

/// The URL as clients take it: without the slash that stands for an empty path.
#[must_use]
pub fn endpoint_text(endpoint: &Url) -> String {
    endpoint.as_str().trim_end_matches('/').to_owned()
}

fn stopped(conditions: &mut Conditions<'_>, object: &AppBucket, stop: &Stop) {
    let (why, message) = match stop {
        Stop::Refused { reason: why, message } => {
            let type_ = if *why == reason::PAUSED { PAUSED } else { STALLED };
            conditions.set(type_, "True", why, message);
            (*why, message)
        }
        Stop::Retry { reason, message, .. } => {
            conditions.set(RECONCILING, "True", reason, message);
            (*reason, message)
        }
    };
    // These two tell that the bucket or the Secret is somebody else's: nothing of what was true is left.
    let lost = matches!(why, reason::SECRET_NOT_OWNED | reason::BUCKET_NOT_OWNED);
    let lost_bucket = why == reason::BUCKET_NOT_OWNED;
    conditions.lose_or_keep(lost, READY, why, message);
    conditions.lose_or_keep(lost_bucket, BUCKET_PROVISIONED, why, message);
    conditions.lose_or_keep(lost, CREDENTIALS_READY, why, message);
    if object.is_deleting() && why != reason::PAUSED {
        conditions.set(READY, "False", reason::DELETING, message);
    }
}

fn env(environment: &Environment, conditions: &mut Conditions<'_>) -> Env {
    match environment {
        Environment::Published(hash) => {
            conditions.set(ENV_PUBLISHED, "True", reason::PUBLISHED, "the app's environment holds this bucket's credentials");
            Env { published: true, keys: producer::keys(), reason: reason::PUBLISHED.to_owned(), hash: Some(hash.clone()) }
        }
        Environment::NotPublished { reason, message, retry: Retry::OnChange | Retry::Seldom | Retry::Soon(_) } => {
            conditions.set(ENV_PUBLISHED, "False", reason, message);
            Env { published: false, keys: vec![], reason: (*reason).to_owned(), hash: None }
        }
    }
}

/// The one place that knows transition times, generations and the order of conditions.
struct Conditions<'a> {
    before: Vec<Condition>,
    after: Vec<Condition>,
    generation: Option<i64>,
    now: &'a Time,
}

impl<'a> Conditions<'a> {
    fn new(before: &[Condition], generation: Option<i64>, now: &'a Time) -> Self {
        Self { before: before.to_vec(), after: vec![], generation, now }
    }

    fn before(&self, type_: &str) -> Option<&Condition> {
        self.before.iter().find(|condition| condition.type_ == type_)
    }

    fn set(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let same = self.before(type_).filter(|condition| condition.status == status);
        let last_transition_time = same.map_or(self.now, |condition| &condition.last_transition_time).clone();
        self.after.retain(|condition| condition.type_ != type_);
        self.after.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: self.generation,
            last_transition_time,
        });
    }

    /// Keeps what was true; what was not is false for this reason.
    fn lose_or_keep(&mut self, lose: bool, type_: &str, reason: &str, message: &str) {
        match self.before(type_).filter(|condition| condition.status == "True" && !lose).cloned() {
            Some(Condition { status, reason, message, .. }) => self.set(type_, &status, &reason, &message),
            None => self.set(type_, "False", reason, message),
        }
    }

    /// Keeps what was there, in this generation.
    fn keep_or(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        match self.before(type_).cloned() {
            Some(Condition { status, reason, message, .. }) => self.set(type_, &status, &reason, &message),
            None => self.set(type_, status, reason, message),
        }
    }

    fn finish(mut self) -> Vec<Condition> {
        self.after.sort_by_key(|condition| ORDER.iter().position(|type_| *type_ == condition.type_));
        self.after
    }
}

#[cfg(test)]
mod tests;
