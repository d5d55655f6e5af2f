//! `GET /metrics`: what it counts, that its labels are bounded, who may read it.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    pin::pin,
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{Method, StatusCode},
};
use futures::stream;
use kith::keys::{self, NewKey, Scope};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::support::{Served, data_uri, png, request};

/// More than anything here takes.
pub(super) const CEILING: Duration = Duration::from_secs(60);

/// The values of each label of each series, by the series' name as it stands in a line.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) lines: BTreeMap<String, f64>,
    pub(super) labels: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

impl Output {
    pub(super) async fn of(served: &Served) -> Self {
        let reply = served.get("/metrics").await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        let media = reply.header("content-type").unwrap();
        assert!(media.starts_with("text/plain; version=0.0.4"), "{media}");
        let mut output = Self::default();
        let text = reply.text();
        let samples = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in samples {
            let (series, value) = line.rsplit_once(' ').unwrap();
            output
                .lines
                .insert(series.to_owned(), value.parse().unwrap());
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}');
            let found = output.labels.entry(name.to_owned()).or_default();
            for label in labels.split("\",").filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once("=\"").unwrap();
                let value = value.trim_end_matches('"').to_owned();
                found.entry(label.to_owned()).or_default().insert(value);
            }
        }
        output
    }

    pub(super) fn value(&self, series: &str) -> f64 {
        let value = self.lines.get(series);
        *value.unwrap_or_else(|| panic!("no {series} in {:#?}", self.lines.keys()))
    }

    /// The values of a label over all of the series `name`.
    fn values(&self, name: &str, label: &str) -> Vec<&str> {
        let values = self.labels[name][label].iter();
        values.map(String::as_str).collect()
    }
}

pub(super) async fn post_pairs(served: &Served, seeds: std::ops::Range<u32>) {
    for seed in seeds {
        let (a, b) = (data_uri(&png(2 * seed)), data_uri(&png(2 * seed + 1)));
        let pair = json!({"pairs": [{"anchor": {"image": a}, "positive": {"image": b}}]});
        let reply = served.post("/v1/pairs", &pair).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text());
    }
}

async fn embed(served: &Served, seed: u32) {
    let reply = served
        .post_as("/v1/embeddings", "image/png", png(seed))
        .await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
}

/// One request more than `server.max_requests = 1` allows.
async fn overload(served: &Served) {
    let never = stream::once(pending::<Result<Bytes, std::io::Error>>());
    let (media, never) = (Some("image/png"), Body::from_stream(never));
    let mut waiting = pin!(served.send(request(Method::POST, "/v1/images", media, never)));
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("its body never comes"),
        refused = served.get("/v1/models") => assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS),
    }
}

/// A server that has served, refused and trained a little.
pub(super) async fn used() -> Served {
    used_until(3).await
}

/// The same after so many steps.
pub(super) async fn used_until(step: u64) -> Served {
    let served = Served::start(&[
        "server.max_requests=1",
        "training.enabled=true",
        "training.batch=4",
        "training.min_pairs=4",
        "pairs.holdout_share=0.3",
        // No snapshot but those that a test asks for: another would be judged, and serve.
        "snapshots.first_steps=0",
        "snapshots.every_steps=0",
        "snapshots.every_minutes=0",
    ])
    .await;
    post_pairs(&served, 0..12).await;
    for seed in [90, 90, 91] {
        embed(&served, seed).await;
    }
    let bad = served
        .post_as("/v1/embeddings", "image/png", "no image")
        .await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    served.get("/v1/images/0123").await;
    served.get("/nowhere/of/mine").await;
    served
        .send(request(
            Method::from_bytes(b"BREW").unwrap(),
            "/v1/models",
            None,
            Body::empty(),
        ))
        .await;
    overload(&served).await;
    let trained = async {
        while served.app.trainer.status().step < step {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(CEILING, trained).await.unwrap();
    served
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_template_and_no_client_makes_a_label() {
    let served = used().await;
    let output = Output::of(&served).await;
    let requests = "kith_http_requests_total";
    for (series, value) in [
        (
            r#"kith_http_requests_total{route="/v1/embeddings",method="POST",status="200"}"#,
            3.0,
        ),
        (
            r#"kith_http_requests_total{route="/v1/embeddings",method="POST",status="400"}"#,
            1.0,
        ),
        (
            r#"kith_http_requests_total{route="/v1/images",method="POST",status="aborted"}"#,
            1.0,
        ),
        (
            r#"kith_http_requests_total{route="none",method="GET",status="404"}"#,
            1.0,
        ),
        (
            r#"kith_http_requests_total{route="/v1/models",method="other",status="405"}"#,
            1.0,
        ),
        (
            r#"kith_http_request_duration_seconds_count{route="/v1/embeddings",method="POST",status="200"}"#,
            3.0,
        ),
        (r#"kith_http_refusals_total{code="image_undecodable"}"#, 1.0),
        (r#"kith_http_refusals_total{code="overloaded"}"#, 1.0),
        // The one that reads this.
        ("kith_http_requests_in_flight", 1.0),
        ("kith_vector_cache_hits_total", 1.0),
        // The image that cannot be decoded is one of them.
        ("kith_vector_cache_misses_total", 3.0),
        ("kith_serving_batch_images_sum", 2.0),
        ("kith_serving_encode_seconds_count", 2.0),
        ("kith_serving_decode_seconds_count", 3.0),
        (r#"kith_serving_queue_seconds_count{stage="decode"}"#, 3.0),
        (r#"kith_serving_queue_seconds_count{stage="encode"}"#, 2.0),
        ("kith_serving_waiting_images", 0.0),
        ("kith_serving_ready", 1.0),
    ] {
        assert_eq!(output.value(series), value, "{series}");
    }
    let routes = output.values(requests, "route");
    assert!(routes.contains(&"/v1/images/{id}"), "{routes:?}");
    assert!(
        !routes.iter().any(|route| route.contains("mine")),
        "{routes:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn state_is_read_when_it_is_asked_for() {
    let served = used().await;
    let paused = request(
        Method::PATCH,
        "/v1/training",
        Some("application/json"),
        r#"{"state":"paused"}"#.into(),
    );
    assert_eq!(served.send(paused).await.status, StatusCode::OK);
    let output = Output::of(&served).await;
    let status = served.app.trainer.status();
    assert_eq!(output.value("kith_training_step"), status.step as f64);
    assert_eq!(output.value(r#"kith_training_state{state="paused"}"#), 1.0);
    assert_eq!(output.value(r#"kith_training_state{state="running"}"#), 0.0);
    assert_eq!(output.value("kith_stored_images"), 24.0);
    let splits = ["train", "holdout", "unused"];
    let pairs =
        splits.map(|split| output.value(&format!("kith_stored_pairs{{split=\"{split}\"}}")));
    assert_eq!(pairs.iter().sum::<f64>(), 12.0);
    assert!(output.value("kith_training_loss").is_finite());
    assert!(output.value("kith_training_chains") > 0.0);
    let (free, size) = (
        output.value("kith_storage_free_bytes"),
        output.value("kith_storage_size_bytes"),
    );
    assert!(0.0 < free && free < size);
    assert_eq!(output.value("kith_metrics_read_errors_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_that_are_visited_again_have_an_age() {
    let served = used_until(40).await;
    let aged = async {
        loop {
            // The largest age is that of the last step, all of whose chains may be new or have scores of this step.
            let output = Output::of(&served).await;
            if output.value("kith_training_chain_age_max_steps") >= 1.0 {
                return output;
            }
        }
    };
    let output = timeout(CEILING, aged).await.expect("a chain has an age");
    let mean = output.value("kith_training_chain_age_steps");
    assert!(mean > 0.0, "{mean}");
    let carried = output.value("kith_training_carried_ratio");
    assert!((0.0..1.0).contains(&carried), "{carried}");
    assert!(output.value("kith_training_stored_minus_fresh_score").abs() > 0.0);
    for stage in ["stem", "layer1", "layer2", "layer3", "layer4", "head"] {
        let norm = output.value(&format!("kith_training_gradient_norm{{stage=\"{stage}\"}}"));
        assert!(norm > 0.0, "{stage}: {norm}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn posted_pairs_are_followed_until_they_are_learned_and_until_that_serves() {
    let served = used().await;
    let value = async |name: &str| Output::of(&served).await.value(name);
    // All of them came after the start.
    let trained = value(r#"kith_stored_pairs{split="train"}"#).await;
    let all = async |name: &str, pairs: f64| {
        let counted = async {
            while value(&format!("{name}_count")).await < pairs {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(CEILING, counted).await.expect(name);
    };
    all("kith_pair_learned_seconds", trained).await;
    assert_eq!(value("kith_pair_served_seconds_count").await, 0.0);
    let learned = value("kith_pair_learned_seconds_sum").await;

    let taken = served.post("/v1/checkpoints?wait=true", &json!({})).await;
    let id = taken.json()["id"].as_str().unwrap().to_owned();
    // The checkpoint knows nothing of these.
    post_pairs(&served, 12..16).await;
    all("kith_pair_learned_seconds", trained + 1.0).await;
    let path = format!("/v1/checkpoints/{id}/promote");
    assert_eq!(served.post(&path, &json!({})).await.status, StatusCode::OK);
    all("kith_pair_served_seconds", trained).await;
    assert_eq!(value("kith_pair_served_seconds_count").await, trained);
    let served = value("kith_pair_served_seconds_sum").await;
    assert!(0.0 < learned && learned < served, "{learned} {served}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_evaluated_has_a_shape_and_alarms_are_shown() {
    let served = used_until(3).await;
    let none = Output::of(&served).await;
    let rank = r#"kith_checkpoint_effective_rank{checkpoint="evaluated"}"#;
    assert!(none.value(rank).is_nan());
    let few = r#"kith_training_alarm{alarm="few_held_out"}"#;
    assert_eq!(none.value(few), 0.0);
    served.post("/v1/checkpoints?wait=true", &json!({})).await;
    let raised = async {
        while Output::of(&served).await.value(few) == 0.0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(CEILING, raised).await.unwrap();
    let output = Output::of(&served).await;
    // Sixteen values, and embeddings of more than one image.
    let rank = output.value(rank);
    assert!((1.0..=16.0).contains(&rank), "{rank}");
    for figure in ["alignment", "uniformity", "spread"] {
        let series = format!("kith_checkpoint_{figure}{{checkpoint=\"evaluated\"}}");
        assert!(output.value(&series).is_finite(), "{figure}");
    }
    let alarms = served.get("/v1/training").await.json()["alarms"].clone();
    assert_eq!(alarms[0]["alarm"], "few_held_out");
    assert!(
        alarms[0]["remedy"]
            .as_str()
            .unwrap()
            .contains("holdout_share")
    );
}

#[tokio::test]
async fn a_database_that_fails_leaves_the_rest_of_the_answer() {
    let served = Served::start(&[]).await;
    Output::of(&served).await;
    served.app.db.close().await;
    // What is shown may be a second old, or older on a busy machine.
    let failed = async {
        loop {
            let output = Output::of(&served).await;
            if output.value("kith_metrics_read_errors_total") > 0.0 {
                return output;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let output = timeout(CEILING, failed).await.unwrap();
    assert_eq!(output.value("kith_metrics_read_errors_total"), 2.0);
    assert_eq!(output.value("kith_serving_ready"), 1.0);
}

#[tokio::test]
async fn a_key_is_needed_unless_the_settings_say_otherwise() {
    for (setting, expected) in [
        ("server.metrics_key=true", StatusCode::UNAUTHORIZED),
        ("server.metrics_key=false", StatusCode::OK),
    ] {
        let served = Served::start(&[setting]).await;
        assert_eq!(served.get("/metrics").await.status, StatusCode::OK);
        let new = NewKey {
            name: "shop".to_owned(),
            scope: Scope::Embed,
            expires_at: None,
        };
        let (_, key) = keys::create(&served.app.db, new).await.unwrap();
        served.app.keys.refresh().await.unwrap();
        assert_eq!(served.get("/metrics").await.status, expected, "{setting}");
        let mut keyed = request(Method::GET, "/metrics", None, Body::empty());
        let bearer = format!("Bearer {}", key.reveal()).parse().unwrap();
        keyed.headers_mut().insert("authorization", bearer);
        assert_eq!(served.send(keyed).await.status, StatusCode::OK);
    }
}
