//! Connections that stall: they neither block others nor delay a stop, and a client can read why its connection was closed.

use std::time::Duration;

use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use super::live::{CEILING, Live, answer};
use crate::support::png;

const HEALTHZ: &str = "GET /healthz HTTP/1.1\r\nhost: localhost";

/// The largest body that the defaults allow, announced; nothing of it is sent.
const SILENT: &str = "POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ncontent-length: 67108864";

/// A file that no socket's buffers hold.
async fn large_file(live: &Live) -> String {
    let id = live.app.serving.live().unwrap().id;
    format!("GET /v1/checkpoints/{id}/files/model.safetensors HTTP/1.1\r\nhost: localhost")
}

async fn closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    timeout(CEILING, read).await.unwrap().unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_connections_that_announce_large_bodies_and_send_nothing_block_nobody() {
    let live = Live::start(&[]).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(live.send(SILENT, b"").await);
    }
    let image = png(1);
    let head = format!(
        "POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ncontent-length: {}",
        image.len()
    );
    for _ in 0..8 {
        assert_eq!(live.ask(&head, &image).await.status, 200);
    }
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_streams_are_charged_only_for_the_bytes_they_hold() {
    let sets = [
        "server.max_body_bytes=65536",
        "server.max_buffered_bytes=65536",
    ];
    let live = Live::start(&sets).await;
    let head = "POST /v1/pairs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked";
    let mut streams = Vec::new();
    for _ in 0..8 {
        // Half a line each.
        streams.push(live.send(head, b"a\r\n{\"anchor\":\r\n").await);
    }
    let image = png(1);
    let head = format!(
        "POST /v1/images HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ncontent-length: {}",
        image.len()
    );
    assert_eq!(live.ask(&head, &image).await.status, 201);
    drop(streams);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impossible_length_is_413_at_once_without_being_asked_for() {
    let live = Live::start(&[]).await;
    let head = SILENT.replace("67108864", "67108865");
    let reply = live
        .ask(&format!("{head}\r\nexpect: 100-continue"), b"")
        .await;
    assert_eq!(
        (reply.status, reply.error().as_str()),
        (413, "body_too_large")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_keeps_sending_can_read_why_its_body_was_refused() {
    let live = Live::start(&["server.max_body_bytes=1000"]).await;
    let head = "POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ncontent-length: 4000000";
    let reply = live.ask(head, &vec![0; 4_000_000]).await;
    assert_eq!(
        (reply.status, reply.error().as_str()),
        (413, "body_too_large")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_head_is_answered_408_and_an_idle_connection_is_closed() {
    let sets = [
        "server.header_timeout_seconds=1",
        "server.idle_timeout_seconds=1",
    ];
    let live = Live::start(&sets).await;
    let mut half = TcpStream::connect(live.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut half, b"GET /healthz HT")
        .await
        .unwrap();
    let reply = answer(half).await;
    assert_eq!((reply.status, reply.error().as_str()), (408, "timeout"));
    let metrics = metrics(&live).await;
    assert_counted(&metrics, r#"kith_http_refusals_total{code="timeout"}"#, 1);
    closed(TcpStream::connect(live.address).await.unwrap()).await;
    // After an answer, too.
    let kept = answer(live.send(HEALTHZ, b"").await).await;
    assert_eq!(kept.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_coming_is_408() {
    let live = Live::start(&["server.body_timeout_seconds=1"]).await;
    let reply = live.ask(SILENT, b"half").await;
    assert_eq!((reply.status, reply.error().as_str()), (408, "timeout"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_reader_stalls_is_closed_for_another() {
    let sets = [
        "encoder.width=32",
        "server.write_timeout_seconds=1",
        "server.max_connections=1",
    ];
    let live = Live::start(&sets).await;
    let stalled = live.narrow(&large_file(&live).await).await;
    // Its request is open, so it makes no room by itself: this is answered once it is closed.
    assert!(live.is_healthy().await);
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_and_incomplete_heads_are_closed_for_new_connections() {
    let live = Live::start(&["server.max_connections=4"]).await;
    let mut open = Vec::new();
    for n in 0..12 {
        let mut stream = TcpStream::connect(live.address).await.unwrap();
        if n % 2 == 0 {
            let half = b"GET /healthz HTTP/1.1\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut stream, half)
                .await
                .unwrap();
        }
        open.push(stream);
    }
    for _ in 0..8 {
        assert!(live.is_healthy().await);
    }
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_whose_bodies_stall_are_closed_for_new_ones() {
    // Longer than the client waits.
    let sets = [
        "server.max_connections=4",
        "server.body_timeout_seconds=600",
        "server.timeout_seconds=600",
    ];
    let live = Live::start(&sets).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(live.send(SILENT, b"half").await);
    }
    assert!(live.is_healthy().await);
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_streams_are_closed_for_new_connections() {
    let live = Live::start(&["server.max_connections=2"]).await;
    let head = "POST /v1/pairs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked";
    let silent = [live.send(head, b"").await, live.send(head, b"").await];
    assert_eq!(live.ask(HEALTHZ, b"").await.status, 200);
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_body_is_evicted_for_another() {
    let sets = [
        "server.max_body_bytes=65536",
        "server.max_buffered_bytes=65536",
        "server.body_timeout_seconds=3600",
    ];
    let live = Live::start(&sets).await;
    let large = "POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ncontent-length: 65536";
    let image = png(1);
    let small = format!(
        "POST /v1/images HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ncontent-length: {}",
        image.len()
    );
    let evicted = async {
        loop {
            let stalled = live.send(large, &vec![0; 65_000]).await;
            let ask = async {
                loop {
                    live.ask(&small, &image).await;
                }
            };
            let reply = tokio::select! {
                reply = answer(stalled) => reply,
                () = ask => unreachable!("it asks until it is dropped"),
            };
            match (reply.status, reply.error().as_str()) {
                (408, "timeout") => return,
                // A small body came before the last bytes of the large one, which then did not fit.
                (429, "overloaded") => {}
                other => panic!("{other:?}"),
            }
        }
    };
    timeout(CEILING, evicted).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_connections_do_not_delay_a_stop() {
    // Half of this is what open requests have.
    let live = Live::start(&["encoder.width=32", "server.grace_seconds=120"]).await;
    let head = TcpStream::connect(live.address).await.unwrap();
    let idle = live.send(HEALTHZ, b"").await;
    let body = live.send(SILENT, b"half").await;
    let reader = live.narrow(&large_file(&live).await).await;
    assert!(live.is_healthy().await);
    live.stop_within(Duration::from_secs(30)).await;
    assert_eq!(answer(idle).await.status, 200);
    let reply = answer(body).await;
    assert_eq!((reply.status, reply.error().as_str()), (503, "stopping"));
    drop((head, reader));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_http_library_have_the_documented_shape_and_an_id() {
    let live = Live::start(&[]).await;
    let long = "x".repeat(70_000);
    for (head, status, code) in [
        (
            "GET /healthz HTTP/1.1\r\nno colon".to_owned(),
            400,
            "invalid_request",
        ),
        ("NO REQUEST AT ALL".to_owned(), 400, "invalid_request"),
        (
            "POST /v1/pairs HTTP/1.1\r\ncontent-length: x".to_owned(),
            400,
            "invalid_request",
        ),
        (format!("GET /{long} HTTP/1.1"), 414, "uri_too_long"),
        (
            format!("GET / HTTP/1.1\r\na: {long}\r\nb: {long}"),
            431,
            "headers_too_large",
        ),
        (
            format!("GET / HTTP/1.1{}", "\r\na: b".repeat(200)),
            431,
            "headers_too_large",
        ),
    ] {
        let reply = answer(live.send(&head, b"").await).await;
        let start = &head[..head.len().min(40)];
        assert_eq!(
            (reply.status, reply.error().as_str()),
            (status, code),
            "{start}"
        );
    }
}

/// What the server says of itself.
async fn metrics(live: &Live) -> String {
    let reply = live
        .ask("GET /metrics HTTP/1.1\r\nhost: localhost", b"")
        .await;
    assert_eq!(reply.status, 200);
    String::from_utf8(reply.body).unwrap()
}

fn assert_counted(metrics: &str, series: &str, count: u32) {
    let line = format!("{series} {count}");
    assert!(
        metrics.lines().any(|found| found == line),
        "no {line} in\n{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_whose_head_cannot_be_read_are_counted() {
    let live = Live::start(&[]).await;
    let long = "x".repeat(70_000);
    for head in [
        "NO REQUEST AT ALL",
        "GET /healthz HTTP/1.1\r\nno colon",
        &format!("GET /{long} HTTP/1.1"),
    ] {
        answer(live.send(head, b"").await).await;
    }
    let metrics = metrics(&live).await;
    for (series, count) in [
        (
            r#"kith_http_requests_total{route="none",method="other",status="400"}"#,
            2,
        ),
        (
            r#"kith_http_requests_total{route="none",method="other",status="414"}"#,
            1,
        ),
        (r#"kith_http_refusals_total{code="invalid_request"}"#, 2),
        (r#"kith_http_refusals_total{code="uri_too_long"}"#, 1),
    ] {
        assert_counted(&metrics, series, count);
    }
    let timed = r#"kith_http_request_duration_seconds_count{route="none",method="other""#;
    assert!(!metrics.contains(timed), "nothing is known of their time");
}
