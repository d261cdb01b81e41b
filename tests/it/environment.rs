//! The app's environment, through the producer API.

use appbucket_operator::crd::{AppBucket, EnvPolicy};
use axum::http::Method;
use serde_json::json;

use crate::support::{Answer, ApiAudit, Operator, TestProducer, World, condition, eventually, reason_of, secret_value, spec};

async fn start(name: &str, more: &[&str]) -> (World, TestProducer, Operator) {
    let world = World::new(name).await;
    let producer = TestProducer::start(&world).await;
    let args: Vec<_> = producer.args().into_iter().chain(more.iter().copied()).collect();
    let operator = world.operator(&world.minio(), &args).await;
    (world, producer, operator)
}

fn published(object: &AppBucket) -> bool {
    object.status.as_ref().and_then(|status| status.env.as_ref()).is_some_and(|env| env.published)
        && condition(object, "EnvPublished") == "True"
}

fn id(object: &AppBucket) -> String {
    object.status.as_ref().unwrap().bucket_id.clone().unwrap()
}

fn refs(object: &AppBucket) -> &[String] {
    &object.status.as_ref().unwrap().bucket_refs
}

/// Creates an object that is newer than all before: creation times have no fractions of a second.
async fn create_newer(world: &World, name: &str, app_id: &str) {
    let objects = world.app_buckets().list(&kube::api::ListParams::default()).await.unwrap();
    let newest = objects.items.iter().filter_map(|object| object.metadata.creation_timestamp.clone()).max();
    eventually("the next second", async || {
        let now = jiff::Timestamp::now().as_second();
        if newest.as_ref().is_none_or(|newest| newest.0.as_second() < now) { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    world.create(name, spec(app_id)).await;
}

#[tokio::test]
async fn the_five_values_are_published() {
    let (world, producer, _operator) = start("publish", &[]).await;
    world.create("demo", spec("app-1")).await;
    let object = world.wait("demo", "published", published).await;
    let secret = world.secrets().get("demo-s3").await.unwrap();
    let keys = ["OF_S3_ENDPOINT", "OF_S3_BUCKET", "OF_S3_ACCESS_KEY", "OF_S3_SECRET_KEY", "OF_S3_REGION"];
    let values: serde_json::Map<_, _> = keys.iter().map(|key| ((*key).to_owned(), secret_value(&secret, key).into())).collect();

    let requests = producer.requests();
    assert_eq!(requests.len(), 1, "once: {requests:?}");
    assert_eq!((&requests[0].method, requests[0].app_id.as_str()), (&Method::PUT, "app-1"));
    assert_eq!(requests[0].body, json!({ "values": values, "bucket_id": id(&object), "bucket_refs": [id(&object)] }));
    let env = object.status.as_ref().unwrap().env.as_ref().unwrap();
    assert_eq!(env.keys, keys);
    assert!(!env.hash.as_ref().unwrap().contains(&secret_value(&secret, "OF_S3_SECRET_KEY")));
    world.wait_event("demo", "EnvPublished").await;
}

#[tokio::test]
async fn nothing_is_published_without_a_token_and_the_seed_says_so() {
    let (world, producer, _operator) = start("no-token", &[]).await;
    producer.remove_token();
    world.create("demo", spec("app")).await;
    let object = world.wait_ready("demo").await;
    assert_eq!(reason_of(&object, "EnvPublished"), "ProducerTokenMissing");
    let message = &object.status.as_ref().unwrap().condition("EnvPublished").unwrap().message;
    assert_eq!(
        message,
        "OPENFACTORY_STORAGE_PRODUCER_TOKEN is not configured; call set_app_env(app_id, set=<env_payload from this response>) to \
         inject manually."
    );
    assert!(producer.requests().is_empty());
    producer.set_token(true);
    world.wait("demo", "published", published).await;
}

#[tokio::test]
async fn a_refusal_is_told_without_secrets_and_tried_again() {
    let (world, producer, _operator) = start("refused", &[]).await;
    producer.set_token(false);
    world.create("demo", spec("app")).await;
    let object = world.wait("demo", "refused", |object| reason_of(object, "EnvPublished") == "ProducerRefused").await;
    assert_eq!(condition(&object, "Ready"), "True", "the bucket does not wait for the producer");
    let message = &object.status.as_ref().unwrap().condition("EnvPublished").unwrap().message;
    let key = secret_value(&world.secrets().get("demo-s3").await.unwrap(), "OF_S3_SECRET_KEY");
    assert!(
        message.contains("401") && message.contains("***") && !message.contains("token-of") && !message.contains(&key),
        "{message}"
    );

    producer.answer([Answer::Status(422, "app is archived")]);
    producer.set_token(true);
    let told = |object: &AppBucket| {
        object
            .status
            .as_ref()
            .and_then(|status| status.condition("EnvPublished"))
            .is_some_and(|told| told.message.contains("app is archived"))
    };
    world.wait("demo", "told of the 422", told).await;
    world.wait("demo", "published", published).await;
}

#[tokio::test]
async fn an_outage_of_the_producer_heals() {
    let (world, producer, _operator) = start("outage", &["--producer-timeout", "3s"]).await;
    producer.answer([Answer::Hang, Answer::Status(500, "oops"), Answer::Status(503, ""), Answer::RetryAfter("2")]);
    world.create("demo", spec("app")).await;
    let object =
        world.wait("demo", "Ready while the producer hangs", |object| reason_of(object, "EnvPublished") == "Publishing").await;
    assert_eq!(condition(&object, "Ready"), "True");
    world.wait("demo", "told of it", |object| reason_of(object, "EnvPublished") == "ProducerUnavailable").await;
    world.wait("demo", "published", published).await;
    let requests = producer.requests();
    assert_eq!(requests.len(), 5, "{requests:?}");
    let waited = requests[4].at.duration_since(requests[3].at);
    assert!(waited.as_secs() >= 2, "Retry-After: 2, and it came after {waited:?}");
}

#[tokio::test]
async fn the_newest_bucket_is_the_one_that_is_published() {
    let (world, producer, _operator) = start("newest", &[]).await;
    create_newer(&world, "old", "app").await;
    let old = world.wait("old", "published", published).await;
    create_newer(&world, "new", "app").await;
    let new = world.wait("new", "published", published).await;
    let both = [id(&old), id(&new)];
    let superseded = |object: &AppBucket| {
        let told = object.status.as_ref().unwrap().condition("EnvPublished").unwrap();
        told.reason == "Superseded" && told.message.contains("AppBucket new") && refs(object) == both
    };
    let old = world.wait("old", "superseded", superseded).await;
    assert!(!published(&old));
    assert_eq!(refs(&new), both);
    let environment = producer.environment("app").unwrap();
    assert_eq!((&environment["bucket_id"], &environment["bucket_refs"]), (&json!(both[1]), &json!(both)));
    world.wait_event("old", "EnvSuperseded").await;
    // The flag was taken from the old one before the new values were sent: a crash in between leaves none, not two.
    let sent = producer.requests().last().unwrap().at;
    let writes = ApiAudit::of_operator(&world).writes();
    let taken = writes.iter().filter(|write| write.what.contains("appbuckets/old/status") && write.at < sent).count();
    assert_eq!(taken, 2, "provisioned; flag taken: {writes:?}");

    // It falls back to the older one, and is withdrawn with the last.
    world.delete("new").await;
    let old = world.wait("old", "published again", published).await;
    producer.wait_environment("app", Some(&both[0])).await;
    assert_eq!(refs(&old), [both[0].clone()]);
    assert!(producer.requests().iter().all(|request| request.method == Method::PUT), "there was never no environment");
    world.delete("old").await;
    world.wait_gone("old").await;
    producer.wait_environment("app", None).await;
    assert_eq!(producer.requests().last().unwrap().method, Method::DELETE);
}

#[tokio::test]
async fn who_does_not_want_to_be_published_is_not() {
    let (world, producer, _operator) = start("private", &[]).await;
    create_newer(&world, "public", "app").await;
    let public = world.wait("public", "published", published).await;
    let mut private = spec("app");
    private.env_policy = EnvPolicy::None;
    world.create("private", private).await;
    let private = world.wait_ready("private").await;
    assert_eq!(reason_of(&private, "EnvPublished"), "Disabled");
    let both = [id(&public), id(&private)];
    world
        .wait("public", "told of both", |object| refs(object).iter().all(|id| both.contains(id)) && refs(object).len() == 2)
        .await;
    producer.wait_environment("app", Some(&both[0])).await;

    // The policy is changed: withdrawn, and published again.
    world.patch("public", json!({ "spec": { "envPolicy": "None" } })).await;
    producer.wait_environment("app", None).await;
    world.wait("public", "Disabled", |object| reason_of(object, "EnvPublished") == "Disabled").await;
    world.patch("public", json!({ "spec": { "envPolicy": "Publish" } })).await;
    producer.wait_environment("app", Some(&both[0])).await;
    world.wait("public", "published", published).await;
}

#[tokio::test]
async fn an_environment_that_can_not_be_withdrawn_does_not_hold_the_object_for_ever() {
    let (world, producer, _operator) = start("leave", &[]).await;
    world.create("demo", spec("app")).await;
    world.wait("demo", "published", published).await;
    producer.set_token(false);
    world.delete("demo").await;
    world.wait_gone("demo").await;
    let note = world.wait_event("demo", "EnvNotWithdrawn").await;
    assert!(note.contains("401") && note.contains("still holds the keys"), "{note}");
}
