//! Why a pass did not reach its end.

use std::time::Duration;

use crate::{crd::reason, metrics::Outcome, provider};

/// Why a pass did not reach its end. The reason is one of [`reason`]; the message is for a person, and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Nothing goes on until something changes. Looked at again now and then, as not every change can be watched.
    Refused {
        /// One of [`reason`].
        reason: &'static str,
        /// What is wrong, and what to do.
        message: String,
    },
    /// It will be tried again soon.
    Retry {
        /// One of [`reason`].
        reason: &'static str,
        /// What is wrong.
        message: String,
        /// When, if somebody asked for a time.
        after: Option<Duration>,
    },
}

impl Stop {
    /// Nothing goes on until something changes.
    pub fn refused(reason: &'static str, message: impl Into<String>) -> Self {
        Self::Refused { reason, message: message.into() }
    }

    /// It will be tried again soon.
    pub fn retry(reason: &'static str, message: impl Into<String>) -> Self {
        Self::Retry { reason, message: message.into(), after: None }
    }
}

impl From<Stop> for Outcome {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Refused { .. } => Self::Stalled,
            Stop::Retry { .. } => Self::Retrying,
        }
    }
}

impl From<provider::Error> for Stop {
    fn from(error: provider::Error) -> Self {
        match error {
            provider::Error::NotOwned(message) => Self::refused(reason::BUCKET_NOT_OWNED, message),
            provider::Error::Denied(message) => Self::refused(
                reason::BACKEND_DENIED,
                format!("{message}; check the operator's MinIO credentials and what they may do"),
            ),
            provider::Error::Invalid(message) => Self::refused(reason::BACKEND_INVALID, message),
            provider::Error::NotFound(message) | provider::Error::Conflict(message) | provider::Error::Unavailable(message) => {
                Self::retry(reason::BACKEND_UNAVAILABLE, message)
            }
        }
    }
}
