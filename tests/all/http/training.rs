//! `/v1/training`: what it shows, and the changes that it takes or refuses.

use axum::http::StatusCode;
use serde_json::json;

use crate::support::Served;

#[tokio::test]
async fn training_has_a_status_and_refuses_invalid_changes() {
    let served = Served::start(&[]).await;
    let status = served.get("/v1/training").await.json();
    assert_eq!(
        (&status["state"], &status["step"]),
        (&json!("waiting"), &json!(0))
    );
    let live = served.app.serving.live().unwrap().id.to_string();
    let checkpoint = &status["checkpoint"];
    assert_eq!(
        (
            &checkpoint["live"],
            &checkpoint["latest"],
            &checkpoint["held"]
        ),
        (&json!(live), &json!(live), &json!(false))
    );
    for (body, param) in [
        (json!({}), None),
        (json!({"state": "stopped"}), Some("state")),
        (json!({"learning_rate": 0}), Some("learning_rate")),
        (json!({"rate": 1}), Some("rate")),
    ] {
        let (_, place) = served
            .patch("/v1/training", &body)
            .await
            .error(StatusCode::BAD_REQUEST);
        assert_eq!(place.as_deref(), param);
    }
    assert_eq!(
        served
            .get("/v1/training/metrics?since=18446744073709551615")
            .await
            .json()["data"],
        serde_json::json!([]),
        "no step is so late"
    );
    assert_eq!(
        served.get("/v1/training/metrics?since=0").await.json()["data"],
        json!([])
    );
}

#[tokio::test]
async fn training_is_paused_and_resumed() {
    let served = Served::start(&["training.enabled=true", "training.min_pairs=1000"]).await;
    let patch = async |state: &str| {
        let change = json!({"state": state});
        served.patch("/v1/training", &change).await.json()
    };
    assert_eq!(patch("paused").await["state"], "paused");
    assert_eq!(
        patch("running").await["state"],
        "waiting",
        "there are no pairs yet"
    );
    served.app.stop().await.unwrap();
}

#[tokio::test]
async fn a_change_that_would_have_no_effect_is_refused_while_training_is_off() {
    let served = Served::start(&[]).await;
    for body in [json!({"state": "paused"}), json!({"learning_rate": 1e-4})] {
        let refused = served.patch("/v1/training", &body).await;
        assert_eq!(refused.error(StatusCode::CONFLICT).0, "training_disabled");
    }
}
