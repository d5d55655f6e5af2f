//! Small requests have a place in the queue beside large ones; vectors are finite or refused.

use axum::{body::Body, http::StatusCode};
use kith::serve::ServeError;
use serde_json::json;

use crate::support::{Served, data_uri, png};

#[tokio::test]
async fn large_requests_leave_places_to_small_ones() {
    let served = Served::start(&["serving.queue_images=64"]).await;
    let admit = |images| served.app.serving.admit(images);
    let _held = [admit(24).unwrap(), admit(24).unwrap()];
    // 16 places are left, of which 8 are not for a request of many images.
    assert!(matches!(admit(9), Err(ServeError::Overloaded)));
    let more = admit(8).unwrap();
    assert!(matches!(admit(8), Err(ServeError::Overloaded)));
    let reply = served
        .post("/v1/embeddings", &json!({"input": data_uri(&png(1))}))
        .await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    drop(more);
}

#[tokio::test]
async fn a_request_as_large_as_the_queue_is_admitted_when_nothing_else_waits() {
    let served = Served::start(&["serving.queue_images=64"]).await;
    let whole = served.app.serving.admit(64).unwrap();
    assert!(matches!(
        served.app.serving.admit(1),
        Err(ServeError::Overloaded)
    ));
    drop(whole);
    let one = served.app.serving.admit(1).unwrap();
    assert!(matches!(
        served.app.serving.admit(60),
        Err(ServeError::Overloaded)
    ));
    drop(one);
}

/// Weights that are finite, and whose sums of products are not.
const HUGE: f32 = 1e18;

#[tokio::test]
async fn a_checkpoint_whose_vectors_are_not_finite_is_refused_and_cannot_be_promoted() {
    let served = Served::start(&[]).await;
    let good = served.app.serving.live().unwrap().id;
    let bad = served.write_scaled(7, HUGE).await;
    let input = data_uri(&png(1));
    let pinned = json!({"model": format!("kith@{bad}"), "input": input});
    let refused = served.post("/v1/embeddings", &pinned).await;
    assert_eq!(
        refused.error(StatusCode::CONFLICT).0,
        "checkpoint_not_finite"
    );
    let promote = format!("/v1/checkpoints/{bad}/promote");
    let refused = served
        .post_as(&promote, "application/json", Body::empty())
        .await;
    assert_eq!(
        refused.error(StatusCode::CONFLICT).0,
        "checkpoint_not_finite"
    );
    assert_eq!(
        served.get("/readyz").await.json()["checkpoint"],
        good.to_string()
    );
    let answer = served
        .post("/v1/embeddings", &json!({"input": input}))
        .await;
    assert_eq!(answer.json()["model"], format!("kith@{good}"));
    let live = served.app.db.live_checkpoint().await.unwrap().unwrap();
    assert_eq!(live.id, good, "the row was not touched");
}

#[tokio::test]
async fn a_server_whose_live_checkpoint_is_not_finite_starts_unready() {
    let served = Served::start(&[]).await;
    let bad = served.write_scaled(7, HUGE).await;
    served.app.checkpoints.promote(bad, true).await.unwrap();
    let served = served.restart(&[]).await;
    let ready = served.get("/readyz").await;
    assert_eq!(ready.error(StatusCode::SERVICE_UNAVAILABLE).0, "not_ready");
    let answer = served
        .post("/v1/embeddings", &json!({"input": data_uri(&png(1))}))
        .await;
    assert_eq!(answer.error(StatusCode::SERVICE_UNAVAILABLE).0, "not_ready");
}
