//! `/v1/events`.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream},
    http::{Method, Request, StatusCode},
};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::live::{CEILING, Live};
use crate::support::{Served, request};

/// One event as it was sent.
#[derive(Clone, Debug, PartialEq)]
struct Sent {
    id: String,
    kind: String,
    data: Value,
}

/// A client of the stream.
struct Client {
    body: BodyDataStream,
    text: String,
}

impl Client {
    async fn open(served: &Served, path: &str, last: Option<&str>) -> Self {
        let mut request = Request::get(path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = served.answer(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body().into_data_stream(),
            text: String::new(),
        }
    }

    async fn next(&mut self) -> Sent {
        timeout(CEILING, async {
            loop {
                if let Some((event, rest)) = self.text.split_once("\n\n") {
                    let line = |name: &str| {
                        let mut lines = event.lines();
                        lines
                            .find_map(|line| line.strip_prefix(name))
                            .map(str::to_owned)
                    };
                    // Lines that keep the connection have no id.
                    let sent = line("id: ").map(|id| Sent {
                        id,
                        kind: line("event: ").unwrap(),
                        data: serde_json::from_str(&line("data: ").unwrap()).unwrap(),
                    });
                    self.text = rest.to_owned();
                    if let Some(sent) = sent {
                        return sent;
                    }
                    continue;
                }
                let chunk = self.body.next().await.unwrap().unwrap();
                self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        })
        .await
        .unwrap()
    }
}

async fn promote(served: &Served, seed: u64) -> String {
    let id = served.write_checkpoint(seed).await.to_string();
    let path = format!("/v1/checkpoints/{id}/promote");
    let reply = served
        .post_as(&path, "application/json", Body::empty())
        .await;
    assert_eq!(reply.status, StatusCode::OK);
    id
}

#[tokio::test]
async fn promotions_are_told_and_a_client_that_comes_back_goes_on_where_it_was() {
    let served = Served::start(&[]).await;
    let mut client = Client::open(&served, "/v1/events?kinds=promotion", None).await;
    let (first, second) = (promote(&served, 1).await, promote(&served, 2).await);
    let seen = client.next().await;
    assert_eq!(
        (&*seen.kind, &seen.data["checkpoint"]),
        ("promotion", &json!(first))
    );
    assert_eq!(seen.data["held"], true);
    assert!(seen.data["at"].is_string());
    drop(client);
    let third = promote(&served, 3).await;
    let mut again = Client::open(&served, "/v1/events?kinds=promotion", Some(&seen.id)).await;
    for id in [second, third] {
        assert_eq!(again.next().await.data["checkpoint"], json!(id));
    }
    // An id of another run of the server: all that is kept.
    let mut other = Client::open(&served, "/v1/events?kinds=promotion", Some("17-99999")).await;
    assert_eq!(other.next().await.data["reason"], "nothing served before");
}

#[tokio::test]
async fn a_promotion_is_told_when_it_serves() {
    let served = Served::start(&[]).await;
    let mut client = Client::open(&served, "/v1/events?kinds=promotion", None).await;
    let id = served.write_checkpoint(1).await;
    // As the trainer does: only the follower notices it.
    served.app.checkpoints.promote(id, false).await.unwrap();
    assert_eq!(client.next().await.data["checkpoint"], json!(id));
    let models = served.get("/v1/models").await.json();
    assert_eq!(models["data"][0]["checkpoint"], json!(id), "{models}");
}

#[tokio::test(flavor = "multi_thread")]
async fn training_tells_its_state_steps_snapshots_and_what_needs_a_person() {
    let sets = [
        "training.enabled=true",
        "training.min_pairs=4",
        "training.batch=4",
        "training.metrics_every=1",
        "training.max_skipped=2",
        "schedule.learning_rate=1e30",
        "schedule.warmup_steps=3",
        "optimizer.kind=sgd",
        "pairs.holdout_share=0",
    ];
    let served = Served::start(&sets).await;
    let mut client = Client::open(&served, "/v1/events", Some("")).await;
    for seed in 0..6 {
        let pair =
            json!({"anchor": {"image": crate::support::data_uri(&crate::support::png(seed))}});
        served.post("/v1/pairs", &json!({"pairs": [pair]})).await;
    }
    let mut kinds = std::collections::HashSet::new();
    let alarm = loop {
        let event = client.next().await;
        kinds.insert(event.kind.clone());
        if event.kind == "step" {
            let path = format!("/v1/training/metrics?since={}", event.data["step"]);
            let rows = served.get(&path).await.json();
            assert_eq!(
                rows["data"][0]["step"], event.data["step"],
                "told before it is stored"
            );
        }
        let gave_up = event.data["message"]
            .as_str()
            .is_some_and(|text| text.contains("in a row"));
        if event.kind == "alarm" && gave_up {
            break event;
        }
    };
    assert!(alarm.data["step"].is_u64());
    for kind in ["step", "training", "checkpoint", "promotion"] {
        assert!(kinds.contains(kind), "{kind} is missing of {kinds:?}");
    }
    served.app.stop().await.unwrap();
}

#[tokio::test]
async fn unknown_kinds_are_refused_and_so_are_more_clients_than_there_are_places() {
    let served = Served::start(&[]).await;
    let reply = served.get("/v1/events?kinds=step,steps").await;
    let found = reply.error(StatusCode::BAD_REQUEST);
    assert_eq!(
        found,
        ("invalid_parameter".to_owned(), Some("kinds".to_owned()))
    );
    let mut clients = Vec::new();
    for _ in 0..64 {
        clients.push(Client::open(&served, "/v1/events", None).await);
    }
    let reply = served
        .send(request(Method::GET, "/v1/events", None, Body::empty()))
        .await;
    assert_eq!(reply.error(StatusCode::TOO_MANY_REQUESTS).0, "overloaded");
    clients.pop();
    Client::open(&served, "/v1/events", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_watches_does_not_delay_a_stop() {
    let live = Live::start(&[]).await;
    let watching = live
        .send("GET /v1/events HTTP/1.1\r\nhost: localhost", b"")
        .await;
    watching.readable().await.unwrap();
    // Less than the grace period.
    live.stop_within(Duration::from_secs(15)).await;
    drop(watching);
}
