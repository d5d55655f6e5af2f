//! What is added to every operation of the document: its tag, the parameters that all routes have, the key that it needs, and its answers.

use axum::http::Method;
use serde_json::{Value, json};

use super::{
    answers::{self, Route},
    value::{binary_bodies, object, without_null},
};
use crate::{
    http::access::{Access, access},
    keys::Scope,
};

/// Completes every operation. `keys`: whether the server asks for keys.
pub(super) fn complete(document: &mut Value, keys: bool, open_metrics: bool) {
    let components = object(document, "components");
    components["parameters"] = shared_parameters();
    components["headers"] = answers::shared_headers();
    if keys {
        components["securitySchemes"] = json!({"bearer": {
            "type": "http", "scheme": "bearer",
            "description": "A key that `kith key create` made. Its scope is `embed`, `write` or `admin`; each includes those before it.",
        }});
    }
    let mut shared = json!({});
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            let Ok(method) = Method::from_bytes(method.to_ascii_uppercase().as_bytes()) else {
                continue;
            };
            let access = access(&method, path, open_metrics);
            operation["tags"] = json!([tag(path)]);
            complete_parameters(operation);
            if let Some(body) = operation.get_mut("requestBody") {
                binary_bodies(body);
                // A body that may be left out is never `null`.
                let json = body.pointer_mut("/content/application~1json/schema");
                json.map(without_null);
            }
            if let (Access::Scope(scope), true) = (access, keys) {
                operation["security"] = json!([{"bearer": [scope_name(scope)]}]);
            }
            answers::complete(operation, &Route { path, access }, &mut shared);
        }
    }
    document["components"]["responses"] = shared;
}

/// The noun of a path.
fn tag(path: &str) -> &str {
    match path.split('/').collect::<Vec<_>>()[..] {
        [_, "v1", noun, ..] => noun,
        [_, "v2", ..] => "embeddings",
        _ => "operations",
    }
}

fn scope_name(scope: Scope) -> Value {
    json!(scope)
}

fn shared_parameters() -> Value {
    json!({
        "RequestId": {
            "name": "x-request-id", "in": "header", "schema": {"type": "string"},
            "description": "The id of this request, for the log and the answer; 1 to 128 visible ASCII characters. Another is replaced.",
        },
        "RequestTimeout": {
            "name": "x-request-timeout", "in": "header",
            "schema": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 18_446_744_073_709_551_616_f64},
            "description": "Seconds after which you no longer wait: the request then leaves its queue, and is answered 408.",
        },
    })
}

/// Texts outside a body are never `null`: what is not given is left out.
fn complete_parameters(operation: &mut Value) {
    let parameters = &mut operation["parameters"];
    if parameters.is_null() {
        *parameters = json!([]);
    }
    let Some(parameters) = parameters.as_array_mut() else {
        return;
    };
    for parameter in parameters.iter_mut() {
        without_null(&mut parameter["schema"]);
    }
    for name in ["RequestId", "RequestTimeout"] {
        parameters.push(json!({"$ref": format!("#/components/parameters/{name}")}));
    }
}
