//! A real HTTP server in the place of the producer API. It keeps what it is told, in order, and can be made to fail.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::any,
};
use jiff::Timestamp;
use serde_json::Value;

use super::{DEADLINE, World, eventually, serve};

/// What to answer to one request, in place of doing it.
#[derive(Clone)]
pub enum Answer {
    /// This status, with that text.
    Status(u16, &'static str),
    /// 429 and that Retry-After.
    RetryAfter(&'static str),
    /// Nothing, for longer than anybody waits.
    Hang,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub method: Method,
    pub app_id: String,
    pub body: Value,
    pub at: Timestamp,
}

pub struct TestProducer {
    url: String,
    token: String,
    token_file: PathBuf,
    state: Shared,
}

type Shared = Arc<Mutex<Inner>>;

#[derive(Default)]
struct Inner {
    token: String,
    requests: Vec<Recorded>,
    environments: HashMap<String, Value>,
    answers: VecDeque<Answer>,
}

impl TestProducer {
    pub async fn start(world: &World) -> Self {
        let token = format!("token-of-{}-0123456789abcdef", world.namespace);
        world.keep_secret(&token);
        let state = Shared::default();
        state.lock().unwrap().token.clone_from(&token);
        let app = Router::new().route("/base/api/apps/{app_id}/env/producers/storage", any(handle)).with_state(state.clone());
        let url = format!("{}/base", serve(app).await);
        let token_file = world.dir.join("producer-token");
        let producer = Self { url, token, token_file, state };
        producer.set_token(true);
        producer
    }

    /// The operator's arguments for it.
    pub fn args(&self) -> Vec<&str> {
        let file = self.token_file.to_str().unwrap();
        vec!["--producer-url", &self.url, "--producer-token-file", file, "--stalled-recheck", "500ms", "--max-backoff", "500ms"]
    }

    /// Hands the operator the right token or a wrong one.
    pub fn set_token(&self, right: bool) {
        let token = if right { self.token.clone() } else { format!("wrong-{}", self.token) };
        std::fs::write(&self.token_file, token + "\n").unwrap();
    }

    pub fn remove_token(&self) {
        std::fs::remove_file(&self.token_file).unwrap();
    }

    /// The next requests are answered so.
    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state.lock().unwrap().answers.extend(answers);
    }

    pub fn requests(&self) -> Vec<Recorded> {
        self.state.lock().unwrap().requests.clone()
    }

    /// What the app's environment holds.
    pub fn environment(&self, app_id: &str) -> Option<Value> {
        self.state.lock().unwrap().environments.get(app_id).cloned()
    }

    /// Waits until the app's environment is the one of that bucket, or of none.
    pub async fn wait_environment(&self, app_id: &str, bucket_id: Option<&str>) {
        eventually(&format!("the environment of {app_id} holds {bucket_id:?}"), async || {
            let found = self.environment(app_id);
            let holds = found.as_ref().and_then(|environment| environment["bucket_id"].as_str());
            if holds == bucket_id { Ok(()) } else { Err(format!("{holds:?}")) }
        })
        .await;
    }
}

async fn handle(
    State(state): State<Shared>,
    Path(app_id): Path<String>,
    method: Method,
    headers: HeaderMap,
    body: Option<Json<Value>>,
) -> Response {
    let body = body.map_or(Value::Null, |Json(body)| body);
    let answer = {
        let mut state = state.lock().unwrap();
        let authorization =
            headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        state.requests.push(Recorded {
            method: method.clone(),
            app_id: app_id.clone(),
            body: body.clone(),
            at: Timestamp::now(),
        });
        if authorization != format!("Bearer {}", state.token) {
            // A careless producer repeats what it was sent: the operator must not pass it on.
            return (StatusCode::UNAUTHORIZED, format!("{authorization} may not write {body}")).into_response();
        }
        state.answers.pop_front()
    };
    match answer {
        Some(Answer::Status(status, text)) => (StatusCode::from_u16(status).unwrap(), text).into_response(),
        Some(Answer::RetryAfter(value)) => {
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, value)], "slowly").into_response()
        }
        Some(Answer::Hang) => {
            tokio::time::sleep(DEADLINE + Duration::from_secs(1)).await;
            StatusCode::NO_CONTENT.into_response()
        }
        None => {
            let environments = &mut state.lock().unwrap().environments;
            match method {
                Method::PUT => environments.insert(app_id, body),
                Method::DELETE => environments.remove(&app_id),
                _ => return StatusCode::METHOD_NOT_ALLOWED.into_response(),
            };
            StatusCode::NO_CONTENT.into_response()
        }
    }
}
