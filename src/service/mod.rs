//! What the front doors offer, for REST and MCP alike: add a bucket, look at buckets. The `AppBucket` is the only state, so that any
//! number of replicas behave as one.

mod answer;
mod error;
mod principal;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    core::v1::Secret,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::wait::await_condition,
};
use serde_json::json;

use self::{answer::is_published, principal::digest};
pub use self::{
    answer::{AddBucket, AddedBucket, Bucket, Buckets, EnvPayload, PendingBucket},
    error::Error,
    principal::Principal,
};
use crate::{
    crd::{AppBucket, AppBucketSpec, DEFAULT_REGION, DeletionPolicy, EnvPolicy, OWNER_ANNOTATION, condition, reason},
    credentials::{Credentials, secret_key_in},
    identity::{bucket_id, clean, is_label},
};

/// Who asked for it, as a digest, to list by.
const OWNER_LABEL: &str = "storage.openfactory.tech/owner";
/// Which request made it: a digest of owner and idempotency key.
const REQUEST_LABEL: &str = "storage.openfactory.tech/request";
/// A digest of that request's body.
const REQUEST_BODY_ANNOTATION: &str = "storage.openfactory.tech/request-body";
/// There once the request was answered: credentials are shown with that answer or never.
const ANSWERED_LABEL: &str = "storage.openfactory.tech/answered";
const FIELD_MANAGER: &str = "appbucket-operator-serve";
/// The most that one page holds.
pub const PAGE_MAX: usize = 500;

/// How the service works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace in which buckets are declared.
    pub namespace: String,
    /// How long a request waits for the controller.
    pub wait: Duration,
    /// How many buckets a guest may have.
    pub guest_quota: usize,
    /// Whether Kubernetes is asked what a user may do. Not where the user's own credentials are used anyway.
    pub authorize: bool,
}

/// The use cases.
#[derive(Clone)]
pub struct Service {
    client: Client,
    settings: Arc<Settings>,
}

/// What became of a request for a bucket.
pub enum Added {
    /// It is there.
    Done {
        /// The answer.
        bucket: Box<AddedBucket>,
        /// Whether this request made it, or an earlier one with the same key.
        new: bool,
    },
    /// It takes longer than the request may wait.
    Pending(PendingBucket),
}

/// What became of the `AppBucket`.
enum Made {
    Done { object: AppBucket, new: bool },
    Late(AppBucket),
}

/// One bucket.
pub enum Found {
    /// It is there.
    Done(Box<Bucket>),
    /// It is being made.
    Pending(PendingBucket),
}

impl Service {
    /// A service that acts with the rights of that client.
    #[must_use]
    pub fn new(client: Client, settings: Settings) -> Self {
        Self { client, settings: Arc::new(settings) }
    }

    /// Declares a bucket and waits for it. The same principal, key and request give the same bucket, whenever they come.
    ///
    /// # Errors
    /// See [`Error`]; where it is one, this request leaves nothing behind.
    pub async fn add(&self, principal: &Principal, request: &AddBucket, key: &str) -> Result<Added, Error> {
        check(request)?;
        self.authorize(principal, "create").await?;
        let wanted = self.object(principal, request, key);
        // It goes on when whoever asked hangs up: what the controller refuses is taken back all the same.
        let making = tokio::spawn(self.clone().make(principal.clone(), request.clone(), wanted));
        let made = making.await.map_err(|_| Error::Unavailable("the server is stopping; try again".to_owned()))?;
        let (object, new) = match made? {
            Made::Done { object, new } => (object, new),
            Made::Late(object) => {
                let next = format!(
                    "Repeat the request with the header Idempotency-Key: {key} to wait on and to get the credentials, once. The bucket \
                     is being made meanwhile."
                );
                return Ok(Added::Pending(PendingBucket::of(&object, next)));
            }
        };
        let credentials = self.credentials_to_show(&object).await?;
        let bucket = AddedBucket::of(&object, credentials.as_ref())
            .ok_or(Error::Unavailable("the bucket's status is incomplete".to_owned()))?;
        Ok(Added::Done { bucket: Box::new(bucket), new })
    }

    async fn make(self, principal: Principal, request: AddBucket, wanted: AppBucket) -> Result<Made, Error> {
        let (object, new) = if let Some(found) = self.find_request(&wanted).await? {
            (same_request(found, &wanted)?, false)
        } else {
            self.admit(&principal, &request).await?;
            self.create(&wanted).await?
        };
        if new {
            self.check_quota(&principal, Some(&object)).await?;
        }
        let Some(object) = self.wait(&object).await? else {
            return Ok(Made::Late(self.api().get_opt(&object.name_any()).await?.unwrap_or(object)));
        };
        let Some(stalled) = object.status.as_ref().and_then(|status| status.condition(condition::STALLED)) else {
            return Ok(Made::Done { object, new });
        };
        // What never had a bucket is of no use to anybody.
        if object.bucket_status().is_none() {
            self.take_back(&object).await?;
        }
        Err(Error::stalled(&stalled.reason, &stalled.message))
    }

    /// One bucket of the principal.
    ///
    /// # Errors
    /// [`Error::NotFound`] also where it is somebody else's.
    pub async fn get(&self, principal: &Principal, id: &str) -> Result<Found, Error> {
        self.authorize(principal, "get").await?;
        let object = self.visible(principal, "").await?.into_iter().find(|object| id_of(object) == id);
        let object = object.ok_or_else(|| Error::NotFound(format!("there is no bucket {id}")))?;
        Ok(match Bucket::of(&object) {
            Some(bucket) => Found::Done(Box::new(bucket)),
            None => Found::Pending(PendingBucket::of(&object, "Ask again, or repeat the request that made it.".to_owned())),
        })
    }

    /// The principal's buckets, oldest first, of one app or of all; at most `limit` of those behind the bucket `after`. Also gives
    /// back whether there are more.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(
        &self,
        principal: &Principal,
        app_id: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Buckets, bool), Error> {
        self.authorize(principal, "list").await?;
        let fields = match app_id {
            Some(app_id) => {
                check_app_id(app_id)?;
                format!("spec.appId={app_id}")
            }
            None => String::new(),
        };
        let mut objects = self.visible(principal, &fields).await?;
        objects.sort_by_cached_key(age);
        let start = match after {
            None => 0,
            Some(after) => {
                let position = objects.iter().position(|object| id_of(object) == after);
                position.ok_or_else(|| Error::NotFound(format!("after: there is no bucket {after}")))? + 1
            }
        };
        let mut buckets: Vec<_> = objects[start..].iter().filter_map(Bucket::of).take(limit + 1).collect();
        let more = buckets.len() > limit;
        buckets.truncate(limit);
        Ok((Buckets { buckets }, more))
    }

    /// Whether requests can be served.
    ///
    /// # Errors
    /// Where the API server can't be reached, or does not know the resource.
    pub async fn ready(&self) -> Result<(), Error> {
        self.api().list_metadata(&ListParams::default().limit(1)).await?;
        Ok(())
    }

    fn api(&self) -> Api<AppBucket> {
        Api::namespaced(self.client.clone(), &self.settings.namespace)
    }

    async fn authorize(&self, principal: &Principal, verb: &str) -> Result<(), Error> {
        let Principal::User { name, groups } = principal else { return Ok(()) };
        if !self.settings.authorize {
            return Ok(());
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(name.clone()),
                groups: Some(groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    group: Some(crate::crd::GROUP.to_owned()),
                    resource: Some("appbuckets".to_owned()),
                    namespace: Some(self.settings.namespace.clone()),
                    verb: Some(verb.to_owned()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = reviews.create(&PostParams::default(), &review).await?;
        if review.status.is_some_and(|status| status.allowed) {
            return Ok(());
        }
        Err(Error::Forbidden(format!("you may not {verb} appbuckets in namespace {}", self.settings.namespace)))
    }

    /// What the principal may see: what is theirs; and for those whom Kubernetes lets read it, what was declared to the API server.
    async fn visible(&self, principal: &Principal, fields: &str) -> Result<Vec<AppBucket>, Error> {
        let list = async |labels: &str| {
            Ok::<_, kube::Error>(self.api().list(&ListParams::default().labels(labels).fields(fields)).await?.items)
        };
        let mut objects = list(&format!("{OWNER_LABEL}={}", principal.owner_label())).await?;
        if matches!(principal, Principal::User { .. }) {
            objects.extend(list(&format!("!{OWNER_LABEL}")).await?);
        }
        // The label is a digest; the annotation is what counts.
        let owner = principal.owner();
        objects.retain(|object| object.owner().is_none_or(|found| found == owner));
        Ok(objects)
    }

    /// Whether the principal may add a bucket to the app, and has any left to add.
    async fn admit(&self, principal: &Principal, request: &AddBucket) -> Result<(), Error> {
        let app = self.api().list(&ListParams::default().fields(&format!("spec.appId={}", request.app_id))).await?;
        let owner = principal.owner();
        let theirs = |object: &AppBucket| match object.owner() {
            Some(found) => found == owner,
            None => matches!(principal, Principal::User { .. }),
        };
        if !app.items.iter().all(theirs) {
            return Err(Error::NotFound(format!("there is no app {}", request.app_id)));
        }
        self.check_quota(principal, None).await
    }

    /// A guest's buckets are counted before and after: of two requests at once, the later one is taken back.
    async fn check_quota(&self, principal: &Principal, made: Option<&AppBucket>) -> Result<(), Error> {
        if !matches!(principal, Principal::Guest(_)) {
            return Ok(());
        }
        let quota = self.settings.guest_quota;
        let mut objects = self.visible(principal, "").await?;
        objects.sort_by_cached_key(age);
        let within = match made {
            None => objects.len() < quota,
            Some(made) => objects.iter().take(quota).any(|object| object.metadata.uid == made.metadata.uid),
        };
        if within {
            return Ok(());
        }
        if let Some(made) = made {
            self.take_back(made).await?;
        }
        Err(Error::Forbidden(format!("a guest may have {quota} buckets, and you have them")))
    }

    fn object(&self, principal: &Principal, request: &AddBucket, key: &str) -> AppBucket {
        let AddBucket { app_id, slug, region, name } = request;
        let slug = slug.clone().unwrap_or_else(|| app_id.clone());
        let request_label = digest(&[&principal.owner(), key]);
        let name = name.clone().unwrap_or_else(|| {
            let readable: String = clean(&slug).chars().take(48).collect();
            format!("{}-{}", readable.trim_end_matches('-'), &request_label[..12])
        });
        let spec = AppBucketSpec {
            app_id: app_id.clone(),
            slug: Some(slug.trim_end_matches(['.', '_', '-']).to_owned()),
            region: region.clone().unwrap_or_else(|| DEFAULT_REGION.to_owned()),
            deletion_policy: DeletionPolicy::Retain,
            secret_name: None,
            env_policy: EnvPolicy::Publish,
        };
        let mut object = AppBucket::new(&name, spec);
        object.metadata.namespace = Some(self.settings.namespace.clone());
        object.labels_mut().insert(OWNER_LABEL.to_owned(), principal.owner_label());
        object.labels_mut().insert(REQUEST_LABEL.to_owned(), request_label);
        object.annotations_mut().insert(OWNER_ANNOTATION.to_owned(), principal.owner());
        let body = serde_json::to_string(request).unwrap_or_default();
        object.annotations_mut().insert(REQUEST_BODY_ANNOTATION.to_owned(), digest(&[&body]));
        object
    }

    async fn find_request(&self, wanted: &AppBucket) -> Result<Option<AppBucket>, Error> {
        let label = wanted.labels().get(REQUEST_LABEL).cloned().unwrap_or_default();
        let found = self.api().list(&ListParams::default().labels(&format!("{REQUEST_LABEL}={label}"))).await?;
        Ok(found.items.into_iter().find(|object| object.owner() == wanted.owner()))
    }

    async fn create(&self, wanted: &AppBucket) -> Result<(AppBucket, bool), Error> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..Default::default() };
        match self.api().create(&params, wanted).await {
            Ok(object) => Ok((object, true)),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                // The same request at the same time, or the name of another.
                match self.find_request(wanted).await? {
                    Some(found) => Ok((same_request(found, wanted)?, false)),
                    None => Err(Error::Conflict(format!("the name {} is taken; choose another, or none", wanted.name_any()))),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the controller is done with it, one way or the other; `None` if that takes too long.
    async fn wait(&self, object: &AppBucket) -> Result<Option<AppBucket>, Error> {
        if is_done(object) {
            return Ok(Some(object.clone()));
        }
        let name = object.name_any();
        let done = await_condition(self.api(), &name, |object: Option<&AppBucket>| object.is_none_or(is_done));
        // Where the watch fails, the bucket is being made all the same.
        let Ok(Ok(object)) = tokio::time::timeout(self.settings.wait, done).await else { return Ok(None) };
        match object {
            Some(object) => Ok(Some(object)),
            None => Err(Error::NotFound("the bucket was deleted while it was being made".to_owned())),
        }
    }

    /// What must not stay is deleted with all that was made of it until then.
    async fn take_back(&self, object: &AppBucket) -> Result<(), Error> {
        let name = object.name_any();
        let patch =
            Patch::Merge(json!({ "metadata": { "uid": object.uid() }, "spec": { "deletionPolicy": DeletionPolicy::Delete } }));
        let preconditions = Preconditions { uid: object.uid(), resource_version: None };
        let deleted = async {
            self.api().patch(&name, &PatchParams::apply(FIELD_MANAGER), &patch).await?;
            self.api().delete(&name, &DeleteParams::default().preconditions(preconditions)).await
        };
        match deleted.await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The credentials, if they are not in the app's environment and no request was answered for this bucket before. Whoever
    /// sets the label has them: the API server lets only one.
    async fn credentials_to_show(&self, object: &AppBucket) -> Result<Option<Credentials>, Error> {
        let mut object = object.clone();
        loop {
            if object.labels().contains_key(ANSWERED_LABEL) {
                return Ok(None);
            }
            let patch = Patch::Merge(json!({ "metadata": {
                "uid": object.uid(),
                "resourceVersion": object.resource_version(),
                "labels": { ANSWERED_LABEL: "true" },
            } }));
            match self.api().patch(&object.name_any(), &PatchParams::apply(FIELD_MANAGER), &patch).await {
                Ok(_) => break,
                Err(kube::Error::Api(status)) if status.code == 409 => object = self.api().get(&object.name_any()).await?,
                Err(error) => return Err(error.into()),
            }
        }
        if is_published(&object) { Ok(None) } else { self.credentials(&object).await.map(Some) }
    }

    async fn credentials(&self, object: &AppBucket) -> Result<Credentials, Error> {
        let incomplete = || Error::Unavailable("the bucket's Secret is incomplete; delete it to have it made again".to_owned());
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.settings.namespace);
        let secret = secrets.get(&object.secret_name()).await?;
        if !object.controls(&secret.metadata) {
            return Err(incomplete());
        }
        let data = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
        let bucket = Bucket::of(object).ok_or_else(incomplete)?;
        Ok(Credentials {
            endpoint: bucket.endpoint_url,
            bucket: bucket.bucket_name,
            access_key: bucket.access_key,
            secret_key: secret_key_in(&data).ok_or_else(incomplete)?,
            region: bucket.region,
        })
    }
}

fn id_of(object: &AppBucket) -> String {
    bucket_id(object.metadata.uid.as_deref().unwrap_or_default())
}

fn age(object: &AppBucket) -> (Option<Timestamp>, String) {
    (object.metadata.creation_timestamp.as_ref().map(|time| time.0), object.uid().unwrap_or_default())
}

/// The controller has looked at this generation, and either can't go on or knows about bucket and environment.
fn is_done(object: &AppBucket) -> bool {
    let Some(status) = object.status.as_ref().filter(|status| status.observed_generation == object.metadata.generation) else {
        return false;
    };
    let env = status.condition(condition::ENV_PUBLISHED).map(|told| told.reason.as_str());
    status.is_true(condition::STALLED)
        || (status.is_true(condition::READY)
            && env.is_some_and(|env| !matches!(env, reason::PUBLISHING | reason::NOT_PROVISIONED)))
}

fn same_request(found: AppBucket, wanted: &AppBucket) -> Result<AppBucket, Error> {
    if found.annotation(REQUEST_BODY_ANNOTATION) == wanted.annotation(REQUEST_BODY_ANNOTATION) {
        return Ok(found);
    }
    Err(Error::Invalid("Idempotency-Key: another request was made with this key; use a new key for a new request".to_owned()))
}

/// What goes into a query to the API server must be checked before. The rest it checks itself, with the rules of the CRD.
fn check(request: &AddBucket) -> Result<(), Error> {
    check_app_id(&request.app_id)?;
    if request.name.as_deref().is_none_or(is_label) {
        return Ok(());
    }
    Err(Error::Invalid(
        "name must be 1 to 63 lowercase letters, digits and -, with a letter or a digit at both ends".to_owned(),
    ))
}

fn check_app_id(app_id: &str) -> Result<(), Error> {
    let inner = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if app_id.len() <= 63 && app_id.starts_with(|c: char| c.is_ascii_alphanumeric()) && app_id.chars().all(inner) {
        return Ok(());
    }
    Err(Error::Invalid("app_id must be 1 to 63 characters of A-Z a-z 0-9 . _ - and start with a letter or a digit".to_owned()))
}
