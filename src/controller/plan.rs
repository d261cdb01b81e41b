//! What to do about what was seen. Pure: every edge can be tested without a server.

use super::{
    observe::{SecretState, Seen},
    stop::Stop,
};
use crate::{
    crd::{AppBucket, BucketStatus, DeletionPolicy, reason},
    credentials::Credentials,
    provider::{BucketState, Kind, Observation, PartState},
};

/// One request, idempotent. A pass does them in order and may be cut off between any two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Put the finalizer on the object, and fix the bucket's name.
    Adopt,
    /// Write the bucket's policy, with our mark.
    PutPolicy,
    /// Make the bucket.
    CreateBucket,
    /// Put our mark on the bucket.
    MarkBucket,
    /// Make the user, or give it the key of the Secret.
    PutUser,
    /// Use the key.
    Verify,
    /// Make the Secret.
    CreateSecret,
    /// Correct the Secret.
    RepairSecret,
    /// Delete the bucket, if it is empty.
    DeleteBucket,
    /// Delete the user.
    DeleteUser,
    /// Delete the policy.
    DeletePolicy,
    /// Leave the app's environment to the next bucket, or withdraw it.
    LeaveEnvironment,
    /// Take the finalizer off: the object goes.
    Release,
}

/// The steps to what the object asks for, or why there are none.
///
/// # Errors
/// A [`Stop`], which the status then tells.
pub fn plan(object: &AppBucket, seen: &Seen, provider: Kind, credentials: &Credentials) -> Result<Vec<Step>, Stop> {
    if object.is_paused() {
        return Err(Stop::refused(
            reason::PAUSED,
            format!("nothing is done while the annotation {} is \"paused\"", crate::crd::RECONCILE_ANNOTATION),
        ));
    }
    if object.is_deleting() {
        plan_deletion(object, seen, provider)
    } else {
        plan_provision(object, seen, provider, credentials)
    }
}

fn plan_provision(object: &AppBucket, seen: &Seen, provider: Kind, credentials: &Credentials) -> Result<Vec<Step>, Stop> {
    refuse_foreign_app(object, seen)?;
    refuse_demotion(object, provider)?;
    let mut steps = vec![];
    if !object.has_finalizer() {
        steps.push(Step::Adopt);
    }
    let secret_name = object.secret_name();
    match &seen.secret {
        SecretState::Foreign => {
            return Err(Stop::refused(
                reason::SECRET_NOT_OWNED,
                format!(
                    "Secret {secret_name} is there and does not belong to this AppBucket; it is left alone. Delete or rename it, or \
                     add an AppBucket with another secretName"
                ),
            ));
        }
        SecretState::Leaving => {
            return Err(Stop::retry(
                reason::PROVISIONING,
                format!("Secret {secret_name} of a deleted AppBucket of this name is about to be garbage collected"),
            ));
        }
        SecretState::Missing | SecretState::Ours(_) => {}
    }
    let backend = seen.backend.as_ref().ok_or_else(|| Stop::retry(reason::PROVISIONING, "the backend was not looked at"))?;
    let backend = backend.as_ref().map_err(|error| Stop::from(error.clone()))?;
    steps.extend(bucket_steps(object, seen, *backend)?);

    let secret = match &seen.secret {
        SecretState::Ours(secret) => Some(secret),
        _ => None,
    };
    let key_is_kept = secret.is_some_and(|secret| secret.key.is_some());
    if !(key_is_kept && backend.key_works && backend.user == PartState::Current) {
        steps.extend([Step::PutUser, Step::Verify]);
    }
    match secret {
        None => steps.push(Step::CreateSecret),
        Some(secret) if !secret.holds(credentials) => steps.push(Step::RepairSecret),
        Some(_) => {}
    }
    Ok(steps)
}

/// The policy goes first: its mark tells an unfinished bucket of ours from somebody else's.
fn bucket_steps(object: &AppBucket, seen: &Seen, backend: Observation) -> Result<Vec<Step>, Stop> {
    let name = &seen.grant.bucket;
    let known = object
        .status
        .as_ref()
        .is_some_and(|status| status.status == Some(BucketStatus::Ready) && status.bucket_name.as_ref() == Some(name));
    let foreign = |what: &str| {
        Err(Stop::refused(
            reason::BUCKET_NOT_OWNED,
            format!(
                "{what} is there without this object's ownership mark; it is left alone. Remove it, or add another AppBucket"
            ),
        ))
    };
    let mut steps = vec![];
    if backend.policy != PartState::Current {
        steps.push(Step::PutPolicy);
    }
    match (backend.bucket, backend.policy) {
        (BucketState::Missing, PartState::Foreign) => return foreign(&format!("policy {}", seen.grant.policy())),
        (BucketState::Missing, _) => steps.extend([Step::CreateBucket, Step::MarkBucket]),
        (BucketState::Owned, _) => {}
        (BucketState::Unfinished, _) => steps.push(Step::MarkBucket),
        (BucketState::Unmarked, _) if known => steps.push(Step::MarkBucket),
        (BucketState::Unmarked | BucketState::Foreign, _) => return foreign(&format!("bucket {name}")),
    }
    Ok(steps)
}

fn plan_deletion(object: &AppBucket, seen: &Seen, provider: Kind) -> Result<Vec<Step>, Stop> {
    if !object.has_finalizer() {
        return Ok(vec![]);
    }
    let mut steps = vec![];
    if object.spec.deletion_policy == DeletionPolicy::Delete {
        refuse_demotion(object, provider)?;
        let backend = seen.backend.as_ref().ok_or_else(|| Stop::retry(reason::DELETING, "the backend was not looked at"))?;
        let backend = backend.as_ref().map_err(|error| Stop::from(error.clone()))?;
        // The bucket first: if it holds something, everything stays, so that the app can still empty it.
        if !matches!(backend.bucket, BucketState::Missing | BucketState::Foreign) {
            steps.push(Step::DeleteBucket);
        }
        if backend.user != PartState::Missing {
            steps.push(Step::DeleteUser);
        }
        if !matches!(backend.policy, PartState::Missing | PartState::Foreign) {
            steps.push(Step::DeletePolicy);
        }
    }
    steps.extend([Step::LeaveEnvironment, Step::Release]);
    Ok(steps)
}

fn refuse_foreign_app(object: &AppBucket, seen: &Seen) -> Result<(), Stop> {
    let app_id = &object.spec.app_id;
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    if !seen.app_id_allowed {
        return Err(Stop::refused(
            reason::APP_ID_NOT_ALLOWED,
            format!(
                "strict mode: namespace {namespace} may not use app id {app_id}; an administrator adds it to the namespace's \
                 annotation {}",
                crate::crd::APP_IDS_ANNOTATION
            ),
        ));
    }
    if seen.holder.namespace != namespace {
        // The other namespace is not named: its existence is none of this tenant's business.
        return Err(Stop::refused(
            reason::APP_OWNED_BY_ANOTHER_NAMESPACE,
            format!("app {app_id} belongs to another namespace, which had a bucket of it first; use another app id"),
        ));
    }
    if !seen.holder.admits(object) {
        return Err(Stop::refused(
            reason::APP_OWNED_BY_ANOTHER_PRINCIPAL,
            format!("app {app_id} belongs to somebody else, who had a bucket of it first; use another app id"),
        ));
    }
    Ok(())
}

fn refuse_demotion(object: &AppBucket, provider: Kind) -> Result<(), Stop> {
    if provider == Kind::Stub && object.bucket_status() == Some(BucketStatus::Ready) {
        return Err(Stop::refused(
            reason::DEMOTION_REFUSED,
            "the bucket is real and the operator runs in stub mode, which never demotes it; start the operator with --provider minio",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
