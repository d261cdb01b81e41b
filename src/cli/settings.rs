//! The settings of `appbucket-operator controller`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use url::Url;

use super::checks;
use crate::{
    controller, leader,
    producer::{self, Producer, TOKEN_VARIABLE, TokenSource},
    provider::{
        Provider, Stub,
        minio::{self, Minio, seal::Algorithm},
    },
};

/// The secret key of `MinIO`'s administrator, where it does not come from a file.
const MINIO_SECRET_KEY_VARIABLE: &str = "APPBUCKET_MINIO_SECRET_KEY";

/// Well below the limit of a reconcile.
const PRODUCER_TIMEOUT_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ProviderKind {
    /// Names and credentials are made, nothing stands behind the endpoint
    Stub,
    /// Buckets on a MinIO server
    Minio,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// One line for a person
    Text,
    /// One JSON object per line
    Json,
}

#[derive(Args)]
pub(super) struct LogArgs {
    /// What is logged, as a filter of the crate tracing-subscriber: info, debug, or for example info,appbucket_operator=debug
    #[arg(long, env = "APPBUCKET_LOG", value_name = "FILTER", default_value = "info", help_heading = "Logs")]
    pub log: String,
    /// How it is logged, to stderr
    #[arg(long, env = "APPBUCKET_LOG_FORMAT", value_enum, default_value = "text", help_heading = "Logs")]
    pub log_format: LogFormat,
}

#[derive(Args)]
pub(super) struct ControllerArgs {
    /// Where buckets come from
    #[arg(long, env = "APPBUCKET_PROVIDER", value_enum, default_value = "stub", help_heading = "Provider")]
    provider: ProviderKind,
    /// The endpoint that stub credentials name
    #[arg(long, env = "APPBUCKET_STUB_ENDPOINT", value_name = "URL", value_parser = checks::endpoint,
        default_value = "http://stub-minio-platform.local:9000", help_heading = "Provider")]
    stub_endpoint: Url,
    /// MinIO's endpoint for the operator
    #[arg(long, env = "APPBUCKET_MINIO_ENDPOINT", value_name = "URL", value_parser = checks::endpoint, help_heading = "Provider")]
    minio_endpoint: Option<Url>,
    /// MinIO's endpoint for apps, where it differs
    #[arg(long, env = "APPBUCKET_MINIO_PUBLIC_ENDPOINT", value_name = "URL", value_parser = checks::endpoint, help_heading = "Provider")]
    minio_public_endpoint: Option<Url>,
    /// MinIO's region, for the operator's own requests
    #[arg(long, env = "APPBUCKET_MINIO_REGION", value_name = "REGION", value_parser = checks::label,
        default_value = crate::crd::DEFAULT_REGION, help_heading = "Provider")]
    minio_region: String,
    /// A file of PEM certificates of authorities to trust for MinIO, besides those of the system
    #[arg(long, env = "APPBUCKET_MINIO_CA_FILE", value_name = "FILE", help_heading = "Provider")]
    minio_ca_file: Option<PathBuf>,
    /// The access key of an administrator of MinIO
    #[arg(long, env = "APPBUCKET_MINIO_ACCESS_KEY", value_name = "KEY", help_heading = "Provider")]
    minio_access_key: Option<String>,
    /// A file with the administrator's secret key; or put the key itself into APPBUCKET_MINIO_SECRET_KEY
    #[arg(long, env = "APPBUCKET_MINIO_SECRET_KEY_FILE", value_name = "FILE", help_heading = "Provider")]
    minio_secret_key_file: Option<PathBuf>,
    /// How secrets are sealed in requests to MinIO's admin API
    #[arg(
        long,
        env = "APPBUCKET_MINIO_ADMIN_KDF",
        value_name = "KDF",
        value_enum,
        default_value = "pbkdf2",
        help_heading = "Provider"
    )]
    minio_admin_kdf: Algorithm,

    /// The base URL of the producer API. Without it, nothing is published into app environments
    #[arg(long, env = "APPBUCKET_PRODUCER_URL", value_name = "URL", value_parser = checks::http_url, help_heading = "Producer API")]
    producer_url: Option<Url>,
    /// The path below it
    #[arg(long, env = "APPBUCKET_PRODUCER_PATH", value_name = "PATH", value_parser = checks::path_template,
        default_value = "/api/apps/{app_id}/env/producers/{producer}", help_heading = "Producer API")]
    producer_path: String,
    /// The name that the operator publishes under
    #[arg(long, env = "APPBUCKET_PRODUCER_NAME", value_name = "NAME", value_parser = checks::label,
        default_value = "storage", help_heading = "Producer API")]
    producer_name: String,
    /// A file with the bearer token, read at each publication; or put the token itself into OPENFACTORY_STORAGE_PRODUCER_TOKEN
    #[arg(long, env = "OPENFACTORY_STORAGE_PRODUCER_TOKEN_FILE", value_name = "FILE", help_heading = "Producer API")]
    producer_token_file: Option<PathBuf>,
    /// The limit of one request, at most 30s
    #[arg(long, env = "APPBUCKET_PRODUCER_TIMEOUT", value_name = "DURATION", value_parser = checks::duration,
        default_value = "10s", help_heading = "Producer API")]
    producer_timeout: Duration,
    /// Send token and credentials over plain HTTP to another machine than this
    #[arg(long, env = "APPBUCKET_PRODUCER_ALLOW_HTTP", help_heading = "Producer API")]
    producer_allow_http: bool,

    /// Watch only these namespaces, comma separated [default: all]
    #[arg(long, env = "APPBUCKET_WATCH_NAMESPACES", value_name = "NAMESPACES", value_delimiter = ',', value_parser = checks::label,
        help_heading = "Controller")]
    watch_namespaces: Vec<String>,
    /// A namespace may use only the app ids in its annotation storage.openfactory.tech/app-ids, comma separated
    #[arg(long, env = "APPBUCKET_STRICT_APP_IDS", help_heading = "Controller")]
    strict_app_ids: bool,
    /// What marks this cluster's buckets at the provider [default: the UID of the kube-system namespace]
    #[arg(long, env = "APPBUCKET_CLUSTER_ID", value_name = "ID", value_parser = checks::label, help_heading = "Controller")]
    pub cluster_id: Option<String>,
    /// How often a converged AppBucket is compared with the provider; spread by a quarter
    #[arg(long, env = "APPBUCKET_RESYNC", value_name = "DURATION", value_parser = checks::duration, default_value = "1h", help_heading = "Controller")]
    resync: Duration,
    /// How often a Stalled AppBucket, or a refused publication, is tried again
    #[arg(long, env = "APPBUCKET_STALLED_RECHECK", value_name = "DURATION", value_parser = checks::duration, default_value = "1m", help_heading = "Controller")]
    stalled_recheck: Duration,
    /// The longest wait between two attempts, before jitter
    #[arg(long, env = "APPBUCKET_MAX_BACKOFF", value_name = "DURATION", value_parser = checks::duration, default_value = "1m", help_heading = "Controller")]
    max_backoff: Duration,
    /// How many AppBuckets are worked on at a time (in each watched namespace, if they are named)
    #[arg(long, env = "APPBUCKET_CONCURRENCY", value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1000),
        default_value = "16", help_heading = "Controller")]
    concurrency: u16,

    /// Elect a leader, so that one of several controllers acts and the others stand by
    #[arg(long, env = "APPBUCKET_LEADER_ELECT", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, help_heading = "Leader election")]
    leader_elect: bool,
    /// The namespace of the Lease [default: that of the kubeconfig or of the pod]
    #[arg(long, env = "APPBUCKET_LEASE_NAMESPACE", value_name = "NAMESPACE", value_parser = checks::label, help_heading = "Leader election")]
    lease_namespace: Option<String>,
    /// The name of the Lease
    #[arg(long, env = "APPBUCKET_LEASE_NAME", value_name = "NAME", value_parser = checks::label,
        default_value = "appbucket-operator", help_heading = "Leader election")]
    lease_name: String,
    /// How long a leader that does not renew is waited for, at least 3s and in whole seconds; it stops acting after two thirds of that
    #[arg(long, env = "APPBUCKET_LEASE_DURATION", value_name = "DURATION", value_parser = checks::lease_duration,
        default_value = "15s", help_heading = "Leader election")]
    lease_duration: Duration,

    /// Where /livez, /readyz and /metrics are served
    #[arg(
        long,
        env = "APPBUCKET_HEALTH_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8081",
        help_heading = "Health"
    )]
    pub health_listen: SocketAddr,

    #[command(flatten)]
    pub logs: LogArgs,
}

impl ControllerArgs {
    /// client-go's proportions: 15 s, 10 s, 2 s.
    pub fn election(&self, default_namespace: &str) -> Option<leader::Settings> {
        self.leader_elect.then(|| leader::Settings {
            namespace: self.lease_namespace.clone().unwrap_or_else(|| default_namespace.to_owned()),
            name: self.lease_name.clone(),
            identity: format!("{}_{:016x}", hostname(), rand::random::<u64>()),
            lease_duration: self.lease_duration,
            renew_deadline: self.lease_duration * 2 / 3,
            retry_period: self.lease_duration * 2 / 15,
        })
    }

    pub fn provider(&self) -> Result<Arc<dyn Provider>, String> {
        match self.provider {
            ProviderKind::Stub => Ok(Arc::new(Stub::new(self.stub_endpoint.clone()))),
            ProviderKind::Minio => Ok(Arc::new(Minio::new(self.minio()?)?)),
        }
    }

    fn minio(&self) -> Result<minio::Settings, String> {
        let endpoint =
            self.minio_endpoint.clone().ok_or("--provider minio needs --minio-endpoint (APPBUCKET_MINIO_ENDPOINT)")?;
        let access_key =
            self.minio_access_key.clone().ok_or("--provider minio needs --minio-access-key (APPBUCKET_MINIO_ACCESS_KEY)")?;
        let secret_key = match &self.minio_secret_key_file {
            Some(path) => checks::secret_in(path).map_err(|error| format!("--minio-secret-key-file: {error}"))?,
            None => variable(MINIO_SECRET_KEY_VARIABLE)
                .ok_or_else(|| format!("--provider minio needs --minio-secret-key-file or {MINIO_SECRET_KEY_VARIABLE}"))?,
        };
        let ca = match &self.minio_ca_file {
            Some(path) => Some(
                std::fs::read(path).map_err(|error| format!("--minio-ca-file: {} can't be read: {error}", path.display()))?,
            ),
            None => None,
        };
        if endpoint.scheme() == "http" && !checks::is_loopback(&endpoint) && self.minio_admin_kdf == Algorithm::Pbkdf2AesGcm {
            tracing::warn!("MinIO's admin API is used over plain HTTP: use TLS, or at least --minio-admin-kdf argon2id");
        }
        Ok(minio::Settings {
            public_endpoint: self.minio_public_endpoint.clone().unwrap_or_else(|| endpoint.clone()),
            endpoint,
            region: self.minio_region.clone(),
            access_key,
            secret_key: secret_key.into(),
            ca,
            algorithm: self.minio_admin_kdf,
        })
    }

    pub fn producer(&self) -> Result<Option<Producer>, String> {
        let Some(base) = self.producer_url.clone() else { return Ok(None) };
        if base.scheme() == "http" && !checks::is_loopback(&base) && !self.producer_allow_http {
            return Err(
                "--producer-url would send token and credentials over plain HTTP: use https, or set --producer-allow-http"
                    .to_owned(),
            );
        }
        if self.producer_timeout > PRODUCER_TIMEOUT_MAX {
            return Err(format!("--producer-timeout must be at most {}s", PRODUCER_TIMEOUT_MAX.as_secs()));
        }
        let token = match &self.producer_token_file {
            Some(path) => TokenSource::File(path.clone()),
            None => variable(TOKEN_VARIABLE).map_or(TokenSource::Missing, |token| TokenSource::Value(token.into())),
        };
        Producer::new(producer::Settings {
            base,
            path: self.producer_path.clone(),
            name: self.producer_name.clone(),
            token,
            timeout: self.producer_timeout,
        })
        .map(Some)
    }

    pub fn controller(&self) -> controller::Settings {
        let mut watch_namespaces = self.watch_namespaces.clone();
        watch_namespaces.sort();
        watch_namespaces.dedup();
        controller::Settings {
            watch_namespaces,
            strict_app_ids: self.strict_app_ids,
            resync: self.resync,
            stalled_recheck: self.stalled_recheck,
            max_backoff: self.max_backoff,
            concurrency: self.concurrency,
        }
    }
}

/// For people who look at the Lease: in a pod, its name.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// A variable that is set and not empty. Its value appears in no help text and no message.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
