//! How long to wait before the next attempt, per object: kube's `error_policy` is told no attempt count.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use kube::ResourceExt;

use crate::crd::AppBucket;

const FIRST: Duration = Duration::from_millis(250);

/// Exponential, with jitter, up to a bound.
pub struct Backoff {
    builder: ExponentialBuilder,
    /// By UID.
    running: Mutex<HashMap<String, ExponentialBackoff>>,
    max: Duration,
}

impl Backoff {
    /// A backoff that never waits longer than twice `max` (the jitter adds up to one more).
    #[must_use]
    pub fn new(max: Duration) -> Self {
        let builder = ExponentialBuilder::default().with_min_delay(FIRST).with_max_delay(max).with_jitter().without_max_times();
        Self { builder, running: Mutex::default(), max }
    }

    /// The wait before the next attempt.
    #[must_use]
    pub fn next(&self, object: &AppBucket) -> Duration {
        let mut running = self.running();
        let backoff = running.entry(object.uid().unwrap_or_default()).or_insert_with(|| self.builder.build());
        backoff.next().unwrap_or(self.max)
    }

    /// It went well, or the object is gone.
    pub fn reset(&self, object: &AppBucket) {
        self.running().remove(&object.uid().unwrap_or_default());
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, ExponentialBackoff>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::app_bucket;

    #[test]
    fn waits_grow_to_their_bound_for_one_object_and_begin_anew_after_success() {
        let (backoff, object) = (Backoff::new(Duration::from_secs(8)), app_bucket("demo"));
        let waits: Vec<_> = (0..20).map(|_| backoff.next(&object)).collect();
        assert!(waits[0] >= FIRST && waits[0] <= 2 * FIRST, "{waits:?}");
        assert!(waits[19] >= Duration::from_secs(8) && waits[19] <= Duration::from_secs(16), "{waits:?}");
        assert!(backoff.next(&app_bucket("other")) <= 2 * FIRST);
        backoff.reset(&object);
        assert!(backoff.next(&object) <= 2 * FIRST);
    }
}
