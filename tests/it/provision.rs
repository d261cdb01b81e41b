//! From an `AppBucket` to credentials that work.

use std::collections::BTreeMap;

use appbucket_operator::crd::{AppBucket, BucketStatus};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::json;
use tokio::process::Command;

use crate::support::{ApiAudit, Mc, Provider, World, condition, reason_of, run, secret_value, spec};

const KEYS: [&str; 5] = ["OF_S3_ENDPOINT", "OF_S3_BUCKET", "OF_S3_ACCESS_KEY", "OF_S3_SECRET_KEY", "OF_S3_REGION"];

/// Status and Secret agree, and look as the design says.
fn check(object: &AppBucket, secret: &Secret, endpoint: &str) {
    let status = object.status.as_ref().unwrap();
    let value = |key| secret_value(secret, key);
    assert_eq!(value("OF_S3_ENDPOINT"), endpoint);
    assert_eq!(Some(value("OF_S3_ENDPOINT")), status.endpoint_url);
    assert_eq!(Some(value("OF_S3_BUCKET")), status.bucket_name);
    assert_eq!(Some(value("OF_S3_ACCESS_KEY")), status.access_key);
    assert_eq!(Some(value("OF_S3_REGION")), status.region);
    assert_eq!(value("OF_S3_SECRET_KEY").len(), 36);
    let file: BTreeMap<_, _> = dotenvy::from_read_iter(value("app.env").as_bytes()).collect::<Result<_, _>>().unwrap();
    assert_eq!(file, KEYS.map(|key| (key.to_owned(), value(key))).into());

    assert_eq!(secret.type_.as_deref(), Some("Opaque"));
    let owner = &secret.owner_references()[0];
    assert_eq!((&owner.uid, owner.controller), (&object.uid().unwrap(), Some(true)));

    assert_eq!(status.observed_generation, object.metadata.generation);
    assert_eq!(status.secret_ref.as_ref().unwrap().name, secret.name_any());
    assert_eq!(status.binding.as_ref().unwrap().name, secret.name_any());
    assert_eq!(status.bucket_refs, [status.bucket_id.clone().unwrap()]);
    assert_eq!(status.shape.as_deref(), Some("shared-minio"));
    assert!(endpoint.contains(status.shared_host.as_deref().unwrap()));
    assert!(status.created_at.is_some());
    for type_ in ["Ready", "BucketProvisioned", "CredentialsReady"] {
        assert_eq!(condition(object, type_), "True", "{type_}");
    }
    for type_ in ["Reconciling", "Stalled"] {
        assert_eq!(condition(object, type_), "", "{type_}");
    }
    assert!(status.conditions.iter().all(|condition| condition.observed_generation == object.metadata.generation));
}

#[tokio::test]
async fn with_minio() {
    let world = World::new("minio").await;
    let operator = world.operator(&world.minio(), &[]).await;
    let mut wanted = spec("app");
    wanted.slug = Some("My.Cool_App".to_owned());
    world.create("demo", wanted).await;
    world.kubectl(&["wait", "--for=condition=Ready", "appbucket/demo", "--timeout=60s"], "").await.unwrap();

    let object = world.wait_ready("demo").await;
    let secret = world.secrets().get("demo-s3").await.unwrap();
    check(&object, &secret, &world.env.minio.clone().unwrap().endpoint);
    assert_eq!(object.bucket_status(), Some(BucketStatus::Ready));
    assert_eq!(reason_of(&object, "EnvPublished"), "ProducerTokenMissing");
    let bucket = object.status.as_ref().unwrap().bucket_name.clone().unwrap();
    assert!(bucket.starts_with("my-cool-app-"), "{bucket}");
    let note = world.wait_event("demo", "Provisioned").await;
    assert!(note.contains(&bucket), "{note}");

    // What stands on the server, as its own client sees it.
    let mc = world.mc();
    let tags = mc.tags(&bucket).await;
    assert_eq!(tags["appbucket-operator/uid"], object.uid().unwrap());
    assert_eq!(tags["appbucket-operator/object"], format!("{}/demo", world.namespace));
    let user = &mc.json(&["admin", "user", "info", "s3", &secret_value(&secret, "OF_S3_ACCESS_KEY")]).await.unwrap()[0];
    assert_eq!(user["policyName"], format!("appbucket-{bucket}"));

    let columns = world.kubectl(&["get", "abkt", "-o", "wide"], "").await.unwrap();
    for expected in [
        "APP",
        "BUCKET",
        "STATUS",
        "READY",
        "ENV",
        "AGE",
        "ENDPOINT",
        "REGION",
        "SECRET",
        "BUCKET-ID",
        "ready",
        "demo-s3",
        &bucket,
    ] {
        assert!(columns.contains(expected), "{expected}: {columns}");
    }
    assert!(operator.stop().await.success());
}

#[tokio::test]
async fn with_the_stub() {
    let world = World::new("stub").await;
    let _operator = world.operator(&Provider::Stub, &[]).await;
    world.create("demo", spec("app")).await;
    world.kubectl(&["wait", "--for=condition=Ready", "appbucket/demo", "--timeout=60s"], "").await.unwrap();

    let object = world.wait_ready("demo").await;
    let secret = world.secrets().get("demo-s3").await.unwrap();
    check(&object, &secret, "http://stub-minio-platform.local:9000");
    assert_eq!(object.bucket_status(), Some(BucketStatus::Stub));
    assert_eq!(reason_of(&object, "Ready"), "Stub");
    let note = world.wait_event("demo", "Provisioned").await;
    assert!(note.contains("stub mode"), "{note}");
}

#[tokio::test]
async fn the_public_endpoint_is_what_apps_get() {
    let world = World::new("public").await;
    let _operator = world.operator(&world.minio(), &["--minio-public-endpoint", "https://s3.example.com"]).await;
    world.create("demo", spec("app")).await;
    let object = world.wait_ready("demo").await;
    check(&object, &world.secrets().get("demo-s3").await.unwrap(), "https://s3.example.com");
}

/// boto3 and mc, each with nothing but the Secret: up, list, down, delete, and denied on the bucket of another app.
#[tokio::test]
async fn real_clients_work_with_the_secret_alone() {
    let world = World::new("clients").await;
    let _operator = world.operator(&world.minio(), &[]).await;
    world.create("one", spec("one")).await;
    world.create("two", spec("two")).await;
    for name in ["one", "two"] {
        world.wait_ready(name).await;
    }
    let secrets = [world.secrets().get("one-s3").await.unwrap(), world.secrets().get("two-s3").await.unwrap()];
    let other_bucket = secret_value(&secrets[1], "OF_S3_BUCKET");
    let other = Mc::app(&world, &secrets[1]);
    other.put(&other_bucket, "theirs", "private").await;

    let mut python = Command::new(".tools/venv/bin/python");
    python.args(["tests/clients/story.py", &other_bucket, "theirs"]).env("AWS_CA_BUNDLE", world.env.pki.ca());
    python.envs(KEYS.map(|key| (key, secret_value(&secrets[0], key))));
    assert_eq!(run(python, "").await.unwrap().trim(), "boto3: done");

    let (mc, bucket) = (Mc::app(&world, &secrets[0]), secret_value(&secrets[0], "OF_S3_BUCKET"));
    mc.put(&bucket, "folder/file", "content").await;
    assert!(mc.run(&["ls", "--recursive", &format!("s3/{bucket}")], "").await.unwrap().contains("folder/file"));
    assert_eq!(mc.cat(&bucket, "folder/file").await.unwrap(), "content");
    mc.run(&["rm", &format!("s3/{bucket}/folder/file")], "").await.unwrap();
    assert_eq!(mc.run(&["ls", "--recursive", &format!("s3/{bucket}")], "").await.unwrap(), "");

    let theirs = format!("s3/{other_bucket}");
    let file = format!("{theirs}/theirs");
    for attempt in [
        vec!["ls", &theirs],
        vec!["cat", &file],
        vec!["rm", &file],
        vec!["pipe", &file],
        vec!["rb", "--force", &theirs],
        vec!["tag", "remove", &format!("s3/{bucket}")],
        vec!["mb", "s3/another-bucket"],
        vec!["admin", "user", "ls", "s3"],
        vec!["admin", "accesskey", "create", "s3"],
    ] {
        let error = mc.run(&attempt, "x").await.unwrap_err();
        assert!(error.contains("Access Denied") || error.contains("Insufficient permissions"), "{attempt:?}: {error}");
    }
    assert_eq!(other.cat(&other_bucket, "theirs").await.unwrap(), "private");
}

/// A pass over what is in order writes nothing, whatever triggered it.
#[tokio::test]
async fn what_is_converged_is_left_alone() {
    let world = World::new("calm").await;
    let operator = world.operator(&world.minio(), &["--resync", "300ms"]).await;
    world.create("demo", spec("app")).await;
    world.wait_ready("demo").await;
    world.wait_event("demo", "Provisioned").await;
    let audit = ApiAudit::of_operator(&world);
    let writes = audit.writes();

    // The token is echoed in the status, once: that is a write, and the proof of a pass.
    let token = "2026-11-24T00:00:00Z";
    world.patch("demo", json!({ "metadata": { "annotations": { "reconcile.fluxcd.io/requestedAt": token } } })).await;
    let handled = |object: &AppBucket| object.status.as_ref().unwrap().last_handled_reconcile_at.as_deref() == Some(token);
    world.wait("demo", "reconciled on request", handled).await;
    let passes = || std::fs::read_to_string(&operator.log).unwrap().matches("nothing to do").count();
    let before = passes();
    crate::support::eventually("three more passes", async || {
        let now = passes();
        if now >= before + 3 { Ok(()) } else { Err(format!("{now}, {before} before")) }
    })
    .await;
    let more: Vec<_> = audit.writes().into_iter().skip(writes.len()).collect();
    assert_eq!(more.len(), 1, "{more:?}");
    assert!(more[0].what.contains("appbuckets/demo/status"), "{more:?}");
}
