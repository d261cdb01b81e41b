//! The calls of `MinIO`'s admin API that the operator needs (minio/cmd `admin-handlers-users.go`). None of them lists.

use std::time::SystemTime;

use aws_sdk_s3::config::Credentials;
use aws_sigv4::{
    http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::seal::{self, Algorithm};
use crate::{credentials::SecretKey, provider::Error};

/// Answers are policies and user records of a few hundred bytes; what is longer is not one.
const ANSWER_MAX: usize = 256 * 1024;

pub(super) struct Admin {
    pub http: reqwest::Client,
    pub endpoint: Url,
    pub region: String,
    pub credentials: Credentials,
    pub algorithm: Algorithm,
}

/// A user, as `user-info` tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub(super) struct UserInfo {
    pub policy_name: String,
    pub status: String,
    pub member_of: Vec<String>,
}

impl Admin {
    pub async fn policy(&self, name: &str) -> Result<Option<Value>, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct PolicyInfo {
            policy: Value,
        }
        let answer = self.call(Method::GET, "info-canned-policy", &[("name", name), ("v", "2")], vec![]).await;
        Ok(found(answer)?.map(|body| parse::<PolicyInfo>(&body)).transpose()?.map(|info| info.policy))
    }

    pub async fn put_policy(&self, name: &str, document: &Value) -> Result<(), Error> {
        self.call(Method::PUT, "add-canned-policy", &[("name", name)], document.to_string().into_bytes()).await?;
        Ok(())
    }

    pub async fn delete_policy(&self, name: &str) -> Result<(), Error> {
        found(self.call(Method::DELETE, "remove-canned-policy", &[("name", name)], vec![]).await)?;
        Ok(())
    }

    pub async fn user(&self, access_key: &str) -> Result<Option<UserInfo>, Error> {
        let answer = self.call(Method::GET, "user-info", &[("accessKey", access_key)], vec![]).await;
        found(answer)?.map(|body| parse(&body)).transpose()
    }

    pub async fn put_user(&self, access_key: &str, key: &SecretKey) -> Result<(), Error> {
        let body = json!({ "secretKey": key.expose(), "status": "enabled" }).to_string();
        let (algorithm, password) = (self.algorithm, self.credentials.secret_access_key().to_owned());
        // Milliseconds of key derivation, and 64 MiB with Argon2: not on a thread that serves others.
        let sealed = tokio::task::spawn_blocking(move || seal::seal(algorithm, &password, body.as_bytes()))
            .await
            .map_err(|_| Error::Unavailable("the operator is stopping".to_owned()))?
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        self.call(Method::PUT, "add-user", &[("accessKey", access_key)], sealed).await?;
        Ok(())
    }

    /// Attaches this policy and detaches every other.
    pub async fn set_user_policy(&self, access_key: &str, policy: &str) -> Result<(), Error> {
        let query = [("policyName", policy), ("userOrGroup", access_key), ("isGroup", "false")];
        self.call(Method::PUT, "set-user-or-group-policy", &query, vec![]).await?;
        Ok(())
    }

    pub async fn delete_user(&self, access_key: &str) -> Result<(), Error> {
        found(self.call(Method::DELETE, "remove-user", &[("accessKey", access_key)], vec![]).await)?;
        Ok(())
    }

    async fn call(&self, method: Method, call: &str, query: &[(&str, &str)], body: Vec<u8>) -> Result<Vec<u8>, Error> {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("/minio/admin/v3/{call}"));
        url.query_pairs_mut().extend_pairs(query);
        let request = self.sign(method, url, body).map_err(|()| Error::Invalid(format!("can't sign a request for {call}")))?;
        let unavailable = |error: reqwest::Error| {
            // Without the URL: it says nothing that the name of the call does not, and names users.
            Error::Unavailable(format!("MinIO admin API, {call}: {}", crate::error_chain(&error.without_url())))
        };
        let mut response = self.http.execute(request).await.map_err(unavailable)?;
        let status = response.status();
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
            if answer.len() + chunk.len() > ANSWER_MAX {
                return Err(Error::Invalid(format!("MinIO admin API, {call}: the answer is longer than {ANSWER_MAX} bytes")));
            }
            answer.extend_from_slice(&chunk);
        }
        if status.is_success() { Ok(answer) } else { Err(refusal(call, status, &answer)) }
    }

    fn sign(&self, method: Method, url: Url, body: Vec<u8>) -> Result<reqwest::Request, ()> {
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let identity = self.credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("s3")
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .map_err(|_| ())?
            .into();
        let signable = SignableRequest::new(method.as_str(), url.as_str(), std::iter::empty(), SignableBody::Bytes(&body))
            .map_err(|_| ())?;
        let (instructions, _) = sign(signable, &params).map_err(|_| ())?.into_parts();
        let mut request = self.http.request(method, url).header("content-length", body.len()).body(body);
        for (name, value) in instructions.headers() {
            request = request.header(name, value);
        }
        request.build().map_err(|_| ())
    }
}

/// 404 is an answer, not an error.
fn found<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(body)
        .map_err(|_| Error::Invalid("MinIO admin API: the answer is not what the API promises".to_owned()))
}

/// What a status means; the text is the server's code and message, which hold no secret.
fn refusal(call: &str, status: StatusCode, answer: &[u8]) -> Error {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "PascalCase", default)]
    struct Answer {
        code: String,
        message: String,
    }
    let Answer { code, message } = serde_json::from_slice(answer).unwrap_or_default();
    super::refusal(&format!("MinIO admin API, {call}"), status.as_u16(), &code, &message)
}
