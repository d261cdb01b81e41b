//! `devcluster`: runs a command beside a real control plane and `MinIO`, and ends them with it.

use std::{io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use devcluster::Cluster;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

/// How long a command may take to end after a signal.
const GRACE: Duration = Duration::from_secs(20);

/// Runs a command beside a real Kubernetes control plane and MinIO on this machine. They are thrown away when it ends.
#[derive(Parser)]
struct Args {
    /// The folder of the programs, as tests/tools/build leaves it.
    #[arg(long, default_value = ".tools/bin")]
    bin: PathBuf,
    /// Start no MinIO.
    #[arg(long)]
    no_minio: bool,
    /// The command. It finds the cluster in KUBECONFIG and in DEVCLUSTER_*.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

// One thread starts all processes and lives as long as the program: they end with it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<u8> {
    let bin = std::fs::canonicalize(&args.bin)
        .with_context(|| format!("{} is not there; run tests/tools/build first", args.bin.display()))?;
    let (mut interrupt, mut terminate, mut hangup) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let stopped = async {
        tokio::select! {
            _ = interrupt.recv() => (Signal::INT, 130),
            _ = terminate.recv() => (Signal::TERM, 143),
            _ = hangup.recv() => (Signal::HUP, 129),
        }
    };
    tokio::pin!(stopped);

    let cluster = tokio::select! {
        cluster = Cluster::start(&bin, !args.no_minio) => cluster?,
        (_, code) = &mut stopped => return Ok(code),
    };
    let mut command = start(&args.command, &cluster.env(&bin).variables())?;
    let code = tokio::select! {
        status = command.wait() => {
            let status = status?;
            status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
        }
        (signal, code) = &mut stopped => {
            end(&mut command, signal).await;
            code
        }
    };
    Ok(code)
}

/// In a process group of its own, so that it can be ended with all that it started.
fn start(command: &[String], env: &[(&'static str, String)]) -> anyhow::Result<Child> {
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .args(command)
        .envs(env.iter().map(|(key, value)| (key, value)))
        .process_group(0)
        .spawn()
        .with_context(|| format!("{}: can't start it", command.join(" ")))
}

async fn end(command: &mut Child, signal: Signal) {
    let Some(group) = command.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) else { return };
    // Each of these fails only where the group has ended already.
    let _ = kill_process_group(group, signal);
    if tokio::time::timeout(GRACE, command.wait()).await.is_err() {
        say("the command does not end; killing it");
    }
    let _ = kill_process_group(group, Signal::KILL);
}

fn say(message: &str) {
    // Where stderr is closed nobody reads it.
    let _ = writeln!(std::io::stderr(), "devcluster: {message}");
}
