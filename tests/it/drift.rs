//! What is removed or changed behind the operator's back is put back. The data are never touched.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{Mc, Operator, Provider, World, condition, eventually, secret_value, spec};

/// A provisioned object `demo` with a file in its bucket.
struct Story {
    world: World,
    _operator: Operator,
    mc: Mc,
    secret: Secret,
    bucket: String,
    access_key: String,
}

impl Story {
    async fn begin(name: &str, resync: &str) -> Self {
        let world = World::new(name).await;
        let operator = world.operator(&world.minio(), &["--resync", resync, "--stalled-recheck", "300ms"]).await;
        world.create("demo", spec("app")).await;
        world.wait_ready("demo").await;
        let secret = world.secrets().get("demo-s3").await.unwrap();
        let (bucket, access_key) = (secret_value(&secret, "OF_S3_BUCKET"), secret_value(&secret, "OF_S3_ACCESS_KEY"));
        Mc::app(&world, &secret).put(&bucket, "file", "content").await;
        Self { mc: world.mc(), world, _operator: operator, secret, bucket, access_key }
    }

    /// Waits until the keys of this Secret work again, and the file is still there.
    async fn heals(&self, secret: &Secret) {
        let app = Mc::app(&self.world, secret);
        let content = eventually("the key works again", async || app.cat(&self.bucket, "file").await).await;
        assert_eq!(content, "content");
        self.world.wait_ready("demo").await;
    }

    async fn secret(&self) -> Secret {
        self.world.secrets().get("demo-s3").await.unwrap()
    }
}

#[tokio::test]
async fn the_user() {
    let story = Story::begin("drift-user", "300ms").await;
    story.mc.run(&["admin", "user", "remove", "s3", &story.access_key], "").await.unwrap();
    story.heals(&story.secret).await;
    story.world.wait_event("demo", "UserRepaired").await;
    story.mc.run(&["admin", "user", "disable", "s3", &story.access_key], "").await.unwrap();
    story.heals(&story.secret).await;
    story.mc.run(&["admin", "user", "add", "s3", &story.access_key, "another-secret-key"], "").await.unwrap();
    story.heals(&story.secret).await;
    let policies = async |policy: &str| story.mc.users().await.contains(&(story.access_key.clone(), policy.to_owned()));
    let ours = format!("appbucket-{}", story.bucket);
    story.mc.run(&["admin", "policy", "attach", "s3", "readwrite", "--user", &story.access_key], "").await.unwrap();
    eventually("only its own policy", async || {
        if policies(&ours).await { Ok(()) } else { Err(format!("{:?}", story.mc.users().await)) }
    })
    .await;
    assert_eq!(story.secret().await.data, story.secret.data);
}

#[tokio::test]
async fn the_policy() {
    let story = Story::begin("drift-policy", "300ms").await;
    let name = format!("appbucket-{}", story.bucket);
    // MinIO keeps the lists in a policy as sets: in no order.
    let document = async || {
        let mut policy =
            story.mc.json(&["admin", "policy", "info", "s3", &name]).await.unwrap()[0]["policyInfo"]["Policy"].clone();
        for statement in policy["Statement"].as_array_mut().unwrap() {
            statement["Action"].as_array_mut().unwrap().sort_by_key(ToString::to_string);
        }
        policy
    };
    let before = document().await;
    let wide = story.world.dir.join("wide.json");
    let anything = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"] }] });
    std::fs::write(&wide, anything.to_string()).unwrap();
    story.mc.run(&["admin", "policy", "create", "s3", &name, wide.to_str().unwrap()], "").await.unwrap();
    eventually("its own policy again", async || {
        let now = document().await;
        if now == before { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    story.world.wait_event("demo", "PolicyRepaired").await;
    story.mc.run(&["admin", "policy", "detach", "s3", &name, "--user", &story.access_key], "").await.unwrap();
    story.heals(&story.secret).await;
}

#[tokio::test]
async fn the_tag() {
    let story = Story::begin("drift-tag", "300ms").await;
    let (mc, s3) = (&story.mc, format!("s3/{}", story.bucket));
    let before = mc.tags(&story.bucket).await;
    for change in [vec!["tag", "remove", &s3], vec!["tag", "set", &s3, "appbucket-operator/uid=another&team=blue"]] {
        mc.run(&change, "").await.unwrap();
        eventually("the tag is back", async || {
            let now = mc.tags(&story.bucket).await;
            let same = before.as_object().unwrap().iter().all(|(key, value)| now[key] == *value);
            if same { Ok(()) } else { Err(now.to_string()) }
        })
        .await;
    }
    assert_eq!(mc.tags(&story.bucket).await["team"], "blue", "tags of others are theirs");
    story.heals(&story.secret).await;
    story.world.wait_event("demo", "OwnershipTagRepaired").await;
}

#[tokio::test]
async fn the_bucket() {
    let story = Story::begin("drift-bucket", "300ms").await;
    story.mc.run(&["rb", "--force", &format!("s3/{}", story.bucket)], "").await.unwrap();
    let app = Mc::app(&story.world, &story.secret);
    eventually("the bucket is there again", async || app.run(&["ls", &format!("s3/{}", story.bucket)], "").await).await;
    let note = story.world.wait_event("demo", "BucketRecreated").await;
    assert!(note.contains("empty"), "{note}");
    app.put(&story.bucket, "file", "content").await;
    assert_eq!(story.secret().await.data, story.secret.data);
}

/// Noticed by the watch: the resync is far away.
#[tokio::test]
async fn the_secret() {
    let story = Story::begin("drift-secret", "1h").await;
    story.world.secrets().delete("demo-s3", &DeleteParams::default()).await.unwrap();
    let new = eventually("a new Secret", async || match story.world.secrets().get_opt("demo-s3").await.unwrap() {
        Some(secret) => Ok(secret),
        None => Err("there is none".to_owned()),
    })
    .await;
    assert_ne!(secret_value(&new, "OF_S3_SECRET_KEY"), secret_value(&story.secret, "OF_S3_SECRET_KEY"), "a new key");
    assert_eq!(secret_value(&new, "OF_S3_BUCKET"), story.bucket);
    story.heals(&new).await;
    story.world.wait_event("demo", "SecretRecreated").await;
    assert!(Mc::app(&story.world, &story.secret).cat(&story.bucket, "file").await.is_err(), "the old key is void");

    let data = async || story.secret().await.data;
    let before = data().await;
    for change in [
        json!({ "OF_S3_BUCKET": "YW5vdGhlcg==" }),
        json!({ "OF_S3_ENDPOINT": null }),
        json!({ "app.env": "" }),
        // What others add stays theirs.
        json!({ "OF_S3_REGION": "eA==", "EXTRA": "eA==" }),
    ] {
        let patch = Patch::Merge(json!({ "data": change }));
        story.world.secrets().patch("demo-s3", &PatchParams::default(), &patch).await.unwrap();
        eventually("the Secret is as before", async || {
            let mut now = data().await.unwrap();
            now.remove("EXTRA");
            if Some(&now) == before.as_ref() { Ok(()) } else { Err(format!("{change}")) }
        })
        .await;
    }
    assert!(data().await.unwrap().contains_key("EXTRA"));

    // A key that was overwritten with a usable one is the truth now; one that is unusable is drawn again.
    for (text, kept) in [("a-key-that-somebody-chose", true), ("short", false)] {
        let patch = Patch::Merge(json!({ "stringData": { "OF_S3_SECRET_KEY": text } }));
        story.world.secrets().patch("demo-s3", &PatchParams::default(), &patch).await.unwrap();
        let secret = eventually("Secret and file agree", async || {
            let secret = story.secret().await;
            let (key, file) = (secret_value(&secret, "OF_S3_SECRET_KEY"), secret_value(&secret, "app.env"));
            if file.contains(&key) && (kept || key.len() == 36) { Ok(secret) } else { Err(text.to_owned()) }
        })
        .await;
        assert_eq!(secret_value(&secret, "OF_S3_SECRET_KEY") == text, kept);
        story.heals(&secret).await;
    }
}

/// The disk is lost: every bucket and user is made again with the same keys, and an Event says so.
#[tokio::test]
async fn the_whole_server() {
    let world = World::new("drift-server").await;
    let mut minio = world.own_minio(vec![]).await;
    let provider = Provider::Minio(minio.access());
    let _operator = world.operator(&provider, &["--resync", "300ms", "--max-backoff", "500ms"]).await;
    for name in ["one", "two"] {
        world.create(name, spec(name)).await;
        world.wait_ready(name).await;
    }
    minio.wipe().unwrap();
    world.wait("one", "told of the outage", |object| !condition(object, "Reconciling").is_empty()).await;
    minio.resume().await.unwrap();
    for name in ["one", "two"] {
        world.wait_event(name, "BucketRecreated").await;
        world.wait_ready(name).await;
        let secret = world.secrets().get(&format!("{name}-s3")).await.unwrap();
        Mc::app(&world, &secret).put(&secret_value(&secret, "OF_S3_BUCKET"), "file", "content").await;
    }
    let tags: Value =
        Mc::administrator(&world, &minio.access()).tags(&world.get("one").await.status.unwrap().bucket_name.unwrap()).await;
    assert!(tags["appbucket-operator/uid"].is_string());
}
