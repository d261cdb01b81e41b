//! What becomes of a bucket when its `AppBucket` is deleted.

use appbucket_operator::crd::{AppBucket, AppBucketSpec, DeletionPolicy};
use devcluster::MinioAccess;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use crate::support::{ACCOUNT, Mc, Operator, Provider, World, condition, eventually, reason_of, secret_value, spec};

const SOON: [&str; 4] = ["--stalled-recheck", "300ms", "--max-backoff", "500ms"];

fn delete_policy() -> AppBucketSpec {
    AppBucketSpec { deletion_policy: DeletionPolicy::Delete, ..spec("app") }
}

/// A world with an object `demo` that is ready; its bucket and its access key.
async fn provisioned(name: &str, spec: AppBucketSpec) -> (World, Operator, String, String) {
    let world = World::new(name).await;
    let operator = world.operator(&world.minio(), &SOON).await;
    world.create("demo", spec).await;
    let object = world.wait_ready("demo").await;
    let status = object.status.unwrap();
    (world, operator, status.bucket_name.unwrap(), status.access_key.unwrap())
}

async fn assert_nothing_left(world: &World, bucket: &str, access_key: &str) {
    let mc = world.mc();
    assert!(!mc.has_bucket(bucket).await);
    assert!(!mc.has_user(access_key).await);
    assert!(!mc.policies().await.contains(&format!("appbucket-{bucket}")));
}

#[tokio::test]
async fn retain_keeps_bucket_data_and_key() {
    let (world, _operator, bucket, _) = provisioned("retain", spec("app")).await;
    let secret = world.secrets().get("demo-s3").await.unwrap();
    let app = Mc::app(&world, &secret);
    app.put(&bucket, "file", "content").await;
    world.delete("demo").await;
    world.wait_gone("demo").await;
    let note = world.wait_event("demo", "Released").await;
    assert!(note.contains(&bucket), "{note}");
    // An app that still runs goes on.
    assert_eq!(app.cat(&bucket, "file").await.unwrap(), "content");
    // The garbage collector takes the Secret.
    eventually("the Secret is gone", async || {
        world.secrets().get_opt("demo-s3").await.unwrap().map_or(Ok(()), |_| Err("it is there".to_owned()))
    })
    .await;
}

#[tokio::test]
async fn delete_leaves_nothing() {
    let (world, _operator, bucket, access_key) = provisioned("delete", delete_policy()).await;
    world.delete("demo").await;
    world.wait_gone("demo").await;
    world.wait_event("demo", "BucketDeleted").await;
    assert_nothing_left(&world, &bucket, &access_key).await;
}

#[tokio::test]
async fn a_bucket_with_content_stays_until_it_is_emptied() {
    let (world, _operator, bucket, access_key) = provisioned("full", delete_policy()).await;
    let (mc, s3) = (world.mc(), format!("s3/{bucket}"));
    mc.run(&["version", "enable", &s3], "").await.unwrap();
    mc.put(&bucket, "file", "1").await;
    mc.put(&bucket, "file", "2").await;
    let app = Mc::app(&world, &world.secrets().get("demo-s3").await.unwrap());
    world.delete("demo").await;
    let object = world.wait_stalled("demo", "BucketNotEmpty").await;
    let message = object.status.as_ref().unwrap().condition("Stalled").unwrap().message.clone();
    assert!(message.contains("2 object versions") && message.contains("Retain"), "{message}");
    world.wait_event("demo", "BucketNotEmpty").await;
    // The app can still empty it itself. A delete marker is content, too.
    app.run(&["rm", &format!("{s3}/file")], "").await.unwrap();
    let counted = |object: &AppBucket| {
        object.status.as_ref().unwrap().condition("Stalled").is_some_and(|told| told.message.contains("1 delete markers"))
    };
    world.wait("demo", "counted again", counted).await;
    app.run(&["rm", "--recursive", "--force", "--versions", &s3], "").await.unwrap();
    world.wait_gone("demo").await;
    assert_nothing_left(&world, &bucket, &access_key).await;
}

#[tokio::test]
async fn a_stuck_deletion_ends_when_the_policy_is_set_back_to_retain() {
    let (world, _operator, bucket, access_key) = provisioned("changed-mind", delete_policy()).await;
    let mc = world.mc();
    mc.put(&bucket, "file", "content").await;
    world.delete("demo").await;
    world.wait_stalled("demo", "BucketNotEmpty").await;
    world.patch("demo", json!({ "spec": { "deletionPolicy": "Retain" } })).await;
    world.wait_gone("demo").await;
    assert_eq!(mc.cat(&bucket, "file").await.unwrap(), "content");
    assert!(mc.has_user(&access_key).await);
}

#[tokio::test]
async fn what_is_already_gone_does_not_matter() {
    let (world, operator, bucket, access_key) = provisioned("gone", delete_policy()).await;
    // Nobody repairs it meanwhile.
    assert!(operator.stop().await.success());
    let mc = world.mc();
    mc.run(&["rb", &format!("s3/{bucket}")], "").await.unwrap();
    mc.run(&["admin", "user", "remove", "s3", &access_key], "").await.unwrap();
    mc.run(&["admin", "policy", "remove", "s3", &format!("appbucket-{bucket}")], "").await.unwrap();
    world.secrets().delete("demo-s3", &DeleteParams::default()).await.unwrap();
    world.delete("demo").await;
    let _operator = world.operator(&world.minio(), &SOON).await;
    world.wait_gone("demo").await;
    assert_nothing_left(&world, &bucket, &access_key).await;
}

/// Where the operator's rights outlive the namespace, as with a ClusterRoleBinding.
#[tokio::test]
async fn a_namespace_goes_with_its_app_bucket() {
    let mut world = World::new("stays").await;
    let leaving = world.add_namespace("leaves").await;
    world.bind_everywhere(ACCOUNT, "appbucket-operator").await;
    let _operator = world.operator(&world.minio(), &SOON).await;
    let api: Api<AppBucket> = Api::namespaced(world.client.clone(), &leaving);
    api.create(&PostParams::default(), &AppBucket::new("demo", delete_policy())).await.unwrap();
    let status = world.wait_in(&leaving, "demo", "ready", |object| condition(object, "Ready") == "True").await.status.unwrap();
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces.delete(&leaving, &DeleteParams::default()).await.unwrap();
    eventually("the namespace is gone", async || match namespaces.get_opt(&leaving).await.unwrap() {
        None => Ok(()),
        Some(namespace) => Err(serde_json::to_string(&namespace.status).unwrap()),
    })
    .await;
    assert_nothing_left(&world, &status.bucket_name.unwrap(), &status.access_key.unwrap()).await;
}

#[tokio::test]
async fn an_outage_of_the_backend_delays_and_loses_nothing() {
    let world = World::new("backend").await;
    let mut minio = world.own_minio(vec![]).await;
    let provider = Provider::Minio(minio.access());
    let _operator = world.operator(&provider, &SOON).await;
    for name in ["demo", "other"] {
        world.create(name, AppBucketSpec { app_id: name.to_owned(), ..delete_policy() }).await;
        world.wait_ready(name).await;
    }
    let status = world.get("demo").await.status.unwrap();
    minio.stop();
    world.delete("demo").await;
    world.wait("demo", "told of the outage", |object| reason_of(object, "Reconciling") == "BackendUnavailable").await;
    // The other one keeps its last truth.
    world.patch("other", json!({ "metadata": { "annotations": { "reconcile.fluxcd.io/requestedAt": "now" } } })).await;
    let other =
        world.wait("other", "told of the outage", |object| reason_of(object, "Reconciling") == "BackendUnavailable").await;
    assert_eq!(condition(&other, "Ready"), "True");
    world.wait_event("other", "BackendUnavailable").await;

    minio.resume().await.unwrap();
    world.wait_gone("demo").await;
    world.wait_ready("other").await;
    let mc = Mc::administrator(&world, &minio.access());
    assert_eq!(mc.buckets().await, [world.get("other").await.status.unwrap().bucket_name.unwrap()]);
    assert!(!mc.has_user(&status.access_key.unwrap()).await);
}

/// Deleted before it was ever ready: at once, and after its bucket was made.
#[tokio::test]
async fn an_object_that_is_deleted_in_the_middle_of_provisioning() {
    let world = World::new("middle").await;
    let minio = world.own_minio(vec![]).await;
    let (provider, mc) = (Provider::Minio(minio.access()), Mc::administrator(&world, &minio.access()));
    let operator = world.operator(&provider, &SOON).await;
    for name in ["one", "two", "three", "four"] {
        world.create(name, delete_policy()).await;
        if name != "one" {
            operator
                .wait_log(&format!("object.ref=AppBucket.v1alpha1.storage.openfactory.tech/{name}.{}", world.namespace))
                .await;
        }
        world.delete(name).await;
    }
    for name in ["one", "two", "three", "four"] {
        world.wait_gone(name).await;
    }
    // A foreign Secret stops this one after bucket and user are there for the next: it is deleted while it is Stalled.
    let secret = serde_json::from_value(json!({ "metadata": { "name": "stalled-s3" } })).unwrap();
    world.secrets().create(&PostParams::default(), &secret).await.unwrap();
    world.create("stalled", delete_policy()).await;
    world.wait_stalled("stalled", "SecretNotOwned").await;
    world.delete("stalled").await;
    world.wait_gone("stalled").await;

    assert_eq!(mc.buckets().await, Vec::<String>::new());
    assert_eq!(mc.users().await, vec![]);
    assert_eq!(mc.policies().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_same_name_again_at_once_is_another_bucket() {
    let (world, _operator, bucket, _) = provisioned("again", spec("app")).await;
    let old = (world.get("demo").await, world.secrets().get("demo-s3").await.unwrap());
    Mc::app(&world, &old.1).put(&bucket, "file", "content").await;
    world.delete("demo").await;
    world.wait_gone("demo").await;
    // The old Secret may still be there.
    world.create("demo", spec("app")).await;
    let object = world.wait_ready("demo").await;
    let secret = world.secrets().get("demo-s3").await.unwrap();
    assert_ne!(object.uid(), old.0.uid());
    assert_eq!(secret.owner_references()[0].uid, object.uid().unwrap());
    let value = |key| (secret_value(&old.1, key), secret_value(&secret, key));
    for key in ["OF_S3_BUCKET", "OF_S3_ACCESS_KEY", "OF_S3_SECRET_KEY"] {
        let (old, new) = value(key);
        assert_ne!(old, new, "{key}");
    }
    let app = Mc::app(&world, &secret);
    app.put(&secret_value(&secret, "OF_S3_BUCKET"), "file", "new").await;
    assert!(app.cat(&bucket, "file").await.is_err());
    assert_eq!(Mc::app(&world, &old.1).cat(&bucket, "file").await.unwrap(), "content");
}

/// The provider for an operator whose administrator's key is wrong.
#[tokio::test]
async fn wrong_admin_credentials_are_told_and_clear_by_themselves() {
    let world = World::new("denied").await;
    let access = world.env.minio.clone().unwrap();
    let wrong = MinioAccess { root_password: "not-the-password-of-root".to_owned(), ..access };
    let operator = world.operator(&Provider::Minio(wrong), &SOON).await;
    world.create("demo", spec("app")).await;
    let object = world.wait_stalled("demo", "BackendDenied").await;
    let message = object.status.as_ref().unwrap().condition("Stalled").unwrap().message.clone();
    assert!(message.contains("check the operator's MinIO credentials"), "{message}");
    operator.kill();
    let _operator = world.operator(&world.minio(), &SOON).await;
    world.wait_ready("demo").await;
}
