//! The answers of an operation in the document. A handler lists its own error codes as the description of their status
//! (`(status = 404, description = "unknown_pair")`); those of the layers around all handlers are added, and each status becomes an answer with the
//! error's document, its codes and its headers.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::value::{binary_bodies, object};
use crate::http::{access::Access, error::ApiError};

/// An operation as its path and method name it.
pub(super) struct Route<'a> {
    pub(super) path: &'a str,
    pub(super) access: Access,
}

type Codes = BTreeMap<u16, BTreeSet<String>>;

/// Headers that answers of several routes have.
pub(super) fn shared_headers() -> Value {
    json!({
        "RequestId": {"description": "The id of the request: the caller's, or one that the server made.", "schema": {"type": "string"}},
        "RetryAfter": {"description": "Seconds after which to try again.", "schema": {"type": "integer", "minimum": 1}},
        "WwwAuthenticate": {"description": "How a key is sent.", "schema": {"type": "string"}},
    })
}

/// Completes the answers of an operation. `shared`: the error answers, each once.
pub(super) fn complete(operation: &mut Value, route: &Route, shared: &mut Value) {
    let mut codes = common(operation, route);
    let responses = object(operation, "responses");
    for (status, response) in responses.as_object_mut().into_iter().flatten() {
        let own = status.parse().ok().filter(|status| *status >= 400);
        if let Some(status) = own {
            let names = response["description"].as_str().unwrap_or_default();
            let names = names.split_whitespace().map(str::to_owned);
            codes.entry(status).or_default().extend(names);
            continue;
        }
        binary_bodies(response);
        object(response, "headers")["x-request-id"] = header("RequestId");
        let described = response["description"].as_str();
        if described.is_none_or(str::is_empty) {
            response["description"] = json!("The answer.");
        }
    }
    for (status, codes) in codes {
        let names: Vec<&str> = codes.iter().map(String::as_str).collect();
        let name = format!("{status}.{}", names.join("."));
        responses[status.to_string()] = json!({"$ref": format!("#/components/responses/{name}")});
        shared[name] = error_response(status, &names);
    }
}

/// The codes that the layers around the handlers answer, and those that every handler with such a body or query has.
fn common(operation: &Value, route: &Route) -> Codes {
    let mut codes = Codes::new();
    let mut add = |status: u16, names: &[&str]| {
        let names = names.iter().map(ToString::to_string);
        codes.entry(status).or_default().extend(names);
    };
    add(
        400,
        &["invalid_header", "invalid_parameter", "invalid_request"],
    );
    add(
        403,
        &["forbidden_header", "forbidden_host", "forbidden_origin"],
    );
    add(408, &["timeout"]);
    add(413, &["body_too_large"]);
    add(414, &["uri_too_long"]);
    add(415, &["unsupported_encoding"]);
    add(429, &["overloaded"]);
    add(431, &["headers_too_large"]);
    add(500, &["internal_error"]);
    add(503, &["stopping"]);
    if let Access::Scope(_) = route.access {
        add(401, &["missing_key", "invalid_key", "expired_key"]);
        add(403, &["insufficient_scope"]);
        add(429, &["rate_limited", "quota_exceeded"]);
    }
    let bodies = operation["requestBody"]["content"].as_object();
    if bodies.is_some() {
        add(400, &["invalid_body"]);
    }
    for media in bodies.into_iter().flat_map(|bodies| bodies.keys()) {
        match media.as_str() {
            "application/json" => add(400, &["invalid_json", "invalid_field", "missing_field"]),
            "multipart/form-data" => add(400, &["invalid_multipart", "unknown_field"]),
            _ => {}
        }
    }
    if route.path.contains('{') {
        add(404, &["unknown_id"]);
    }
    codes
}

fn error_response(status: u16, codes: &[&str]) -> Value {
    let reason = StatusCode::from_u16(status).ok();
    let reason = reason.and_then(|status| status.canonical_reason());
    let kind = ApiError::TYPES.iter().find(|(of, _)| *of == status);
    let kind = kind.map_or("invalid_request_error", |(_, kind)| kind);
    let mut headers = json!({"x-request-id": header("RequestId")});
    if matches!(status, 429 | 503) {
        headers["retry-after"] = header("RetryAfter");
    }
    if status == 401 {
        headers["www-authenticate"] = header("WwwAuthenticate");
    }
    let message = "what was wrong and what to do";
    json!({
        "description": format!("{}: `{}`.", reason.unwrap_or("Error"), codes.join("`, `")),
        "headers": headers,
        "content": {"application/json": {
            "schema": {"allOf": [
                {"$ref": "#/components/schemas/ErrorDocument"},
                {"properties": {"error": {"properties": {"type": {"const": kind}, "code": {"enum": codes}}}}},
            ]},
            "example": {"error": {"message": message, "type": kind, "param": null, "code": codes.first()}},
        }},
    })
}

fn header(name: &str) -> Value {
    json!({"$ref": format!("#/components/headers/{name}")})
}
