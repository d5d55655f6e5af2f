//! `/v1/checkpoints` and `/v1/training`.

use std::{collections::HashMap, sync::Arc};

use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use kith::types::Sha256;
use serde_json::{Value, json};

use crate::support::{Served, data_uri, distance, png, request, vector};

#[tokio::test]
async fn a_snapshot_is_answered_202_with_its_place_or_201_when_waited_for() {
    let served = Served::start(&[]).await;
    let reply = served
        .post("/v1/checkpoints", &json!({"note": "first"}))
        .await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{}", reply.text());
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        reply.header("location"),
        Some(format!("/v1/checkpoints/{id}").as_str())
    );
    let waited = served
        .post_as(
            "/v1/checkpoints?wait=true",
            "application/json",
            Body::empty(),
        )
        .await;
    assert_eq!(waited.status, StatusCode::CREATED, "{}", waited.text());
    assert_eq!(waited.json()["status"], "complete");
}

#[tokio::test]
async fn files_are_listed_with_their_hashes_and_given_out_byte_for_byte() {
    let served = Served::start(&[]).await;
    let id = served.app.serving.live().unwrap().id;
    let checkpoint = served.get(&format!("/v1/checkpoints/{id}")).await.json();
    let files = checkpoint["files"].as_array().unwrap();
    let names: Vec<&str> = files
        .iter()
        .map(|file| file["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"model.safetensors"), "{names:?}");
    for file in files {
        let path = format!(
            "/v1/checkpoints/{id}/files/{}",
            file["name"].as_str().unwrap()
        );
        let content = served.get(&path).await;
        assert_eq!(Sha256::of(&content.body).to_string(), file["sha256"]);
    }
    let manifest = served
        .get(&format!("/v1/checkpoints/{id}/files/manifest.json"))
        .await;
    assert_eq!(manifest.json()["id"], id.to_string());
    for name in ["secret", "..%2F..%2Fkith.db"] {
        let reply = served
            .get(&format!("/v1/checkpoints/{id}/files/{name}"))
            .await;
        assert_eq!(reply.error(StatusCode::NOT_FOUND).0, "unknown_file");
    }
}

#[tokio::test]
async fn promoting_swaps_what_serves_and_the_live_one_cannot_be_deleted() {
    let served = Served::start(&[]).await;
    let old = served.app.serving.live().unwrap().id;
    let new = served.write_checkpoint(7).await;
    let reply = served
        .post_as(
            &format!("/v1/checkpoints/{new}/promote"),
            "application/json",
            Body::empty(),
        )
        .await;
    assert_eq!(
        (reply.status, &reply.json()["role"]),
        (StatusCode::OK, &json!("live")),
        "{}",
        reply.text()
    );
    let embedded = served
        .post("/v1/embeddings", &json!({"input": data_uri(&png(1))}))
        .await
        .json();
    assert_eq!(
        embedded["model"],
        format!("kith@{new}"),
        "it serves when the promotion is answered"
    );
    let refused = served.delete(&format!("/v1/checkpoints/{new}")).await;
    assert_eq!(refused.error(StatusCode::CONFLICT).0, "checkpoint_live");
    let pinned = json!({"model": format!("kith@{old}"), "input": data_uri(&png(1))});
    assert_eq!(
        served.post("/v1/embeddings", &pinned).await.status,
        StatusCode::OK
    );
    assert_eq!(
        served
            .delete(&format!("/v1/checkpoints/{old}"))
            .await
            .status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        served
            .post("/v1/embeddings", &pinned)
            .await
            .error(StatusCode::NOT_FOUND)
            .0,
        "unknown_checkpoint"
    );
}

#[tokio::test]
async fn no_answer_mixes_checkpoints_while_promotions_happen() {
    let served = Arc::new(Served::start(&["serving.max_batch=2", "serving.queue_images=64"]).await);
    let ids = [
        served.app.serving.live().unwrap().id,
        served.write_checkpoint(7).await,
    ];
    let images: Vec<String> = (0..5).map(|seed| data_uri(&png(seed))).collect();
    let mut expected: HashMap<String, Value> = HashMap::new();
    for id in ids {
        let document = json!({"model": format!("kith@{id}"), "input": images});
        let answer = served.post("/v1/embeddings", &document).await.json();
        expected.insert(format!("kith@{id}"), answer);
    }
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let (served, document) = (served.clone(), json!({"input": images}));
            tokio::spawn(async move {
                let mut answers = Vec::new();
                for _ in 0..6 {
                    answers.push(served.post("/v1/embeddings", &document).await.json());
                }
                answers
            })
        })
        .collect();
    for turn in 0..8 {
        let path = format!("/v1/checkpoints/{}/promote", ids[(turn + 1) % 2]);
        assert_eq!(
            served
                .post_as(&path, "application/json", Body::empty())
                .await
                .status,
            StatusCode::OK
        );
    }
    for task in asking {
        for answer in task.await.unwrap() {
            let truth = &expected[answer["model"].as_str().unwrap()];
            for index in 0..images.len() {
                // Rounding by batch size is far below the difference of two sets of weights.
                assert!(distance(&vector(&answer, index), &vector(truth, index)) < 1e-4);
            }
        }
    }
}

#[tokio::test]
async fn training_says_what_it_does_and_refuses_changes_that_make_no_sense() {
    let served = Served::start(&[]).await;
    let status = served.get("/v1/training").await.json();
    assert_eq!(
        (&status["state"], &status["step"]),
        (&json!("waiting"), &json!(0))
    );
    let live = served.app.serving.live().unwrap().id.to_string();
    assert_eq!(status["checkpoint"], json!({"live": live, "latest": live}));
    let patch = async |body: Value| {
        served
            .send(request(
                Method::PATCH,
                "/v1/training",
                Some("application/json"),
                Body::from(body.to_string()),
            ))
            .await
    };
    for (body, param) in [
        (json!({}), None),
        (json!({"state": "stopped"}), Some("state")),
        (json!({"learning_rate": 0}), Some("learning_rate")),
        (json!({"rate": 1}), Some("rate")),
    ] {
        let (_, place) = patch(body).await.error(StatusCode::BAD_REQUEST);
        assert_eq!(place.as_deref(), param);
    }
    assert_eq!(
        served.get("/v1/training/metrics?since=0").await.json()["data"],
        json!([])
    );
}

#[tokio::test]
async fn training_is_paused_and_resumed() {
    let served = Served::start(&["training.enabled=true", "training.min_pairs=1000"]).await;
    let patch = async |state: &str| {
        served
            .send(request(
                Method::PATCH,
                "/v1/training",
                Some("application/json"),
                Body::from(json!({"state": state}).to_string()),
            ))
            .await
            .json()
    };
    assert_eq!(patch("paused").await["state"], "paused");
    assert_eq!(
        patch("running").await["state"],
        "waiting",
        "there are no pairs yet"
    );
    served.app.stop().await.unwrap();
}
