//! The MCP front door, with the official clients.

use std::path::PathBuf;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    response::Response,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    rest::{assert_same_shape, seed},
    support::{Operator, Person, Provider, Server, TestProducer, World, kubeconfig, run, serve},
};

const EMAIL: &str = "user@example.com";

fn python() -> Command {
    let mut command = Command::new(".tools/venv/bin/python");
    command.arg("tests/clients/mcp_story.py");
    command
}

/// Node.js of a version that the clients want: as a package of its own.
fn node(script: &str) -> Command {
    let mut command = Command::new("tests/clients/node_modules/.bin/node");
    command.arg(script);
    command
}

fn typescript() -> Command {
    node("tests/clients/mcp_story.mjs")
}

async fn start(name: &str) -> (World, Operator, Server) {
    let world = World::new(name).await;
    let operator = world.operator(&world.minio(), &[]).await;
    let server = Server::start(&world, &[]).await;
    (world, operator, server)
}

/// The seed's example of that number, with the field that MCP appends.
fn seed_for(number: usize, session: &str) -> Value {
    let mut example = seed(number);
    example["session_token"] = session.into();
    example
}

fn check_story(answers: &Value, session: &str) {
    let names: Vec<_> = answers["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["add_app_bucket", "get_app_bucket", "list_app_buckets"]);
    for tool in answers["tools"].as_array().unwrap() {
        for part in ["description", "inputSchema", "outputSchema", "annotations"] {
            assert!(!tool[part].is_null(), "{part}: {tool}");
        }
        assert_eq!(tool["annotations"]["readOnlyHint"], json!(tool["name"] != "add_app_bucket"), "{tool}");
        assert_eq!(tool["inputSchema"]["additionalProperties"], json!(false), "{tool}");
    }
    let content = |name: &str| {
        assert_eq!(answers[name]["is_error"], false, "{answers}");
        &answers[name]["content"]
    };
    assert_same_shape(content("add_app_bucket"), &seed_for(1, session), "add");
    assert_same_shape(content("list_app_buckets"), &seed_for(2, session), "list");
    let mut bucket = seed(2)["buckets"][0].clone();
    bucket["session_token"] = session.into();
    assert_same_shape(content("get_app_bucket"), &bucket, "get");
    for name in ["add_app_bucket", "list_app_buckets", "get_app_bucket"] {
        assert_eq!(content(name)["session_token"], session, "{name}");
    }
    assert_eq!(answers["wrong"]["is_error"], true);
    assert!(answers["wrong"]["content"]["next"].as_str().unwrap().contains("list_app_buckets"), "{answers}");
}

#[tokio::test]
async fn the_official_clients_over_http() {
    let (_world, _operator, server) = start("mcp-http").await;
    let url = format!("{}/mcp", server.url);
    for (app_id, mut client) in [("python", python()), ("typescript", typescript())] {
        client.args([app_id, &url, "x-user-email", EMAIL]);
        let answers: Value = serde_json::from_str(&run(client, "").await.unwrap()).unwrap();
        check_story(&answers, EMAIL);
    }
}

/// Over stdio the caller's own rights count: here those of a ServiceAccount that may do this and nothing else.
#[tokio::test]
async fn the_official_clients_over_stdio() {
    let world = World::new("mcp-stdio").await;
    let _operator = world.operator(&world.minio(), &[]).await;
    world.create_account("agent", &["appbucket-serve"], &[]).await;
    let kubeconfig = kubeconfig(&world, "agent").await;
    let session = format!("system:serviceaccount:{}:agent", world.namespace);
    for (app_id, mut client) in [("python", python()), ("typescript", typescript())] {
        client.args([app_id, env!("CARGO_BIN_EXE_appbucket-operator"), "mcp"]).env("KUBECONFIG", &kubeconfig);
        let answers: Value = serde_json::from_str(&run(client, "").await.unwrap()).unwrap();
        check_story(&answers, &session);
    }
}

#[tokio::test]
async fn the_inspector_lists_and_calls_over_http_and_stdio() {
    let (world, _operator, server) = start("mcp-inspector").await;
    let url = format!("{}/mcp", server.url);
    world.create_account("agent", &["appbucket-serve"], &[]).await;
    let kubeconfig = kubeconfig(&world, "agent").await;
    let program = env!("CARGO_BIN_EXE_appbucket-operator");
    let header = format!("X-User-Email: {EMAIL}");
    // It hands its own environment to nobody.
    let environment = format!("KUBECONFIG={}", kubeconfig.display());
    let stdio = ["-e", &environment, program, "mcp"];
    let http = [url.as_str(), "--transport", "http", "--header", &header];
    for (target, app_id) in [(&http[..], "inspector-http"), (&stdio, "inspector-stdio")] {
        let inspect = async |args: &[&str]| {
            let mut command = node("tests/clients/node_modules/.bin/mcp-inspector");
            command.arg("--cli").args(target).args(args);
            command.env("HOME", &world.dir);
            run(command, "").await.unwrap()
        };
        let tools = inspect(&["--method", "tools/list"]).await;
        for name in ["add_app_bucket", "list_app_buckets", "get_app_bucket"] {
            assert!(tools.contains(name), "{tools}");
        }
        let app = format!("app_id={app_id}");
        let added = inspect(&["--method", "tools/call", "--tool-name", "add_app_bucket", "--tool-arg", &app]).await;
        assert!(added.contains("\"bucket_name\"") && added.contains("secret_key"), "{added}");
        let listed = inspect(&["--method", "tools/call", "--tool-name", "list_app_buckets", "--tool-arg", &app]).await;
        assert!(listed.contains(app_id) && !listed.contains("secret_key"), "{listed}");
    }
}

/// Adds the header that says who asks, which the suite can't, and changes nothing else.
async fn introduced(server: &Server) -> String {
    async fn forward(State(target): State<String>, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let mut headers = parts.headers;
        headers.insert("x-user-email", EMAIL.parse().unwrap());
        headers.remove("content-length");
        let url = format!("{target}{}", parts.uri);
        let answer = reqwest::Client::new().request(parts.method, url).headers(headers).body(body).send().await.unwrap();
        let mut response = Response::builder().status(answer.status());
        for (name, value) in answer.headers().iter().filter(|(name, _)| *name != "transfer-encoding") {
            response = response.header(name, value);
        }
        let bytes: Bytes = answer.bytes().await.unwrap();
        response.body(Body::from(bytes)).unwrap()
    }
    format!("{}/mcp", serve(Router::new().fallback(forward).with_state(server.url.clone())).await)
}

/// The scenarios that need no tools but the protocol's own.
#[tokio::test]
async fn the_conformance_suite() {
    let (world, _operator, server) = start("mcp-conformance").await;
    let url = introduced(&server).await;
    for scenario in ["server-initialize", "ping", "tools-list", "dns-rebinding-protection", "http-header-validation"] {
        let program = PathBuf::from("tests/clients/node_modules/.bin/conformance");
        let mut command = node(program.to_str().unwrap());
        command.args(["server", "--url", &url, "--scenario", scenario]).arg("--output-dir").arg(world.dir.join(scenario));
        let output = run(command, "").await.unwrap_or_else(|error| panic!("{scenario}: {error}"));
        println!("conformance, {scenario}: {}", output.lines().rfind(|line| line.contains("assed")).unwrap_or(&output));
    }
}

#[tokio::test]
async fn no_principal_no_host_no_origin_that_is_not_let_in() {
    let (_world, _operator, server) = start("mcp-guards").await;
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {} });
    let send = async |headers: &[(&str, &str)]| {
        let mut request =
            server.request(Method::POST, "/mcp").json(&body).header("accept", "application/json, text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap().status()
    };
    assert_eq!(send(&[]).await, StatusCode::UNAUTHORIZED);
    assert_eq!(send(&[("x-user-email", EMAIL)]).await, StatusCode::OK);
    assert_eq!(send(&[("x-user-email", EMAIL), ("x-forwarded-for", "10.0.0.1")]).await, StatusCode::UNAUTHORIZED);
    assert_eq!(send(&[("x-user-email", EMAIL), ("host", "evil.example.com")]).await, StatusCode::FORBIDDEN);
    assert_eq!(send(&[("x-user-email", EMAIL), ("origin", "https://evil.example.com")]).await, StatusCode::FORBIDDEN);
    assert_eq!(send(&[("x-user-email", EMAIL), ("origin", "null")]).await, StatusCode::FORBIDDEN);
}

/// From an agent's call to a file in the bucket, with what the producer was given; and the same with what the answer says.
#[tokio::test]
async fn the_full_story_published_and_not() {
    let world = World::new("mcp-story").await;
    let producer = TestProducer::start(&world).await;
    let _operator = world.operator(&world.minio(), &producer.args()).await;
    let server = Server::start(&world, &[]).await;
    let ann = Person::email(EMAIL);
    for (app_id, published) in [("published", true), ("unpublished", false)] {
        producer.set_token(published);
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": "add_app_bucket", "arguments": { "app_id": app_id } } });
        let request = server.request(Method::POST, "/mcp").json(&call).header("accept", "application/json, text/event-stream");
        let (status, answer) = ann.send(request).await;
        let added = &answer["result"]["structuredContent"];
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_same_shape(added, &seed_for(usize::from(!published), EMAIL), "add");
        let values =
            if published { producer.environment(app_id).unwrap()["values"].clone() } else { added["env_payload"].clone() };
        let path = format!("/api/app-infra/buckets/{}", added["bucket_id"].as_str().unwrap());
        let (_, bucket) = ann.get(&server, &path).await;
        assert_eq!(bucket["status"], "ready");
        let mut boto3 = Command::new(".tools/venv/bin/python");
        boto3.args(["tests/clients/story.py", "appbucket-no-such-bucket", "x"]).env("AWS_CA_BUNDLE", world.env.pki.ca());
        boto3.envs(values.as_object().unwrap().iter().map(|(key, value)| (key, value.as_str().unwrap())));
        assert_eq!(run(boto3, "").await.unwrap().trim(), "boto3: done");
    }
}

/// schemathesis, with all its checks, against the document that the server itself serves.
#[tokio::test]
async fn schemathesis_finds_nothing() {
    let world = World::new("schemathesis").await;
    let _operator = world.operator(&Provider::Stub, &["--log", "info"]).await;
    let server = Server::start(&world, &["--requests-per-minute", "1000000", "--log", "info"]).await;
    let root = std::env::current_dir().unwrap();
    let mut command = Command::new(root.join(".tools/venv/bin/schemathesis"));
    command.env("PYTHONPATH", root.join("tests/clients")).env("SCHEMATHESIS_HOOKS", "schemathesis_hooks");
    command.args(["run", &format!("{}/openapi.json", server.url), "--url", &server.url]);
    command.args(["--header", &format!("X-User-Email: {EMAIL}"), "--checks", "all", "--max-examples", "60", "--no-color"]);
    command.current_dir(&world.dir);
    let output = run(command, "").await.unwrap_or_else(|error| panic!("{error}"));
    println!("{}", output.lines().rev().take(25).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n"));
}
