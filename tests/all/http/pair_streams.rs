//! `/v1/pairs` as a stream of NDJSON.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use bytes::Bytes;
use kith::types::Sha256;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::pairs::{lines, pair};
use crate::support::{Served, data_uri, png};

#[tokio::test]
async fn a_stream_answers_each_line_in_order_errors_included() {
    let served = Served::start(&["server.max_pairs=2"]).await;
    let input = [
        pair(1, 2).to_string(),
        "{\"anchor\": ".to_owned(),
        String::new(),
        pair(1, 2).to_string(),
        json!({"anchor": {"image": data_uri(b"no image")}}).to_string(),
        pair(3, 4).to_string(),
        json!({"anchor": {"id": "x"}}).to_string(),
        pair(5, 6).to_string(),
    ];
    // The last line has no line break.
    let reply = served
        .post_as("/v1/pairs", "application/x-ndjson", input.join("\n"))
        .await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (StatusCode::OK, Some("application/x-ndjson"))
    );
    let results = lines(&reply);
    let short: Vec<Value> = results
        .iter()
        .map(|line| match line.get("error") {
            Some(error) => json!([error["code"], error["param"]]),
            None => line["duplicate"].clone(),
        })
        .collect();
    assert_eq!(
        short,
        [
            json!(false),
            json!(["invalid_json", null]),
            json!(true),
            json!(["image_undecodable", "anchor"]),
            json!(false),
            json!(["invalid_id", "anchor.id"]),
            json!(false)
        ]
    );
    assert_eq!(results[5]["error"]["type"], "invalid_request_error");
}

#[tokio::test]
async fn a_streamed_line_is_answered_before_the_next_is_sent() {
    use futures::StreamExt;
    use tower::ServiceExt;

    let served = Served::start(&[]).await;
    let (send, lines) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(1);
    let body = Body::from_stream(futures::stream::unfold(lines, |mut lines| async {
        lines.recv().await.map(|line| (line, lines))
    }));
    let request = Request::post("/v1/pairs")
        .header("content-type", "application/x-ndjson")
        .body(body)
        .unwrap();
    let response = kith::http::router(served.app.clone())
        .oneshot(request)
        .await
        .unwrap();
    let mut results = response.into_body().into_data_stream();
    for seed in [1, 3] {
        send.send(Ok(format!("{}\n", pair(seed, seed + 1))))
            .await
            .unwrap();
        let result: Value =
            serde_json::from_slice(&results.next().await.unwrap().unwrap()).unwrap();
        assert_eq!(result["anchor"], Sha256::digest(&png(seed)).to_string());
    }
    drop(send);
    assert!(results.next().await.is_none());
}

#[tokio::test]
async fn a_line_that_is_too_long_ends_the_stream_with_an_error() {
    let served = Served::start(&["server.max_body_bytes=4096"]).await;
    let input = format!(
        "{}\n{}",
        json!({"anchor": {"image": data_uri(&png(1))}}),
        "x".repeat(5000)
    );
    let results = lines(
        &served
            .post_as("/v1/pairs", "application/x-ndjson", input)
            .await,
    );
    assert_eq!(results[0]["duplicate"], false);
    assert_eq!(results.last().unwrap()["error"]["code"], "line_too_large");
}

#[tokio::test]
async fn blank_bytes_now_and_then_do_not_keep_a_stream_open() {
    let served = Served::start(&["server.timeout_seconds=1"]).await;
    let drip = futures::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(b"\n")), ()))
    });
    let ask = served.post_as("/v1/pairs", "application/x-ndjson", Body::from_stream(drip));
    // Far more than the timeout.
    let reply = timeout(Duration::from_secs(60), ask).await.unwrap();
    assert_eq!(reply.json()["error"]["code"], "timeout");
}

#[tokio::test]
async fn blank_lines_are_not_charged_until_a_line_comes() {
    let sets = [
        "server.max_body_bytes=65536",
        "server.max_buffered_bytes=65536",
    ];
    let served = Served::start(&sets).await;
    let blank = Bytes::from(vec![b'\n'; 1000]);
    let pair = json!({"anchor": {"image": data_uri(&png(1))}}).to_string();
    let lines = std::iter::repeat_n(blank, 200).chain([Bytes::from(pair)]);
    let lines = futures::stream::iter(lines.map(Ok::<_, std::io::Error>));
    let body = Body::from_stream(lines);
    let reply = served
        .post_as("/v1/pairs", "application/x-ndjson", body)
        .await;
    assert_eq!(reply.json()["duplicate"], false, "{}", reply.text());
}
