//! The OpenAPI document and a page of it for people.

use std::fmt::Write as _;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::openapi::{
    ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder,
    path::Operation,
    security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};

use super::problem::Problem;

/// The problems that any operation may answer with.
const PROBLEMS: [(&str, &str); 9] = [
    ("400", "The request can't be read"),
    ("401", "Who asks is not known"),
    ("403", "Who asks may not do that"),
    ("404", "There is no such thing, or it is somebody else's"),
    ("409", "Something stands in the way"),
    ("413", "The body is too large"),
    ("422", "The request is wrong"),
    ("429", "Too many requests"),
    ("503", "It can't be served now"),
];

/// Those of an operation that takes a body.
const BODY_PROBLEMS: [(&str, &str); 2] = [("408", "The body did not come in"), ("415", "The body is not JSON")];

/// Adds what is the same for every operation: problems and principals.
pub(super) fn complete(api: &mut OpenApi) {
    let components = api.components.get_or_insert_default();
    let (name, schema) = (<Problem as utoipa::ToSchema>::name(), <Problem as utoipa::PartialSchema>::schema());
    components.schemas.insert(name.to_string(), schema);
    let header = |name| SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(name)));
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let schemes = [("bearer", bearer), ("user_email", header("X-User-Email")), ("guest_id", header("X-Guest-Id"))];
    api.security = Some(schemes.iter().map(|(name, _)| SecurityRequirement::new::<_, _, String>(*name, [])).collect());
    components.security_schemes.extend(schemes.map(|(name, scheme)| (name.to_owned(), RefOr::T(scheme))));
    for operation in operations(api) {
        let body = operation.request_body.as_ref().map_or(&[][..], |_| &BODY_PROBLEMS);
        for (status, description) in PROBLEMS.iter().chain(body) {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            let response =
                ResponseBuilder::new().description(*description).content("application/problem+json", content).build();
            operation.responses.responses.entry((*status).to_owned()).or_insert(RefOr::T(response));
        }
    }
}

fn operations(api: &mut OpenApi) -> impl Iterator<Item = &mut Operation> {
    api.paths.paths.values_mut().flat_map(|item| [item.get.as_mut(), item.post.as_mut()]).flatten()
}

/// The document as a page of plain HTML. (Writing to a String does not fail.)
pub(super) fn page(api: &OpenApi) -> String {
    let document = serde_json::to_value(api).unwrap_or_default();
    let text = |value: &serde_json::Value| escape(value.as_str().unwrap_or_default());
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>{title}</title>\
         <style>body{{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}}pre{{background:#f4f4f4;padding:1rem;\
         overflow:auto}}code{{background:#f4f4f4}}td{{padding:.1rem .8rem .1rem 0;vertical-align:top}}</style><h1>{title}</h1><p>{description}</p>\
         <p>The same for programs: <a href=/openapi.json>/openapi.json</a></p>",
        title = text(&document["info"]["title"]),
        description = text(&document["info"]["description"]),
    );
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            let _ = write!(
                html,
                "<h2>{}</h2><p><code>{} {}</code></p><p>{}</p>",
                text(&operation["summary"]),
                escape(&method.to_uppercase()),
                escape(path),
                text(&operation["description"])
            );
            html += "<table>";
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
                let _ = write!(html, "<tr><td><code>{name}</code><td>{place}<td>{}", text(&parameter["description"]));
            }
            for (status, response) in operation["responses"].as_object().into_iter().flatten() {
                let _ = write!(html, "<tr><td><code>{}</code><td>answer<td>{}", escape(status), text(&response["description"]));
            }
            html += "</table>";
        }
    }
    html += "<h2>Bodies</h2>";
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        let _ = write!(html, "<h3>{}</h3><p>{}</p><table>", escape(name), text(&schema["description"]));
        for (field, about) in schema["properties"].as_object().into_iter().flatten() {
            let _ = write!(html, "<tr><td><code>{}</code><td>{}", escape(field), text(&about["description"]));
        }
        html += "</table>";
    }
    html
}

pub(super) fn response(page: &str) -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, policy)], page.to_owned())
        .into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
