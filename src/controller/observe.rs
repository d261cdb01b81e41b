//! What is there now: in the cluster and at the provider. Reads only.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Resource, ResourceExt};

use super::{Context, Error};
use crate::{
    apps::Holder,
    crd::{APP_IDS_ANNOTATION, APPBUCKET_LABEL, AppBucket, DeletionPolicy},
    credentials::{Credentials, SecretKey, secret_key_in},
    identity::Identity,
    provider::{self, Grant, Observation, Owner},
};

/// The label by which the operator finds its Secrets again (`app.kubernetes.io`, recommended labels).
pub const MANAGED_BY_LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "appbucket-operator");

/// All that a plan needs to know.
pub struct Seen {
    /// The names of what belongs to the object.
    pub identity: Identity,
    /// The same, as the provider wants it.
    pub grant: Grant,
    /// Whom the app belongs to.
    pub holder: Holder,
    /// Whether the namespace may use the app id (strict mode; otherwise always).
    pub app_id_allowed: bool,
    /// The Secret of the name that the object asks for.
    pub secret: SecretState,
    /// What stands at the provider; `None` where it does not matter.
    pub backend: Option<Result<Observation, provider::Error>>,
}

/// The Secret of the name that the object asks for.
pub enum SecretState {
    /// There is none.
    Missing,
    /// It belongs to nobody, or to somebody else. Nothing but its metadata was read.
    Foreign,
    /// It belongs to a deleted `AppBucket` of the same name, and goes soon.
    Leaving,
    /// It belongs to this object.
    Ours(Box<OurSecret>),
}

/// The Secret of this object.
pub struct OurSecret {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// The secret key in it, if it is one.
    pub key: Option<SecretKey>,
    data: BTreeMap<String, Vec<u8>>,
}

impl OurSecret {
    #[cfg(test)]
    pub fn holding(credentials: &Credentials) -> Self {
        let (label, value) = MANAGED_BY_LABEL;
        let labels = [(label.to_owned(), value.to_owned()), (APPBUCKET_LABEL.to_owned(), "demo".to_owned())];
        let metadata = ObjectMeta { labels: Some(labels.into()), ..Default::default() };
        Self { metadata, key: Some(credentials.secret_key.clone()), data: credentials.secret_data() }
    }

    /// Whether it holds these credentials, and the labels by which it is watched. Entries that others added are theirs.
    #[must_use]
    pub fn holds(&self, credentials: &Credentials) -> bool {
        let (label, value) = MANAGED_BY_LABEL;
        let labels = self.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(label)).is_some_and(|found| found == value)
            && labels.is_some_and(|labels| labels.contains_key(APPBUCKET_LABEL))
            && credentials.secret_data().iter().all(|(key, value)| self.data.get(key) == Some(value))
    }
}

/// Looks at everything that concerns an object.
///
/// # Errors
/// Where the API server does not answer. What the provider answers is part of the result.
pub async fn observe(ctx: &Context, object: &AppBucket) -> Result<Seen, Error> {
    let identity = Identity::of(object);
    let namespace = object.namespace().unwrap_or_default();
    let owner = Owner {
        cluster: ctx.cluster_id.clone(),
        object: format!("{namespace}/{}", object.name_any()),
        uid: object.uid().unwrap_or_default(),
    };
    let grant = Grant {
        bucket: identity.bucket_name.clone(),
        access_key: identity.access_key.clone(),
        region: object.spec.region.clone(),
        owner,
    };
    let (secret, app_id_allowed) = if object.is_deleting() {
        (SecretState::Missing, true)
    } else {
        tokio::try_join!(secret(ctx, object), app_id_allowed(ctx, object))?
    };
    let holder = ctx.apps.claim(object);
    let needs_backend = if object.is_deleting() {
        object.has_finalizer() && object.spec.deletion_policy == DeletionPolicy::Delete
    } else {
        app_id_allowed && holder.admits(object) && matches!(secret, SecretState::Missing | SecretState::Ours(_))
    };
    let backend = if needs_backend {
        let key = match &secret {
            SecretState::Ours(secret) => secret.key.as_ref(),
            _ => None,
        };
        Some(ctx.provider.observe(&grant, key).await)
    } else {
        None
    };
    Ok(Seen { identity, grant, holder, app_id_allowed, secret, backend })
}

/// Reads metadata first: the content of a Secret that is not ours is none of our business.
async fn secret(ctx: &Context, object: &AppBucket) -> Result<SecretState, Error> {
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default());
    let name = object.secret_name();
    let Some(found) = secrets.get_metadata_opt(&name).await? else { return Ok(SecretState::Missing) };
    match ownership(&found.metadata, object) {
        Ownership::Ours => {}
        Ownership::Predecessor => return Ok(SecretState::Leaving),
        Ownership::Foreign => return Ok(SecretState::Foreign),
    }
    let Some(secret) = secrets.get_opt(&name).await? else { return Ok(SecretState::Missing) };
    if !matches!(ownership(&secret.metadata, object), Ownership::Ours) {
        return Ok(SecretState::Foreign);
    }
    let data: BTreeMap<_, _> = secret.data.into_iter().flatten().map(|(key, ByteString(value))| (key, value)).collect();
    Ok(SecretState::Ours(Box::new(OurSecret { key: secret_key_in(&data), metadata: secret.metadata, data })))
}

enum Ownership {
    Ours,
    Predecessor,
    Foreign,
}

/// Ours is what has a controller reference to this very object, and is not on its way out.
fn ownership(metadata: &ObjectMeta, object: &AppBucket) -> Ownership {
    if object.controls(metadata) {
        return Ownership::Ours;
    }
    let controller = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    match controller {
        Some(owner)
            if owner.kind == AppBucket::kind(&())
                && owner.api_version == AppBucket::api_version(&())
                && Some(&owner.name) == object.metadata.name.as_ref() =>
        {
            Ownership::Predecessor
        }
        _ => Ownership::Foreign,
    }
}

/// Strict mode: the app ids that a namespace may use stand in its annotation, which tenants can't edit.
async fn app_id_allowed(ctx: &Context, object: &AppBucket) -> Result<bool, Error> {
    if !ctx.settings.strict_app_ids {
        return Ok(true);
    }
    let namespaces: Api<Namespace> = Api::all(ctx.client.clone());
    let found = namespaces.get_metadata_opt(&object.namespace().unwrap_or_default()).await?;
    let listed = found.and_then(|namespace| namespace.annotations().get(APP_IDS_ANNOTATION).cloned());
    Ok(listed.is_some_and(|ids| ids.split(',').any(|id| id.trim() == object.spec.app_id)))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;
    use crate::fixtures::app_bucket;

    fn owned_by(change: impl FnOnce(&mut OwnerReference)) -> ObjectMeta {
        let mut owner = app_bucket("demo").controller_owner_ref(&()).unwrap();
        change(&mut owner);
        ObjectMeta { owner_references: Some(vec![owner]), ..Default::default() }
    }

    #[test]
    fn a_secret_is_ours_by_its_controllers_uid_and_by_nothing_else() {
        let object = app_bucket("demo");
        let of = |metadata: ObjectMeta| ownership(&metadata, &object);
        assert!(matches!(of(owned_by(|_| {})), Ownership::Ours));
        assert!(matches!(of(owned_by(|owner| "another".clone_into(&mut owner.uid))), Ownership::Predecessor));
        assert!(matches!(of(owned_by(|owner| owner.controller = None)), Ownership::Foreign));
        let stranger = |owner: &mut OwnerReference| {
            "another".clone_into(&mut owner.uid);
            "ConfigMap".clone_into(&mut owner.kind);
        };
        assert!(matches!(of(owned_by(stranger)), Ownership::Foreign));
        let sibling = |owner: &mut OwnerReference| {
            "another".clone_into(&mut owner.uid);
            "other".clone_into(&mut owner.name);
        };
        assert!(matches!(of(owned_by(sibling)), Ownership::Foreign));
        let labels = [(MANAGED_BY_LABEL.0.to_owned(), MANAGED_BY_LABEL.1.to_owned())];
        assert!(matches!(of(ObjectMeta { labels: Some(labels.into()), ..Default::default() }), Ownership::Foreign));
    }
}
