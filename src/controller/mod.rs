//! The controller: what is watched, and what runs when it changes. [`reconcile`](reconcile::reconcile) tells the rest.

mod act;
mod backoff;
mod environment;
mod event;
pub mod health;
mod observe;
mod plan;
mod reconcile;
mod status;
mod stop;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, channel::mpsc, future::join_all};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Resource,
    core::PartialObjectMeta,
    runtime::{
        Controller, Predicate, PredicateConfig, WatchStreamExt,
        controller::{Action, Config, Error as ControllerError},
        events::{Event, EventType, Recorder, Reporter},
        predicates,
        reflector::{self, ObjectRef},
        watcher,
    },
};
use tokio_util::sync::CancellationToken;

use self::{backoff::Backoff, environment::Locks, observe::MANAGED_BY_LABEL};
use crate::{
    apps::{Apps, Scope},
    crd::AppBucket,
    leader::Leadership,
    metrics::Metrics,
    producer::Producer,
    provider::{Metered, Provider},
};

/// The operator's name as a writer of fields, reporter of Events and manager of Secrets.
pub const FIELD_MANAGER: &str = "appbucket-operator";

/// How the controller works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespaces that are watched; all of them if there are none.
    pub watch_namespaces: Vec<String>,
    /// Whether a namespace may use only the app ids in its annotation.
    pub strict_app_ids: bool,
    /// How often a converged object is looked at, more or less.
    pub resync: Duration,
    /// How often an object is looked at that waits for a change which can't be watched.
    pub stalled_recheck: Duration,
    /// The longest wait between two attempts, without jitter.
    pub max_backoff: Duration,
    /// How many objects are worked on at the same time, for each watched namespace, or for all if all are watched.
    pub concurrency: u16,
}

/// What every pass needs.
pub struct Context {
    client: Client,
    provider: Arc<dyn Provider>,
    producer: Option<Producer>,
    cluster_id: String,
    settings: Settings,
    apps: Apps,
    locks: Locks,
    backoff: Backoff,
    recorder: Recorder,
    leadership: Arc<Leadership>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
}

/// Why a pass failed; it is tried again. None of these holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or could not be reached.
    #[error("the API server: {}", kube_error_text(.0))]
    Kube(#[from] kube::Error),
    /// The pass was cut off.
    #[error("the pass took longer than {0:?}")]
    Timeout(Duration),
    /// Another process leads now.
    #[error("this process does not lead any more")]
    NotLeading,
    /// There is no randomness to draw a key from.
    #[error("the operating system's random source: {0}")]
    Random(#[from] rand::rngs::SysError),
}

impl Context {
    /// Puts together what every pass needs. `cluster_id` marks what this cluster owns at the provider.
    #[must_use]
    pub fn new(
        client: Client,
        provider: Arc<dyn Provider>,
        producer: Option<Producer>,
        cluster_id: String,
        settings: Settings,
        leadership: Arc<Leadership>,
        shutdown: CancellationToken,
    ) -> Self {
        let metrics = Arc::<Metrics>::default();
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: None };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            apps: Apps::new(settings.watch_namespaces.len().max(1)),
            locks: Locks::default(),
            backoff: Backoff::new(settings.max_backoff),
            client,
            provider: Arc::new(Metered::new(provider, Arc::clone(&metrics))),
            producer,
            cluster_id,
            settings,
            leadership,
            metrics,
            shutdown,
        }
    }

    /// Logs an Event and publishes it. That it can't be published (the namespace may be going) stops nothing.
    async fn announce(&self, object: &AppBucket, event: &Event) {
        let note = event.note.as_deref().unwrap_or_default();
        match event.type_ {
            EventType::Normal => tracing::info!(reason = event.reason, "{note}"),
            EventType::Warning => tracing::warn!(reason = event.reason, "{note}"),
        }
        if let Err(error) = self.recorder.publish(event, &object.object_ref(&())).await {
            tracing::debug!(reason = event.reason, %error, "the Event could not be published");
        }
    }
}

/// Runs until shutdown, and lets the passes that are under way then come to their end.
pub async fn run(ctx: Arc<Context>) {
    let namespaces = &ctx.settings.watch_namespaces;
    let scopes: Vec<Scope> = if namespaces.is_empty() { vec![None] } else { namespaces.iter().cloned().map(Some).collect() };
    let (wakers, receivers): (HashMap<_, _>, Vec<_>) = scopes
        .into_iter()
        .map(|scope| {
            let (waker, receiver) = mpsc::unbounded();
            ((scope.clone(), waker), (scope, receiver))
        })
        .unzip();
    let wakers = Arc::new(Wakers(wakers));
    join_all(receivers.into_iter().map(|(scope, wake)| watch(&ctx, &wakers, scope, wake))).await;
}

/// By watch, where to send the objects that are to be looked at because another one changed.
struct Wakers(HashMap<Scope, mpsc::UnboundedSender<ObjectRef<AppBucket>>>);

impl Wakers {
    fn wake(&self, namespace: String, name: &str) {
        let object = ObjectRef::new(name).within(&namespace);
        if let Some(waker) = self.0.get(&None).or_else(|| self.0.get(&Some(namespace))) {
            // It fails only where the controller has ended.
            let _ = waker.unbounded_send(object);
        }
    }
}

/// One controller for one watched namespace, or for all.
fn watch(
    ctx: &Arc<Context>,
    wakers: &Arc<Wakers>,
    scope: Scope,
    wake: mpsc::UnboundedReceiver<ObjectRef<AppBucket>>,
) -> impl Future<Output = ()> {
    let client = ctx.client.clone();
    let (app_buckets, secrets): (Api<AppBucket>, Api<PartialObjectMeta<Secret>>) = match &scope {
        Some(namespace) => (Api::namespaced(client.clone(), namespace), Api::namespaced(client, namespace)),
        None => (Api::all(client.clone()), Api::all(client)),
    };
    let (label, value) = MANAGED_BY_LABEL;
    let our_secrets =
        watcher(secrets, watcher::Config::default().labels(&format!("{label}={value}"))).default_backoff().touched_objects();

    let (reader, writer) = reflector::store();
    let (index, wakers) = (Arc::clone(ctx), Arc::clone(wakers));
    let objects = watcher(app_buckets, watcher::Config::default())
        .default_backoff()
        .inspect(move |event| {
            let Ok(event) = event else { return };
            for (namespace, name) in index.apps.observe(&scope, event) {
                wakers.wake(namespace, &name);
            }
        })
        .reflect(writer)
        .touched_objects()
        // Not the status, which the operator writes itself; the finalizer, because it alone changes with the first write.
        .predicate_filter(
            predicates::generation.combine(predicates::annotations).combine(predicates::finalizers),
            PredicateConfig::default(),
        );

    Controller::for_stream(objects, reader)
        .owns_stream(our_secrets)
        .reconcile_on(wake)
        .with_config(Config::default().concurrency(ctx.settings.concurrency))
        .graceful_shutdown_on(ctx.shutdown.clone().cancelled_owned())
        .run(reconcile::reconcile, on_error, Arc::clone(ctx))
        .for_each(|result| async move {
            match result {
                // Logged where it happened, or of no consequence: an object that is already gone.
                Ok(_) | Err(ControllerError::ReconcilerFailed(..) | ControllerError::ObjectNotFound(_)) => {}
                Err(error) => tracing::warn!("watching: {}", crate::error_chain(&error)),
            }
        })
}

/// A refusal in the API server's own words.
fn kube_error_text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}: {}", status.code, status.reason, status.message),
        other => crate::error_chain(other),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn on_error(object: Arc<AppBucket>, error: &Error, ctx: Arc<Context>) -> Action {
    let wait = ctx.backoff.next(&object);
    match error {
        // Somebody wrote in between: the watch brings the new version.
        Error::Kube(kube::Error::Api(status)) if status.code == 409 => tracing::debug!("changed in between"),
        _ => tracing::warn!(retry_in = ?wait, "{error}"),
    }
    Action::requeue(wait)
}
