//! The REST front door: a thin adapter of [`Service`]. Bodies are the seed's, errors are problem details (RFC 9457).

mod docs;
mod principal;
mod problem;
mod serve;

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State, rejection::JsonRejection},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use tower_http::{
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    trace::TraceLayer,
};
use utoipa::{IntoParams, OpenApi};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::{principal::Authenticator, problem::Problem, serve::serve};
use crate::service::{AddBucket, Added, AddedBucket, Bucket, Buckets, Found, PAGE_MAX, PendingBucket, Principal, Service};

/// Requests hold a handful of short fields.
const BODY_MAX: usize = 16 * 1024;
/// How long the body of a request may take to come in.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[derive(OpenApi)]
#[openapi(info(
    title = "App buckets",
    description = "S3-compatible buckets per app. Each is an AppBucket in Kubernetes; credentials are delivered into the app's environment."
))]
struct Api;

/// The routes, and with them `mcp` at `/mcp` under the same principals. `limit`: how long any answer may take.
pub fn router(service: Service, authenticator: Authenticator, mcp: Router, limit: Duration) -> Router {
    let authenticator = Arc::new(authenticator);
    let (routes, mut api) = OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(list_buckets, add_bucket))
        .routes(routes!(get_bucket))
        .split_for_parts();
    docs::complete(&mut api);
    let document = Arc::new(api);
    let page: Arc<str> = docs::page(&document).into();
    routes
        .with_state(service.clone())
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .merge(mcp)
        .layer(middleware::from_fn_with_state(authenticator, principal::authenticate))
        .route("/openapi.json", get(move || async move { Json((*document).clone()) }))
        .route("/docs", get(move || async move { docs::response(&page) }))
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz).with_state(service))
        .fallback(|uri: Uri| async move { Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path())) })
        .method_not_allowed_fallback(|method: Method| async move {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not possible here"))
        })
        .layer(middleware::from_fn(move |request: Request, next: middleware::Next| async move {
            let late = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "it took too long; try again").into_response();
            tokio::time::timeout(limit, next.run(request)).await.unwrap_or_else(late)
        }))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(TraceLayer::new_for_http().make_span_with(|request: &Request| {
            let id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
            tracing::info_span!("request", id, method = %request.method(), path = request.uri().path())
        }))
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
}

/// Provision a bucket
///
/// Declares a bucket for an app and waits until it is there. The secret key and what to put into the environment are in the answer only if the
/// environment was not published, and only once.
#[utoipa::path(
    post,
    path = "/api/app-infra/buckets",
    request_body = AddBucket,
    params(("Idempotency-Key" = Option<String>, Header, description =
        "The same key and body give the same bucket, and never a second one. 1 to 128 visible ASCII characters.",
        min_length = 1, max_length = 128, pattern = "^[!-~]{1,128}$")),
    responses(
        (status = 201, body = AddedBucket, description = "The bucket is there"),
        (status = 200, body = AddedBucket, description = "The bucket that an earlier request with this key made"),
        (status = 202, body = PendingBucket, description = "The bucket is being made; repeat the request with its Idempotency-Key"),
    )
)]
async fn add_bucket(
    State(service): State<Service>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Body(request): Body<AddBucket>,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers)?;
    let mut response = match service.add(&principal, &request, &key).await? {
        Added::Done { bucket, new } => {
            let status = if new { StatusCode::CREATED } else { StatusCode::OK };
            let location = location(&bucket.bucket_id);
            (status, [(header::LOCATION, location)], Json(bucket)).into_response()
        }
        Added::Pending(bucket) => pending(bucket),
    };
    if let Ok(key) = HeaderValue::from_str(&key) {
        response.headers_mut().insert(IDEMPOTENCY_KEY, key);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Look at a bucket
///
/// The secret key is never in the answer.
#[utoipa::path(
    get,
    path = "/api/app-infra/buckets/{bucket_id}",
    params(("bucket_id" = String, Path, description = "The bucket's id", example = "buk-a7f3b2c1d9e4f")),
    responses(
        (status = 200, body = Bucket, description = "The bucket"),
        (status = 202, body = PendingBucket, description = "The bucket is being made"),
    )
)]
async fn get_bucket(
    State(service): State<Service>,
    Extension(principal): Extension<Principal>,
    Path(bucket_id): Path<String>,
) -> Result<Response, Problem> {
    Ok(match service.get(&principal, &bucket_id).await? {
        Found::Done(bucket) => Json(bucket).into_response(),
        Found::Pending(bucket) => pending(bucket),
    })
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Page {
    /// Only the buckets of this app.
    #[param(min_length = 1, max_length = 63, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$", required = false)]
    app_id: Option<String>,
    /// Only the buckets behind the one with this id.
    #[param(pattern = "^buk-[0-9a-f]{13}$", required = false)]
    after: Option<String>,
    /// At most so many; 100 if it is not given.
    #[param(minimum = 1, maximum = 500, required = false)]
    limit: Option<usize>,
}

/// List buckets
///
/// All that you may see, oldest first. Where there are more, the Link header (RFC 8288) has the next page.
#[utoipa::path(
    get,
    path = "/api/app-infra/buckets",
    params(Page),
    responses((status = 200, body = Buckets, description = "The buckets"))
)]
async fn list_buckets(
    State(service): State<Service>,
    Extension(principal): Extension<Principal>,
    query: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Page { app_id, after, limit }) =
        query.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let limit = limit.unwrap_or(100);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("limit must be 1 to {PAGE_MAX}")));
    }
    let (buckets, more) = service.list(&principal, app_id.as_deref(), after.as_deref(), limit).await?;
    let next = buckets.buckets.last().filter(|_| more).map(|last| {
        let app = app_id.map(|app_id| format!("&app_id={app_id}")).unwrap_or_default();
        format!("</api/app-infra/buckets?limit={limit}&after={}{app}>; rel=\"next\"", last.bucket_id)
    });
    let mut response = Json(buckets).into_response();
    if let Some(next) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
        response.headers_mut().insert(header::LINK, next);
    }
    Ok(response)
}

async fn readyz(State(service): State<Service>) -> Result<&'static str, Problem> {
    service.ready().await?;
    Ok("ok")
}

fn location(bucket_id: &str) -> String {
    format!("/api/app-infra/buckets/{bucket_id}")
}

fn pending(bucket: PendingBucket) -> Response {
    let location = location(&bucket.bucket_id);
    (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(bucket)).into_response()
}

/// The key that was sent, or a new one: it goes back with the answer.
fn idempotency_key(headers: &HeaderMap) -> Result<String, Problem> {
    let wrong = || {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "Idempotency-Key must be 1 to 128 visible ASCII characters, sent once")
    };
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(new_key()) };
    let key = value.to_str().map_err(|_| wrong())?;
    let visible = (1..=128).contains(&key.len()) && key.chars().all(|c| c.is_ascii_graphic());
    if visible && values.next().is_none() { Ok(key.to_owned()) } else { Err(wrong()) }
}

/// 128 random bits.
#[must_use]
pub fn new_key() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// A JSON body whose rejections are problem details, and which must come in soon.
struct Body<T>(T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let read = tokio::time::timeout(BODY_TIMEOUT, Json::<T>::from_request(request, state)).await;
        let read = read.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in"))?;
        let Json(value) = read.map_err(|rejection: JsonRejection| Problem::new(rejection.status(), rejection.body_text()))?;
        Ok(Self(value))
    }
}
