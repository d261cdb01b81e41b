//! Leader election by a Lease, as client-go does it (k8s.io/client-go, `tools/leaderelection`).
//!
//! # Guarantees
//! - Nobody's clock is compared with another's: a candidate waits until a Lease has not changed for its whole duration, by the
//!   candidate's own monotonic clock.
//! - A leader that could not renew for `renew_deadline`, which is shorter than that, is none any more. [`Leadership::holds`] asks
//!   the monotonic clock at each call: a leader that was paused finds out before its next step.
//!
//! A request that was already sent when the leader was paused may still arrive. Steps are idempotent, and those to the API server name the
//! version that they were planned for.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use tokio::sync::watch;

/// How the leader is elected.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// Who this candidate is; no two may be called alike.
    pub identity: String,
    /// How long a Lease that is not renewed is respected by others.
    pub lease_duration: Duration,
    /// How long a leader that can't renew goes on.
    pub renew_deadline: Duration,
    /// How often a leader renews, and a candidate looks.
    pub retry_period: Duration,
}

/// Whether this process leads. Without an election, it always does.
pub struct Leadership {
    /// Until when it leads, unless it renews.
    until: Mutex<Option<Instant>>,
    leads: watch::Sender<bool>,
    elected: bool,
}

/// What a candidate saw of the Lease, and when it last changed.
struct Observed {
    version: Option<String>,
    since: Instant,
}

impl Leadership {
    /// For a process that leads without being elected.
    #[must_use]
    pub fn always() -> Self {
        Self { until: Mutex::new(None), leads: watch::Sender::new(true), elected: false }
    }

    /// For a candidate; [`campaign`](Self::campaign) decides.
    #[must_use]
    pub fn candidate() -> Self {
        Self { until: Mutex::new(None), leads: watch::Sender::new(false), elected: true }
    }

    /// Whether this process leads at this very moment.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.elected || self.until().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until this process leads.
    pub async fn acquired(&self) {
        tracing::debug!("standing by: another process leads");
        // The sender lives as long as self.
        let _ = self.leads.subscribe().wait_for(|leads| *leads).await;
    }

    /// Acquires the Lease, and renews it until that fails for too long: then this process must end.
    pub async fn campaign(&self, client: &Client, settings: &Settings) {
        let api: Api<Lease> = Api::namespaced(client.clone(), &settings.namespace);
        let mut observed = Observed { version: None, since: Instant::now() };
        loop {
            let asked = Instant::now();
            let attempt = tokio::time::timeout(settings.renew_deadline, acquire_or_renew(&api, settings, &mut observed)).await;
            let taken = matches!(attempt, Ok(Ok(Outcome::Theirs)));
            match attempt {
                Ok(Ok(Outcome::Ours)) => {
                    // From before the request: others count from when it arrived.
                    *self.lock() = Some(asked + settings.renew_deadline);
                    if !self.leads.send_replace(true) {
                        tracing::info!(identity = settings.identity, "leading");
                    }
                }
                // Looked at again in a moment.
                Ok(Ok(Outcome::Theirs | Outcome::Changed)) => {}
                Ok(Err(error)) => tracing::warn!("leader election: {}", crate::error_chain(&error)),
                Err(_) => tracing::warn!("leader election: the API server does not answer"),
            }
            let has_led = *self.leads.borrow();
            if has_led && (taken || !self.holds()) {
                *self.lock() = None;
                tracing::error!("the lease could not be renewed in time; another may lead now");
                return;
            }
            let next = asked + settings.retry_period;
            // A leader looks again before its time is over, whatever the period.
            let latest = self.until().map_or(next, |until| next.min(until));
            tokio::time::sleep_until(latest.into()).await;
        }
    }

    /// Gives the Lease up, if this process holds it: another may lead at once.
    pub async fn release(&self, client: &Client, settings: &Settings) {
        if !self.elected || !self.holds() {
            return;
        }
        *self.lock() = None;
        let api: Api<Lease> = Api::namespaced(client.clone(), &settings.namespace);
        let released = async {
            let mut lease = api.get(&settings.name).await?;
            if lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()) == Some(&settings.identity) {
                lease.spec.get_or_insert_default().holder_identity = None;
                api.replace(&settings.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        if let Err(error) = released.await {
            tracing::warn!("the lease could not be released: {}", crate::error_chain(&error));
        }
    }

    fn until(&self) -> Option<Instant> {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of one attempt.
enum Outcome {
    Ours,
    Theirs,
    /// Somebody else wrote at the same moment.
    Changed,
}

async fn acquire_or_renew(api: &Api<Lease>, settings: &Settings, observed: &mut Observed) -> kube::Result<Outcome> {
    let Some(lease) = api.get_opt(&settings.name).await? else {
        let metadata = ObjectMeta { name: Some(settings.name.clone()), ..Default::default() };
        let lease = Lease { metadata, spec: Some(claim(settings, None)) };
        return written(api.create(&PostParams::default(), &lease).await);
    };
    if observed.version != lease.resource_version() {
        *observed = Observed { version: lease.resource_version(), since: Instant::now() };
    }
    let spec = lease.spec.clone().unwrap_or_default();
    let holder = spec.holder_identity.clone().unwrap_or_default();
    // What the holder promised counts, not what this candidate would.
    let promised = spec
        .lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or(settings.lease_duration, Duration::from_secs);
    if !holder.is_empty() && holder != settings.identity && observed.since.elapsed() < promised {
        return Ok(Outcome::Theirs);
    }
    let mut ours = lease;
    ours.spec = Some(claim(settings, Some(&spec)));
    // It names the version that was looked at: of several candidates one wins.
    written(api.replace(&settings.name, &PostParams::default(), &ours).await)
}

fn claim(settings: &Settings, before: Option<&LeaseSpec>) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    let renewed = before.filter(|spec| spec.holder_identity.as_ref() == Some(&settings.identity));
    let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(settings.identity.clone()),
        lease_duration_seconds: Some(i32::try_from(settings.lease_duration.as_secs().max(1)).unwrap_or(i32::MAX)),
        acquire_time: renewed.and_then(|spec| spec.acquire_time.clone()).or_else(|| Some(now.clone())),
        renew_time: Some(now),
        lease_transitions: Some(if renewed.is_some() || before.is_none() { transitions } else { transitions + 1 }),
        ..Default::default()
    }
}

fn written(answer: kube::Result<Lease>) -> kube::Result<Outcome> {
    match answer {
        Ok(_) => Ok(Outcome::Ours),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Outcome::Changed),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_elected_leads_always_and_a_candidate_only_for_its_time() {
        assert!(Leadership::always().holds());
        let candidate = Leadership::candidate();
        assert!(!candidate.holds());
        *candidate.lock() = Some(Instant::now() + Duration::from_mins(1));
        assert!(candidate.holds());
        *candidate.lock() = Some(Instant::now());
        assert!(!candidate.holds(), "the clock decides, not a timer");
    }

    #[test]
    fn a_claim_keeps_the_time_of_acquisition_and_counts_transitions() {
        let settings = |identity: &str| Settings {
            namespace: "n".to_owned(),
            name: "l".to_owned(),
            identity: identity.to_owned(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        };
        let first = claim(&settings("a"), None);
        let renewed = claim(&settings("a"), Some(&first));
        assert_eq!((renewed.acquire_time, renewed.lease_transitions), (first.acquire_time.clone(), Some(0)));
        let taken = claim(&settings("b"), Some(&first));
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(1)));
    }
}
