//! The S3 calls that the operator needs.

use aws_sdk_s3::{
    Client,
    config::{
        Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
        retry::RetryConfig, timeout::TimeoutConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
    types::{Tag, Tagging},
};
use aws_smithy_http_client::{
    Builder as HttpBuilder,
    tls::{Provider as TlsProvider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use url::Url;

use super::{CONNECT_TIMEOUT, REQUEST_TIMEOUT, refusal};
use crate::{
    credentials::SecretKey,
    provider::{Error, Grant},
};

const CLUSTER_TAG: &str = "appbucket-operator/cluster";
const OBJECT_TAG: &str = "appbucket-operator/object";
const UID_TAG: &str = "appbucket-operator/uid";
/// How many versions are counted before "or more" will do.
const COUNT_MAX: i32 = 100;

pub(super) struct S3 {
    client: Client,
}

impl S3 {
    pub fn new(endpoint: &Url, region: &str, credentials: Credentials, ca: Option<&[u8]>) -> Result<Self, String> {
        let mut roots = TrustStore::default();
        if let Some(ca) = ca {
            roots = roots.with_pem_certificate(ca);
        }
        let tls = TlsContext::builder().with_trust_store(roots).build().map_err(|error| crate::error_chain(&error))?;
        let http = HttpBuilder::new().tls_provider(TlsProvider::Rustls(CryptoMode::Ring)).tls_context(tls).build_https();
        let config = Builder::new()
            .behavior_version_latest()
            .http_client(http)
            .endpoint_url(endpoint.as_str())
            .force_path_style(true)
            .region(Region::new(region.to_owned()))
            .credentials_provider(credentials)
            // The controller retries, with backoff and where it can be seen.
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_timeout(REQUEST_TIMEOUT).build(),
            )
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Ok(Self { client: Client::from_conf(config) })
    }

    /// Whether the bucket bears the owner's mark; `None` if there is no bucket.
    pub async fn marked(&self, grant: &Grant) -> Result<Option<bool>, Error> {
        Ok(self.tags(grant).await?.map(|tags| {
            let has = |key, value: &str| tags.iter().any(|tag| tag.key() == key && tag.value() == value);
            has(CLUSTER_TAG, &grant.owner.cluster) && has(UID_TAG, &grant.owner.uid)
        }))
    }

    async fn tags(&self, grant: &Grant) -> Result<Option<Vec<Tag>>, Error> {
        match self.client.get_bucket_tagging().bucket(&grant.bucket).send().await {
            Ok(answer) => Ok(Some(answer.tag_set)),
            Err(error) => match error.code() {
                // MinIO says so of a bucket that is not there, too.
                Some("NoSuchTagSet") => Ok(self.exists(grant).await?.then(Vec::new)),
                Some("NoSuchBucket") => Ok(None),
                _ => Err(failure("GetBucketTagging", &error)),
            },
        }
    }

    async fn exists(&self, grant: &Grant) -> Result<bool, Error> {
        match self.client.head_bucket().bucket(&grant.bucket).send().await.map_err(|error| failure("HeadBucket", &error)) {
            Ok(_) => Ok(true),
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub async fn mark(&self, grant: &Grant) -> Result<(), Error> {
        let ours = [(CLUSTER_TAG, &grant.owner.cluster), (OBJECT_TAG, &grant.owner.object), (UID_TAG, &grant.owner.uid)];
        let mut tags = self.tags(grant).await?.unwrap_or_default();
        tags.retain(|tag| ours.iter().all(|(key, _)| tag.key() != *key));
        for (key, value) in ours {
            let tag = Tag::builder().key(key).value(value).build();
            tags.push(tag.map_err(|error| Error::Invalid(crate::error_chain(&error)))?);
        }
        let tagging = Tagging::builder().set_tag_set(Some(tags)).build();
        let tagging = tagging.map_err(|error| Error::Invalid(crate::error_chain(&error)))?;
        let answer = self.client.put_bucket_tagging().bucket(&grant.bucket).tagging(tagging).send().await;
        answer.map(drop).map_err(|error| failure("PutBucketTagging", &error))
    }

    pub async fn create_bucket(&self, grant: &Grant) -> Result<(), Error> {
        match self.client.create_bucket().bucket(&grant.bucket).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("BucketAlreadyOwnedByYou") => Ok(()),
            Err(error) => Err(failure("CreateBucket", &error)),
        }
    }

    pub async fn delete_bucket(&self, grant: &Grant) -> Result<(), Error> {
        match self.client.delete_bucket().bucket(&grant.bucket).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("NoSuchBucket") => Ok(()),
            Err(error) => Err(failure("DeleteBucket", &error)),
        }
    }

    /// What a bucket holds, in words; `None` if it is empty. Old versions and delete markers count.
    pub async fn count(&self, grant: &Grant) -> Result<Option<String>, Error> {
        let bucket = &grant.bucket;
        let answer = self.client.list_object_versions().bucket(bucket).max_keys(COUNT_MAX).send().await;
        let listed = answer.map_err(|error| failure("ListObjectVersions", &error))?;
        let (versions, markers) = (listed.versions().len(), listed.delete_markers().len());
        let more = if listed.is_truncated == Some(true) { " or more" } else { "" };
        Ok(match (versions, markers) {
            (0, 0) => None,
            (versions, 0) => Some(format!("bucket {bucket} holds {versions}{more} object versions")),
            (versions, markers) => {
                Some(format!("bucket {bucket} holds {versions}{more} object versions and {markers} delete markers"))
            }
        })
    }

    /// Whether the key of this grant opens that bucket.
    pub async fn opens(&self, grant: &Grant, key: &SecretKey, bucket: &str) -> Result<bool, Error> {
        let credentials = Credentials::new(&grant.access_key, key.expose(), None, None, "grant");
        let as_app = Builder::new().credentials_provider(credentials).region(Region::new(grant.region.clone()));
        match self.client.head_bucket().bucket(bucket).customize().config_override(as_app).send().await {
            Ok(_) => Ok(true),
            Err(error) => match failure("HeadBucket", &error) {
                Error::Unavailable(message) => Err(Error::Unavailable(message)),
                // An answer to HEAD has no body that says more.
                Error::Invalid(message) => Err(Error::Invalid(format!("{message}; is {} the server's region?", grant.region))),
                _ => Ok(false),
            },
        }
    }
}

fn failure<E>(call: &str, error: &SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    SdkError<E>: ProvideErrorMetadata + RequestId,
{
    match error.raw_response() {
        Some(response) if !response.status().is_success() => refusal(
            &format!("MinIO, {call}"),
            response.status().as_u16(),
            error.code().unwrap_or_default(),
            error.message().unwrap_or_default(),
        ),
        _ => Error::Unavailable(format!("MinIO, {call}: {}", crate::error_chain(error))),
    }
}
