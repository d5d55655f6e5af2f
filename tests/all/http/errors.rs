//! Errors of handlers, layers and panics have the same shape.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use futures::StreamExt;
use serde_json::json;

use crate::support::{Served, data_uri, png, request};

#[tokio::test]
async fn unknown_routes_and_methods_have_the_error_shape() {
    let served = Served::start(&[]).await;
    let (code, _) = served
        .get("/v1/embedding")
        .await
        .error(StatusCode::NOT_FOUND);
    assert_eq!(code, "unknown_route");
    let reply = served.get("/v1/embeddings").await;
    assert_eq!(
        reply.error(StatusCode::METHOD_NOT_ALLOWED).0,
        "method_not_allowed"
    );
    assert_eq!(reply.header("allow"), Some("POST"));
}

#[tokio::test]
async fn invalid_json_unknown_fields_and_wrong_types_are_refused_with_the_path() {
    let served = Served::start(&[]).await;
    let image = data_uri(&png(1));
    for (body, code, param) in [
        ("{\"input\": ".to_owned(), "invalid_json", None),
        ("{}".to_owned(), "missing_field", Some("input")),
        (String::new(), "invalid_json", None),
        (
            format!("{{\"input\": \"{image}\"}} {{}}"),
            "invalid_json",
            None,
        ),
        // A list is no object, even where its items stand in the fields' order.
        (json!([image]).to_string(), "invalid_field", None),
        (
            json!({"input": image, "layer": 5}).to_string(),
            "invalid_field",
            Some("layer"),
        ),
        (
            json!({"input": image, "model": ["kith"]}).to_string(),
            "invalid_field",
            Some("model"),
        ),
        (
            json!({"input": image, "dimension": 4}).to_string(),
            "invalid_field",
            Some("dimension"),
        ),
        (
            json!({"input": image, "dimensions": "four"}).to_string(),
            "invalid_field",
            Some("dimensions"),
        ),
        (
            json!({"input": image, "layer": "output"}).to_string(),
            "invalid_field",
            Some("layer"),
        ),
        (
            json!({"input": image, "encoding_format": "hex"}).to_string(),
            "invalid_field",
            Some("encoding_format"),
        ),
    ] {
        let reply = served
            .post_as("/v1/embeddings", "application/json", body)
            .await;
        let (got, place) = reply.error(StatusCode::BAD_REQUEST);
        assert_eq!(got, code, "{}", reply.text());
        if param.is_some() {
            assert_eq!(place.as_deref(), param, "{}", reply.text());
        }
    }
}

#[tokio::test]
async fn an_unsupported_content_type_is_415() {
    let served = Served::start(&[]).await;
    for media in [Some("text/plain"), None] {
        let reply = served
            .send(request(
                Method::POST,
                "/v1/embeddings",
                media,
                Body::from("x"),
            ))
            .await;
        assert_eq!(
            reply.error(StatusCode::UNSUPPORTED_MEDIA_TYPE).0,
            "unsupported_media_type"
        );
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_408() {
    let served = Served::start(&["server.timeout_seconds=1"]).await;
    // A body that never ends.
    let body = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let reply = served
        .send(request(
            Method::POST,
            "/v1/embeddings",
            Some("image/png"),
            body,
        ))
        .await;
    assert_eq!(reply.error(StatusCode::REQUEST_TIMEOUT).0, "timeout");
}

#[tokio::test]
async fn bodies_beyond_the_shared_budget_are_429() {
    let served = Served::start(&[
        "server.max_body_bytes=4096",
        "server.max_buffered_bytes=4096",
    ])
    .await;
    let held = futures::stream::iter([Ok::<_, std::io::Error>(vec![0; 4096])]);
    let endless = Body::from_stream(held.chain(futures::stream::pending()));
    let slow = served.send(request(
        Method::POST,
        "/v1/embeddings",
        Some("image/png"),
        endless,
    ));
    let quick = served.post_as("/v1/embeddings", "image/png", png(1));
    // Polled in this order, the slow one has its share when the quick one asks.
    let reply = tokio::select! {
        biased;
        _ = slow => panic!("its body never ends"),
        reply = quick => reply,
    };
    assert_eq!(reply.error(StatusCode::TOO_MANY_REQUESTS).0, "overloaded");
    assert!(reply.header("retry-after").is_some());
}

#[tokio::test]
async fn every_answer_carries_the_callers_request_id_or_one_of_its_own() {
    let served = Served::start(&[]).await;
    let named = Request::get("/healthz")
        .header("x-request-id", "abc-1")
        .body(Body::empty())
        .unwrap();
    assert_eq!(
        served.send(named).await.header("x-request-id"),
        Some("abc-1")
    );
    let own = served.get("/healthz").await;
    assert!(own.header("x-request-id").unwrap().len() > 8);
}

#[tokio::test]
async fn ids_that_are_none_are_404_not_400() {
    let served = Served::start(&[]).await;
    for path in [
        "/v1/pairs/7",
        "/v1/checkpoints/7",
        "/v1/images/7",
        "/v1/checkpoints/7/files/model.safetensors",
    ] {
        served.get(path).await.error(StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn health_and_the_list_of_routes_need_nothing() {
    let served = Served::start(&[]).await;
    assert_eq!(served.get("/healthz").await.json(), json!({"status": "ok"}));
    assert_eq!(served.get("/readyz").await.json()["status"], "ready");
    assert!(served.get("/").await.text().contains("/v1/embeddings"));
}

#[tokio::test]
async fn after_a_stop_embeddings_are_refused_with_503() {
    let served = Served::start(&[]).await;
    served.app.serving.stop().await;
    let reply = served.post_as("/v1/embeddings", "image/png", png(1)).await;
    assert_eq!(reply.error(StatusCode::SERVICE_UNAVAILABLE).0, "stopping");
    assert!(reply.header("retry-after").is_some());
}

#[tokio::test]
async fn null_for_a_field_that_must_be_given_counts_as_missing() {
    let served = Served::start(&[]).await;
    for (path, body, field) in [
        ("/v1/images", json!({"image": null}), "image"),
        ("/v1/embeddings", json!({"input": null}), "input"),
        (
            "/v1/pairs",
            json!({"pairs": [{"anchor": null}]}),
            "pairs[0].anchor",
        ),
    ] {
        let reply = served.post(path, &body).await;
        let found = reply.error(StatusCode::BAD_REQUEST);
        assert_eq!(found, ("missing_field".to_owned(), Some(field.to_owned())));
    }
}

#[tokio::test]
async fn a_method_that_a_route_has_not_is_405_whatever_the_query_says() {
    let served = Served::start(&[]).await;
    let ask = async |method: &str, path: &str| {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        served
            .send(request(method, path, None, Body::empty()))
            .await
    };
    for (method, path, allow) in [
        ("PUT", "/v1/models?colour=red", "GET,HEAD"),
        ("DELETE", "/v1/embeddings?dimensions=4", "POST"),
        ("PATCH", "/v1/pairs?limit=1&colour=red", "POST,GET,HEAD"),
        ("BREW", "/healthz?colour=red", "GET,HEAD"),
    ] {
        let reply = ask(method, path).await;
        let (code, _) = reply.error(StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(code, "method_not_allowed", "{method} {path}");
        let sorted = |names: &str| {
            let mut names: Vec<_> = names.split(',').map(str::to_owned).collect();
            names.sort();
            names
        };
        let found = reply.header("allow").unwrap();
        assert_eq!(sorted(found), sorted(allow), "{method} {path}");
    }
    for (method, path) in [
        ("GET", "/v1/models?colour=red"),
        ("GET", "/healthz?colour"),
        ("DELETE", "/v1/aliases/x?colour=red"),
    ] {
        let reply = ask(method, path).await;
        let (code, param) = reply.error(StatusCode::BAD_REQUEST);
        assert_eq!(
            (code.as_str(), param.as_deref()),
            ("invalid_parameter", Some("colour"))
        );
    }
    let head = ask("HEAD", "/v1/models?colour=red").await;
    assert_eq!(head.status, StatusCode::BAD_REQUEST);
}
