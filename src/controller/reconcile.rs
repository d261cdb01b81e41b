//! One pass over one object, from its first line to its last: observe, plan, act, publish, tell.

use std::{pin::pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::controller::Action,
};
use serde_json::json;
use tokio::sync::OwnedMutexGuard;

use super::{
    Context, Error, FIELD_MANAGER,
    act::{act, api},
    environment::{self, Environment, Retry},
    event,
    observe::{SecretState, Seen, observe},
    plan::{Step, plan},
    status::{Facts, endpoint_text, next_status},
    stop::Stop,
};
use crate::{
    crd::{AppBucket, AppBucketStatus},
    credentials::{Credentials, SecretKey},
    metrics::Outcome,
};

/// No pass holds its place longer than this, whatever hangs; every step is idempotent, so the next pass goes on.
const PASS_MAX: Duration = Duration::from_mins(1);

/// How long the producer may take before the status is told without its answer.
const PRODUCER_PATIENCE: Duration = Duration::from_secs(1);

/// Brings the world in line with an object.
///
/// # Errors
/// Where the API server fails; whatever else goes wrong is told in the object's status and is no error.
pub async fn reconcile(object: Arc<AppBucket>, ctx: Arc<Context>) -> Result<Action, Error> {
    // A standby keeps its watches warm. What it was handed before it led may be old.
    if !ctx.leadership.holds() {
        tokio::select! {
            () = ctx.leadership.acquired() => return Ok(Action::requeue(Duration::ZERO)),
            () = ctx.shutdown.cancelled() => return Ok(Action::await_change()),
        }
    }
    // Which namespace an app belongs to can't be told from half of the objects.
    ctx.apps.synced().await;
    let pass = tokio::time::timeout(PASS_MAX, Box::pin(pass(&ctx, (*object).clone())));
    ctx.metrics.pass(async { pass.await.map_err(|_| Error::Timeout(PASS_MAX))? }).await
}

async fn pass(ctx: &Context, mut object: AppBucket) -> Result<(Action, Outcome), Error> {
    let seen = observe(ctx, &object).await?;
    let credentials = credentials(ctx, &object, &seen)?;
    let planned = plan(&object, &seen, ctx.provider.kind(), &credentials);
    let (done, outcome) = act_in_order(ctx, &mut object, &seen, &credentials, planned).await?;
    if object.is_deleting() && outcome.is_ok() {
        if done.contains(&Step::Release) {
            ctx.announce(&object, &event::farewell(&object, &done, &seen.identity.bucket_name)).await;
        }
        ctx.backoff.reset(&object);
        return Ok((Action::await_change(), Outcome::Deleted));
    }
    let before = object.clone();
    // The lock of the app is held until the status is written that tells who is published.
    let (environment, _lock) = match outcome {
        Ok(()) => settle(ctx, &before, &mut object, &seen, &credentials).await?,
        Err(_) => (None, None),
    };
    let status = tell(ctx, &mut object, &seen, outcome.as_ref().copied(), environment.as_ref()).await?;
    for event in event::events(&before, &status, &done, ctx.provider.kind()) {
        ctx.announce(&object, &event).await;
    }
    let next_look = Action::requeue(next_look(ctx, &object, &outcome, environment.as_ref()));
    Ok((next_look, outcome.map_or_else(Outcome::from, |()| Outcome::Ready)))
}

/// Brings the app's environment in line. Readiness does not wait for a slow producer: it is told meanwhile.
async fn settle(
    ctx: &Context,
    before: &AppBucket,
    object: &mut AppBucket,
    seen: &Seen,
    credentials: &Credentials,
) -> Result<(Option<Environment>, Option<OwnedMutexGuard<()>>), Error> {
    still_leading(ctx)?;
    let mut settling = pin!(environment::settle(ctx, before, credentials));
    let (environment, lock) = if let Ok(settled) = tokio::time::timeout(PRODUCER_PATIENCE, &mut settling).await {
        settled?
    } else {
        tell(ctx, object, seen, Ok(()), Some(&Environment::publishing())).await?;
        settling.await?
    };
    Ok((Some(environment), lock))
}

/// Writes the status if it differs from what stands there; gives it back.
async fn tell(
    ctx: &Context,
    object: &mut AppBucket,
    seen: &Seen,
    outcome: Result<(), &Stop>,
    environment: Option<&Environment>,
) -> Result<AppBucketStatus, Error> {
    let facts = Facts {
        identity: &seen.identity,
        endpoint: ctx.provider.endpoint(),
        provider: ctx.provider.kind(),
        outcome,
        environment,
        bucket_refs: bucket_refs(ctx, object, seen, outcome.is_ok()),
        now: Timestamp::now(),
    };
    let status = next_status(object, facts);
    still_leading(ctx)?;
    if object.status.as_ref() != Some(&status) {
        *object = save(ctx, object, &status).await?;
    }
    Ok(status)
}

/// The credentials that ought to be in the Secret: with the key that is in it, if there is one.
fn credentials(ctx: &Context, object: &AppBucket, seen: &Seen) -> Result<Credentials, Error> {
    let kept = match &seen.secret {
        SecretState::Ours(secret) => secret.key.clone(),
        SecretState::Missing | SecretState::Foreign | SecretState::Leaving => None,
    };
    Ok(Credentials {
        endpoint: endpoint_text(ctx.provider.endpoint()),
        bucket: seen.identity.bucket_name.clone(),
        access_key: seen.identity.access_key.clone(),
        secret_key: kept.map_or_else(SecretKey::draw, Ok)?,
        region: object.spec.region.clone(),
    })
}

/// Does step after step until one can't be done; says which were.
async fn act_in_order(
    ctx: &Context,
    object: &mut AppBucket,
    seen: &Seen,
    credentials: &Credentials,
    planned: Result<Vec<Step>, Stop>,
) -> Result<(Vec<Step>, Result<(), Stop>), Error> {
    let mut done = vec![];
    let steps = match planned {
        Ok(steps) => steps,
        Err(stop) => return Ok((done, Err(stop))),
    };
    if steps.is_empty() {
        tracing::debug!("nothing to do");
    }
    for step in steps {
        still_leading(ctx)?;
        tracing::debug!(?step, "acting");
        if let Err(stop) = act(ctx, object, seen, credentials, step).await? {
            return Ok((done, Err(stop)));
        }
        done.push(step);
    }
    Ok((done, Ok(())))
}

/// To be asked before each write: the process may have been paused since the last one.
fn still_leading(ctx: &Context) -> Result<(), Error> {
    if ctx.leadership.holds() { Ok(()) } else { Err(Error::NotLeading) }
}

/// The buckets of the app, this one included as soon as it is there; none of an app that is another namespace's.
fn bucket_refs(ctx: &Context, object: &AppBucket, seen: &Seen, provisioned: bool) -> Vec<String> {
    if !seen.holder.admits(object) {
        return vec![];
    }
    let app = ctx.apps.get(&object.spec.app_id);
    let app = if provisioned { app.with_provisioned(object) } else { app };
    app.bucket_refs(&seen.holder.namespace)
}

/// Only onto the version that was looked at: a newer one deserves a look of its own.
async fn save(ctx: &Context, object: &AppBucket, status: &AppBucketStatus) -> Result<AppBucket, Error> {
    let patch = Patch::Apply(json!({
        "apiVersion": AppBucket::api_version(&()),
        "kind": AppBucket::kind(&()),
        "metadata": { "resourceVersion": object.resource_version(), "uid": object.uid() },
        "status": status,
    }));
    let params = PatchParams::apply(FIELD_MANAGER).force();
    Ok(api(ctx, object).patch_status(&object.name_any(), &params, &patch).await?)
}

fn next_look(ctx: &Context, object: &AppBucket, outcome: &Result<(), Stop>, environment: Option<&Environment>) -> Duration {
    let environment = match environment {
        Some(Environment::NotPublished { retry, .. }) => *retry,
        Some(Environment::Published(_)) | None => Retry::OnChange,
    };
    match (outcome, environment) {
        (&Err(Stop::Retry { after, .. }), _) | (Ok(()), Retry::Soon(after)) => {
            ctx.backoff.next(object).max(after.unwrap_or_default())
        }
        (Err(Stop::Refused { .. }), _) | (Ok(()), Retry::Seldom) => {
            ctx.backoff.reset(object);
            ctx.settings.stalled_recheck
        }
        (Ok(()), Retry::OnChange) => {
            ctx.backoff.reset(object);
            // Spread, so that objects that were made together are not looked at together for ever.
            ctx.settings.resync.mul_f64(rand::random_range(0.75..1.25))
        }
    }
}
