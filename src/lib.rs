//! The operator that gives every app an S3 bucket.
//!
//! An [`AppBucket`](crd::AppBucket) is the only source of truth. The [`controller`] watches them and goes through one cycle for
//! each: observe what is there (IO), plan what is missing (pure), act (IO, one idempotent step after the other), and tell the
//! result in the status (pure, then one patch if it differs). Buckets come from a [`provider`], which knows nothing of
//! Kubernetes; credentials go into a Secret and, through the [`producer`] API, into the app's environment.
//!
//! The front doors, [`rest`] and [`mcp`], are thin adapters of one [`service`], which only creates and reads `AppBuckets`.
//!
//! [`cli`] is the one place where settings become objects.

pub mod apps;
pub mod cli;
pub mod controller;
pub mod crd;
pub mod credentials;
pub mod identity;
pub mod leader;
pub mod mcp;
pub mod metrics;
pub mod producer;
pub mod provider;
pub mod rest;
pub mod service;

#[cfg(test)]
mod fixtures;

/// An error with all its causes on one line: the causes are where the reason stands.
pub(crate) fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
