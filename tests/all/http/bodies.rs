//! Bodies and queries: `null`, compression, byte order marks, empty form fields, options in the body or the query.

use std::io::Write;

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use serde_json::{Value, json};

use crate::support::{Reply, Served, data_uri, form, png, request};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

async fn encoded(served: &Served, path: &str, encoding: &str, media: &str, body: Vec<u8>) -> Reply {
    let request = Request::post(path)
        .header("content-type", media)
        .header("content-encoding", encoding)
        .body(Body::from(body));
    served.send(request.unwrap()).await
}

#[tokio::test]
async fn null_means_the_default_in_every_json_body() {
    // Training is on, so that it can be paused, and has nothing to do.
    let served = Served::start(&["training.enabled=true", "training.min_pairs=1000"]).await;
    let image = data_uri(&png(1));
    let embeddings = json!({"input": image, "model": null, "encoding_format": null, "dimensions": null, "layer": null, "user": null});
    let pair = json!({"anchor": {"image": image, "id": null}, "positive": null, "group": null});
    for (path, document) in [
        ("/v1/embeddings", embeddings),
        ("/v1/pairs", json!({"pairs": [pair]})),
        ("/v1/checkpoints", json!({"note": null})),
    ] {
        let reply = served.post(path, &document).await;
        assert!(reply.status.is_success(), "{path}: {}", reply.text());
    }
    let line = served
        .post_as("/v1/pairs", "application/x-ndjson", pair.to_string())
        .await;
    assert!(line.json().get("error").is_none(), "{}", line.text());
    let body = Body::from(json!({"state": "paused", "learning_rate": null}).to_string());
    let change = request(
        Method::PATCH,
        "/v1/training",
        Some("application/json"),
        body,
    );
    let reply = served.send(change).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
}

#[tokio::test]
async fn a_value_of_the_wrong_type_names_its_field_in_every_json_body() {
    let served = Served::start(&[]).await;
    let image = data_uri(&png(1));
    let pairs = |pair: Value| json!({"pairs": [pair]});
    let anchor = json!({"image": image});
    for (method, path, document, param) in [
        (
            "POST",
            "/v1/embeddings",
            json!({"input": [image, 5]}),
            "input[1]",
        ),
        (
            "POST",
            "/v1/embeddings",
            json!({"input": image, "dimensions": -1}),
            "dimensions",
        ),
        ("POST", "/v1/images", json!({"image": ["a"]}), "image"),
        ("POST", "/v1/pairs", pairs(json!([anchor])), "pairs[0]"),
        (
            "POST",
            "/v1/pairs",
            pairs(json!({"anchor": [image]})),
            "pairs[0].anchor",
        ),
        (
            "POST",
            "/v1/pairs",
            pairs(json!({"anchor": anchor, "group": 7})),
            "pairs[0].group",
        ),
        ("POST", "/v1/checkpoints", json!({"note": 5}), "note"),
        ("PATCH", "/v1/training", json!({"state": 5}), "state"),
        (
            "PATCH",
            "/v1/training",
            json!({"learning_rate": "fast"}),
            "learning_rate",
        ),
    ] {
        let body = Body::from(document.to_string());
        let method = method.parse().unwrap();
        let reply = served
            .send(request(method, path, Some("application/json"), body))
            .await;
        let (code, place) = reply.error(StatusCode::BAD_REQUEST);
        assert_eq!(
            (code.as_str(), place.as_deref()),
            ("invalid_field", Some(param)),
            "{}",
            reply.text()
        );
    }
    let line = json!({"anchor": anchor, "positive": 5}).to_string();
    let reply = served
        .post_as("/v1/pairs", "application/x-ndjson", line)
        .await;
    assert_eq!(reply.json()["error"]["param"], "positive");
}

#[tokio::test]
async fn a_missing_field_is_named_in_every_json_body() {
    let served = Served::start(&[]).await;
    for (path, document, param) in [
        ("/v1/embeddings", json!({}), "input"),
        ("/v1/images", json!({}), "image"),
        ("/v1/pairs", json!({}), "pairs"),
        ("/v1/pairs", json!({"pairs": [{}]}), "pairs[0].anchor"),
    ] {
        let reply = served.post(path, &document).await;
        let (code, place) = reply.error(StatusCode::BAD_REQUEST);
        assert_eq!(
            (code.as_str(), place.as_deref()),
            ("missing_field", Some(param))
        );
    }
}

#[tokio::test]
async fn gzip_and_zstd_bodies_are_decompressed_whatever_their_media_type() {
    let served = Served::start(&[]).await;
    let document = json!({"input": data_uri(&png(1))}).to_string();
    let plain = served
        .post_as("/v1/embeddings", "application/json", document.clone())
        .await;
    let json = "application/json";
    for (encoding, body) in [
        ("gzip", gzip(document.as_bytes())),
        ("X-GZIP", gzip(document.as_bytes())),
        ("zstd", zstd(document.as_bytes())),
        ("identity", document.clone().into_bytes()),
    ] {
        let reply = encoded(&served, "/v1/embeddings", encoding, json, body).await;
        assert_eq!(
            (reply.status, &reply.body),
            (StatusCode::OK, &plain.body),
            "{encoding}"
        );
    }
    let line = json!({"anchor": {"image": data_uri(&png(1))}}).to_string();
    let lines = gzip(format!("{line}\n{line}\n").as_bytes());
    let reply = encoded(&served, "/v1/pairs", "gzip", "application/x-ndjson", lines).await;
    assert_eq!(reply.text().lines().count(), 2, "{}", reply.text());
}

#[tokio::test]
async fn a_body_beyond_the_limit_once_decompressed_is_413_and_other_encodings_are_415() {
    let served = Served::start(&[
        "server.max_body_bytes=65536",
        "server.max_buffered_bytes=65536",
    ])
    .await;
    let zeros = vec![0; 8 << 20];
    let (media, body) = form(&[("a", Some("a.png"), &zeros)]);
    for (encoding, media, bomb) in [
        ("gzip", "image/png", gzip(&zeros)),
        ("zstd", "application/json", zstd(&zeros)),
        ("gzip", media, gzip(&body)),
    ] {
        let reply = encoded(&served, "/v1/embeddings", encoding, media, bomb).await;
        reply.error(StatusCode::PAYLOAD_TOO_LARGE);
    }
    for encoding in ["br", "gzip, gzip", "deflate"] {
        let reply = encoded(&served, "/v1/embeddings", encoding, "image/png", png(1)).await;
        let (code, _) = reply.error(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(code, "unsupported_encoding");
        assert!(reply.text().contains(encoding), "{}", reply.text());
    }
    let reply = encoded(&served, "/v1/embeddings", "gzip", "image/png", png(1)).await;
    assert_eq!(reply.error(StatusCode::BAD_REQUEST).0, "invalid_body");
    // What was held is free again.
    let reply = served.post_as("/v1/embeddings", "image/png", png(1)).await;
    assert_eq!(reply.status, StatusCode::OK);
}

#[tokio::test]
async fn a_byte_order_mark_before_json_is_skipped() {
    let served = Served::start(&[]).await;
    let document = format!("\u{feff}{}", json!({"input": data_uri(&png(1))}));
    let reply = served
        .post_as("/v1/embeddings", "application/json", document)
        .await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    let line = format!(
        "\u{feff}{}",
        json!({"anchor": {"image": data_uri(&png(1))}})
    );
    let reply = served
        .post_as("/v1/pairs", "application/x-ndjson", line)
        .await;
    assert_eq!(reply.json()["duplicate"], false, "{}", reply.text());
}

#[tokio::test]
async fn form_fields_that_were_left_empty_are_absent() {
    let served = Served::start(&[]).await;
    let image = png(1);
    let (media, body) = form(&[
        ("anchor", Some("a.png"), &image),
        ("positive", Some(""), b""),
        ("group", None, b""),
    ]);
    let reply = served.post_as("/v1/pairs", media, body).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text());
    let pair = &reply.json()["data"][0];
    assert_eq!(
        (&pair["group"], &pair["positive"]),
        (&Value::Null, &pair["anchor"])
    );
    let (media, body) = form(&[("a", Some("a.png"), &image), ("b", Some(""), b"")]);
    let reply = served.post_as("/v1/embeddings", media, body).await;
    assert_eq!(reply.json()["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn options_may_be_in_the_query_of_a_json_body_but_not_in_both() {
    let served = Served::start(&[]).await;
    let document = json!({"input": data_uri(&png(1)), "layer": "embedding"});
    let reply = served.post("/v1/embeddings?dimensions=3", &document).await;
    let values = reply.json()["data"][0]["embedding"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(values, 3);
    let reply = served.post("/v1/embeddings?layer=hidden", &document).await;
    assert_eq!(
        reply.error(StatusCode::BAD_REQUEST),
        ("invalid_parameter".to_owned(), Some("layer".to_owned()))
    );
}

#[tokio::test]
async fn unknown_query_parameters_are_refused_on_every_route() {
    let served = Served::start(&[]).await;
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("POST", "/v1/embeddings"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/kith"),
        ("POST", "/v1/images"),
        ("GET", "/v1/images"),
        ("GET", "/v1/images/7"),
        ("DELETE", "/v1/images/7"),
        ("GET", "/v1/images/7/content"),
        ("POST", "/v1/pairs"),
        ("GET", "/v1/pairs"),
        ("GET", "/v1/pairs/7"),
        ("DELETE", "/v1/pairs/7"),
        ("GET", "/v1/training"),
        ("PATCH", "/v1/training"),
        ("GET", "/v1/training/metrics"),
        ("POST", "/v1/checkpoints"),
        ("GET", "/v1/checkpoints"),
        ("GET", "/v1/checkpoints/7"),
        ("DELETE", "/v1/checkpoints/7"),
        ("POST", "/v1/checkpoints/7/promote"),
        ("GET", "/v1/checkpoints/7/files/x"),
    ] {
        let method = method.parse().unwrap();
        let path = format!("{path}?dimenson=3");
        let reply = served
            .send(request(
                method,
                &path,
                Some("application/json"),
                Body::empty(),
            ))
            .await;
        let (code, param) = reply.error(StatusCode::BAD_REQUEST);
        assert_eq!(
            (code.as_str(), param.as_deref()),
            ("invalid_parameter", Some("dimenson")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_invalid_request_id_is_replaced() {
    let served = Served::start(&[]).await;
    let ask = async |ids: &[&[u8]]| {
        let mut request = Request::get("/healthz");
        for id in ids {
            request = request.header("x-request-id", *id);
        }
        let reply = served.send(request.body(Body::empty()).unwrap()).await;
        reply.headers["x-request-id"].as_bytes().to_vec()
    };
    let most = "x".repeat(128);
    assert_eq!(ask(&[most.as_bytes()]).await, most.as_bytes());
    let long = "x".repeat(129);
    for ids in [
        vec![long.as_bytes()],
        vec![b"a b".as_slice()],
        vec![b"\xff".as_slice()],
        vec![b"".as_slice()],
        vec![b"a".as_slice(), b"b".as_slice()],
    ] {
        assert_eq!(ask(&ids).await.len(), 36, "{ids:?}");
    }
}

#[tokio::test]
async fn a_media_type_that_only_begins_like_the_streams_has_the_limits_of_a_body() {
    let served = Served::start(&["server.max_body_bytes=1000"]).await;
    for (media, status) in [
        ("application/x-ndjson-seq", StatusCode::PAYLOAD_TOO_LARGE),
        ("application/json", StatusCode::PAYLOAD_TOO_LARGE),
        ("Application/X-NDJSON; charset=utf-8", StatusCode::OK),
    ] {
        let request = Request::post("/v1/pairs")
            .header("content-type", media)
            .header("content-length", "1001")
            .body(Body::from("\n".repeat(1001)))
            .unwrap();
        assert_eq!(served.send(request).await.status, status, "{media}");
    }
}
