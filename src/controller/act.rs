//! One step of a plan, done. Every write names the object version or the owner that it was planned for.

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{
    Context, Error, FIELD_MANAGER, environment, observe::MANAGED_BY_LABEL, observe::SecretState, observe::Seen, plan::Step,
    stop::Stop,
};
use crate::{
    crd::{APPBUCKET_LABEL, AppBucket, BUCKET_NAME_ANNOTATION, FINALIZER, reason},
    credentials::Credentials,
    provider,
};

/// Does one step. `object` is replaced by what the API server answers, so that later writes build on it.
pub(super) async fn act(
    ctx: &Context,
    object: &mut AppBucket,
    seen: &Seen,
    credentials: &Credentials,
    step: Step,
) -> Result<Result<(), Stop>, Error> {
    let (provider, grant, key) = (&ctx.provider, &seen.grant, &credentials.secret_key);
    let done = match step {
        Step::Adopt => return adopt(ctx, object, &grant.bucket).await.map(Ok),
        Step::CreateSecret => return create_secret(ctx, object, credentials).await,
        Step::RepairSecret => return repair_secret(ctx, object, seen, credentials).await,
        Step::LeaveEnvironment => return environment::leave(ctx, object, &seen.holder).await,
        Step::Release => return release(ctx, object).await.map(Ok),
        Step::PutPolicy => provider.put_policy(grant).await,
        Step::CreateBucket => provider.create_bucket(grant).await,
        Step::MarkBucket => provider.mark_bucket(grant).await,
        Step::PutUser => provider.put_user(grant, key).await,
        Step::Verify => provider.verify(grant, key).await,
        Step::DeleteUser => provider.delete_user(grant).await,
        Step::DeletePolicy => provider.delete_policy(grant).await,
        Step::DeleteBucket => match provider.delete_bucket(grant).await {
            Err(provider::Error::Conflict(content)) => return Ok(Err(not_empty(&content))),
            other => other,
        },
    };
    Ok(done.map_err(Stop::from))
}

fn not_empty(content: &str) -> Stop {
    Stop::refused(
        reason::BUCKET_NOT_EMPTY,
        format!("{content}; empty it (old versions too), or set spec.deletionPolicy to Retain to keep it"),
    )
}

/// Finalizer and bucket name in one write, before anything outside Kubernetes is made.
async fn adopt(ctx: &Context, object: &mut AppBucket, bucket: &str) -> Result<(), Error> {
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    let metadata = json!({ "finalizers": finalizers, "annotations": { BUCKET_NAME_ANNOTATION: bucket } });
    *object = patch_metadata(ctx, object, metadata).await?;
    Ok(())
}

async fn release(ctx: &Context, object: &mut AppBucket) -> Result<(), Error> {
    let finalizers: Vec<_> = object.finalizers().iter().filter(|name| *name != FINALIZER).collect();
    match patch_metadata(ctx, object, json!({ "finalizers": finalizers })).await {
        Ok(_) => Ok(()),
        // Somebody else let it go.
        Err(Error::Kube(kube::Error::Api(status))) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}

/// Only if it is still the version that was looked at: a list of finalizers is replaced as a whole, and an object of the same
/// name may be another one.
async fn patch_metadata(ctx: &Context, object: &AppBucket, mut metadata: serde_json::Value) -> Result<AppBucket, Error> {
    metadata["resourceVersion"] = json!(object.resource_version());
    metadata["uid"] = json!(object.uid());
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    Ok(api(ctx, object).patch(&object.name_any(), &PatchParams::apply(FIELD_MANAGER), &patch).await?)
}

pub(super) fn api(ctx: &Context, object: &AppBucket) -> Api<AppBucket> {
    Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default())
}

/// Creates and never overwrites: of two writers one wins, and the loser finds the winner's key at its next look.
async fn create_secret(ctx: &Context, object: &AppBucket, credentials: &Credentials) -> Result<Result<(), Stop>, Error> {
    let (label, value) = MANAGED_BY_LABEL;
    let mut secret = Secret { type_: Some("Opaque".to_owned()), data: Some(data(credentials)), ..Default::default() };
    secret.metadata.name = Some(object.secret_name());
    secret.metadata.owner_references = object.controller_owner_ref(&()).map(|owner| vec![owner]);
    secret.labels_mut().insert(label.to_owned(), value.to_owned());
    secret.labels_mut().insert(APPBUCKET_LABEL.to_owned(), object.name_any());
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..Default::default() };
    rejected(secrets(ctx, object).create(&params, &secret).await)
}

async fn repair_secret(
    ctx: &Context,
    object: &AppBucket,
    seen: &Seen,
    credentials: &Credentials,
) -> Result<Result<(), Stop>, Error> {
    let SecretState::Ours(found) = &seen.secret else { return Ok(Ok(())) };
    let (label, value) = MANAGED_BY_LABEL;
    let patch = Patch::Merge(json!({
        "metadata": {
            "resourceVersion": found.metadata.resource_version,
            "uid": found.metadata.uid,
            "labels": { label: value, APPBUCKET_LABEL: object.name_any() },
        },
        "data": data(credentials),
    }));
    rejected(secrets(ctx, object).patch(&object.secret_name(), &PatchParams::apply(FIELD_MANAGER), &patch).await)
}

fn secrets(ctx: &Context, object: &AppBucket) -> Api<Secret> {
    Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default())
}

fn data(credentials: &Credentials) -> std::collections::BTreeMap<String, ByteString> {
    credentials.secret_data().into_iter().map(|(key, value)| (key, ByteString(value))).collect()
}

/// What the API server has against the Secret itself (a quota, an admission policy, `immutable: true`) goes to the object.
fn rejected(answer: kube::Result<Secret>) -> Result<Result<(), Stop>, Error> {
    match answer {
        Ok(_) => Ok(Ok(())),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
            let message: String = status.message.chars().take(300).collect();
            Ok(Err(Stop::refused(reason::SECRET_REJECTED, format!("the API server refuses the Secret: {message}"))))
        }
        Err(error) => Err(error.into()),
    }
}
