//! What a key may use: requests, bytes, and an idempotency key of its own.

use std::io;

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
};
use futures::{StreamExt, stream};
use kith::keys::{Scope, Secret};
use serde_json::{Value, json};

use super::{refusal, with_key};
use crate::support::{Served, data_uri, png};

#[tokio::test]
async fn a_key_has_its_own_requests_a_minute() {
    let served = Served::start(&["keys.requests_per_minute=3"]).await;
    let (_, key) = served.key(Scope::Embed).await;
    let ask = async |key: &Secret| served.ask("GET", "/v1/models", Some(key)).await;
    for _ in 0..3 {
        assert_eq!(ask(&key).await.status, StatusCode::OK);
    }
    let reply = ask(&key).await;
    let refused = refusal(&reply, StatusCode::TOO_MANY_REQUESTS);
    let expected = ("rate_limit_error".to_owned(), "rate_limited".to_owned());
    assert_eq!(refused, expected);
    // One comes back every 20 seconds.
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((15..=20).contains(&wait), "{wait}");
    let (_, other) = served.key(Scope::Embed).await;
    assert_eq!(ask(&other).await.status, StatusCode::OK);
    assert_eq!(
        ask(&key).await.status,
        StatusCode::TOO_MANY_REQUESTS,
        "reading the keys again forgets nothing"
    );
    let health = served.ask("GET", "/healthz", Some(&key)).await;
    assert_eq!(health.status, StatusCode::OK);
}

#[tokio::test]
async fn a_key_has_its_own_bytes_a_day() {
    let served = Served::start(&["keys.bytes_per_day=20480"]).await;
    let (_, key) = served.key(Scope::Write).await;
    let post = async |key: &Secret, bytes: usize, declared: bool| {
        let body = Bytes::from(vec![b' '; bytes]);
        let body = if declared {
            Body::from(body)
        } else {
            Body::from_stream(stream::iter([Ok::<_, io::Error>(body)]))
        };
        let mut request = with_key("POST", "/v1/images", Some(key), body);
        if declared {
            let length = bytes.to_string().parse().unwrap();
            request.headers_mut().insert("content-length", length);
        }
        served.send(request).await
    };
    for declared in [true, false] {
        let reply = post(&key, 30_000, declared).await;
        let (_, code) = refusal(&reply, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(code, "body_too_large", "more than all of it");
    }
    // Of 20 KiB one is used by the beginning of the second body, and 15 by this.
    assert_eq!(
        post(&key, 15_000, true).await.status,
        StatusCode::BAD_REQUEST
    );
    for declared in [true, false] {
        let reply = post(&key, 10_000, declared).await;
        let refused = refusal(&reply, StatusCode::TOO_MANY_REQUESTS);
        let expected = ("rate_limit_error".to_owned(), "quota_exceeded".to_owned());
        assert_eq!(refused, expected, "declared: {declared}");
        // A KiB comes back every 72 minutes.
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((4000..=10 * 4320).contains(&wait), "{wait}");
    }
    let (_, other) = served.key(Scope::Write).await;
    assert_eq!(
        post(&other, 10_000, true).await.status,
        StatusCode::BAD_REQUEST
    );
    let reading = served.ask("GET", "/v1/images", Some(&key)).await;
    assert_eq!(reading.status, StatusCode::OK);
}

/// A line with a pair of two images, and blanks up to `bytes`.
fn line(seed: u32, bytes: usize) -> Bytes {
    let (a, b) = (data_uri(&png(seed)), data_uri(&png(seed + 1)));
    let line = json!({"anchor": {"image": a}, "positive": {"image": b}}).to_string();
    format!("{line:<bytes$}\n").into()
}

/// Posts a line, waits until its result has come, changes something, and posts another: the code of the last line.
async fn stream_with_a_change_between(
    served: &Served,
    key: &Secret,
    bytes: usize,
    change: impl AsyncFnOnce(),
) -> String {
    let (lines, body) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let body = stream::unfold(body, async |mut body| {
        let line = body.recv().await?;
        Some((Ok::<_, io::Error>(line), body))
    });
    let mut request = with_key("POST", "/v1/pairs", Some(key), Body::from_stream(body));
    let media = "application/x-ndjson".parse().unwrap();
    request.headers_mut().insert("content-type", media);
    let mut answer = served.open(request).await.into_data_stream();
    lines.send(line(1, bytes)).unwrap();
    let first = answer.next().await.unwrap().unwrap();
    let first: Value = serde_json::from_slice(&first).unwrap();
    assert!(first["id"].is_string(), "{first}");
    change().await;
    lines.send(line(3, bytes)).unwrap();
    let last = answer.next().await.unwrap().unwrap();
    let last: Value = serde_json::from_slice(&last).unwrap();
    assert!(answer.next().await.is_none(), "the stream ends");
    last["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_streams_bytes_count_as_they_arrive_and_it_ends_with_its_key() {
    let served = Served::start(&["keys.bytes_per_day=30720"]).await;
    let (_, key) = served.key(Scope::Write).await;
    let code = stream_with_a_change_between(&served, &key, 20_000, async || ()).await;
    assert_eq!(code, "quota_exceeded");
    let (row, key) = served.key(Scope::Write).await;
    let revoke = async || served.revoke(&row).await;
    let code = stream_with_a_change_between(&served, &key, 10_000, revoke).await;
    assert_eq!(code, "invalid_key");
}

#[tokio::test]
async fn an_idempotency_key_is_its_callers_own() {
    let served = Served::start(&[]).await;
    let (a, b) = (data_uri(&png(1)), data_uri(&png(2)));
    let pair = json!({"pairs": [{"anchor": {"image": a}, "positive": {"image": b}}]});
    let mut duplicates = Vec::new();
    let (_, first) = served.key(Scope::Write).await;
    let (_, second) = served.key(Scope::Write).await;
    for key in [&first, &first, &second] {
        let mut request = with_key("POST", "/v1/pairs", Some(key), pair.to_string().into());
        let same = "order-7".parse().unwrap();
        request.headers_mut().insert("idempotency-key", same);
        let answer = served.send(request).await.json();
        duplicates.push(answer["data"][0]["duplicate"].clone());
    }
    assert_eq!(duplicates, [false, false, true]);
}
