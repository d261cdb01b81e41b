//! SIGKILL in the middle of a provisioning.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
    time::Duration,
};

use appbucket_operator::{crd::AppBucket, identity::Identity};
use kube::ResourceExt;
use serde_json::json;

use crate::support::{DEADLINE, Mc, Provider, TestProducer, World, condition, secret_value, spec};

/// One moment right at the start of each step, and the rest spread over the log lines of an undisturbed run.
const STEPS: [&str; 7] = ["Adopt", "PutPolicy", "CreateBucket", "MarkBucket", "PutUser", "Verify", "CreateSecret"];
const SPREAD: usize = 13;

fn published(object: &AppBucket) -> bool {
    condition(object, "EnvPublished") == "True" && condition(object, "Ready") == "True"
}

/// Reads the operator's log until a line about the object is the one that is waited for, or tells that it is published. Gives back
/// how many lines were about it, and the last step that was begun.
async fn follow(log: &Path, object: &str, until: impl Fn(usize, &str) -> bool) -> (usize, Option<String>) {
    let mut reader = BufReader::new(File::open(log).unwrap());
    let (mut seen, mut step, mut line) = (0, None, String::new());
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        // A line that is still being written is read on the next time.
        if reader.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
            assert!(tokio::time::Instant::now() < deadline, "the operator does not speak of {object}");
            tokio::time::sleep(Duration::from_micros(200)).await;
            continue;
        }
        if line.contains(object) {
            seen += 1;
            if let Some((_, name)) = line.split_once("acting step=") {
                step = Some(name.trim().to_owned());
            }
            if until(seen, &line) || line.contains("reason=\"EnvPublished\"") {
                return (seen, step);
            }
        }
        line.clear();
    }
}

#[tokio::test]
async fn every_moment_ends_in_the_same_state() {
    let world = World::new("crash").await;
    let producer = TestProducer::start(&world).await;
    let args = producer.args();
    let minio = world.own_minio(vec![]).await;
    let (provider, mc) = (Provider::Minio(minio.access()), Mc::administrator(&world, &minio.access()));
    let mut operator = world.operator(&provider, &args).await;
    world.create("undisturbed", spec("undisturbed")).await;
    let (length, _) = follow(&operator.log, &format!("undisturbed.{}", world.namespace), |_, _| false).await;
    world.wait("undisturbed", "published", published).await;

    let mut killed_in = vec![];
    for moment in 0..STEPS.len() + SPREAD {
        let name = format!("demo-{moment}");
        operator.kill();
        operator = world.operator(&provider, &args).await;
        world.create(&name, spec(&name)).await;
        let until = |seen: usize, line: &str| match STEPS.get(moment) {
            Some(step) => line.contains(&format!("acting step={step}")),
            None => seen > length * (moment - STEPS.len()) / SPREAD,
        };
        let (seen, step) = follow(&operator.log, &format!("{name}.{}", world.namespace), until).await;
        operator.kill();
        killed_in.push(format!("{} (line {seen})", step.unwrap_or_else(|| "Observe".to_owned())));
        operator = world.operator(&provider, &args).await;
        world.wait(&name, "published", published).await;
    }
    println!("killed in: {}", killed_in.join(", "));
    for (step, killed) in STEPS.iter().zip(&killed_in) {
        assert!(killed.starts_with(step), "{killed_in:?}");
    }

    // One bucket, user and policy each, and nothing else.
    let objects = world.app_buckets().list(&kube::api::ListParams::default()).await.unwrap().items;
    let sorted = |mut names: Vec<_>| {
        names.sort();
        names
    };
    let identities: Vec<_> = objects.iter().map(Identity::of).collect();
    let of_all = |name: fn(&Identity) -> String| sorted(identities.iter().map(name).collect::<Vec<_>>());
    assert_eq!(sorted(mc.buckets().await), of_all(|identity| identity.bucket_name.clone()));
    assert_eq!(sorted(mc.policies().await), of_all(|identity| format!("appbucket-{}", identity.bucket_name)));
    let users = mc.users().await.into_iter().map(|(key, policy)| format!("{key} {policy}")).collect();
    assert_eq!(sorted(users), of_all(|identity| format!("{} appbucket-{}", identity.access_key, identity.bucket_name)));

    for (object, identity) in objects.iter().zip(&identities) {
        let name = object.name_any();
        let secret = world.secrets().get(&format!("{name}-s3")).await.unwrap();
        assert_eq!(secret_value(&secret, "OF_S3_BUCKET"), identity.bucket_name);
        Mc::app(&world, &secret).put(&identity.bucket_name, "file", "content").await;
        let environment = producer.environment(&name).unwrap();
        assert_eq!(environment["bucket_refs"], json!([identity.bucket_id]));
        assert_eq!(environment["values"]["OF_S3_SECRET_KEY"], secret_value(&secret, "OF_S3_SECRET_KEY"));
        assert_eq!(mc.tags(&identity.bucket_name).await["appbucket-operator/uid"], object.uid().unwrap());
    }
}
