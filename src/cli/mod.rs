//! The command line: the one place where settings become objects.

mod checks;
mod serve;
mod settings;

use std::{io::Write as _, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use clap::{Parser, Subcommand, error::ErrorKind};
use k8s_openapi::api::{authentication::v1::SelfSubjectReview, core::v1::Namespace};
use kube::{Api, Client, Config, ResourceExt, api::PostParams};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{FilterExt as _, filter_fn},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use self::{
    serve::{McpArgs, ServeArgs},
    settings::{ControllerArgs, LogArgs, LogFormat},
};
use crate::{
    controller::{self, Context},
    crd::custom_resource_definition,
    leader::Leadership,
    rest,
    service::{Principal, Service},
};

/// The exit code for wrong settings; the one that clap uses.
const WRONG_SETTINGS: u8 = 2;
/// Longer than any answer of a watch takes (290 s, kube's default), so that only a dead connection meets it.
const READ_TIMEOUT: Duration = Duration::from_mins(5);
/// A pod has 30 seconds from SIGTERM to SIGKILL.
const SHUTDOWN_MAX: Duration = Duration::from_secs(25);
/// What an answer may take on top of the wait for the controller.
const ANSWER_MARGIN: Duration = Duration::from_secs(15);

/// Gives every app an S3 bucket: provisions buckets, policies and key pairs on MinIO for AppBucket resources.
#[derive(Parser)]
#[command(version, about, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controller.
    Controller(Box<ControllerArgs>),
    /// Run the front doors: REST, and MCP over HTTP.
    Serve(Box<ServeArgs>),
    /// Speak MCP over stdin and stdout, with the rights of the kubeconfig's user.
    Mcp(Box<McpArgs>),
    /// Print the CustomResourceDefinition as YAML.
    Crd,
}

/// Why the process ends, and its exit code.
#[derive(Debug)]
struct Exit {
    code: u8,
    message: String,
}

impl Exit {
    fn wrong_settings(message: impl Into<String>) -> Self {
        Self { code: WRONG_SETTINGS, message: message.into() }
    }

    fn failed(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }
}

/// Runs the subcommand that the process was started with.
pub async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return parse_failed(&error),
    };
    let outcome = match cli.command {
        Command::Controller(args) => controller(*args).await,
        Command::Serve(args) => serve(*args).await,
        Command::Mcp(args) => mcp(*args).await,
        Command::Crd => print_crd(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Exit { code, message }) => {
            complain(&message);
            ExitCode::from(code)
        }
    }
}

/// Help goes to stdout as clap formats it; an error becomes one line.
fn parse_failed(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        error.exit();
    }
    let text = error.to_string();
    let first_paragraph = text.split("\n\n").next().unwrap_or_default();
    complain(&first_paragraph.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" "));
    ExitCode::from(WRONG_SETTINGS)
}

fn complain(message: &str) {
    // Where stderr is closed nobody reads it.
    let _ = writeln!(std::io::stderr(), "appbucket-operator: {message}");
}

fn print_crd() -> Result<(), Exit> {
    let yaml = serde_saphyr::to_string(&custom_resource_definition())
        .map_err(|error| Exit::failed(format!("the CRD can't be written as YAML: {error}")))?;
    write!(std::io::stdout(), "{yaml}").map_err(|error| Exit::failed(format!("the CRD can't be printed: {error}")))
}

async fn controller(args: ControllerArgs) -> Result<(), Exit> {
    start(&args.logs)?;
    let provider = args.provider().map_err(Exit::wrong_settings)?;
    let producer = args.producer().map_err(Exit::wrong_settings)?;
    let settings = args.controller();
    let client = client().await?;

    let shutdown = shutdown_token()?;
    let cluster_id = tokio::select! {
        id = cluster_id(&args, &client) => id?,
        () = shutdown.cancelled() => return Ok(()),
    };
    tracing::info!(provider = ?provider.kind(), endpoint = %provider.endpoint(), producer = producer.is_some(), cluster_id, "starting");
    let election = args.election(client.default_namespace());
    let leadership = Arc::new(if election.is_some() { Leadership::candidate() } else { Leadership::always() });
    let ctx = Context::new(client.clone(), provider, producer, cluster_id, settings, Arc::clone(&leadership), shutdown.clone());
    let ctx = Arc::new(ctx);
    let health = listen("--health-listen", args.health_listen).await?;
    tokio::spawn(rest::serve(health, controller::health::router(Arc::clone(&ctx)), shutdown.clone()));
    let work = until_shutdown(controller::run(ctx), shutdown);
    let Some(election) = election else {
        work.await;
        return Ok(());
    };
    tokio::select! {
        () = work => leadership.release(&client, &election).await,
        // At once: what is under way must not go on.
        () = leadership.campaign(&client, &election) => return Err(Exit::failed("the lease is lost; ending, to be started again")),
    }
    Ok(())
}

async fn serve(args: ServeArgs) -> Result<(), Exit> {
    start(&args.logs)?;
    let client = client().await?;
    let shutdown = shutdown_token()?;
    let settings = args.service(client.default_namespace());
    let wait = settings.wait;
    tracing::info!(listen = %args.listen, namespace = settings.namespace, "starting");
    let listener = listen("--listen", args.listen).await?;
    let service = Service::new(client.clone(), settings);
    let mcp = crate::mcp::router(service.clone(), &args.mcp_allowed_hosts, &args.mcp_allowed_origins);
    let router = rest::router(service, args.authenticator(client), mcp, wait + ANSWER_MARGIN);
    until_shutdown(rest::serve(listener, router, shutdown.clone()), shutdown).await;
    Ok(())
}

/// The caller's own rights count, and nothing is written to stdout but the conversation.
async fn mcp(args: McpArgs) -> Result<(), Exit> {
    start(&args.logs)?;
    let client = client().await?;
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
        .map_err(|error| Exit::failed(format!("the API server does not say who you are: {}", crate::error_chain(&error))))?;
    let user = review.status.and_then(|status| status.user_info).unwrap_or_default();
    let caller = Principal::User { name: user.username.unwrap_or_default(), groups: user.groups.unwrap_or_default() };
    let settings = args.service(client.default_namespace());
    crate::mcp::serve_stdio(Service::new(client, settings), caller).await.map_err(Exit::failed)
}

fn start(logs: &LogArgs) -> Result<(), Exit> {
    start_logging(logs)?;
    // It fails only where a provider was chosen before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(())
}

async fn client() -> Result<Client, Exit> {
    let wrong = |error: &dyn std::fmt::Display| Exit::wrong_settings(format!("no way to the API server: {error}"));
    let mut config = Config::infer().await.map_err(|error| wrong(&crate::error_chain(&error)))?;
    // The controller retries, with backoff and where it can be seen.
    config.default_retry = false;
    config.read_timeout = Some(READ_TIMEOUT);
    Client::try_from(config).map_err(|error| wrong(&error))
}

async fn listen(setting: &str, address: SocketAddr) -> Result<TcpListener, Exit> {
    let failed = |error| Exit::wrong_settings(format!("{setting} {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    tracing::info!(address = %listener.local_addr().map_err(failed)?, "listening");
    Ok(listener)
}

async fn until_shutdown(work: impl Future<Output = ()>, shutdown: CancellationToken) {
    let overdue = async {
        shutdown.cancelled().await;
        tracing::info!("shutting down: finishing what is under way");
        tokio::time::sleep(SHUTDOWN_MAX).await;
    };
    tokio::select! {
        () = work => tracing::info!("stopped"),
        () = overdue => tracing::warn!("stopped before everything was finished; the next start goes on with it"),
    }
}

fn start_logging(args: &LogArgs) -> Result<(), Exit> {
    let filter = EnvFilter::try_new(&args.log)
        .map_err(|error| Exit::wrong_settings(format!("--log is not a filter such as info,kube=debug: {error}")))?;
    let filter = filter.and(filter_fn(|metadata| !tells_secrets(metadata)));
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry();
    match args.log_format {
        LogFormat::Text => registry.with(logs.with_ansi(false).with_filter(filter)).init(),
        LogFormat::Json => registry.with(logs.json().flatten_event(true).with_filter(filter)).init(),
    }
    Ok(())
}

/// rmcp logs whole answers, and with them a secret key that is shown once. `tests/leaks.rs` looks for others of its kind.
fn tells_secrets(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("rmcp") && *metadata.level() > Level::INFO
}

/// Cancelled by the first SIGTERM or SIGINT. The second ends the process as it would have without a handler.
fn shutdown_token() -> Result<CancellationToken, Exit> {
    let failed = |error| Exit::failed(format!("signals can't be handled: {error}"));
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate()).map_err(failed)?, signal(SignalKind::interrupt()).map_err(failed)?);
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        loop {
            let code = tokio::select! { _ = terminate.recv() => 143, _ = interrupt.recv() => 130 };
            if cancelled.is_cancelled() {
                std::process::exit(code);
            }
            cancelled.cancel();
        }
    });
    Ok(token)
}

/// The UID of the kube-system namespace: there from the cluster's first to its last day, and the same for every operator in it.
async fn cluster_id(args: &ControllerArgs, client: &Client) -> Result<String, Exit> {
    if let Some(id) = &args.cluster_id {
        return Ok(id.clone());
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let refused = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code < 500 && status.code != 429);
    let namespace = (|| namespaces.get_metadata("kube-system"))
        .retry(ExponentialBuilder::default().with_max_delay(Duration::from_secs(10)).with_jitter().without_max_times())
        .when(|error| !refused(error))
        .notify(|error, wait| {
            tracing::warn!(retry_in = ?wait, "the API server: {}", crate::error_chain(error));
        })
        .await
        .map_err(|error| {
            Exit::failed(format!(
                "the UID of namespace kube-system can't be read (or set --cluster-id): {}",
                crate::error_chain(&error)
            ))
        })?;
    namespace.uid().ok_or_else(|| Exit::failed("namespace kube-system has no UID"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_is_explained_and_names_its_variable() {
        let mut command = Cli::command();
        for name in ["controller", "serve", "mcp"] {
            let subcommand = command.find_subcommand_mut(name).unwrap();
            for argument in subcommand.get_arguments().filter(|argument| argument.get_id() != "help") {
                assert!(argument.get_help().is_some(), "{}", argument.get_id());
                assert!(argument.get_env().is_some(), "{}", argument.get_id());
            }
        }
    }
}
