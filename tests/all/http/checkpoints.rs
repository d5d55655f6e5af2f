//! `/v1/checkpoints`.

use std::{collections::HashMap, sync::Arc};

use axum::{body::Body, http::StatusCode};
use kith::{
    blobs::BlobKey,
    checkpoint::MANIFEST,
    types::{CheckpointId, Sha256},
};
use serde_json::{Value, json};

use crate::support::{Served, data_uri, distance, png, vector};

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
async fn files_are_listed_with_their_hashes_and_downloaded_byte_for_byte() {
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
        assert_eq!(Sha256::digest(&content.body).to_string(), file["sha256"]);
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
async fn a_promotion_changes_the_live_checkpoint_which_cannot_be_deleted() {
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
async fn a_promotion_holds_until_it_is_released_unless_hold_is_false() {
    let served = Served::start(&[]).await;
    let new = served.write_checkpoint(7).await;
    let path = format!("/v1/checkpoints/{new}/promote");
    let chosen = served.post(&path, &json!({})).await.json();
    assert_eq!(
        (&chosen["held"], &chosen["decided_by"]),
        (&json!(true), &json!("person"))
    );
    let shown = served.get("/v1/training").await.json();
    assert_eq!(shown["checkpoint"]["held"], true);
    assert!(
        shown["checkpoint"]["reason"]
            .as_str()
            .unwrap()
            .contains("a person chose it")
    );

    let served = served.restart(&[]).await;
    let shown = served.get("/v1/training").await.json();
    assert_eq!(
        shown["checkpoint"]["held"], true,
        "a choice outlives a restart"
    );
    let released = served.post("/v1/checkpoints/auto", &json!({})).await;
    assert_eq!(released.status, StatusCode::OK, "{}", released.text());
    assert_eq!(
        (&released.json()["held"], &released.json()["id"]),
        (&json!(false), &json!(new.to_string()))
    );
    let reason = released.json()["reason"].to_string();
    assert!(reason.contains("gave the choice back"), "{reason}");
    let free = served.post(&path, &json!({"hold": false})).await.json();
    assert_eq!(free["held"], false);
    let refused = served.post(&path, &json!({"holds": true})).await;
    assert_eq!(
        refused.error(StatusCode::BAD_REQUEST).1.as_deref(),
        Some("holds")
    );
}

#[tokio::test]
async fn notes_and_keeping_are_changed_and_an_unknown_checkpoint_is_404() {
    let served = Served::start(&[]).await;
    let id = served.write_checkpoint(7).await;
    let path = format!("/v1/checkpoints/{id}");
    let noted = served
        .patch(&path, &json!({"note": "for the audit"}))
        .await
        .json();
    assert_eq!(
        (&noted["note"], &noted["keep"]),
        (&json!("for the audit"), &json!(true))
    );
    let freed = served
        .patch(&path, &json!({"keep": false, "note": null}))
        .await
        .json();
    assert_eq!(
        (&freed["note"], &freed["keep"]),
        (&json!("for the audit"), &json!(false))
    );
    let bare = served.patch(&path, &json!({"note": ""})).await.json();
    assert_eq!(bare["note"], Value::Null);
    let nothing = served.patch(&path, &json!({})).await;
    assert_eq!(nothing.error(StatusCode::BAD_REQUEST).0, "missing_field");
    let other = format!("/v1/checkpoints/{}", CheckpointId::now());
    let unknown = served.patch(&other, &json!({"keep": true})).await;
    assert_eq!(unknown.error(StatusCode::NOT_FOUND).0, "unknown_checkpoint");
}

#[tokio::test]
async fn weights_that_are_not_finite_are_refused_by_every_route() {
    let served = Served::start(&[]).await;
    let live = served.app.serving.live().unwrap().id;
    let id = served.write_broken_checkpoint().await;
    let promoted = served
        .post(&format!("/v1/checkpoints/{id}/promote"), &json!({}))
        .await;
    assert_eq!(
        promoted.error(StatusCode::CONFLICT).0,
        "checkpoint_not_finite"
    );
    let pinned = json!({"model": format!("kith@{id}"), "input": data_uri(&png(1))});
    let refused = served.post("/v1/embeddings", &pinned).await;
    assert_eq!(
        refused.error(StatusCode::CONFLICT).0,
        "checkpoint_not_finite"
    );
    let ready = served.get("/readyz").await.json();
    assert_eq!(ready["checkpoint"], live.to_string());
}

#[tokio::test]
async fn a_change_that_was_made_is_answered_although_the_manifest_is_gone() {
    let served = Served::start(&[]).await;
    let id = served.app.serving.live().unwrap().id;
    let promote = format!("/v1/checkpoints/{id}/promote");
    served
        .post_as(&promote, "application/json", Body::empty())
        .await;
    let key = BlobKey::CheckpointPart(id, MANIFEST.to_owned());
    served.app.blobs.delete(&key).await.unwrap();
    let path = format!("/v1/checkpoints/{id}");
    let noted = served.patch(&path, &json!({"note": "why"})).await;
    assert_eq!(noted.status, StatusCode::OK, "{}", noted.text());
    assert_eq!(noted.json()["note"], "why");
    assert_eq!(noted.json().get("files"), None);
    let download = served.get(&format!("{path}/files/{MANIFEST}")).await;
    assert_eq!(download.error(StatusCode::CONFLICT).0, "checkpoint_damaged");
}

#[tokio::test]
async fn the_length_of_a_note_is_counted_in_characters() {
    let served = Served::start(&[]).await;
    let id = served.app.serving.live().unwrap().id;
    let path = format!("/v1/checkpoints/{id}");
    let note = "é".repeat(4096);
    let reply = served.patch(&path, &json!({"note": note})).await;
    assert_eq!(reply.json()["note"], note, "{}", reply.text());
    let longer = json!({"note": note + "é"});
    for reply in [
        served.patch(&path, &longer).await,
        served.post("/v1/checkpoints", &longer).await,
    ] {
        let (code, param) = reply.error(StatusCode::BAD_REQUEST);
        assert_eq!(
            (code.as_str(), param.as_deref()),
            ("invalid_field", Some("note"))
        );
    }
}
