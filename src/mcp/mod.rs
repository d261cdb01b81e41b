//! The MCP front door: a thin adapter of [`Service`], over Streamable HTTP at `/mcp` and over stdio.

use std::sync::Arc;

use axum::Router;
use http::request::Parts;
use rmcp::{
    ErrorData, RoleServer, ServerHandler, ServiceExt as _,
    handler::server::wrapper::Parameters,
    model::{CallToolResult, Implementation, ServerCapabilities, ServerConfig},
    schemars::JsonSchema,
    service::RequestContext,
    tool, tool_handler, tool_router,
    transport::{
        StreamableHttpServerConfig, StreamableHttpService, stdio, streamable_http_server::session::never::NeverSessionManager,
    },
};
use serde::{Deserialize, Serialize};

use crate::service::{
    AddBucket, Added, AddedBucket, Bucket, Buckets, Error, Found, PAGE_MAX, PendingBucket, Principal, Service,
};

const INSTRUCTIONS: &str = "Gives an app S3-compatible object storage. add_app_bucket makes a bucket and puts its credentials into the \
    app's environment as OF_S3_ENDPOINT, OF_S3_BUCKET, OF_S3_ACCESS_KEY, OF_S3_SECRET_KEY and OF_S3_REGION; the field next of each answer \
    says what to do then. A secret key is shown at most once.";

/// The tools.
#[derive(Clone)]
pub struct Tools {
    service: Service,
    /// Who asks over stdio; over HTTP each request says so itself.
    caller: Option<Principal>,
}

/// An answer, with who asked: the field that the seed appends for MCP.
#[derive(Serialize, JsonSchema)]
struct WithSession<T> {
    #[serde(flatten)]
    answer: T,
    /// Who asked.
    session_token: String,
}

/// The same as in REST, with the key beside it: MCP has no header of its own for it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AddAppBucket {
    /// The app that the bucket is for: 1 to 63 characters of A-Z a-z 0-9 . _ -, the first one a letter or a digit.
    #[schemars(length(min = 1, max = 63))]
    app_id: String,
    /// The readable part of the bucket's name. Default: the app id.
    #[serde(default)]
    slug: Option<String>,
    /// The region that S3 clients sign their requests for. Default: us-east-1.
    #[serde(default)]
    region: Option<String>,
    /// The name of the AppBucket. Default: made from slug or app id.
    #[serde(default)]
    name: Option<String>,
    /// The same key and arguments give the same bucket, and never a second one: to call again after an error.
    #[serde(default)]
    #[schemars(length(min = 1, max = 128))]
    idempotency_key: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListAppBuckets {
    /// The app. Without it: all buckets that you may see.
    #[serde(default)]
    app_id: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GetAppBucket {
    /// The bucket's id, as add_app_bucket and list_app_buckets give it.
    bucket_id: String,
}

#[tool_router]
impl Tools {
    /// Provision an S3 bucket for an app, and publish its credentials into the app's environment. Each call makes one more bucket.
    #[tool(
        output_schema = rmcp::handler::server::tool::schema_for_output::<WithSession<AddedBucket>>(),
        annotations(title = "Add an app bucket", read_only_hint = false, destructive_hint = false, idempotent_hint = false, open_world_hint = false)
    )]
    async fn add_app_bucket(
        &self,
        Parameters(arguments): Parameters<AddAppBucket>,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let principal = self.principal(&context)?;
        let AddAppBucket { app_id, slug, region, name, idempotency_key } = arguments;
        let key = idempotency_key.unwrap_or_else(crate::rest::new_key);
        let request = AddBucket { app_id, slug, region, name };
        match self.service.add(&principal, &request, &key).await {
            Ok(Added::Done { bucket, .. }) => answer(*bucket, &principal),
            Ok(Added::Pending(bucket)) => {
                let next = format!(
                    "Call add_app_bucket again with the same arguments and idempotency_key='{key}' to get the credentials, once."
                );
                pending(PendingBucket { next, ..bucket }, &principal)
            }
            Err(error) => Ok(refusal(&error)),
        }
    }

    /// List the buckets of an app, oldest first. Metadata only: secret keys are never in it.
    #[tool(
        output_schema = rmcp::handler::server::tool::schema_for_output::<WithSession<Buckets>>(),
        annotations(title = "List app buckets", read_only_hint = true, open_world_hint = false)
    )]
    async fn list_app_buckets(
        &self,
        Parameters(ListAppBuckets { app_id }): Parameters<ListAppBuckets>,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let principal = self.principal(&context)?;
        match self.service.list(&principal, app_id.as_deref(), None, PAGE_MAX).await {
            Ok((buckets, _)) => answer(buckets, &principal),
            Err(error) => Ok(refusal(&error)),
        }
    }

    /// Look at one bucket. Metadata only: its secret key is never in it.
    #[tool(
        output_schema = rmcp::handler::server::tool::schema_for_output::<WithSession<Bucket>>(),
        annotations(title = "Get an app bucket", read_only_hint = true, open_world_hint = false)
    )]
    async fn get_app_bucket(
        &self,
        Parameters(GetAppBucket { bucket_id }): Parameters<GetAppBucket>,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let principal = self.principal(&context)?;
        match self.service.get(&principal, &bucket_id).await {
            Ok(Found::Done(bucket)) => answer(*bucket, &principal),
            Ok(Found::Pending(bucket)) => pending(bucket, &principal),
            Err(error) => Ok(refusal(&error)),
        }
    }
}

#[tool_handler]
impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("appbucket-operator", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }
}

impl Tools {
    /// Over HTTP, authentication has left it with the request.
    fn principal(&self, context: &RequestContext<RoleServer>) -> Result<Principal, ErrorData> {
        let of_request = context.extensions.get::<Parts>().and_then(|parts| parts.extensions.get::<Principal>());
        of_request.or(self.caller.as_ref()).cloned().ok_or_else(|| ErrorData::invalid_request("say who you are", None))
    }
}

fn answer<T: Serialize>(answer: T, principal: &Principal) -> Result<CallToolResult, ErrorData> {
    let answer = WithSession { answer, session_token: principal.name().to_owned() };
    let value = serde_json::to_value(answer).map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
    Ok(CallToolResult::structured(value))
}

/// Not what the output schema promises, so it is an error to a client; its text says that it is none, and what to do.
fn pending(bucket: PendingBucket, principal: &Principal) -> Result<CallToolResult, ErrorData> {
    let mut result = answer(bucket, principal)?;
    result.is_error = Some(true);
    Ok(result)
}

/// What an agent can act on: the message, and what to do next.
fn refusal(error: &Error) -> CallToolResult {
    let next = match error {
        Error::Invalid(_) => "Correct the arguments and call again.",
        Error::NotFound(_) => "Check the id with list_app_buckets; what belongs to others is not shown.",
        Error::Forbidden(_) => "Ask an administrator for the right; calling again does not help.",
        Error::Conflict(_) => "Choose another name or app, or resolve what the message names.",
        Error::Unavailable(_) => "Wait a few seconds and call again, with the same idempotency_key if you add a bucket.",
    };
    CallToolResult::structured_error(serde_json::json!({ "error": error.to_string(), "next": next }))
}

/// The route `/mcp`: without sessions, so that any replica serves any request. Only those hosts are answered, and no origin but
/// those, against DNS rebinding.
pub fn router(service: Service, hosts: &[String], origins: &[String]) -> Router {
    let tools = Tools { service, caller: None };
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(64 * 1024)
        .with_allowed_hosts(hosts)
        .with_allowed_origins(origins)
        .enforce_origin_validation();
    let service = StreamableHttpService::new(move || Ok(tools.clone()), Arc::new(NeverSessionManager::default()), config);
    Router::new().route_service("/mcp", service)
}

/// Serves one caller over stdin and stdout until they close them.
///
/// # Errors
/// Where the conversation can't begin or breaks off.
pub async fn serve_stdio(service: Service, caller: Principal) -> Result<(), String> {
    let tools = Tools { service, caller: Some(caller) };
    let running = tools.serve(stdio()).await.map_err(|error| crate::error_chain(&error))?;
    running.waiting().await.map_err(|error| crate::error_chain(&error))?;
    Ok(())
}
