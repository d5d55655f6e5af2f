//! `/v1/aliases`: names of checkpoints.

use axum::http::StatusCode;
use kith::types::CheckpointId;
use serde_json::json;

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
        ("kith", "auto", "invalid_name"),
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
