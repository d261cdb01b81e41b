//! The secrets producer API: how credentials get into an app's environment. The operator is its client.

use std::{path::PathBuf, time::Duration};

use reqwest::{Method, StatusCode, header::RETRY_AFTER};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use url::Url;

use crate::{
    credentials::{Credentials, KEYS},
    metrics::Classed,
};

/// The environment variable of the token; part of the message that tells that it is missing, which the seed prescribes.
pub const TOKEN_VARIABLE: &str = "OPENFACTORY_STORAGE_PRODUCER_TOKEN";
/// How much of an answer is read and quoted; producers explain themselves in a sentence.
const ANSWER_MAX: usize = 4096;
const QUOTE_MAX: usize = 200;
/// The longest wait that a Retry-After is followed for.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(15);

/// Where the producer API is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The base URL.
    pub base: Url,
    /// The path below it, with `{app_id}` and `{producer}`.
    pub path: String,
    /// The name that the operator publishes under.
    pub name: String,
    /// Where the bearer token comes from.
    pub token: TokenSource,
    /// The limit of one request.
    pub timeout: Duration,
}

/// Where the bearer token comes from.
#[derive(Clone, Debug)]
pub enum TokenSource {
    /// There is none.
    Missing,
    /// It is this one.
    Value(SecretString),
    /// A file, read at each publication, so that a rotated token is taken up.
    File(PathBuf),
}

/// The client of the producer API.
pub struct Producer {
    http: reqwest::Client,
    settings: Settings,
}

/// One bucket's values for an app's environment.
pub struct Publication<'a> {
    /// The app.
    pub app_id: &'a str,
    /// The five values.
    pub credentials: &'a Credentials,
    /// The bucket that they belong to.
    pub bucket_id: &'a str,
    /// All buckets of the app, oldest first.
    pub bucket_refs: &'a [String],
}

/// Why the environment was not changed. Messages hold neither token nor secret key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No token is configured. The text is the seed's.
    #[error(
        "{TOKEN_VARIABLE} is not configured; call set_app_env(app_id, set=<env_payload from this response>) to inject manually."
    )]
    TokenMissing,
    /// The producer refuses, and will go on to until something changes.
    #[error("{0}")]
    Refused(String),
    /// The producer can't be reached or can't answer now.
    #[error("{message}")]
    Unavailable {
        /// What happened.
        message: String,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
}

impl Classed for Error {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

impl Producer {
    /// A client for that producer API. Nothing is sent yet.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let http = reqwest::Client::builder()
            .timeout(settings.timeout)
            // A redirect would carry the values to a place that nobody configured.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| crate::error_chain(&error))?;
        Ok(Self { http, settings })
    }

    /// What identifies this producer in a digest of what was published where.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{} {} {}", self.settings.base, self.settings.path, self.settings.name)
    }

    /// Puts the values into the app's environment, in place of those published before.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn publish(&self, publication: &Publication<'_>) -> Result<(), Error> {
        let Publication { app_id, credentials, bucket_id, bucket_refs } = publication;
        let values: serde_json::Map<_, _> =
            credentials.entries().into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
        let body = json!({ "values": values, "bucket_id": bucket_id, "bucket_refs": bucket_refs });
        self.call(Method::PUT, app_id, Some(&body), credentials.secret_key.expose()).await
    }

    /// Takes the values out of the app's environment. That there are none is no error.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn withdraw(&self, app_id: &str) -> Result<(), Error> {
        self.call(Method::DELETE, app_id, None, "").await
    }

    async fn call(&self, method: Method, app_id: &str, body: Option<&serde_json::Value>, secret: &str) -> Result<(), Error> {
        let token = self.token().await?;
        let mut request = self.http.request(method.clone(), self.url(app_id)).bearer_auth(token.expose_secret());
        if let Some(body) = body {
            request = request.json(body);
        }
        let unavailable = |error: reqwest::Error| Error::Unavailable {
            message: format!("the producer API can't be reached: {}", crate::error_chain(&error.without_url())),
            retry_after: None,
        };
        let mut response = request.send().await.map_err(unavailable)?;
        let status = response.status();
        if status.is_success() || (method == Method::DELETE && status == StatusCode::NOT_FOUND) {
            return Ok(());
        }
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
        let mut answer = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            answer.extend_from_slice(&chunk[..chunk.len().min(ANSWER_MAX - answer.len())]);
            if answer.len() == ANSWER_MAX {
                break;
            }
        }
        let message = format!("the producer API answered {status}{}", quote(&answer, &[token.expose_secret(), secret]));
        Err(match status.as_u16() {
            408 | 429 | 500.. => Error::Unavailable { message, retry_after },
            _ => Error::Refused(message),
        })
    }

    async fn token(&self) -> Result<SecretString, Error> {
        match &self.settings.token {
            TokenSource::Missing => Err(Error::TokenMissing),
            TokenSource::Value(token) => Ok(token.clone()),
            TokenSource::File(path) => match tokio::fs::read_to_string(path).await {
                Ok(token) if token.trim().is_empty() => Err(Error::TokenMissing),
                Ok(token) => Ok(token.trim().into()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::TokenMissing),
                Err(error) => {
                    Err(Error::Unavailable { message: format!("the producer token can't be read: {error}"), retry_after: None })
                }
            },
        }
    }

    /// The settings are checked at the start, and app ids by the CRD: neither needs escaping in a path.
    fn url(&self, app_id: &str) -> Url {
        let Settings { base, path, name, .. } = &self.settings;
        let mut url = base.clone();
        let below = path.replace("{app_id}", app_id).replace("{producer}", name);
        url.set_path(&format!("{}/{}", base.path().trim_end_matches('/'), below.trim_start_matches('/')));
        url
    }
}

/// Seconds or an HTTP date (RFC 9110, section 10.2.3).
fn retry_after(value: &str) -> Option<Duration> {
    let wait = match value.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(std::time::SystemTime::now()).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The beginning of an answer, on one line, with every occurrence of a secret masked: a producer may well repeat what it was
/// sent. Masked before it is cut, so that no half of a secret is left at the end.
fn quote(answer: &[u8], secrets: &[&str]) -> String {
    let mut text = String::from_utf8_lossy(answer).into_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "***");
        // The end of the part that was read may hold the beginning of one.
        if answer.len() >= ANSWER_MAX {
            let cut = (1..secret.len()).rev().find(|len| secret.is_char_boundary(*len) && text.ends_with(&secret[..*len]));
            text.truncate(text.len() - cut.unwrap_or(0));
        }
    }
    let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(QUOTE_MAX).collect();
    if printable.trim().is_empty() { String::new() } else { format!(": {}", printable.trim()) }
}

/// The keys of a publication, as `status.env.keys` tells them.
#[must_use]
pub fn keys() -> Vec<String> {
    KEYS.map(ToOwned::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_takes_seconds_and_dates_and_has_a_bound() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("999999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(retry_after("soon"), None);
    }

    #[test]
    fn an_answer_is_quoted_on_one_line_without_secrets() {
        assert_eq!(quote(b"bad\nvalue s3cr3t-key of t0ken", &["t0ken", "s3cr3t-key"]), ": bad value *** of ***");
        assert_eq!(quote(b" \n", &[]), "");
        assert_eq!(quote(&[0xff, b'x'], &[]), ": \u{fffd}x");
        let long = [vec![b'x'; ANSWER_MAX - 5], b"s3cr3".to_vec()].concat();
        assert!(!quote(&long, &["s3cr3t-key"]).contains("s3"));
    }
}
