//! From the stub to MinIO, and not back.

use appbucket_operator::crd::{AppBucket, BucketStatus};

use crate::support::{Mc, Provider, TestProducer, World, condition, secret_value, spec};

#[tokio::test]
async fn a_stub_becomes_real_with_the_same_names_and_keys_and_never_a_stub_again() {
    let world = World::new("promotion").await;
    let producer = TestProducer::start(&world).await;
    let args = producer.args();
    let published_at = |object: &AppBucket, endpoint: &str| {
        condition(object, "EnvPublished") == "True" && object.status.as_ref().unwrap().endpoint_url.as_deref() == Some(endpoint)
    };

    let operator = world.operator(&Provider::Stub, &args).await;
    world.create("demo", spec("app")).await;
    let stub = world.wait("demo", "published", |object| published_at(object, "http://stub-minio-platform.local:9000")).await;
    let before = world.secrets().get("demo-s3").await.unwrap();
    assert!(operator.stop().await.success());

    let endpoint = world.env.minio.clone().unwrap().endpoint;
    let operator = world.operator(&world.minio(), &args).await;
    let real = world.wait("demo", "published with the new endpoint", |object| published_at(object, &endpoint)).await;
    let after = world.secrets().get("demo-s3").await.unwrap();
    let (old, new) = (stub.status.as_ref().unwrap(), real.status.as_ref().unwrap());
    assert_eq!((old.status, new.status), (Some(BucketStatus::Stub), Some(BucketStatus::Ready)));
    assert_eq!((&old.bucket_id, &old.bucket_name, &old.access_key), (&new.bucket_id, &new.bucket_name, &new.access_key));
    assert_eq!(old.created_at, new.created_at);
    assert_eq!(before.metadata.uid, after.metadata.uid);
    for key in ["OF_S3_BUCKET", "OF_S3_ACCESS_KEY", "OF_S3_SECRET_KEY", "OF_S3_REGION"] {
        assert_eq!(secret_value(&before, key), secret_value(&after, key), "{key}");
    }
    assert_eq!(secret_value(&after, "OF_S3_ENDPOINT"), endpoint);
    assert!(secret_value(&after, "app.env").contains(&endpoint));
    assert_eq!(producer.environment("app").unwrap()["values"]["OF_S3_ENDPOINT"], endpoint.as_str());
    world.wait_event("demo", "Promoted").await;
    let bucket = secret_value(&after, "OF_S3_BUCKET");
    Mc::app(&world, &after).put(&bucket, "file", "content").await;
    assert!(operator.stop().await.success());

    // Back to the stub: refused, and nothing changes.
    let operator = world.operator(&Provider::Stub, &args).await;
    let object = world.wait_stalled("demo", "DemotionRefused").await;
    assert_eq!((object.bucket_status(), condition(&object, "Ready")), (Some(BucketStatus::Ready), "True"));
    assert_eq!(world.secrets().get("demo-s3").await.unwrap().data, after.data);
    assert_eq!(Mc::app(&world, &after).cat(&bucket, "file").await.unwrap(), "content");
    world.wait_event("demo", "DemotionRefused").await;
    assert!(operator.stop().await.success());

    let _operator = world.operator(&world.minio(), &args).await;
    world.wait("demo", "no longer Stalled", |object| condition(object, "Stalled").is_empty()).await;
}
