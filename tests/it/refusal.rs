//! What is not ours is not touched; and what stood in the way is noticed when it is gone.

use appbucket_operator::crd::AppBucket;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::support::{Mc, World, condition, secret_value, spec};

const SOON: [&str; 2] = ["--stalled-recheck", "300ms"];

#[tokio::test]
async fn a_foreign_secret() {
    let world = World::new("foreign-secret").await;
    let secret = json!({ "metadata": { "name": "demo-s3" }, "stringData": { "OF_S3_SECRET_KEY": "somebody-elses-key" } });
    let made = world.secrets().create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let _operator = world.operator(&world.minio(), &SOON).await;
    world.create("demo", spec("app")).await;
    let object = world.wait_stalled("demo", "SecretNotOwned").await;
    assert_eq!(condition(&object, "Ready"), "False");
    world.wait_event("demo", "SecretNotOwned").await;
    assert_eq!(world.secrets().get("demo-s3").await.unwrap().metadata.resource_version, made.metadata.resource_version);

    // The labels by which the operator finds its Secrets prove nothing, and neither does an owner reference that is not the controller's.
    let forged = json!({ "metadata": {
        "labels": { "app.kubernetes.io/managed-by": "appbucket-operator", "storage.openfactory.tech/appbucket": "demo" },
        "ownerReferences": [{ "apiVersion": "storage.openfactory.tech/v1alpha1", "kind": "AppBucket", "name": "demo", "uid": object.metadata.uid }],
    } });
    let patched = world.secrets().patch("demo-s3", &PatchParams::default(), &Patch::Merge(forged)).await.unwrap();
    assert_eq!(secret_value(&patched, "OF_S3_SECRET_KEY"), "somebody-elses-key");
    world.wait_stalled("demo", "SecretNotOwned").await;

    world.secrets().delete("demo-s3", &DeleteParams::default()).await.unwrap();
    let object = world.wait_ready("demo").await;
    assert_eq!(condition(&object, "Stalled"), "");
    assert_ne!(secret_value(&world.secrets().get("demo-s3").await.unwrap(), "OF_S3_SECRET_KEY"), "somebody-elses-key");
}

/// The bucket's name follows from the UID: it is known before the operator has seen the object.
#[tokio::test]
async fn a_foreign_bucket() {
    let world = World::new("foreign-bucket").await;
    let object = world.create("demo", spec("app")).await;
    let bucket = appbucket_operator::identity::Identity::of(&object).bucket_name;
    let mc = world.mc();
    mc.run(&["mb", &format!("s3/{bucket}")], "").await.unwrap();
    mc.put(&bucket, "theirs", "precious").await;
    let policies = mc.policies().await;

    let _operator = world.operator(&world.minio(), &SOON).await;
    let object = world.wait_stalled("demo", "BucketNotOwned").await;
    assert_eq!(condition(&object, "Ready"), "False");
    assert_eq!(object.bucket_status(), None);
    let note = world.wait_event("demo", "BucketNotOwned").await;
    assert!(note.contains(&bucket), "{note}");
    assert_eq!(mc.tags(&bucket).await, serde_json::Value::Null);
    assert_eq!(mc.cat(&bucket, "theirs").await.unwrap(), "precious");
    assert!(world.secrets().get_opt("demo-s3").await.unwrap().is_none());
    let added: Vec<_> =
        mc.policies().await.into_iter().filter(|name| name.contains(&bucket) && !policies.contains(name)).collect();
    assert!(added.is_empty(), "{added:?}");

    // Deleting the object touches it as little, whatever its policy.
    world.patch("demo", json!({ "spec": { "deletionPolicy": "Delete" } })).await;
    world.delete("demo").await;
    world.wait_gone("demo").await;
    assert_eq!(mc.cat(&bucket, "theirs").await.unwrap(), "precious");
}

#[tokio::test]
async fn a_foreign_bucket_that_goes_away() {
    let world = World::new("passing-bucket").await;
    let object = world.create("demo", spec("app")).await;
    let bucket = appbucket_operator::identity::Identity::of(&object).bucket_name;
    let mc = world.mc();
    mc.run(&["mb", &format!("s3/{bucket}")], "").await.unwrap();
    let _operator = world.operator(&world.minio(), &SOON).await;
    world.wait_stalled("demo", "BucketNotOwned").await;
    mc.run(&["rb", &format!("s3/{bucket}")], "").await.unwrap();
    world.wait_ready("demo").await;
    Mc::app(&world, &world.secrets().get("demo-s3").await.unwrap()).put(&bucket, "file", "content").await;
}

#[tokio::test]
async fn an_app_of_another_namespace() {
    let mut world = World::new("first").await;
    let second = world.add_namespace("second").await;
    let _operator = world.operator(&world.minio(), &SOON).await;
    world.create("demo", spec("app")).await;
    let first = world.wait_ready("demo").await;
    let theirs: Api<AppBucket> = Api::namespaced(world.client.clone(), &second);
    theirs.create(&PostParams::default(), &AppBucket::new("demo", spec("app"))).await.unwrap();
    let stalled = |object: &AppBucket| {
        object.status.as_ref().unwrap().condition("Stalled").is_some_and(|told| told.reason == "AppOwnedByAnotherNamespace")
    };
    let object = world.wait_in(&second, "demo", "Stalled", stalled).await;
    let status = object.status.as_ref().unwrap();
    assert!(status.bucket_refs.is_empty() && status.bucket_id.is_none(), "{status:?}");
    let message = &status.condition("Stalled").unwrap().message;
    assert!(!message.contains(&world.namespace), "the other tenant is not named: {message}");
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), &second);
    assert!(secrets.get_opt("demo-s3").await.unwrap().is_none());
    assert_eq!(world.get("demo").await.status, first.status);

    world.delete("demo").await;
    world.wait_in(&second, "demo", "ready", |object| condition(object, "Ready") == "True").await;
}

#[tokio::test]
async fn an_app_id_that_strict_mode_does_not_allow() {
    let world = World::new("strict").await;
    let _operator = world.operator(&world.minio(), &["--strict-app-ids", SOON[0], SOON[1]]).await;
    world.create("demo", spec("app")).await;
    let object = world.wait_stalled("demo", "AppIdNotAllowed").await;
    assert_eq!(object.bucket_status(), None);
    world.wait_event("demo", "AppIdNotAllowed").await;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let allow = async |ids: &str| {
        let patch = json!({ "metadata": { "annotations": { "storage.openfactory.tech/app-ids": ids } } });
        namespaces.patch(&world.namespace, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    allow("other, app-2").await;
    world.wait_stalled("demo", "AppIdNotAllowed").await;
    allow("other, app").await;
    world.wait_ready("demo").await;
}
