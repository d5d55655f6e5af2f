//! Many requests at once, deadlines of callers, classes of requests, and HTTP/2 without TLS.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kith_pixels::{DecodedImage, encode_png};
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};

use super::live::{CEILING, Live};
use crate::support::{Reply, Served, data_uri, png};

/// An image that takes a while to decode.
fn large(side: u32) -> Vec<u8> {
    encode_png(&DecodedImage::opaque(
        side,
        side,
        vec![200; (3 * side * side) as usize],
    ))
}

async fn embed(served: &Served, headers: &[(&str, &str)], image: Vec<u8>) -> Reply {
    let mut request = Request::post("/v1/embeddings").header("content-type", "image/png");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    served.send(request.body(Body::from(image)).unwrap()).await
}

#[tokio::test]
async fn more_requests_than_may_be_answered_at_once_are_refused_and_health_is_not() {
    let served = Served::start(&["server.max_requests=1"]).await;
    // A body that never comes holds the only place.
    let body = Body::from_stream(futures::stream::pending::<Result<&[u8], std::io::Error>>());
    let request = Request::post("/v1/embeddings")
        .header("content-type", "image/png")
        .body(body);
    let held = served.send(request.unwrap());
    let others = async {
        loop {
            let refused = served.get("/v1/models").await;
            if refused.status == StatusCode::TOO_MANY_REQUESTS {
                assert_eq!(refused.error(refused.status).0, "overloaded");
                assert_eq!(refused.header("retry-after"), Some("1"));
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(served.get("/healthz").await.status, StatusCode::OK);
    };
    tokio::select! {
        // In this order, so that it comes first to the only place.
        biased;
        reply = held => panic!("{}", reply.text()),
        done = timeout(CEILING, others) => done.unwrap(),
    }
    // The place is free again.
    assert_eq!(served.get("/v1/models").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_small_request_that_would_wait_long_is_refused_and_a_bulk_one_is_not() {
    let served = Served::start(&[
        "serving.max_wait_ms=1",
        "serving.max_batch=1",
        "serving.cache_mb=0",
    ])
    .await;
    // Twelve megabytes of pixels take more than a millisecond anywhere, which is known after the first.
    let slow = large(2000);
    let reply = embed(&served, &[], slow.clone()).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    let (first, bulk, small) = tokio::join!(
        embed(&served, &[], slow.clone()),
        embed(&served, &[("x-kith-priority", "bulk")], slow),
        embed(&served, &[], png(1)),
    );
    assert_eq!(small.error(StatusCode::TOO_MANY_REQUESTS).0, "overloaded");
    assert_eq!(
        (first.status, bulk.status),
        (StatusCode::OK, StatusCode::OK)
    );
    let reply = embed(&served, &[], png(1)).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
}

#[tokio::test]
async fn however_long_the_wait_small_requests_may_fill_a_pass() {
    let served = Served::start(&[
        "serving.max_wait_ms=1",
        "serving.max_batch=3",
        "serving.cache_mb=0",
    ])
    .await;
    let slow = large(2000);
    let reply = embed(&served, &[], slow.clone()).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    let replies = tokio::join!(
        embed(&served, &[], slow),
        embed(&served, &[], png(1)),
        embed(&served, &[], png(2)),
        embed(&served, &[], png(3)),
    );
    let replies = [replies.0, replies.1, replies.2, replies.3];
    let refused = replies
        .iter()
        .filter(|reply| reply.status != StatusCode::OK);
    let refused: Vec<_> = refused.collect();
    assert_eq!(
        refused.len(),
        1,
        "three fill a pass, the fourth waits too long"
    );
    assert_eq!(
        refused[0].error(StatusCode::TOO_MANY_REQUESTS).0,
        "overloaded"
    );
}

#[tokio::test]
async fn a_request_that_its_caller_no_longer_waits_for_is_given_up() {
    let served = Served::start(&[]).await;
    let late = embed(&served, &[("x-request-timeout", "0.000001")], large(2000)).await;
    assert_eq!(late.error(StatusCode::REQUEST_TIMEOUT).0, "timeout");
    let reply = embed(&served, &[("x-request-timeout", "60")], png(1)).await;
    assert_eq!(reply.status, StatusCode::OK);
    for bad in ["0", "soon"] {
        let reply = embed(&served, &[("x-request-timeout", bad)], png(1)).await;
        let (code, param) = reply.error(StatusCode::BAD_REQUEST);
        assert_eq!(
            (&*code, param.as_deref()),
            ("invalid_header", Some("x-request-timeout"))
        );
    }
}

#[tokio::test]
async fn a_class_is_interactive_or_bulk() {
    let served = Served::start(&[]).await;
    for class in ["interactive", "bulk"] {
        let reply = embed(&served, &[("x-kith-priority", class)], png(1)).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    }
    let reply = embed(&served, &[("x-kith-priority", "urgent")], png(1)).await;
    let (code, param) = reply.error(StatusCode::BAD_REQUEST);
    assert_eq!(
        (&*code, param.as_deref()),
        ("invalid_header", Some("x-kith-priority"))
    );
}

async fn http2(live: &Live) -> http2::SendRequest<Body> {
    let stream = TcpStream::connect(live.address).await.unwrap();
    let (client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

fn post(live: &Live, images: usize) -> Request<Body> {
    let images: Vec<String> = (0..images as u32)
        .map(|seed| data_uri(&png(seed)))
        .collect();
    Request::post(format!("http://{}/v1/embeddings", live.address))
        .header("content-type", "application/json")
        .body(Body::from(json!({"input": images}).to_string()))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_without_tls_answers_many_requests_on_one_connection() {
    let live = Live::start(&["server.header_timeout_seconds=1"]).await;
    let mut client = http2(&live).await;
    let answers = [3, 1, 2].map(|images| client.send_request(post(&live, images)));
    for (answer, images) in futures::future::join_all(answers)
        .await
        .into_iter()
        .zip([3, 1, 2])
    {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(answer.headers().contains_key("x-request-id"));
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["data"].as_array().unwrap().len(), images);
    }
    // Longer than a head may take: between requests a connection of HTTP/2 is idle, not half way through a head.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let answer = client.send_request(post(&live, 1)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    live.stop_within(CEILING).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_of_http_2_is_closed_and_so_is_one_whose_answer_is_not_read() {
    let sets = [
        "encoder.width=32",
        "server.idle_timeout_seconds=1",
        "server.write_timeout_seconds=1",
    ];
    let live = Live::start(&sets).await;
    let mut idle = http2(&live).await;
    idle.send_request(post(&live, 1)).await.unwrap();
    let closed = async {
        while !idle.is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(CEILING, closed).await.unwrap();

    let mut reader = http2(&live).await;
    let id = live.app.serving.live().unwrap().id;
    let path = format!(
        "http://{}/v1/checkpoints/{id}/files/model.safetensors",
        live.address
    );
    let answer = reader
        .send_request(Request::get(path).body(Body::empty()).unwrap())
        .await;
    // More than the stream's window: without reading it never comes whole.
    let mut body = answer.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    let closed = async {
        while !reader.is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(CEILING, closed).await.unwrap();
    assert!(body.collect().await.is_err());
}
