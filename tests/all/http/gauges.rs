//! The gauges of `GET /metrics` beside the documents that show the same figures.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::metrics::{CEILING, Output, post_pairs, used_until};
use crate::support::Served;

/// A gauge of training, and where `GET /v1/training` has its value.
const TRAINING: [(&str, &str); 16] = [
    ("step", "step"),
    ("epoch", "epoch"),
    ("loss", "loss"),
    ("global_loss_estimate", "global_loss_estimate"),
    ("acceptance_ratio", "acceptance_rate"),
    ("chains", "chains"),
    ("chain_age_steps", "chain_age"),
    ("chain_age_max_steps", "max_chain_age"),
    ("stored_minus_fresh_score", "stored_minus_fresh"),
    ("carried_ratio", "carried_share"),
    ("pairs", "pairs"),
    ("images", "images"),
    ("learning_rate", "learning_rate"),
    ("skipped_steps", "skipped"),
    ("rate_scale_ratio", "rate_scale"),
    ("recoveries_total", "recoveries"),
];

async fn set_state(served: &Served, state: &str) {
    let reply = served.patch("/v1/training", &json!({"state": state})).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
}

/// The document at `path`, once it is as wished.
async fn until(served: &Served, path: &str, wish: impl Fn(&Value) -> bool) -> Value {
    let found = async {
        loop {
            let document = served.get(path).await.json();
            if wish(&document) {
                return document;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(CEILING, found).await.expect(path)
}

/// A number of a document: they are those of `f32`, which have fewer digits than those of `f64`.
fn number(document: &Value, field: &str) -> f64 {
    let number = document[field].as_f64();
    number.unwrap_or_else(|| panic!("no {field} in {document}"))
}

fn assert_same(name: &str, gauge: f64, document: f64) {
    let off = (gauge - document).abs();
    assert!(off <= 1e-6 * document.abs(), "{name}: {gauge} {document}");
}

#[tokio::test(flavor = "multi_thread")]
async fn training_has_the_same_figures_in_both() {
    let served = used_until(40).await;
    set_state(&served, "paused").await;
    let status = served.get("/v1/training").await.json();
    let output = Output::of(&served).await;
    for (gauge, field) in TRAINING {
        let gauge = output.value(&format!("kith_training_{gauge}"));
        assert_same(field, gauge, number(&status, field));
    }
    let norms = status["gradient_norms"].as_object().unwrap();
    assert_eq!(norms.len(), 6);
    for stage in norms.keys() {
        let gauge = output.value(&format!("kith_training_gradient_norm{{stage=\"{stage}\"}}"));
        assert_same(stage, gauge, number(&status["gradient_norms"], stage));
    }
}

/// A checkpoint that was taken now, once it has been judged.
async fn judged(served: &Served) -> Value {
    let taken = served.post("/v1/checkpoints?wait=true", &json!({})).await;
    let id = taken.json()["id"].as_str().unwrap().to_owned();
    let is_judged = |row: &Value| !row["verdict"].is_null();
    until(served, &format!("/v1/checkpoints/{id}"), is_judged).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoints_embeddings_have_the_same_shape_in_both() {
    let served = used_until(3).await;
    let live = judged(&served).await;
    let promote = format!("/v1/checkpoints/{}/promote", live["id"].as_str().unwrap());
    let promoted = served.post(&promote, &json!({})).await;
    assert_eq!(promoted.status, StatusCode::OK, "{}", promoted.text());
    let later = number(&live, "step") + 8.0;
    until(&served, "/v1/training", |status| {
        number(status, "step") >= later
    })
    .await;
    let newest = judged(&served).await;
    set_state(&served, "paused").await;
    // What is shown may be a second old.
    let step = format!("{}", number(&newest, "step"));
    let read = async {
        loop {
            let output = Output::of(&served).await;
            let shown = output.value("kith_checkpoint_latest_step");
            if format!("{shown}") == step {
                return output;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    let output = timeout(CEILING, read).await.unwrap();
    let geometry = |row: &Value| row["evaluation"]["geometry"].clone();
    assert_ne!(geometry(&live), geometry(&newest));
    for (checkpoint, row) in [("live", &live), ("evaluated", &newest)] {
        for figure in ["alignment", "uniformity", "effective_rank", "spread"] {
            let gauge = format!("kith_checkpoint_{figure}{{checkpoint=\"{checkpoint}\"}}");
            assert_same(&gauge, output.value(&gauge), number(&geometry(row), figure));
        }
        let recall = &row["evaluation"]["anchor_to_positive"];
        let back = &row["evaluation"]["positive_to_anchor"];
        let recall = (number(recall, "recall_at_1") + number(back, "recall_at_1")) / 2.0;
        let gauge = output.value(&format!("kith_checkpoint_{checkpoint}_recall_at_1"));
        assert_same(checkpoint, gauge, recall);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_held_out_pairs_there_is_no_recall_to_show() {
    let served = Served::start(&[
        "training.enabled=true",
        "training.batch=4",
        "training.min_pairs=4",
        "pairs.holdout_share=0",
        "gate.collapse_spread=0",
        "snapshots.first_steps=0",
        "snapshots.every_steps=0",
        "snapshots.every_minutes=0",
    ])
    .await;
    post_pairs(&served, 0..8).await;
    until(&served, "/v1/training", |status| {
        number(status, "step") > 2.0
    })
    .await;
    let id = judged(&served).await["id"].clone();
    // Of no held-out pairs all that is sound serves.
    until(&served, "/v1/training", |status| {
        status["checkpoint"]["live"] == id
    })
    .await;
    let read = async {
        loop {
            let output = Output::of(&served).await;
            let spread = output.value("kith_checkpoint_spread{checkpoint=\"live\"}");
            if spread.is_finite() {
                return output;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    let output = timeout(CEILING, read).await.unwrap();
    for checkpoint in ["live", "evaluated"] {
        let recall = output.value(&format!("kith_checkpoint_{checkpoint}_recall_at_1"));
        assert!(recall.is_nan(), "{checkpoint}: {recall}");
    }
}
