//! `GET /openapi.json` and `GET /docs`. That every answer of the tests is in the document is checked by `support::Served::send`.

use std::{collections::HashSet, fs, path::Path};

use axum::http::StatusCode;
use serde_json::Value;

use crate::{document::Document, support::Served};

/// Files of a folder of sources that add a route without documenting it.
fn undocumented(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(undocumented(&path));
        } else if fs::read(&path)
            .unwrap()
            .windows(7)
            .any(|call| call == b".route(")
        {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn no_route_is_added_without_its_documentation() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    assert_eq!(undocumented(&sources), [""; 0], "use `.routes(routes!(…))`");
}

/// Every reference in `value` leads somewhere.
fn follow(document: &Document, value: &Value) {
    match value {
        Value::Object(fields) => {
            document.resolve(value);
            fields.values().for_each(|field| follow(document, field));
        }
        Value::Array(items) => items.iter().for_each(|item| follow(document, item)),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_is_openapi_3_1_and_describes_every_operation() {
    let served = Served::start(&[]).await;
    let document = Document::new(served.get("/openapi.json").await.json());
    assert!(document.0["openapi"].as_str().unwrap().starts_with("3.1."));
    follow(&document, &document.0);
    let mut ids = HashSet::new();
    for (method, path) in document.operations() {
        let operation = document.operation(&method, &path);
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{id} is the name of two operations");
        for field in ["operationId", "summary"] {
            assert!(operation[field].is_string(), "{method} {path}: {field}");
        }
        let needs_key = !operation["security"].is_null();
        assert!(!needs_key, "{method} {path}: this server has no keys");
        let parameters = operation["parameters"].as_array().unwrap();
        let parameters = parameters
            .iter()
            .map(|parameter| document.resolve(parameter));
        let in_path = parameters.filter(|parameter| parameter["in"] == "path");
        assert_eq!(
            in_path.count(),
            path.matches('{').count(),
            "{method} {path}"
        );
    }
    for schema in document.0["components"]["schemas"].as_object().unwrap() {
        let fields = schema.1.as_object().unwrap();
        assert!(!fields.is_empty(), "{} has no schema", schema.0);
    }
}

#[tokio::test]
async fn requests_refuse_unknown_fields_in_the_document_as_on_the_wire() {
    let served = Served::start(&[]).await;
    let document = served.document().await;
    for (method, path) in document.operations() {
        let body = &document.operation(&method, &path)["requestBody"]["content"];
        let schema = document.resolve(&body["application/json"]["schema"]);
        // A body that may be left out is an alternative.
        let others = schema["anyOf"].as_array().into_iter().flatten();
        let mut all = std::iter::once(schema).chain(others.map(|other| document.resolve(other)));
        let is_closed = |schema: &serde_json::Value| schema["additionalProperties"] == false;
        // One of several forms that exclude each other: each is closed.
        let forms = schema["oneOf"].as_array();
        let closed = all.any(is_closed) || forms.is_some_and(|forms| forms.iter().all(is_closed));
        assert!(closed || schema.is_null(), "{method} {path}: {schema}");
    }
}

#[tokio::test]
async fn the_page_runs_its_own_script_only_and_names_no_other_host() {
    let served = Served::start(&[]).await;
    let page = served.get("/docs").await;
    assert_eq!(page.status, StatusCode::OK);
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"));
    let text = page.text();
    assert!(text.contains("fetch(\"openapi.json\")"));
    for other in ["http://", "https://", "//cdn", "src="] {
        assert!(!text.contains(other), "{other}");
    }
}

/// The fields of an object, and those of its schema.
fn assert_described(document: &Document, name: &str, value: &Value) {
    let schema = &document.0["components"]["schemas"][name];
    let keys = |object: &Value| {
        let fields = object
            .as_object()
            .unwrap_or_else(|| panic!("{name}: {object}"));
        fields.keys().cloned().collect::<HashSet<_>>()
    };
    assert_eq!(keys(&schema["properties"]), keys(value), "{name}");
}

#[tokio::test]
async fn manifests_and_evaluations_are_described_to_their_last_field() {
    let served = Served::start(&[]).await;
    let document = served.document().await;
    let id = served.app.serving.live().unwrap().id;
    let path = format!("/v1/checkpoints/{id}/files/manifest.json");
    let manifest = served.get(&path).await.json();
    assert_described(document, "Manifest", &manifest);
    assert_described(document, "EncoderConfig", &manifest["encoder"]);
    assert_described(document, "Part", &manifest["parts"][0]);
    let evaluation = serde_json::to_value(kith_eval::Evaluation::default()).unwrap();
    assert_described(document, "Evaluation", &evaluation);
    assert_described(document, "Retrieval", &evaluation["anchor_to_positive"]);
    assert_described(document, "Geometry", &evaluation["geometry"]);
    let of = |name: &str| {
        document.0["components"]["schemas"][name]["properties"]["evaluation"].to_string()
    };
    for holder in ["CheckpointResponse", "EvaluationRow"] {
        assert!(
            of(holder).contains("#/components/schemas/Evaluation"),
            "{holder}: {}",
            of(holder)
        );
    }
}

#[tokio::test]
async fn a_line_of_a_stream_of_pairs_is_described_as_a_pair_or_an_error() {
    let served = Served::start(&[]).await;
    let document = served.document().await;
    let answer = &document.operation("POST", "/v1/pairs")["responses"]["200"];
    let line = document.resolve(&answer["content"]["application/x-ndjson"]["schema"]);
    let names = line["anyOf"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|name| name["$ref"].as_str().unwrap()).collect();
    let schemas =
        ["PairResponse", "ErrorDocument"].map(|name| format!("#/components/schemas/{name}"));
    assert_eq!(names, schemas);
}
