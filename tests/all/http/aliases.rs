//! `/v1/aliases`: names of checkpoints.

use std::time::Duration;

use axum::{body::Body, http::StatusCode};
use kith::{
    db::{DecidedBy, Decision},
    keys::{Scope, Secret},
    types::CheckpointId,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::keys::with_key;
use crate::support::{Reply, Served, data_uri, png};

async fn put_alias(served: &Served, name: &str, checkpoint: &str) -> Reply {
    let path = format!("/v1/aliases/{name}");
    served.put(&path, &json!({"checkpoint": checkpoint})).await
}

#[tokio::test]
async fn an_alias_can_be_moved_and_protects_its_checkpoint() {
    let served = Served::start(&[]).await;
    let live = served.app.serving.live().unwrap().id;
    let other = served.write_checkpoint(7).await;
    let asked = async |model: &str| {
        let document = json!({"model": model, "input": data_uri(&png(1))});
        served.post("/v1/embeddings", &document).await
    };
    let unknown = asked("shop").await;
    assert_eq!(unknown.error(StatusCode::NOT_FOUND).0, "unknown_model");
    let set = put_alias(&served, "shop", &other.to_string()).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.text());
    assert_eq!(asked("shop").await.json()["model"], format!("kith@{other}"));
    let refused = served.delete(&format!("/v1/checkpoints/{other}")).await;
    assert_eq!(refused.error(StatusCode::CONFLICT).0, "checkpoint_aliased");
    let moved = put_alias(&served, "shop", "auto").await.json();
    assert_eq!(moved["checkpoint"], "auto");
    assert_eq!(asked("shop").await.json()["model"], format!("kith@{live}"));
    let models = served.get("/v1/models").await.json();
    let mut names = models["data"].as_array().unwrap().iter();
    assert!(names.any(|model| model["id"] == "shop"));
    let shop = served.get("/v1/models/shop").await.json();
    assert_eq!(shop["checkpoint"], live.to_string());
}

#[tokio::test]
async fn invalid_aliases_are_refused_and_a_deleted_one_is_unknown() {
    let served = Served::start(&[]).await;
    for (name, checkpoint, code) in [
        ("a%20b", "auto", "invalid_name"),
        ("shop", "newest", "invalid_id"),
    ] {
        let refused = put_alias(&served, name, checkpoint).await;
        assert_eq!(refused.error(StatusCode::BAD_REQUEST).0, code);
    }
    let nowhere = CheckpointId::now().to_string();
    let refused = put_alias(&served, "shop", &nowhere).await;
    assert_eq!(refused.error(StatusCode::NOT_FOUND).0, "unknown_checkpoint");
    put_alias(&served, "shop", "auto").await;
    let removed = served.delete("/v1/aliases/shop").await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    let unknown = served.delete("/v1/aliases/shop").await;
    assert_eq!(unknown.error(StatusCode::NOT_FOUND).0, "unknown_alias");
    assert_eq!(served.get("/v1/aliases").await.json()["data"], json!([]));
}

/// A server with so many keys of the scope `embed`, and one of `admin`.
async fn with_keys(embed: usize) -> (Served, Vec<Secret>, Secret) {
    let served = Served::start(&[]).await;
    let mut keys = Vec::new();
    for _ in 0..embed {
        keys.push(served.key(Scope::Embed).await.1);
    }
    let (_, admin) = served.key(Scope::Admin).await;
    (served, keys, admin)
}

async fn ask(served: &Served, method: &str, path: &str, key: &Secret, body: Value) -> Reply {
    let body = Body::from(body.to_string());
    served.send(with_key(method, path, Some(key), body)).await
}

#[tokio::test]
async fn a_canary_answers_the_same_share_of_keys_every_time() {
    let (served, keys, admin) = with_keys(20).await;
    let live = format!("kith@{}", served.app.serving.live().unwrap().id);
    let candidate = served.write_checkpoint(7).await;
    let put = async |percent: f64| {
        let canary = json!({"checkpoint": candidate, "percent": percent});
        let body = json!({"checkpoint": "auto", "canary": canary});
        ask(&served, "PUT", "/v1/aliases/kith", &admin, body).await
    };
    let models = async || {
        let mut models = Vec::new();
        for key in &keys {
            let body = json!({"input": data_uri(&png(1))});
            let reply = ask(&served, "POST", "/v1/embeddings", key, body).await;
            models.push(reply.json()["model"].as_str().unwrap().to_owned());
        }
        models
    };
    assert_eq!(put(50.0).await.json()["canary"]["percent"], 50.0);
    let half = models().await;
    let tried = half
        .iter()
        .filter(|model| **model == format!("kith@{candidate}"));
    // All or none of twenty by chance: one in a million.
    assert!((1..20).contains(&tried.count()), "{half:?}");
    assert!(
        half.iter()
            .all(|model| *model == live || *model == format!("kith@{candidate}"))
    );
    assert_eq!(models().await, half);
    put(100.0).await;
    assert!(models().await.iter().all(|model| *model != live));
    let shadow = json!({"checkpoint": candidate, "percent": 100, "shadow": true});
    let body = json!({"checkpoint": "auto", "canary": shadow});
    ask(&served, "PUT", "/v1/aliases/kith", &admin, body).await;
    assert!(
        models().await.iter().all(|model| *model == live),
        "a shadow answers nobody"
    );
    let refused = ask(
        &served,
        "DELETE",
        &format!("/v1/checkpoints/{candidate}"),
        &admin,
        json!(null),
    )
    .await;
    assert_eq!(refused.error(StatusCode::CONFLICT).0, "checkpoint_aliased");
    let removed = ask(&served, "DELETE", "/v1/aliases/kith", &admin, json!(null)).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    assert!(models().await.iter().all(|model| *model == live));
}

#[tokio::test]
async fn callers_without_a_key_never_get_a_canary() {
    let served = Served::start(&[]).await;
    let live = served.app.serving.live().unwrap().id;
    let candidate = served.write_checkpoint(7).await;
    let canary = json!({"checkpoint": candidate, "percent": 100});
    let body = json!({"checkpoint": "auto", "canary": canary});
    assert_eq!(
        served.put("/v1/aliases/kith", &body).await.status,
        StatusCode::OK
    );
    let reply = served
        .post("/v1/embeddings", &json!({"input": data_uri(&png(1))}))
        .await;
    assert_eq!(reply.json()["model"], format!("kith@{live}"));
}

#[tokio::test]
async fn a_shadow_is_compared_and_never_answers() {
    let served = Served::start(&[]).await;
    let live = served.app.serving.live().unwrap().id;
    let candidate = served.write_checkpoint(7).await;
    let canary = json!({"checkpoint": candidate, "percent": 100, "shadow": true});
    let body = json!({"checkpoint": "auto", "canary": canary});
    let put = served.put("/v1/aliases/kith", &body).await.json();
    assert_eq!(put["canary"]["compared_images"], 0);
    assert_eq!(put["canary"]["shared_neighbours"], json!(null));
    let compared = async {
        for seed in 0.. {
            let body = json!({"input": data_uri(&png(seed))});
            let reply = served.post("/v1/embeddings", &body).await;
            assert_eq!(reply.json()["model"], format!("kith@{live}"));
            let aliases = served.get("/v1/aliases").await.json();
            let shared = aliases["data"][0]["canary"]["shared_neighbours"].as_f64();
            if let Some(shared) = shared {
                return shared;
            }
        }
        unreachable!("the seeds have no end")
    };
    let shared = timeout(Duration::from_secs(60), compared).await.unwrap();
    assert!((0.0..=1.0).contains(&shared));
    // Another candidate is compared anew.
    let other = served.write_checkpoint(8).await;
    let canary = json!({"checkpoint": other, "percent": 100, "shadow": true});
    served
        .put(
            "/v1/aliases/kith",
            &json!({"checkpoint": "auto", "canary": canary}),
        )
        .await;
    let models = served.get("/v1/models").await.json();
    let names = models["data"].as_array().unwrap().iter();
    assert_eq!(names.filter(|model| model["id"] == "kith").count(), 1);
}

#[tokio::test]
async fn invalid_canaries_are_refused_by_field() {
    let served = Served::start(&[]).await;
    let id = served.app.serving.live().unwrap().id.to_string();
    let nowhere = CheckpointId::now().to_string();
    for (name, body, field) in [
        ("kith", json!({"checkpoint": id}), "checkpoint"),
        (
            "shop",
            json!({"checkpoint": "auto", "canary": {"checkpoint": "x", "percent": 5}}),
            "canary.checkpoint",
        ),
        (
            "shop",
            json!({"checkpoint": "auto", "canary": {"checkpoint": id, "percent": 0}}),
            "canary.percent",
        ),
        (
            "shop",
            json!({"checkpoint": "auto", "canary": {"checkpoint": id}}),
            "canary.percent",
        ),
    ] {
        let reply = served.put(&format!("/v1/aliases/{name}"), &body).await;
        assert_eq!(
            reply.error(StatusCode::BAD_REQUEST).1.as_deref(),
            Some(field),
            "{body}"
        );
    }
    let body = json!({"checkpoint": "auto", "canary": {"checkpoint": nowhere, "percent": 5}});
    let reply = served.put("/v1/aliases/shop", &body).await;
    assert_eq!(reply.error(StatusCode::NOT_FOUND).0, "unknown_checkpoint");
}

#[tokio::test]
async fn a_name_is_set_and_removed_whatever_the_live_checkpoint_is_like() {
    let served = Served::start(&[]).await;
    let broken = served.write_broken_checkpoint().await;
    let decision = Decision {
        by: DecidedBy::Gate,
        why: String::new(),
        hold: false,
    };
    // Past all that keeps such a checkpoint from being promoted.
    let db = &served.app.db;
    assert!(db.promote_checkpoint(broken, &decision).await.unwrap());
    assert_eq!(
        put_alias(&served, "shop", "auto").await.status,
        StatusCode::OK
    );
    let removed = served.delete("/v1/aliases/shop").await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT, "{}", removed.text());
}
