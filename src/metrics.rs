//! What the controller counts, for Prometheus. Labels are closed sets: their number does not grow with that of the objects.

use std::{fmt, time::Instant};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// From 5 ms to some 80 s.
const BUCKETS: [f64; 8] = [0.005, 0.02, 0.08, 0.32, 1.28, 5.12, 20.48, 81.92];

/// How a pass over an object ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// All is as it should be.
    Ready,
    /// Nothing goes on until something changes.
    Stalled,
    /// It will be tried again soon.
    Retrying,
    /// The object is gone.
    Deleted,
    /// The API server failed, or somebody wrote in between.
    Failed,
}

/// What was asked of the provider or the producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs, reason = "named as the methods are")]
pub enum Operation {
    Observe,
    PutPolicy,
    CreateBucket,
    MarkBucket,
    PutUser,
    Verify,
    DeleteBucket,
    DeleteUser,
    DeletePolicy,
    Publish,
    Withdraw,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Answer {
    /// It was done.
    Done,
    /// It was refused, or can't be done.
    Refused,
    /// The other side can't be reached, or can't answer now.
    Unavailable,
}

/// An error that is one of two kinds.
pub trait Classed {
    /// Whether it may go away by itself.
    fn is_transient(&self) -> bool;
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pass {
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    operation: Operation,
    answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: &'static str,
}

/// All that is counted.
pub struct Metrics {
    registry: Registry,
    passes: Family<Pass, Counter>,
    pass_seconds: Histogram,
    under_way: Gauge,
    backend_calls: Family<Call, Counter>,
    backend_seconds: Histogram,
    producer_calls: Family<Call, Counter>,
    buckets: Family<Status, Gauge>,
    leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("appbucket"),
            passes: Family::default(),
            pass_seconds: Histogram::new(BUCKETS),
            under_way: Gauge::default(),
            backend_calls: Family::default(),
            backend_seconds: Histogram::new(BUCKETS),
            producer_calls: Family::default(),
            buckets: Family::default(),
            leader: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("reconciles", "Passes over an AppBucket, by how they ended", metrics.passes.clone());
        registry.register("reconcile_duration_seconds", "How long a pass took", metrics.pass_seconds.clone());
        registry.register("reconciles_under_way", "Passes that are under way", metrics.under_way.clone());
        registry.register("backend_calls", "Calls to the provider, by operation and answer", metrics.backend_calls.clone());
        registry.register(
            "backend_call_duration_seconds",
            "How long a call to the provider took",
            metrics.backend_seconds.clone(),
        );
        registry.register(
            "producer_calls",
            "Calls to the producer API, by operation and answer",
            metrics.producer_calls.clone(),
        );
        registry.register("buckets", "AppBuckets by status; pending has no bucket yet", metrics.buckets.clone());
        registry.register("leader", "1 where this process leads", metrics.leader.clone());
        metrics
    }
}

impl Metrics {
    /// Counts a pass over an object while it goes on and when it ends.
    ///
    /// # Errors
    /// Those of the pass.
    pub async fn pass<T, E>(&self, work: impl Future<Output = Result<(T, Outcome), E>>) -> Result<T, E> {
        self.under_way.inc();
        // Also where the pass is cut off.
        let under_way = Guard(&self.under_way);
        let begun = Instant::now();
        let result = work.await;
        self.pass_seconds.observe(begun.elapsed().as_secs_f64());
        drop(under_way);
        let outcome = result.as_ref().map_or(Outcome::Failed, |(_, outcome)| *outcome);
        self.passes.get_or_create(&Pass { outcome }).inc();
        result.map(|(value, _)| value)
    }

    /// Counts a call to the provider.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn backend<T, E: Classed>(&self, operation: Operation, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let begun = Instant::now();
        let result = call.await;
        self.backend_seconds.observe(begun.elapsed().as_secs_f64());
        self.backend_calls.get_or_create(&Call { operation, answer: answer(&result) }).inc();
        result
    }

    /// Counts a call to the producer API.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn producer<T, E: Classed>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let result = call.await;
        self.producer_calls.get_or_create(&Call { operation, answer: answer(&result) }).inc();
        result
    }

    /// All of it in the text format of OpenMetrics, with what is true at this moment.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn encode(&self, buckets: &[(&'static str, usize)], leads: bool) -> Result<String, fmt::Error> {
        for (status, count) in buckets {
            self.buckets.get_or_create(&Status { status }).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        self.leader.set(leads.into());
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

struct Guard<'a>(&'a Gauge);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn answer<T, E: Classed>(result: &Result<T, E>) -> Answer {
    match result {
        Ok(_) => Answer::Done,
        Err(error) if error.is_transient() => Answer::Unavailable,
        Err(_) => Answer::Refused,
    }
}
