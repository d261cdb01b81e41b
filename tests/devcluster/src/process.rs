//! One program, from its start to its end.

use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

const READY_MAX: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOG_LINES: usize = 20;

/// A running program. It ends when this is dropped, and at the latest with the thread that started it: the kernel sends the
/// signal (`PR_SET_PDEATHSIG`, by util-linux's setpriv), so that not even a SIGKILL leaves it behind. It is in a process group of
/// its own: a Ctrl-C in the terminal does not end it before those who use it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program, with its output in `log`.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn start(program: &Path, args: &[String], env: &[(&str, String)], log: &Path) -> anyhow::Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = File::create(log).with_context(|| format!("{name}: can't write {}", log.display()))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(args)
            .envs(env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name}: can't start it (setpriv of util-linux is needed)"))?;
        Ok(Self { name, child, log: log.to_owned() })
    }

    /// Waits until `check` says yes.
    ///
    /// # Errors
    /// Where the program ends before, or takes too long; with the end of its log.
    pub async fn ready(&mut self, check: impl AsyncFn() -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_MAX;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended while it was started: {status}\n{}", self.name, self.log_end());
            }
            if check().await {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{} did not answer within {} s\n{}", self.name, READY_MAX.as_secs(), self.log_end());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// Where it does not end in time; it is killed then.
    pub async fn terminate(mut self) -> anyhow::Result<ExitStatus> {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(id, Signal::TERM)?;
        let deadline = Instant::now() + READY_MAX;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("{} did not end within {} s\n{}", self.name, READY_MAX.as_secs(), self.log_end());
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
        format!("The end of its log:\n  {end}")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It fails only where the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, dir: &Path) -> Process {
        Process::start(Path::new("/bin/sh"), &["-c".to_owned(), script.to_owned()], &[], &dir.join("log")).unwrap()
    }

    #[tokio::test]
    async fn a_failed_start_names_the_program_and_shows_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell("echo first; echo the reason >&2; exit 3", dir.path());
        let error = process.ready(async || false).await.unwrap_err().to_string();
        assert!(error.starts_with("sh ended while it was started: exit status: 3") && error.contains("the reason"), "{error}");
    }

    #[tokio::test]
    async fn a_dropped_process_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let process = shell("exec sleep 1000", dir.path());
        let proc = PathBuf::from(format!("/proc/{}", process.id()));
        assert!(proc.exists());
        drop(process);
        assert!(!proc.exists());
    }

    #[test]
    fn a_process_does_not_outlive_the_thread_that_started_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let thread = std::thread::spawn(move || {
            let mut process = shell("exec sleep 1000", &path);
            // Once it is `sleep`, setpriv has done its work.
            let name = format!("/proc/{}/comm", process.id());
            while std::fs::read_to_string(&name).unwrap() != "sleep\n" {
                std::thread::yield_now();
            }
            let id = process.child.id();
            assert!(process.child.try_wait().unwrap().is_none());
            std::mem::forget(process);
            id
        });
        let id = thread.join().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let state = || std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // Nobody has waited for it, so it may stay as a zombie.
        while !(state().is_empty() || state().contains(") Z")) {
            assert!(Instant::now() < deadline, "{}", state());
            std::thread::yield_now();
        }
    }
}
