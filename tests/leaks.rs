//! No secret in what the whole test run left behind. Runs after the other tests, beside the same cluster: `make test`.
//!
//! The API server's audit log holds the content of every write of a Secret, an Event and a status of the run, also of those that are
//! gone. So it tells which secret keys there were, and where they must not be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "these are tests")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use devcluster::Env;
use serde_json::Value;

/// All files below a folder that are the operator's logs.
fn logs(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            found.extend(logs(&path));
        } else if name.starts_with("operator-") && path.extension().is_some_and(|extension| extension == "log") {
            found.push(path);
        }
    }
    found
}

/// The secret keys in a Secret that was written.
fn secret_keys(record: &Value) -> impl Iterator<Item = String> {
    let object = &record["requestObject"];
    let plain = object["stringData"]["OF_S3_SECRET_KEY"].as_str().map(ToOwned::to_owned);
    let encoded = object["data"]["OF_S3_SECRET_KEY"].as_str().map(|key| BASE64.decode(key.as_bytes()).unwrap());
    plain.into_iter().chain(encoded.map(|key| String::from_utf8(key).unwrap())).filter(|key| key.len() >= 8)
}

#[test]
fn no_secret_is_in_any_log_event_or_status() {
    let env = Env::read().unwrap();
    let audit = std::fs::read_to_string(env.dir.join("audit.log")).unwrap();
    let records: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (secrets, others): (Vec<_>, Vec<_>) = records.iter().partition(|record| record["objectRef"]["resource"] == "secrets");

    let mut forbidden: BTreeSet<String> = secrets.iter().flat_map(|record| secret_keys(record)).collect();
    let keys = forbidden.len();
    for world in std::fs::read_dir(env.dir.join("worlds")).unwrap().flatten() {
        let noted = std::fs::read_to_string(world.path().join("keep-secret")).unwrap_or_default();
        forbidden.extend(noted.lines().map(ToOwned::to_owned));
    }
    let admin_secrets = forbidden.len() - keys;
    let searched_for: Vec<String> =
        forbidden.iter().flat_map(|secret| [secret.clone(), BASE64.encode(secret.as_bytes())]).collect();

    let logs = logs(&env.dir);
    let texts = logs.iter().map(|log| (log.display().to_string(), std::fs::read(log).unwrap()));
    let written =
        others.iter().map(|record| (record["requestURI"].to_string(), record["requestObject"].to_string().into_bytes()));
    let (mut bytes, mut leaks) = (0, vec![]);
    let search = aho_corasick::AhoCorasick::new(&searched_for).unwrap();
    for (place, text) in texts.chain(written) {
        bytes += text.len();
        leaks.extend(search.find_iter(&text).map(|found| {
            let around = &text[found.start().saturating_sub(300)..found.start()];
            format!("{place}: after {}", String::from_utf8_lossy(around))
        }));
    }
    println!(
        "searched {} logs, {} writes, {bytes} bytes for {keys} secret keys and {admin_secrets} admin secrets and tokens",
        logs.len(),
        others.len()
    );
    assert!(leaks.is_empty(), "{} leaks; the first: {}", leaks.len(), leaks[0]);

    // The search would find something: access keys are no secrets, and are all over.
    let statuses = others.iter().filter(|record| record["objectRef"]["subresource"] == "status").count();
    let events = others.iter().filter(|record| record["objectRef"]["resource"] == "events").count();
    assert!(
        keys > 100 && admin_secrets > 5 && logs.len() > 30 && statuses > 100 && events > 100,
        "{keys} {admin_secrets} {statuses} {events}"
    );
    let trace = logs.iter().filter(|log| std::fs::read_to_string(log).unwrap().contains("TRACE")).count();
    assert!(trace > 30, "{trace} logs are at trace level");
    assert!(others.iter().any(|record| record["requestObject"].to_string().contains("AKIA")));
}
