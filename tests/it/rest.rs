//! The REST front door.

use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Mc, Operator, Person, Provider, Server, TestProducer, World, eventually, secret_value, spec};

const APP: &str = "550e8400-e29b-41d4-a716-446655440000";
const AUDIENCE: &str = "appbucket-operator";

/// The seed's example of that number (0: published, 1: not published, 2: list), without the field that MCP appends.
pub fn seed(number: usize) -> Value {
    let golden: Vec<Value> = serde_json::from_str(include_str!("seed.json")).unwrap();
    golden[number].clone()
}

/// Same fields, same types, same nulls, in depth.
pub fn assert_same_shape(found: &Value, expected: &Value, at: &str) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            let keys = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(found), keys(expected), "{at}");
            for (key, value) in expected {
                assert_same_shape(&found[key], value, &format!("{at}.{key}"));
            }
        }
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(found.is_empty(), expected.is_empty(), "{at}");
            for value in found {
                assert_same_shape(value, &expected[0], &format!("{at}[]"));
            }
        }
        _ => assert_eq!(std::mem::discriminant(found), std::mem::discriminant(expected), "{at}: {found}, {expected}"),
    }
}

async fn start(name: &str, args: &[&str]) -> (World, Operator, Server) {
    let world = World::new(name).await;
    let operator = world.operator(&world.minio(), &[]).await;
    let server = Server::start(&world, args).await;
    (world, operator, server)
}

#[tokio::test]
async fn unpublished_the_answer_is_the_seeds_and_the_secret_is_shown_once() {
    let (world, _operator, server) = start("rest", &[]).await;
    let ann = Person::email("user@example.com");
    let (status, body) = ann.post(&server, json!({ "app_id": APP, "slug": "my-app-cool-thing-2026" }), Some("key-1")).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert_same_shape(&body, &seed(1), "$");
    assert_eq!(body["publish_skipped_reason"], seed(1)["publish_skipped_reason"]);
    assert_eq!(body["next"], seed(1)["next"]);
    assert_eq!(body["status"], "ready");
    assert!(body["bucket_name"].as_str().unwrap().starts_with("my-app-cool-thing-2026-"), "{body}");
    let object = &world.app_buckets().list(&ListParams::default()).await.unwrap().items[0];
    let secret = world.secrets().get(&object.secret_name()).await.unwrap();
    for key in ["OF_S3_ENDPOINT", "OF_S3_BUCKET", "OF_S3_ACCESS_KEY", "OF_S3_SECRET_KEY", "OF_S3_REGION"] {
        assert_eq!(body["env_payload"][key], secret_value(&secret, key));
    }
    assert_eq!(body["secret_key"], body["env_payload"]["OF_S3_SECRET_KEY"]);
    Mc::app(&world, &secret).put(body["bucket_name"].as_str().unwrap(), "file", "content").await;

    // A replay gives the same bucket and no secret; so does everything else.
    let (status, replay) = ann.post(&server, json!({ "app_id": APP, "slug": "my-app-cool-thing-2026" }), Some("key-1")).await;
    assert_eq!((status, &replay["bucket_id"]), (StatusCode::OK, &body["bucket_id"]));
    assert!(replay.get("secret_key").is_none() && replay.get("env_payload").is_none(), "{replay}");
    assert_eq!(replay["publish_skipped_reason"], body["publish_skipped_reason"]);
    let (status, error) = ann.post(&server, json!({ "app_id": APP }), Some("key-1")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{error}");

    let (status, list) = ann.get(&server, &format!("/api/app-infra/buckets?app_id={APP}")).await;
    assert_eq!(status, StatusCode::OK);
    assert_same_shape(&list, &seed(2), "$");
    let (status, one) = ann.get(&server, &format!("/api/app-infra/buckets/{}", body["bucket_id"].as_str().unwrap())).await;
    assert_eq!((status, &one), (StatusCode::OK, &list["buckets"][0]));
    assert!(!list.to_string().contains(body["secret_key"].as_str().unwrap()));
}

#[tokio::test]
async fn published_the_answer_is_the_seeds_and_has_no_secret() {
    let world = World::new("rest-published").await;
    let producer = TestProducer::start(&world).await;
    let _operator = world.operator(&Provider::Stub, &producer.args()).await;
    let server = Server::start(&world, &[]).await;
    let ann = Person::email("user@example.com");
    let (status, body) = ann.post(&server, json!({ "app_id": APP }), None).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert_same_shape(&body, &seed(0), "$");
    for same in ["next", "env_keys", "env_published", "status", "endpoint_url", "region"] {
        assert_eq!(body[same], seed(0)[same], "{same}");
    }
    assert_eq!(producer.environment(APP).unwrap()["bucket_id"], body["bucket_id"]);

    // Each call is one more bucket; a producer that refuses is quoted, without what it was sent.
    producer.set_token(false);
    let (_, second) = ann.post(&server, json!({ "app_id": "another" }), None).await;
    assert_same_shape(&second, &seed(1), "$");
    let reason = second["publish_skipped_reason"].as_str().unwrap();
    assert!(reason.contains("401") && reason.contains("***") && !reason.contains("token-of"), "{reason}");
    let (_, list) = ann.get(&server, "/api/app-infra/buckets").await;
    let ids: Vec<_> = list["buckets"].as_array().unwrap().iter().map(|bucket| &bucket["bucket_id"]).collect();
    assert_eq!(ids.len(), 2);
    assert!(ids.contains(&&body["bucket_id"]) && ids.contains(&&second["bucket_id"]));
}

#[tokio::test]
async fn what_takes_longer_is_answered_later_and_the_secret_is_still_shown_once() {
    let world = World::new("rest-later").await;
    let server = Server::start(&world, &["--wait", "200ms"]).await;
    let ann = Person::email("ann@example.com");
    let request = json!({ "app_id": "app", "slug": "slug" });
    let (status, pending) = ann.post(&server, request.clone(), Some("my-key")).await;
    assert_eq!((status, &pending["status"]), (StatusCode::ACCEPTED, &json!("provisioning")));
    assert!(pending["next"].as_str().unwrap().contains("Idempotency-Key: my-key"), "{pending}");
    let path = format!("/api/app-infra/buckets/{}", pending["bucket_id"].as_str().unwrap());
    assert_eq!(ann.get(&server, &path).await.0, StatusCode::ACCEPTED);

    let _operator = world.operator(&world.minio(), &[]).await;
    eventually("the bucket is there", async || {
        let (status, body) = ann.get(&server, &path).await;
        if status == StatusCode::OK { Ok(()) } else { Err(body.to_string()) }
    })
    .await;
    // Many retries at once: one of them has the secret.
    let retries = futures::future::join_all((0..8).map(|_| ann.post(&server, request.clone(), Some("my-key")))).await;
    assert!(
        retries.iter().all(|(status, body)| *status == StatusCode::OK && body["bucket_id"] == pending["bucket_id"]),
        "{retries:?}"
    );
    assert_eq!(retries.iter().filter(|(_, body)| body.get("secret_key").is_some()).count(), 1);
    // Somebody else with the same key has another request.
    let (_, other) = Person::email("bob@example.com").post(&server, json!({ "app_id": "bobs" }), Some("my-key")).await;
    assert_ne!(other["bucket_id"], pending["bucket_id"]);
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_a_whole_bucket_or_none() {
    let world = World::new("rest-hangup").await;
    let server = Server::start(&world, &[]).await;
    let ann = Person::email("ann@example.com");
    let request = json!({ "app_id": "app" });
    let hung_up = tokio::time::timeout(Duration::from_millis(300), ann.post(&server, request.clone(), Some("my-key"))).await;
    assert!(hung_up.is_err(), "there is no controller that could be done");
    let _operator = world.operator(&world.minio(), &[]).await;
    let (_, body) = ann.post(&server, request, Some("my-key")).await;
    assert!(body.get("secret_key").is_some(), "{body}");
    assert_eq!(world.app_buckets().list(&ListParams::default()).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn tokens_are_reviewed_and_rbac_decides() {
    let (world, _operator, server) = start("rest-bearer", &[]).await;
    let ann = Person::account(&world, "ann", AUDIENCE, &["appbucket-serve"]).await;
    let reader = Person::account(&world, "reader", AUDIENCE, &[]).await;
    let elsewhere = Person::account(&world, "elsewhere", "https://another.example.com", &["appbucket-serve"]).await;
    let (status, body) = ann.post(&server, json!({ "app_id": "app" }), None).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let (status, body) = reader.post(&server, json!({ "app_id": "other" }), None).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{body}");
    assert_eq!(reader.get(&server, "/api/app-infra/buckets").await.0, StatusCode::FORBIDDEN);
    let (status, body) = elsewhere.get(&server, "/api/app-infra/buckets").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(body["detail"].as_str().unwrap().contains("audience appbucket-operator"), "{body}");

    // With its account, a token ends.
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), &world.namespace);
    accounts.delete("ann", &DeleteParams::default()).await.unwrap();
    eventually("the token is void", async || match ann.get(&server, "/api/app-infra/buckets").await.0 {
        StatusCode::UNAUTHORIZED => Ok(()),
        status => Err(status.to_string()),
    })
    .await;
    let mut forged = ann.value.clone();
    forged.pop();
    for value in [forged, "Bearer x".to_owned(), "Basic YTpi".to_owned(), "Bearer".to_owned()] {
        let person = Person { header: "authorization", value };
        assert_eq!(person.get(&server, "/api/app-infra/buckets").await.0, StatusCode::UNAUTHORIZED, "{}", person.value);
    }
}

/// A token as the API server makes it, signed with its key, which expires so many seconds from now.
async fn token(world: &World, account: &str, expires_in: i64) -> Person {
    use data_encoding::{BASE64, BASE64URL_NOPAD};
    use ring::{rand::SystemRandom, signature};
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), &world.namespace);
    let (uid, namespace) = (accounts.get(account).await.unwrap().metadata.uid, &world.namespace);
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({
        "iss": "https://kubernetes.default.svc", "aud": [AUDIENCE], "sub": format!("system:serviceaccount:{namespace}:{account}"),
        "iat": now - 3600, "nbf": now - 3600, "exp": now + expires_in,
        "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": account, "uid": uid } },
    });
    let part = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(json!({ "alg": "ES256", "typ": "JWT" })), part(claims));
    let pem = std::fs::read_to_string(world.env.pki.key("service-account")).unwrap();
    let der = BASE64.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>().as_bytes()).unwrap();
    let random = SystemRandom::new();
    let key = signature::EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random).unwrap();
    let signature = key.sign(&random, signed.as_bytes()).unwrap();
    Person { header: "authorization", value: format!("Bearer {signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref())) }
}

#[tokio::test]
async fn an_expired_token_is_not_let_in() {
    let (world, _operator, server) = start("rest-expired", &[]).await;
    world.create_account("ann", &["appbucket-serve"], &[]).await;
    assert_eq!(token(&world, "ann", 3600).await.get(&server, "/api/app-infra/buckets").await.0, StatusCode::OK);
    let (status, body) = token(&world, "ann", -60).await.get(&server, "/api/app-infra/buckets").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{body}");
}

#[tokio::test]
async fn headers_that_anybody_could_send_are_not_believed() {
    let (_world, _operator, server) = start("rest-headers", &[]).await;
    let send = async |headers: &[(&str, &str)]| {
        let mut request = server.request(Method::GET, "/api/app-infra/buckets");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap().status()
    };
    assert_eq!(send(&[("x-user-email", "a@b.c")]).await, StatusCode::OK);
    for headers in [
        &[][..],
        &[("x-guest-id", "guest-1234")],
        &[("x-user-email", "a@b.c"), ("x-forwarded-for", "10.0.0.1")],
        &[("x-user-email", "a@b.c"), ("forwarded", "for=10.0.0.1")],
        &[("x-user-email", "a@b.c"), ("via", "1.1 proxy")],
        &[("x-user-email", "a@b.c"), ("x-user-email", "d@e.f")],
        &[("x_user_email", "a@b.c")],
        &[("x-user_email", "a@b.c")],
        &[("x-user-email", "a@b.c"), ("x_user_email", "d@e.f")],
        &[("x-user-email", "a@b.c"), ("authorization", "Bearer x")],
        &[("x-user-email", "not an address")],
    ] {
        assert_eq!(send(headers).await, StatusCode::UNAUTHORIZED, "{headers:?}");
    }
}

#[tokio::test]
async fn nobody_sees_or_adds_to_what_is_anothers() {
    let (world, _operator, server) = start("rest-others", &["--allow-guests", "--guest-quota", "2"]).await;
    let (ann, bob, guest) = (Person::email("ann@example.com"), Person::email("bob@example.com"), Person::guest("guest-1234"));
    let user = Person::account(&world, "user", AUDIENCE, &["appbucket-serve"]).await;
    world.create("declared", spec("declared")).await;
    world.wait_ready("declared").await;
    let (_, anns) = ann.post(&server, json!({ "app_id": "anns" }), None).await;
    let (_, guests) = guest.post(&server, json!({ "app_id": "guests" }), None).await;
    let path = |bucket: &Value| format!("/api/app-infra/buckets/{}", bucket["bucket_id"].as_str().unwrap());
    let declared = world.get("declared").await.status.unwrap().bucket_id.unwrap();
    let unknown = "/api/app-infra/buckets/buk-0000000000000";

    for other in [&bob, &guest, &user] {
        let (status, body) = other.get(&server, &path(&anns)).await;
        let (_, like) = other.get(&server, unknown).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        let said = body["detail"].as_str().unwrap().replace(anns["bucket_id"].as_str().unwrap(), "ID");
        assert_eq!(said, like["detail"].as_str().unwrap().replace("buk-0000000000000", "ID"), "existence is not revealed");
        assert_eq!(other.get(&server, "/api/app-infra/buckets?app_id=anns").await.1, json!({ "buckets": [] }));
        assert_eq!(other.post(&server, json!({ "app_id": "anns" }), None).await.0, StatusCode::NOT_FOUND);
    }
    assert_eq!(ann.get(&server, &path(&guests)).await.0, StatusCode::NOT_FOUND);
    // What was declared to the API server is for those whom its rules let in.
    assert_eq!(user.get(&server, &format!("/api/app-infra/buckets/{declared}")).await.0, StatusCode::OK);
    assert_eq!(ann.get(&server, &format!("/api/app-infra/buckets/{declared}")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(ann.post(&server, json!({ "app_id": "declared" }), None).await.0, StatusCode::NOT_FOUND);

    // The owner is written by the server: a body can't.
    let (status, _) = bob.post(&server, json!({ "app_id": "x", "owner": "email:ann@example.com" }), None).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);

    // A guest's quota holds, also for requests at once.
    let many = (0..4).map(|number| guest.post(&server, json!({ "app_id": format!("more-{number}") }), None));
    let statuses: Vec<_> = futures::future::join_all(many).await.into_iter().map(|(status, _)| status).collect();
    assert!(statuses.contains(&StatusCode::FORBIDDEN), "{statuses:?}");
    eventually("two are left", async || {
        let (_, list) = guest.get(&server, "/api/app-infra/buckets").await;
        let count = list["buckets"].as_array().unwrap().len();
        if count <= 2 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
}

/// Two who claim a new app at the same moment: the controller decides, and the other one gets nothing and leaves nothing.
#[tokio::test]
async fn a_race_for_an_app_has_one_winner() {
    let (world, _operator, server) = start("rest-race", &[]).await;
    let people: Vec<_> = (0..4).map(|number| Person::email(&format!("p{number}@example.com"))).collect();
    let answers =
        futures::future::join_all(people.iter().map(|person| person.post(&server, json!({ "app_id": "app" }), None))).await;
    let won: Vec<_> = answers.iter().filter(|(status, _)| *status == StatusCode::CREATED).collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|(status, _)| [StatusCode::CREATED, StatusCode::NOT_FOUND].contains(status)), "{answers:?}");
    eventually("the others are gone", async || {
        let count = world.app_buckets().list(&ListParams::default()).await.unwrap().items.len();
        if count == 1 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn what_the_controller_refuses_is_taken_back() {
    let (world, _operator, server) = start("rest-refused", &[]).await;
    let secret = serde_json::from_value(json!({ "metadata": { "name": "taken-s3" } })).unwrap();
    world.secrets().create(&kube::api::PostParams::default(), &secret).await.unwrap();
    let ann = Person::email("ann@example.com");
    let (status, body) = ann.post(&server, json!({ "app_id": "doomed", "name": "taken" }), None).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    assert!(body["detail"].as_str().unwrap().contains("SecretNotOwned"), "{body}");
    world.wait_gone("taken").await;
    assert!(world.mc().buckets().await.iter().all(|bucket| !bucket.starts_with("doomed-")));

    let (status, _) = ann.post(&server, json!({ "app_id": "app", "name": "mine" }), None).await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, body) = ann.post(&server, json!({ "app_id": "app", "name": "mine" }), None).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
}

/// Also when whoever asked has hung up.
#[tokio::test]
async fn what_the_controller_refuses_later_is_taken_back_too() {
    let world = World::new("rest-refused-later").await;
    let server = Server::start(&world, &[]).await;
    let secret = serde_json::from_value(json!({ "metadata": { "name": "taken-s3" } })).unwrap();
    world.secrets().create(&kube::api::PostParams::default(), &secret).await.unwrap();
    let ann = Person::email("ann@example.com");
    let post = ann.post(&server, json!({ "app_id": "app", "name": "taken" }), None);
    assert!(tokio::time::timeout(Duration::from_millis(500), post).await.is_err(), "there is no controller that could be done");
    assert!(world.app_buckets().get_opt("taken").await.unwrap().is_some());
    let _operator = world.operator(&world.minio(), &[]).await;
    world.wait_gone("taken").await;
}

#[tokio::test]
async fn bad_input_is_a_clear_4xx_and_makes_nothing() {
    let (world, _operator, server) = start("rest-bad", &[]).await;
    let ann = Person::email("ann@example.com");
    let long = "a".repeat(64);
    for (body, expected) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("[]", "invalid length 0"),
        ("null", "null"),
        ("{}", "missing field `app_id`"),
        ("{\"app_id\": 7}", "expected a string"),
        ("{\"app_id\": null}", "expected a string"),
        ("{\"app_id\": \"a\", \"app_id\": \"b\"}", "duplicate field"),
        ("{\"app_id\": \"a\", \"extra\": 1}", "unknown field `extra`"),
        ("{\"app_id\": \"\"}", "app_id must be"),
        ("{\"app_id\": \"../../etc/passwd\"}", "app_id must be"),
        ("{\"app_id\": \"a,metadata.name=x\"}", "app_id must be"),
        ("{\"app_id\": \"a\\u0000b\"}", "app_id must be"),
        ("{\"app_id\": \"a\\nb\"}", "app_id must be"),
        ("{\"app_id\": \"\u{202e}app\"}", "app_id must be"),
        (&format!("{{\"app_id\": \"{long}\"}}"), "app_id must be"),
        ("{\"app_id\": \"a\", \"slug\": \"\"}", "slug"),
        ("{\"app_id\": \"a\", \"slug\": \"a b\"}", "slug must be"),
        (&format!("{{\"app_id\": \"a\", \"slug\": \"{long}\"}}"), "may not be more than 63"),
        ("{\"app_id\": \"a\", \"region\": \"EU\"}", "region must be"),
        ("{\"app_id\": \"a\", \"name\": \"../x\"}", "name must be"),
        ("{\"app_id\": \"a\", \"name\": \"A\"}", "name must be"),
        ("{\"app_id\": \"a\", \"name\": \"\"}", "name must be"),
    ] {
        let request = server
            .request(Method::POST, "/api/app-infra/buckets")
            .header("content-type", "application/json")
            .body(body.to_owned());
        let (status, problem) = ann.send(request).await;
        assert!(status.is_client_error(), "{body}: {status}");
        assert!(problem["detail"].as_str().unwrap().contains(expected), "{body}: {problem}");
    }
    let huge = json!({ "app_id": "a".repeat(20_000) });
    assert_eq!(ann.post(&server, huge, None).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let no_type = server.request(Method::POST, "/api/app-infra/buckets").body("{\"app_id\": \"a\"}");
    assert_eq!(ann.send(no_type).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    for key in ["", "with space", &"x".repeat(129)] {
        assert_eq!(ann.post(&server, json!({ "app_id": "a" }), Some(key)).await.0, StatusCode::UNPROCESSABLE_ENTITY, "{key}");
    }
    for (path, expected) in [
        ("/api/app-infra/buckets?limit=0", StatusCode::UNPROCESSABLE_ENTITY),
        ("/api/app-infra/buckets?limit=501", StatusCode::UNPROCESSABLE_ENTITY),
        ("/api/app-infra/buckets?limit=x", StatusCode::BAD_REQUEST),
        ("/api/app-infra/buckets?unknown=1", StatusCode::BAD_REQUEST),
        ("/api/app-infra/buckets?after=buk-0", StatusCode::NOT_FOUND),
        ("/api/app-infra/buckets?app_id=a%2Cb", StatusCode::UNPROCESSABLE_ENTITY),
        ("/api/app-infra/buckets/..%2F..%2Fsecrets", StatusCode::NOT_FOUND),
        ("/nothing", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(ann.get(&server, path).await.0, expected, "{path}");
    }
    assert_eq!(ann.send(server.request(Method::DELETE, "/api/app-infra/buckets")).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert!(world.app_buckets().list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn slow_clients_are_cut_off_and_harm_nobody() {
    let (_world, _operator, server) = start("rest-slow", &[]).await;
    let address = server.url.trim_start_matches("http://");
    let mut head = tokio::net::TcpStream::connect(address).await.unwrap();
    head.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let mut body = tokio::net::TcpStream::connect(address).await.unwrap();
    let text = "POST /api/app-infra/buckets HTTP/1.1\r\nHost: x\r\nX-User-Email: a@b.c\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    body.write_all(text.as_bytes()).await.unwrap();
    assert_eq!(reqwest::get(format!("{}/livez", server.url)).await.unwrap().status(), StatusCode::OK);
    let mut answer = String::new();
    let read = async {
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = body.read(&mut buffer).await {
            answer.push_str(&String::from_utf8_lossy(&buffer[..length]));
            if answer.contains("did not come in") {
                break;
            }
        }
    };
    tokio::time::timeout(crate::support::DEADLINE, read).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let ended = tokio::time::timeout(crate::support::DEADLINE, head.read_to_end(&mut vec![])).await;
    assert!(ended.is_ok(), "the connection is still open");
}

#[tokio::test]
async fn pages_are_whole_and_in_order() {
    let (_world, _operator, server) = start("rest-pages", &[]).await;
    let ann = Person::email("ann@example.com");
    let made = futures::future::join_all((0..5).map(|_| ann.post(&server, json!({ "app_id": "app" }), None))).await;
    assert!(made.iter().all(|(status, _)| *status == StatusCode::CREATED), "{made:?}");
    let (_, all) = ann.get(&server, "/api/app-infra/buckets").await;
    let mut path = "/api/app-infra/buckets?app_id=app&limit=2".to_owned();
    let mut paged = vec![];
    loop {
        let answer = server.request(Method::GET, &path).header(ann.header, &ann.value).send().await.unwrap();
        let link = answer.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
        let page: Value = answer.json().await.unwrap();
        paged.extend(page["buckets"].as_array().unwrap().clone());
        let Some(link) = link else { break };
        path = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
    }
    assert_eq!(Value::Array(paged), all["buckets"]);
    assert_eq!(all["buckets"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn each_principal_may_ask_so_often() {
    let world = World::new("rest-rate").await;
    let server = Server::start(&world, &["--requests-per-minute", "5"]).await;
    let (ann, bob) = (Person::email("ann@example.com"), Person::email("bob@example.com"));
    let mut limited = None;
    for _ in 0..6 {
        let request = server.request(Method::GET, "/api/app-infra/buckets").header(ann.header, &ann.value);
        let answer = request.send().await.unwrap();
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            limited = Some(answer.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap());
        }
    }
    assert!(limited.is_some_and(|seconds| (1..=13).contains(&seconds)), "{limited:?}");
    assert_eq!(bob.get(&server, "/api/app-infra/buckets").await.0, StatusCode::OK);
}

#[tokio::test]
async fn the_document_is_served_and_so_is_a_page_that_loads_nothing() {
    let world = World::new("rest-docs").await;
    let server = Server::start(&world, &[]).await;
    let document: Value = reqwest::get(format!("{}/openapi.json", server.url)).await.unwrap().json().await.unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let page = reqwest::get(format!("{}/docs", server.url)).await.unwrap();
    assert!(page.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    let request_id = page.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(request_id.len(), 36);
    let html = page.text().await.unwrap();
    for expected in ["Provision a bucket", "POST /api/app-infra/buckets", "Idempotency-Key", "publish_skipped_reason"] {
        assert!(html.contains(expected), "{expected}");
    }
    assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("<script"), "it loads something");
    assert_eq!(reqwest::get(format!("{}/livez", server.url)).await.unwrap().text().await.unwrap(), "ok");
}

/// 200 at once through two replicas, one of which is killed, and a controller that is killed: none is lost and none is doubled.
#[tokio::test]
async fn two_hundred_at_once_survive_the_death_of_a_replica_and_of_the_controller() {
    const COUNT: usize = 200;
    let world = World::new("rest-many").await;
    let minio = world.own_minio(vec![]).await;
    let provider = Provider::Minio(minio.access());
    let operator = world.operator(&provider, &["--log", "info"]).await;
    let args = ["--requests-per-minute", "100000", "--log", "info"];
    let (one, two) = (Server::start(&world, &args).await, Server::start(&world, &args).await);
    let urls = [one.url.clone(), two.url.clone()];
    let requests = (0..COUNT).map(|number| {
        let urls = &urls;
        async move {
            // Tries until it is answered, as an honest client does, at whichever replica is there.
            for attempt in 0.. {
                let request = reqwest::Client::new()
                    .post(format!("{}/api/app-infra/buckets", urls[(number + attempt) % 2]))
                    .header("x-user-email", "ann@example.com")
                    .header("idempotency-key", format!("key-{number}"))
                    .json(&json!({ "app_id": format!("app-{number}") }));
                match request.send().await {
                    Ok(answer) if answer.status().is_success() && answer.status() != StatusCode::ACCEPTED => {
                        return answer.json::<Value>().await.unwrap();
                    }
                    _ => tokio::time::sleep(Duration::from_millis(100)).await,
                }
                assert!(attempt < 1000, "app-{number} is not answered");
            }
            unreachable!()
        }
    });
    let disturb = async {
        eventually("some are there", async || {
            let objects = world.app_buckets().list(&ListParams::default()).await.unwrap().items;
            let ready = objects.iter().filter(|object| object.bucket_status().is_some()).count();
            if ready >= 10 { Ok(()) } else { Err(ready.to_string()) }
        })
        .await;
        one.kill();
        operator.kill();
        world.operator(&provider, &["--log", "info"]).await
    };
    let (answers, _operator) = tokio::join!(futures::future::join_all(requests), disturb);
    let ids: std::collections::BTreeSet<_> = answers.iter().map(|answer| answer["bucket_id"].to_string()).collect();
    assert_eq!(ids.len(), COUNT);
    let objects = world.app_buckets().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(objects.len(), COUNT);
    for (number, answer) in answers.iter().enumerate() {
        let own = objects.iter().find(|object| object.spec.app_id == format!("app-{number}")).unwrap();
        assert_eq!(answer["bucket_name"], own.status.as_ref().unwrap().bucket_name.clone().unwrap());
    }
    assert_eq!(Mc::administrator(&world, &minio.access()).buckets().await.len(), COUNT);
    let _ = two.url;
}
