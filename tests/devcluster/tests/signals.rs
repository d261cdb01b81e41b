//! Whatever ends `devcluster`, nothing of it goes on. Runs beside a cluster, for its programs: `make test`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use devcluster::Env;
use rustix::process::{Pid, Signal, kill_process};

const DEADLINE: Duration = Duration::from_mins(1);

fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn start(bin: &Path, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_devcluster"))
        .arg("--bin")
        .arg(bin)
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A cluster whose command has begun; its folder.
fn running(script: &str) -> (Child, PathBuf) {
    let note = tempfile::NamedTempFile::new().unwrap();
    let script = format!("echo $DEVCLUSTER_DIR >{}; {script}", note.path().display());
    let child = start(&Env::read().unwrap().bin, &["--no-minio", "--", "sh", "-c", &script]);
    let dir = eventually("the command begins", || {
        let text = std::fs::read_to_string(note.path()).unwrap();
        text.ends_with('\n').then(|| PathBuf::from(text.trim()))
    });
    (child, dir)
}

/// The processes that have this folder in their arguments or environment.
fn processes_of(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let mut found = vec![];
    for process in std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
        let read = |file: &str| std::fs::read(process.join(file)).unwrap_or_default();
        let texts = [read("cmdline"), read("environ")];
        if texts.iter().any(|text| String::from_utf8_lossy(text).contains(dir)) {
            found.push(String::from_utf8_lossy(&texts[0]).replace('\0', " "));
        }
    }
    found
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), signal).unwrap();
}

#[test]
fn a_signal_ends_everything_and_removes_it() {
    for (sent, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (mut child, dir) = running("sleep 1000 & wait");
        assert!(processes_of(&dir).len() >= 4, "{:?}", processes_of(&dir));
        signal(&child, sent);
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_eq!(processes_of(&dir), Vec::<String>::new());
        assert!(!dir.exists());
    }
}

#[test]
fn a_kill_leaves_no_server_behind() {
    let (mut child, dir) = running("exec sleep 1000");
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("everything ends", || processes_of(&dir).is_empty().then_some(()));
    // Only the folder is left: nobody was there to remove it.
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn the_command_decides_how_it_ends() {
    let (mut child, dir) = running("exit 7");
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert_eq!(processes_of(&dir), Vec::<String>::new());
    assert!(!dir.exists());
}

#[test]
fn a_failed_start_says_which_part_failed_and_ends_the_others() {
    let (env, bin) = (Env::read().unwrap(), tempfile::tempdir().unwrap());
    for program in ["etcd", "kube-controller-manager"] {
        std::os::unix::fs::symlink(env.bin.join(program), bin.path().join(program)).unwrap();
    }
    let broken = bin.path().join("kube-apiserver");
    std::fs::write(&broken, "#!/bin/sh\necho the disk is on fire >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = start(bin.path(), &["--no-minio", "--", "true"]).wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(text.contains("kube-apiserver ended while it was started") && text.contains("the disk is on fire"), "{text}");
    assert_eq!(processes_of(bin.path()), Vec::<String>::new());
}
