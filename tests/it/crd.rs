//! The resource, as people meet it: defaults, refusals, `kubectl explain`, `kubectl get`.

use appbucket_operator::crd::AppBucket;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    core::DynamicObject,
    discovery::ApiResource,
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{World, condition, eventually, spec};

#[tokio::test]
async fn the_generated_crd_is_checked_in() {
    let output = Command::new(env!("CARGO_BIN_EXE_appbucket-operator")).arg("crd").output().await.unwrap();
    let generated = String::from_utf8(output.stdout).unwrap();
    let checked_in = std::fs::read_to_string("crds/storage.openfactory.tech_appbuckets.yaml").unwrap();
    assert!(generated == checked_in, "crds/ is out of date: run `make crd`");
}

/// Creates an object with that spec and gives back what the API server complains about.
async fn refusal_of_new(world: &World, name: &str, spec: Value) -> String {
    let resource = ApiResource::erase::<AppBucket>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), &world.namespace, &resource);
    let object = DynamicObject::new(name, &resource).data(json!({ "spec": spec }));
    match api.create(&PostParams { dry_run: true, field_manager: None }, &object).await {
        Ok(_) => "it was accepted".to_owned(),
        Err(kube::Error::Api(status)) => status.message,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn bad_manifests_are_refused_in_words_for_people() {
    let world = World::new("bad").await;
    let long = "a".repeat(64);
    let app = |more: Value| {
        let mut spec = json!({ "appId": "app" });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    for (name, spec, expected) in [
        ("x", json!({}), "spec.appId: Required value"),
        ("x", json!({ "appId": "" }), "spec.appId"),
        ("x", json!({ "appId": long }), "may not be more than 63"),
        ("x", json!({ "appId": 7 }), "must be of type string"),
        (
            "x",
            json!({ "appId": "../other" }),
            "appId must be 1 to 63 characters of A-Z a-z 0-9 . _ - and start with a letter or a digit",
        ),
        ("x", json!({ "appId": "with space" }), "appId must be 1 to 63 characters"),
        ("x", json!({ "appId": "line\nbreak" }), "appId must be 1 to 63 characters"),
        ("x", json!({ "appId": "übung" }), "appId must be 1 to 63 characters"),
        ("x", json!({ "appId": ".hidden" }), "start with a letter or a digit"),
        ("x", app(json!({ "slug": "" })), "spec.slug"),
        ("x", app(json!({ "slug": "my app" })), "slug must be 1 to 63 characters of A-Z a-z 0-9 . _ -"),
        ("x", app(json!({ "slug": "-app" })), "start and end with a letter or a digit"),
        ("x", app(json!({ "slug": long })), "may not be more than 63"),
        ("x", app(json!({ "region": "EU West" })), "region must be lowercase letters, digits and -, for example us-east-1"),
        ("x", app(json!({ "region": "" })), "spec.region"),
        ("x", app(json!({ "deletionPolicy": "Purge" })), "supported values: \"Retain\", \"Delete\""),
        ("x", app(json!({ "deletionPolicy": "delete" })), "supported values: \"Retain\", \"Delete\""),
        ("x", app(json!({ "envPolicy": "Maybe" })), "supported values: \"Publish\", \"None\""),
        ("x", app(json!({ "secretName": "My_Secret" })), "secretName must be a valid Secret name"),
        ("x", app(json!({ "secretName": "../x" })), "secretName must be a valid Secret name"),
        ("x", app(json!({ "secretName": "a".repeat(254) })), "may not be more than 253"),
        (&long, json!({ "appId": "app" }), "metadata.name must be at most 63 characters"),
    ] {
        let refusal = refusal_of_new(&world, name, spec.clone()).await;
        assert!(refusal.contains(expected), "{spec}: {refusal}");
    }
}

#[tokio::test]
async fn what_is_fixed_can_not_be_changed() {
    let world = World::new("fixed").await;
    let mut with_secret = spec("app");
    with_secret.secret_name = Some("chosen".to_owned());
    world.create("plain", spec("app")).await;
    world.create("chosen", with_secret).await;
    for (name, change, expected) in [
        ("plain", json!({ "appId": "other" }), "appId is immutable: a bucket never changes its app"),
        ("plain", json!({ "region": "eu-1" }), "region is immutable: a bucket can't move"),
        ("plain", json!({ "secretName": "new" }), "secretName is immutable"),
        ("chosen", json!({ "secretName": "other" }), "secretName is immutable"),
        ("chosen", json!({ "secretName": null }), "secretName is immutable"),
    ] {
        let patch = Patch::Merge(json!({ "spec": change }));
        let error = world.app_buckets().patch(name, &PatchParams::default(), &patch).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{change}: {error}");
    }
    for change in [json!({ "slug": "new" }), json!({ "deletionPolicy": "Delete" }), json!({ "envPolicy": "None" })] {
        world.patch("plain", json!({ "spec": change })).await;
    }
}

#[tokio::test]
async fn a_misspelt_field_is_refused_by_kubectl() {
    let world = World::new("typo").await;
    let manifest =
        "{apiVersion: storage.openfactory.tech/v1alpha1, kind: AppBucket, metadata: {name: x}, spec: {appId: a, slugg: b}}";
    let error = world.kubectl(&["apply", "-f", "-"], manifest).await.unwrap_err();
    assert!(error.contains("unknown field \"spec.slugg\""), "{error}");
}

#[tokio::test]
async fn defaults_are_filled_in_and_a_new_object_is_not_taken_for_done() {
    let world = World::new("defaults").await;
    world.kubectl(&["apply", "-f", "deploy/examples/appbucket.yaml"], "").await.unwrap();
    let object = world.get("photos").await;
    assert_eq!(
        serde_json::to_value(&object.spec).unwrap(),
        json!({
            "appId": "550e8400-e29b-41d4-a716-446655440000",
            "slug": "my-app-photos",
            "region": "us-east-1",
            "deletionPolicy": "Retain",
            "envPolicy": "Publish",
        })
    );
    // kstatus: the generation that was observed is not the one that is there.
    assert_eq!(object.status.as_ref().unwrap().observed_generation, Some(-1));
    assert_eq!(condition(&object, "Ready"), "");
    assert!(object.metadata.generation.unwrap() > -1 && object.finalizers().is_empty());
}

#[tokio::test]
async fn explain_tells_of_every_field() {
    let world = World::new("explain").await;
    // The API server publishes the schema a little after the CRD is established.
    let spec = eventually("kubectl explain", async || world.kubectl(&["explain", "appbucket.spec"], "").await).await;
    for expected in [
        "appId\t<string> -required-",
        "The app that the bucket belongs to",
        "Default:\n    the name of the AppBucket",
        "enum: Retain, Delete",
        "Immutable",
    ] {
        assert!(spec.contains(expected), "{expected}: {spec}");
    }
    let text = world.kubectl(&["explain", "abkt.status", "--recursive"], "").await.unwrap();
    for field in ["bucketRefs", "conditions", "secretRef", "createdAt", "endpointUrl"] {
        assert!(text.contains(field), "{field}: {text}");
    }
    // Every field is described.
    let crd: Value =
        serde_saphyr::from_str(&std::fs::read_to_string("crds/storage.openfactory.tech_appbuckets.yaml").unwrap()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    for part in ["spec", "status"] {
        for (name, field) in schema[part]["properties"].as_object().unwrap() {
            assert!(field["description"].as_str().is_some_and(|text| text.len() > 10), "{part}.{name}");
        }
    }
}
