//! The process: its settings, its help, its logs, its end.

use std::process::Output;

use tokio::process::Command;

use crate::support::{Provider, World, spec};

async fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_appbucket-operator"));
    command.args(args).env_remove("KUBECONFIG").envs(env.iter().copied()).kill_on_drop(true);
    tokio::time::timeout(crate::support::DEADLINE, command.output()).await.expect("it goes on").unwrap()
}

#[tokio::test]
async fn wrong_settings_end_it_at_once_with_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    let empty = empty.to_str().unwrap();
    let minio = ["--provider", "minio", "--minio-endpoint", "https://minio", "--minio-access-key", "admin"];
    let with_minio = |more: &[&'static str]| [&minio[..], more].concat();
    for (args, env, expected) in [
        (vec!["--provider", "gcs"], vec![], "invalid value 'gcs' for '--provider <PROVIDER>' [possible values: stub, minio]"),
        (vec!["--provider", "minio"], vec![], "--provider minio needs --minio-endpoint (APPBUCKET_MINIO_ENDPOINT)"),
        (with_minio(&[]), vec![], "needs --minio-secret-key-file or APPBUCKET_MINIO_SECRET_KEY"),
        (with_minio(&["--minio-secret-key-file", "/no/such/file"]), vec![], "/no/such/file can't be read"),
        ([&minio[..], &["--minio-secret-key-file", empty]].concat(), vec![], "is empty"),
        (
            with_minio(&["--minio-ca-file", "/no/such/ca"]),
            vec![("APPBUCKET_MINIO_SECRET_KEY", "k")],
            "/no/such/ca can't be read",
        ),
        (
            [&minio[..], &["--minio-ca-file", empty]].concat(),
            vec![("APPBUCKET_MINIO_SECRET_KEY", "k")],
            "holds no PEM certificate",
        ),
        (vec!["--minio-endpoint", "minio:9000"], vec![], "the scheme must be http or https"),
        (vec!["--stub-endpoint", "http://u:p@stub"], vec![], "a user or password in the URL is not used"),
        (vec!["--producer-url", "http://producer.example.com"], vec![], "use https, or set --producer-allow-http"),
        (vec!["--producer-url", "https://p", "--producer-timeout", "2m"], vec![], "--producer-timeout must be at most 30s"),
        (vec!["--producer-path", "/x"], vec![], "holds {app_id}"),
        (vec!["--resync", "often"], vec![], "write a duration between 1ms and 7 days, such as 90s, 5m or 1h"),
        (vec!["--concurrency", "0"], vec![], "0 is not in 1..=1000"),
        (vec!["--watch-namespaces", "a,B"], vec![], "write lowercase letters, digits and -"),
        (vec!["--log", "x=y=z"], vec![], "--log is not a filter such as info,kube=debug"),
        (vec!["--no-such-flag"], vec![], "unexpected argument '--no-such-flag' found"),
        (vec![], vec![("APPBUCKET_RESYNC", "often")], "invalid value 'often' for '--resync <DURATION>'"),
        (vec![], vec![("KUBECONFIG", "/no/such/kubeconfig")], "no way to the API server"),
    ] {
        let args: Vec<_> = ["controller"].iter().chain(&args).copied().collect();
        let output = run(&args, &env).await;
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        assert!(text.starts_with("appbucket-operator: ") && text.contains(expected), "{args:?}: {text}");
    }
}

#[tokio::test]
async fn help_explains_every_setting_with_its_variable() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    for (subcommand, at_least) in [("controller", 20), ("serve", 9), ("mcp", 4)] {
        let output = run(&[subcommand, "--help"], &[("APPBUCKET_MINIO_SECRET_KEY", "do-not-show-me")]).await;
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        assert!(!help.contains("do-not-show-me"));
        let settings: Vec<_> = help.lines().filter(|line| line.trim_start().starts_with("--")).collect();
        assert!(settings.len() >= at_least, "{help}");
        assert!(help.matches("[env: ").count() >= settings.len(), "{help}");
        // README and program agree.
        for variable in help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next()) {
            assert!(readme.contains(&format!("| `{variable}`")), "README.md does not tell of {variable}");
        }
        for setting in settings {
            let name = setting.split_whitespace().next().unwrap();
            assert!(readme.contains(&format!("| `{name}` |")), "README.md does not tell of {name}");
        }
    }
}

#[tokio::test]
async fn it_ends_when_asked_to_and_finishes_what_is_under_way() {
    let world = World::new("graceful").await;
    let minio = world.own_minio(vec![]).await;
    let operator = world.operator(&Provider::Minio(minio.access()), &[]).await;
    for number in 0..10 {
        world.create(&format!("demo-{number}"), spec(&format!("app-{number}"))).await;
    }
    operator.wait_log("acting step=CreateBucket").await;
    let log = operator.log.clone();
    assert!(operator.stop().await.success());
    let text = std::fs::read_to_string(log).unwrap();
    let told = text.lines().filter(|line| line.contains("appbucket_operator::cli")).collect::<Vec<_>>().join("\n");
    assert!(told.contains("shutting down") && told.ends_with("stopped"), "{told}");
    // What was begun is complete: whoever has its finalizer is ready.
    for object in world.app_buckets().list(&kube::api::ListParams::default()).await.unwrap() {
        assert_eq!(object.has_finalizer(), object.bucket_status().is_some(), "{:?}", object.metadata.name);
    }
}

#[tokio::test]
async fn json_logs_are_json() {
    let world = World::new("json").await;
    let operator = world.operator(&Provider::Stub, &["--log-format", "json", "--log", "info"]).await;
    world.create("demo", spec("app")).await;
    world.wait_ready("demo").await;
    world.wait_event("demo", "Provisioned").await;
    let log = operator.log.clone();
    assert!(operator.stop().await.success());
    let text = std::fs::read_to_string(log).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let provisioned = lines.iter().find(|line| line["reason"] == "Provisioned").unwrap_or_else(|| panic!("{text}"));
    assert_eq!(provisioned["level"], "INFO");
    assert!(provisioned["span"]["object.ref"].as_str().unwrap().contains("demo"), "{provisioned}");
}
