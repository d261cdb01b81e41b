//! The settings of the front doors: `appbucket-operator serve` and `mcp`.

use std::{net::SocketAddr, num::NonZeroU32, time::Duration};

use clap::Args;
use kube::Client;

use super::{checks, settings::LogArgs};
use crate::{rest::Authenticator, service::Settings};

#[derive(Args)]
pub(super) struct ServeArgs {
    /// Where to listen. Plain HTTP: TLS is a proxy's matter, or a service mesh's
    #[arg(
        long,
        env = "APPBUCKET_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080",
        help_heading = "Front doors"
    )]
    pub listen: SocketAddr,
    #[command(flatten)]
    buckets: BucketArgs,
    /// The audience that a bearer token must be meant for (kubectl create token --audience)
    #[arg(
        long,
        env = "APPBUCKET_TOKEN_AUDIENCE",
        value_name = "AUDIENCE",
        default_value = "appbucket-operator",
        help_heading = "Front doors"
    )]
    token_audience: String,
    /// Let in whoever sends an X-Guest-Id
    #[arg(long, env = "APPBUCKET_ALLOW_GUESTS", help_heading = "Front doors")]
    allow_guests: bool,
    /// How many buckets a guest may have
    #[arg(long, env = "APPBUCKET_GUEST_QUOTA", value_name = "NUMBER", default_value = "3", help_heading = "Front doors")]
    guest_quota: usize,
    /// How many requests each principal may make, in each replica
    #[arg(
        long,
        env = "APPBUCKET_REQUESTS_PER_MINUTE",
        value_name = "NUMBER",
        default_value = "600",
        help_heading = "Front doors"
    )]
    requests_per_minute: NonZeroU32,
    /// The hosts under which /mcp may be called, comma separated, against DNS rebinding
    #[arg(
        long,
        env = "APPBUCKET_MCP_ALLOWED_HOSTS",
        value_name = "HOSTS",
        value_delimiter = ',',
        default_value = "localhost,127.0.0.1,::1",
        help_heading = "Front doors"
    )]
    pub mcp_allowed_hosts: Vec<String>,
    /// The origins of web pages that may call /mcp, comma separated
    #[arg(
        long,
        env = "APPBUCKET_MCP_ALLOWED_ORIGINS",
        value_name = "ORIGINS",
        value_delimiter = ',',
        default_value = "http://localhost:*,http://127.0.0.1:*,http://[::1]:*",
        help_heading = "Front doors"
    )]
    pub mcp_allowed_origins: Vec<String>,
    #[command(flatten)]
    pub logs: LogArgs,
}

#[derive(Args)]
pub(super) struct McpArgs {
    #[command(flatten)]
    buckets: BucketArgs,
    #[command(flatten)]
    pub logs: LogArgs,
}

#[derive(Args)]
struct BucketArgs {
    /// The namespace in which buckets are declared [default: that of the kubeconfig or of the pod]
    #[arg(long, env = "APPBUCKET_NAMESPACE", value_name = "NAMESPACE", value_parser = checks::label, help_heading = "Front doors")]
    namespace: Option<String>,
    /// How long a request waits for the controller
    #[arg(long, env = "APPBUCKET_WAIT", value_name = "DURATION", value_parser = checks::duration, default_value = "30s", help_heading = "Front doors")]
    wait: Duration,
}

impl BucketArgs {
    fn settings(&self, default_namespace: &str, guest_quota: usize, authorize: bool) -> Settings {
        Settings {
            namespace: self.namespace.clone().unwrap_or_else(|| default_namespace.to_owned()),
            wait: self.wait,
            guest_quota,
            authorize,
        }
    }
}

impl ServeArgs {
    pub fn service(&self, default_namespace: &str) -> Settings {
        self.buckets.settings(default_namespace, self.guest_quota, true)
    }

    pub fn authenticator(&self, client: Client) -> Authenticator {
        Authenticator::new(client, self.token_audience.clone(), self.allow_guests, self.requests_per_minute)
    }
}

impl McpArgs {
    pub fn service(&self, default_namespace: &str) -> Settings {
        self.buckets.settings(default_namespace, 0, false)
    }
}
