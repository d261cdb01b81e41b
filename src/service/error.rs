//! Why a request was not served.

use crate::crd::reason;

/// Why a request was not served. Every message is for whoever asked: it holds no secret, and nothing of others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// There is no such thing, or it is somebody else's.
    #[error("{0}")]
    NotFound(String),
    /// The principal may not do that.
    #[error("{0}")]
    Forbidden(String),
    /// Something stands in the way.
    #[error("{0}")]
    Conflict(String),
    /// It can't be served now.
    #[error("{0}")]
    Unavailable(String),
}

impl Error {
    /// What the controller refuses.
    pub(super) fn stalled(reason: &str, message: &str) -> Self {
        match reason {
            reason::APP_OWNED_BY_ANOTHER_NAMESPACE | reason::APP_OWNED_BY_ANOTHER_PRINCIPAL => {
                Self::NotFound("there is no such app".to_owned())
            }
            reason::APP_ID_NOT_ALLOWED => Self::Forbidden(message.to_owned()),
            reason::BACKEND_DENIED | reason::DEMOTION_REFUSED => {
                Self::Unavailable(format!("the operator's configuration needs an administrator ({reason})"))
            }
            reason::BACKEND_INVALID => Self::Invalid(message.to_owned()),
            _ => Self::Conflict(format!("{reason}: {message}")),
        }
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                400 | 422 => {
                    let causes = status.details.iter().flat_map(|details| &details.causes);
                    let causes: Vec<_> = causes.map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
                    Self::Invalid(if causes.is_empty() { status.message.clone() } else { causes.join("; ") })
                }
                403 => Self::Forbidden(status.message.clone()),
                404 => Self::NotFound("there is no such bucket".to_owned()),
                409 => Self::Conflict("it was changed at the same time; try again".to_owned()),
                _ => {
                    tracing::warn!(code = status.code, "the API server: {}", status.message);
                    Self::Unavailable("the API server can't serve this now".to_owned())
                }
            },
            error => {
                tracing::warn!("the API server: {}", crate::error_chain(&error));
                Self::Unavailable("the API server can't be reached".to_owned())
            }
        }
    }
}
