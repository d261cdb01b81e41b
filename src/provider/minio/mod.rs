//! Buckets on a `MinIO` server: S3 for buckets, the admin API for policies and users.

mod admin;
mod policy;
mod s3;
pub mod seal;

use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use self::{admin::Admin, s3::S3, seal::Algorithm};
use super::{BucketState, Error, Grant, Kind, Observation, PartState, Provider};
use crate::credentials::SecretKey;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Where a `MinIO` server is, and how to administer it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The URL that the operator uses.
    pub endpoint: Url,
    /// The URL that apps get; often another one, outside the cluster.
    pub public_endpoint: Url,
    /// The server's region, for the operator's own requests.
    pub region: String,
    /// Access key of an administrator.
    pub access_key: String,
    /// Secret key of that administrator.
    pub secret_key: SecretString,
    /// A PEM bundle of certificate authorities to trust besides those of the system.
    pub ca: Option<Vec<u8>>,
    /// How bodies with secrets are sealed.
    pub algorithm: Algorithm,
}

/// Buckets on a `MinIO` server.
pub struct Minio {
    s3: S3,
    admin: Admin,
    public_endpoint: Url,
}

impl Minio {
    /// A provider for that server. Nothing is sent yet.
    ///
    /// # Errors
    /// A sentence that says which setting is wrong.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let Settings { endpoint, public_endpoint, region, access_key, secret_key, ca, algorithm } = settings;
        let credentials = aws_sdk_s3::config::Credentials::new(access_key, secret_key.expose_secret(), None, None, "settings");
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(ca) = &ca {
            let certificates = reqwest::Certificate::from_pem_bundle(ca)
                .ok()
                .filter(|certificates| !certificates.is_empty())
                .ok_or("the CA file of MinIO holds no PEM certificate")?;
            http = http.tls_certs_merge(certificates);
        }
        let http = http.build().map_err(|error| crate::error_chain(&error))?;
        let s3 = S3::new(&endpoint, &region, credentials.clone(), ca.as_deref())?;
        Ok(Self { s3, admin: Admin { http, endpoint, region, credentials, algorithm }, public_endpoint })
    }

    async fn policy_state(&self, grant: &Grant) -> Result<PartState, Error> {
        let document = policy::document(grant);
        Ok(match self.admin.policy(&grant.policy()).await? {
            None => PartState::Missing,
            Some(found) if policy::same(&found, &document) => PartState::Current,
            Some(found) if found.get("ID") == document.get("ID") => PartState::Changed,
            Some(_) => PartState::Foreign,
        })
    }

    async fn user_state(&self, grant: &Grant) -> Result<PartState, Error> {
        Ok(match self.admin.user(&grant.access_key).await? {
            None => PartState::Missing,
            Some(user) if user.policy_name == grant.policy() && user.status == "enabled" && user.member_of.is_empty() => {
                PartState::Current
            }
            // The name follows from the object's UID: nobody else has a use for it.
            Some(_) => PartState::Changed,
        })
    }

    /// A bucket with our mark is ours. One without it is ours only if its policy, which is written first and which only an
    /// administrator can write, bears the mark.
    async fn bucket_state(&self, grant: &Grant, policy: PartState) -> Result<BucketState, Error> {
        Ok(match self.s3.marked(grant).await? {
            None => BucketState::Missing,
            Some(true) => BucketState::Owned,
            Some(false) if !matches!(policy, PartState::Current | PartState::Changed) => BucketState::Foreign,
            Some(false) if self.s3.count(grant).await?.is_none() => BucketState::Unfinished,
            Some(false) => BucketState::Unmarked,
        })
    }

    async fn key_works(&self, grant: &Grant, key: Option<&SecretKey>) -> Result<bool, Error> {
        match key {
            Some(key) => self.s3.opens(grant, key, &grant.bucket).await,
            None => Ok(false),
        }
    }
}

#[async_trait]
impl Provider for Minio {
    fn kind(&self) -> Kind {
        Kind::Minio
    }

    fn endpoint(&self) -> &Url {
        &self.public_endpoint
    }

    async fn observe(&self, grant: &Grant, key: Option<&SecretKey>) -> Result<Observation, Error> {
        let (policy, user, key_works) =
            tokio::try_join!(self.policy_state(grant), self.user_state(grant), self.key_works(grant, key))?;
        let bucket = self.bucket_state(grant, policy).await?;
        Ok(Observation { bucket, policy, user, key_works })
    }

    async fn put_policy(&self, grant: &Grant) -> Result<(), Error> {
        self.admin.put_policy(&grant.policy(), &policy::document(grant)).await
    }

    async fn create_bucket(&self, grant: &Grant) -> Result<(), Error> {
        self.s3.create_bucket(grant).await
    }

    async fn mark_bucket(&self, grant: &Grant) -> Result<(), Error> {
        self.s3.mark(grant).await
    }

    async fn put_user(&self, grant: &Grant, key: &SecretKey) -> Result<(), Error> {
        self.admin.put_user(&grant.access_key, key).await?;
        self.admin.set_user_policy(&grant.access_key, &grant.policy()).await
    }

    async fn verify(&self, grant: &Grant, key: &SecretKey) -> Result<(), Error> {
        let elsewhere = "appbucket-operator-no-such-bucket";
        let (own, other) = tokio::try_join!(self.s3.opens(grant, key, &grant.bucket), self.s3.opens(grant, key, elsewhere))?;
        match (own, other) {
            (true, false) => Ok(()),
            (false, _) => {
                Err(Error::Unavailable(format!("MinIO does not accept the credentials of bucket {} yet", grant.bucket)))
            }
            (true, true) => Err(Error::Invalid(format!(
                "the credentials of bucket {} open other buckets too: remove what grants them more than policy {}",
                grant.bucket,
                grant.policy()
            ))),
        }
    }

    async fn delete_bucket(&self, grant: &Grant) -> Result<(), Error> {
        let policy = self.policy_state(grant).await?;
        match self.bucket_state(grant, policy).await? {
            BucketState::Missing => Ok(()),
            BucketState::Foreign => Err(Error::NotOwned(format!("bucket {} is not this object's", grant.bucket))),
            BucketState::Owned | BucketState::Unfinished | BucketState::Unmarked => match self.s3.count(grant).await? {
                Some(content) => Err(Error::Conflict(content)),
                None => self.s3.delete_bucket(grant).await,
            },
        }
    }

    async fn delete_user(&self, grant: &Grant) -> Result<(), Error> {
        self.admin.delete_user(&grant.access_key).await
    }

    async fn delete_policy(&self, grant: &Grant) -> Result<(), Error> {
        match self.policy_state(grant).await? {
            PartState::Missing | PartState::Foreign => Ok(()),
            PartState::Current | PartState::Changed => self.admin.delete_policy(&grant.policy()).await,
        }
    }
}

/// What a refusal by status, code and message means.
fn refusal(what: &str, status: u16, code: &str, message: &str) -> Error {
    let text = format!("{what}: {status} {code}: {message}");
    let text = text.trim_end_matches([':', ' ']).to_owned();
    match status {
        404 => Error::NotFound(text),
        401 | 403 => Error::Denied(text),
        409 => Error::Conflict(text),
        408 | 429 | 500.. => Error::Unavailable(text),
        _ => Error::Invalid(text),
    }
}
