//! What GitOps controllers do with an `AppBucket`, and how one is paused.

use serde_json::json;

use crate::support::{World, condition, eventually, secret_value, spec};

const MANIFEST: &str = "deploy/examples/appbucket.yaml";

#[tokio::test]
async fn an_applied_manifest_shows_no_difference_and_knows_no_conflict() {
    let world = World::new("gitops").await;
    let _operator = world.operator(&world.minio(), &[]).await;
    world.kubectl(&["apply", "-f", MANIFEST], "").await.unwrap();
    world.wait_ready("photos").await;
    // `kubectl diff` exits with 1 where there is a difference.
    world.kubectl(&["diff", "-f", MANIFEST], "").await.unwrap();
    let applied = world.kubectl(&["apply", "-f", MANIFEST], "").await.unwrap();
    assert!(applied.contains("unchanged"), "{applied}");

    // As Argo CD and Flux do it, with owners of their own.
    let manifest =
        "{apiVersion: storage.openfactory.tech/v1alpha1, kind: AppBucket, metadata: {name: served}, spec: {appId: a}}";
    for _ in 0..2 {
        world.kubectl(&["apply", "--server-side", "--field-manager=argocd-controller", "-f", "-"], manifest).await.unwrap();
        world.wait_ready("served").await;
    }
    world.kubectl(&["diff", "--server-side", "--field-manager=argocd-controller", "-f", "-"], manifest).await.unwrap();
}

#[tokio::test]
async fn a_paused_object_is_left_alone_until_it_goes_on() {
    let world = World::new("paused").await;
    let operator = world.operator(&world.minio(), &["--resync", "300ms", "--stalled-recheck", "300ms"]).await;
    world.create("demo", spec("app")).await;
    world.wait_ready("demo").await;
    let secret = world.secrets().get("demo-s3").await.unwrap();
    let (bucket, access_key) = (secret_value(&secret, "OF_S3_BUCKET"), secret_value(&secret, "OF_S3_ACCESS_KEY"));
    let pause = json!({ "metadata": { "annotations": { "storage.openfactory.tech/reconcile": "paused" } } });
    world.patch("demo", pause).await;
    let object = world.wait("demo", "paused", |object| condition(object, "Paused") == "True").await;
    assert_eq!((condition(&object, "Ready"), condition(&object, "Stalled")), ("True", ""), "it works as before");
    world.wait_event("demo", "Paused").await;

    let steps = || std::fs::read_to_string(&operator.log).unwrap().matches("acting step=").count();
    let passes = || std::fs::read_to_string(&operator.log).unwrap().matches("reconciling object").count();
    let (before, seen) = (steps(), passes());
    let mc = world.mc();
    mc.run(&["admin", "user", "remove", "s3", &access_key], "").await.unwrap();
    world.patch("demo", json!({ "spec": { "deletionPolicy": "Delete" } })).await;
    world.delete("demo").await;
    eventually("it is looked at", async || if passes() > seen + 50 { Ok(()) } else { Err(passes().to_string()) }).await;
    assert_eq!(steps(), before);
    assert!(mc.has_bucket(&bucket).await && !mc.has_user(&access_key).await);

    world.patch("demo", json!({ "spec": { "deletionPolicy": "Retain" } })).await;
    world.patch("demo", json!({ "metadata": { "annotations": { "storage.openfactory.tech/reconcile": null } } })).await;
    world.wait_gone("demo").await;
    assert!(mc.has_bucket(&bucket).await);
}
