//! The app's environment: it holds the credentials of one bucket, the newest that wants to be published.
//!
//! At most one object of an app has `status.env.published`, and it is the one whose values the environment holds: who is about to
//! publish first takes the flag from the others, and sets its own after the producer has answered. A crash in between leaves no
//! flag, and the winner publishes again. All of this is done under a lock per app.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Context, Error, FIELD_MANAGER, act::api, stop::Stop};
use crate::{
    apps::{App, Holder, Member},
    crd::{AppBucket, EnvPolicy, reason},
    credentials::Credentials,
    identity::bucket_id,
    metrics::Operation,
    producer::{self, Producer, Publication},
};

/// How an object stands to its app's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Environment {
    /// It holds this object's values; the digest is of what was published.
    Published(String),
    /// It does not.
    NotPublished {
        /// One of [`reason`].
        reason: &'static str,
        /// Why, and what to do.
        message: String,
        /// Whether and when it will be tried again.
        retry: Retry,
    },
}

/// Whether and when a publication will be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Only when something changes that is watched.
    OnChange,
    /// Now and then: what has to change can't be watched.
    Seldom,
    /// Soon, or after the time that the producer asked for.
    Soon(Option<Duration>),
}

impl Environment {
    /// The producer has not answered yet.
    #[must_use]
    pub fn publishing() -> Self {
        Self::not_published(reason::PUBLISHING, "waiting for the producer API", Retry::OnChange)
    }

    fn not_published(reason: &'static str, message: impl Into<String>, retry: Retry) -> Self {
        Self::NotPublished { reason, message: message.into(), retry }
    }
}

impl From<producer::Error> for Environment {
    fn from(error: producer::Error) -> Self {
        let message = error.to_string();
        match error {
            producer::Error::TokenMissing => Self::not_published(reason::PRODUCER_TOKEN_MISSING, message, Retry::Seldom),
            producer::Error::Refused(_) => Self::not_published(reason::PRODUCER_REFUSED, message, Retry::Seldom),
            producer::Error::Unavailable { retry_after, .. } => {
                Self::not_published(reason::PRODUCER_UNAVAILABLE, message, Retry::Soon(retry_after))
            }
        }
    }
}

/// One lock per app. Held from before a publication until the status that tells of it is written.
#[derive(Default)]
pub struct Locks(Mutex<HashMap<String, Arc<Mutex<()>>>>);

impl Locks {
    async fn lock(&self, app_id: &str) -> OwnedMutexGuard<()> {
        let mut locks = self.0.lock().await;
        // What nobody holds or waits for is forgotten.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        let lock = Arc::clone(locks.entry(app_id.to_owned()).or_default());
        drop(locks);
        lock.lock_owned().await
    }
}

/// Brings the environment in line with a provisioned object, and tells how they stand. The lock, if there is one, is to be held
/// until the status is written.
pub(super) async fn settle(
    ctx: &Context,
    object: &AppBucket,
    credentials: &Credentials,
) -> Result<(Environment, Option<OwnedMutexGuard<()>>), Error> {
    let known = ctx.apps.get(&object.spec.app_id).with_provisioned(object);
    if let Some(lost) = lost(object, &known) {
        let withdraw = object.spec.env_policy == EnvPolicy::None && is_published(object);
        return if withdraw { withdraw_disabled(ctx, object, lost).await } else { Ok((lost, None)) };
    }
    let Some(producer) = &ctx.producer else {
        // Settings change with the next start only.
        let missing = producer::Error::TokenMissing.to_string();
        return Ok((Environment::not_published(reason::PRODUCER_TOKEN_MISSING, missing, Retry::OnChange), None));
    };
    let current = digest(producer, object, credentials, &known);
    let published = object.status.as_ref().and_then(|status| status.env.as_ref()).filter(|env| env.published);
    if published.is_some_and(|env| env.hash.as_ref() == Some(&current)) {
        return Ok((Environment::Published(current), None));
    }

    let lock = ctx.locks.lock(&object.spec.app_id).await;
    let members = fresh_list(ctx, object).await?;
    let app = App::new(members.iter().map(Member::of)).with_provisioned(object);
    if let Some(lost) = lost(object, &app) {
        return Ok((lost, Some(lock)));
    }
    for other in members.iter().filter(|other| is_published(other) && other.uid() != object.uid()) {
        take_flag(ctx, other, object).await?;
    }
    let publication = Publication {
        app_id: &object.spec.app_id,
        credentials,
        bucket_id: &bucket_id(&object.uid().unwrap_or_default()),
        bucket_refs: &app.bucket_refs(&object.namespace().unwrap_or_default()),
    };
    let outcome = match ctx.metrics.producer(Operation::Publish, producer.publish(&publication)).await {
        Ok(()) => Environment::Published(digest(producer, object, credentials, &app)),
        Err(error) => error.into(),
    };
    Ok((outcome, Some(lock)))
}

/// Before an object goes: if it is the last of its app to be published, the keys are withdrawn. Otherwise the next newest
/// publishes itself, as the watch of this deletion tells it to.
pub(super) async fn leave(ctx: &Context, object: &AppBucket, holder: &Holder) -> Result<Result<(), Stop>, Error> {
    let Some(producer) = &ctx.producer else { return Ok(Ok(())) };
    if object.spec.env_policy == EnvPolicy::None || !holder.admits(object) {
        return Ok(Ok(()));
    }
    let _lock = ctx.locks.lock(&object.spec.app_id).await;
    let app = App::new(fresh_list(ctx, object).await?.iter().map(Member::of));
    if app.winner(&holder.namespace).is_some() {
        return Ok(Ok(()));
    }
    match ctx.metrics.producer(Operation::Withdraw, producer.withdraw(&object.spec.app_id)).await {
        Ok(()) => Ok(Ok(())),
        Err(producer::Error::Unavailable { message, retry_after }) => Ok(Err(Stop::Retry {
            reason: reason::PRODUCER_UNAVAILABLE,
            message: format!(
                "the app's environment can't be withdrawn: {message}. Set spec.envPolicy to None to let the object go without it"
            ),
            after: retry_after,
        })),
        // A producer that will not listen must not keep the object for ever.
        Err(error @ (producer::Error::TokenMissing | producer::Error::Refused(_))) => {
            if is_published(object) {
                let note =
                    format!("The environment of app {} still holds the keys of this bucket: {error}", object.spec.app_id);
                ctx.announce(object, &super::event::warning("EnvNotWithdrawn", "Delete", note)).await;
            }
            Ok(Ok(()))
        }
    }
}

async fn withdraw_disabled(
    ctx: &Context,
    object: &AppBucket,
    disabled: Environment,
) -> Result<(Environment, Option<OwnedMutexGuard<()>>), Error> {
    let Some(producer) = &ctx.producer else { return Ok((disabled, None)) };
    let lock = ctx.locks.lock(&object.spec.app_id).await;
    let app = App::new(fresh_list(ctx, object).await?.iter().map(Member::of));
    let outcome = match app.winner(&object.namespace().unwrap_or_default()) {
        Some(_) => disabled,
        None => match ctx.metrics.producer(Operation::Withdraw, producer.withdraw(&object.spec.app_id)).await {
            Ok(()) => disabled,
            Err(error) => error.into(),
        },
    };
    Ok((outcome, Some(lock)))
}

/// Why this object is not the one to be published, if so.
fn lost(object: &AppBucket, app: &App) -> Option<Environment> {
    if object.spec.env_policy == EnvPolicy::None {
        return Some(Environment::not_published(reason::DISABLED, "spec.envPolicy is None", Retry::OnChange));
    }
    match app.winner(&object.namespace().unwrap_or_default()) {
        Some(winner) if !winner.is(object) => Some(Environment::not_published(
            reason::SUPERSEDED,
            format!("the app's environment holds its newest bucket, AppBucket {}", winner.name),
            Retry::OnChange,
        )),
        _ => None,
    }
}

fn is_published(object: &AppBucket) -> bool {
    object.status.as_ref().and_then(|status| status.env.as_ref()).is_some_and(|env| env.published)
}

fn digest(producer: &Producer, object: &AppBucket, credentials: &Credentials, app: &App) -> String {
    let refs = app.bucket_refs(&object.namespace().unwrap_or_default()).join(",");
    credentials.digest(&[&producer.place(), &refs])
}

/// The app's buckets in this namespace as the API server has them now; the watch may lag behind.
async fn fresh_list(ctx: &Context, object: &AppBucket) -> Result<Vec<AppBucket>, Error> {
    let params = ListParams::default().fields(&format!("spec.appId={}", object.spec.app_id));
    let api: Api<AppBucket> = api(ctx, object);
    Ok(api.list(&params).await?.items)
}

async fn take_flag(ctx: &Context, from: &AppBucket, winner: &AppBucket) -> Result<(), Error> {
    tracing::debug!(from = %from.name_any(), to = %winner.name_any(), "the app's environment changes hands");
    let patch = Patch::Merge(json!({
        "metadata": { "uid": from.uid() },
        "status": { "env": { "published": false, "keys": [], "reason": reason::SUPERSEDED, "hash": null } },
    }));
    match api(ctx, from).patch_status(&from.name_any(), &PatchParams::apply(FIELD_MANAGER), &patch).await {
        Ok(_) => Ok(()),
        // It is gone, or another of that name: it can't be published.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
