//! `/v1/pairs`.

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use kith::types::Sha256;
use serde_json::{Value, json};

use crate::support::{Reply, Served, data_uri, form, png};

pub(super) fn pair(anchor: u32, positive: u32) -> Value {
    json!({"anchor": {"image": data_uri(&png(anchor))}, "positive": {"image": data_uri(&png(positive))}})
}

pub(super) fn lines(reply: &Reply) -> Vec<Value> {
    reply
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn a_posted_pair_is_durable_and_the_same_pair_again_is_a_duplicate() {
    let served = Served::start(&[]).await;
    let document = json!({"pairs": [pair(1, 2)]});
    let first = served.post("/v1/pairs", &document).await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.text());
    let stored = first.json()["data"][0].clone();
    assert_eq!(stored["anchor"], Sha256::digest(&png(1)).to_string());
    assert_eq!(stored["duplicate"], false);
    let again = served.post("/v1/pairs", &document).await.json()["data"][0].clone();
    assert_eq!(
        (&again["id"], &again["duplicate"]),
        (&stored["id"], &json!(true))
    );
    let served = served.restart(&[]).await;
    let id = stored["id"].as_str().unwrap();
    let read = served.get(&format!("/v1/pairs/{id}")).await.json();
    assert_eq!(
        (&read["positive"], &read["created_at"]),
        (&stored["positive"], &stored["created_at"])
    );
    assert!(read.get("duplicate").is_none());
}

#[tokio::test]
async fn a_side_can_be_a_stored_image_and_a_positive_can_be_left_out() {
    let served = Served::start(&[]).await;
    served.post_as("/v1/images", "image/png", png(1)).await;
    let id = Sha256::digest(&png(1)).to_string();
    let document = json!({"pairs": [{"anchor": {"id": id}, "group": "g"}]});
    let reply = served.post("/v1/pairs", &document).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text());
    let stored = reply.json()["data"][0].clone();
    assert_eq!(
        (&stored["anchor"], &stored["positive"], &stored["group"]),
        (&json!(id), &json!(id), &json!("g"))
    );
}

#[tokio::test]
async fn a_json_request_is_stored_whole_or_not_at_all() {
    let served = Served::start(&[]).await;
    let unknown = Sha256::digest(b"nobody").to_string();
    for (bad, status, param) in [
        (
            json!({"anchor": {"id": unknown}}),
            StatusCode::NOT_FOUND,
            "pairs[1].anchor",
        ),
        (
            json!({"anchor": {"image": data_uri(b"x")}}),
            StatusCode::BAD_REQUEST,
            "pairs[1].anchor",
        ),
        (
            json!({"anchor": {"image": "http://a"}}),
            StatusCode::BAD_REQUEST,
            "pairs[1].anchor.image",
        ),
        (
            json!({"anchor": {"id": "7"}}),
            StatusCode::BAD_REQUEST,
            "pairs[1].anchor.id",
        ),
        (
            json!({"anchor": {}}),
            StatusCode::BAD_REQUEST,
            "pairs[1].anchor",
        ),
        (
            json!({"anchor": {"id": unknown}, "label": 1}),
            StatusCode::BAD_REQUEST,
            "pairs[1].label",
        ),
        (
            json!({"anchor": {"id": unknown}, "group": ""}),
            StatusCode::BAD_REQUEST,
            "pairs[1].group",
        ),
    ] {
        let reply = served
            .post("/v1/pairs", &json!({"pairs": [pair(1, 2), bad]}))
            .await;
        let (_, place) = reply.error(status);
        assert_eq!(place.as_deref(), Some(param), "{}", reply.text());
    }
    assert_eq!(
        served.get("/v1/pairs").await.json(),
        json!({"data": [], "next": null})
    );
}

#[tokio::test]
async fn a_request_without_pairs_or_with_too_many_is_refused() {
    let served = Served::start(&["server.max_pairs=2"]).await;
    let none = served.post("/v1/pairs", &json!({"pairs": []})).await;
    assert_eq!(none.error(StatusCode::BAD_REQUEST).0, "no_pairs");
    let many = served
        .post("/v1/pairs", &json!({"pairs": vec![pair(1, 2); 3]}))
        .await;
    assert_eq!(
        many.error(StatusCode::PAYLOAD_TOO_LARGE).0,
        "too_many_pairs"
    );
}

#[tokio::test]
async fn a_form_carries_one_pair() {
    let served = Served::start(&[]).await;
    let (a, b) = (png(1), png(2));
    let (media, body) = form(&[
        ("anchor", Some("a"), &a),
        ("positive", Some("b"), &b),
        ("group", None, b"g"),
    ]);
    let reply = served.post_as("/v1/pairs", media, body).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text());
    assert_eq!(reply.json()["data"][0]["group"], "g");
    for (parts, param) in [
        (vec![("positive", Some("b"), b.as_slice())], "anchor"),
        (
            vec![
                ("anchor", Some("a"), a.as_slice()),
                ("negative", Some("b"), b.as_slice()),
            ],
            "negative",
        ),
        (
            vec![
                ("anchor", Some("a"), a.as_slice()),
                ("anchor", Some("b"), b.as_slice()),
            ],
            "anchor",
        ),
    ] {
        let (media, body) = form(&parts);
        let (_, place) = served
            .post_as("/v1/pairs", media, body)
            .await
            .error(StatusCode::BAD_REQUEST);
        assert_eq!(place.as_deref(), Some(param));
    }
}

#[tokio::test]
async fn a_retry_with_an_idempotency_key_is_answered_as_the_first_was() {
    let served = Served::start(&[]).await;
    let post = async |key: &str, document: Value| {
        let request = Request::post("/v1/pairs")
            .header("content-type", "application/json")
            .header("idempotency-key", key);
        served
            .send(request.body(Body::from(document.to_string())).unwrap())
            .await
    };
    let first = post("k1", json!({"pairs": [pair(1, 2)]})).await;
    let retry = post("k1", json!({"pairs": [pair(1, 2)]})).await;
    assert_eq!(
        (retry.status, &retry.body),
        (StatusCode::CREATED, &first.body)
    );
    assert_eq!(
        retry.json()["data"][0]["duplicate"],
        false,
        "as the first was"
    );
    let other = post("k1", json!({"pairs": [pair(3, 4)]})).await;
    assert_eq!(
        other.error(StatusCode::UNPROCESSABLE_ENTITY).0,
        "idempotency_key_reused"
    );
}

#[tokio::test]
async fn pairs_are_listed_by_group_and_deleted() {
    let served = Served::start(&[]).await;
    let with = |mut pair: Value, group: &str| {
        pair["group"] = json!(group);
        pair
    };
    let document =
        json!({"pairs": [with(pair(1, 2), "a"), with(pair(3, 4), "b"), with(pair(5, 6), "a")]});
    let stored = served.post("/v1/pairs", &document).await.json();
    let ids = |reply: &Value| -> Vec<String> {
        reply["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| pair["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = ids(&stored);
    assert_eq!(ids(&served.get("/v1/pairs").await.json()), all);
    assert_eq!(
        ids(&served.get("/v1/pairs?group=a").await.json()),
        [all[0].clone(), all[2].clone()]
    );
    let path = format!("/v1/pairs/{}", all[0]);
    assert_eq!(served.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(
        served.get(&path).await.error(StatusCode::NOT_FOUND).0,
        "unknown_pair"
    );
    assert_eq!(
        ids(&served.get("/v1/pairs?group=a").await.json()),
        [all[2].clone()]
    );
}

#[tokio::test]
async fn the_same_pair_with_another_group_is_refused_in_every_form() {
    let served = Served::start(&[]).await;
    let pair = |group: Value| {
        let mut pair = json!({"anchor": {"image": data_uri(&png(1))}, "positive": {"image": data_uri(&png(2))}});
        if !group.is_null() {
            pair["group"] = group;
        }
        pair
    };
    let post = async |group: Value| {
        let document = json!({"pairs": [pair(group)]});
        served.post("/v1/pairs", &document).await
    };
    assert_eq!(post(json!("a")).await.status, StatusCode::CREATED);
    for same in [json!("a"), Value::Null] {
        let reply = post(same).await;
        assert_eq!(
            reply.json()["data"][0]["duplicate"],
            true,
            "{}",
            reply.text()
        );
        assert_eq!(reply.json()["data"][0]["group"], "a");
    }
    let conflict = (
        "group_conflict".to_owned(),
        Some("pairs[0].group".to_owned()),
    );
    let reply = post(json!("b")).await;
    assert_eq!(reply.error(StatusCode::CONFLICT), conflict);
    assert!(
        reply.text().contains("\\\"a\\\"") && reply.text().contains("\\\"b\\\""),
        "{}",
        reply.text()
    );

    let lines = format!("{}\n{}\n", pair(json!("b")), pair(json!("a")));
    let reply = served
        .post_as("/v1/pairs", "application/x-ndjson", lines)
        .await;
    let results: Vec<Value> = reply
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(results[0]["error"]["code"], "group_conflict");
    assert_eq!(results[0]["error"]["param"], "group");
    assert_eq!(results[1]["duplicate"], true);

    let (media, body) = form(&[
        ("anchor", Some("a.png"), &png(1)),
        ("positive", Some("b.png"), &png(2)),
        ("group", None, b"b"),
    ]);
    let reply = served.post_as("/v1/pairs", media, body).await;
    assert_eq!(reply.error(StatusCode::CONFLICT).0, "group_conflict");
}

#[tokio::test]
async fn a_weight_is_stored_and_listed_and_1_unless_given() {
    let served = Served::start(&[]).await;
    let pair = |seed: u32, weight: Value| {
        let mut pair = json!({"anchor": {"image": data_uri(&png(seed))}});
        if !weight.is_null() {
            pair["weight"] = weight;
        }
        pair
    };
    let document =
        json!({"pairs": [pair(1, json!(2.5)), pair(2, Value::Null), pair(3, json!(0.1))]});
    let reply = served.post("/v1/pairs", &document).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text());
    let lines = format!("{}\n{}\n", pair(4, json!(1000)), pair(5, json!(0)));
    let reply = served
        .post_as("/v1/pairs", "application/x-ndjson", lines)
        .await;
    let refused: Value = serde_json::from_str(reply.text().lines().nth(1).unwrap()).unwrap();
    assert_eq!(refused["error"]["param"], "weight");
    let (media, body) = form(&[
        ("anchor", Some("a.png"), &png(6)),
        ("weight", None, b"0.25"),
    ]);
    let reply = served.post_as("/v1/pairs", media, body).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text());

    let listed = served.get("/v1/pairs").await.json();
    let weights: Vec<f64> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| pair["weight"].as_f64().unwrap())
        .collect();
    assert_eq!(weights, [2.5, 1.0, 0.1, 1000.0, 0.25]);
}

#[tokio::test]
async fn a_weight_out_of_range_and_another_one_for_a_stored_pair_are_refused_by_name() {
    let served = Served::start(&[]).await;
    let post = async |weight: Value| {
        let pair = json!({"anchor": {"image": data_uri(&png(1))}, "weight": weight});
        served.post("/v1/pairs", &json!({"pairs": [pair]})).await
    };
    for weight in [
        json!(0),
        json!(-1),
        json!(0.0001),
        json!(1001),
        json!(1e300),
    ] {
        let reply = post(weight.clone()).await;
        let (code, param) = reply.error(StatusCode::BAD_REQUEST);
        assert_eq!(code, "invalid_field", "{weight}");
        assert_eq!(param.as_deref(), Some("pairs[0].weight"), "{weight}");
        assert!(reply.text().contains("0.001 to 1000"), "{}", reply.text());
    }
    let (media, body) = form(&[
        ("anchor", Some("a.png"), &png(1)),
        ("weight", None, b"heavy"),
    ]);
    let reply = served.post_as("/v1/pairs", media, body).await;
    let refused = reply.error(StatusCode::BAD_REQUEST);
    assert_eq!(
        refused,
        ("invalid_field".to_owned(), Some("weight".to_owned()))
    );

    assert_eq!(post(json!(2)).await.status, StatusCode::CREATED);
    for same in [json!(2.0), Value::Null] {
        let stored = &post(same).await.json()["data"][0];
        assert_eq!(
            (&stored["duplicate"], &stored["weight"]),
            (&json!(true), &json!(2.0))
        );
    }
    let reply = post(json!(3)).await;
    let conflict = (
        "weight_conflict".to_owned(),
        Some("pairs[0].weight".to_owned()),
    );
    assert_eq!(reply.error(StatusCode::CONFLICT), conflict);
}

/// As the document says it: JSON Schema's `maxLength` counts characters.
#[tokio::test]
async fn the_length_of_a_group_is_counted_in_characters() {
    let served = Served::start(&[]).await;
    let uri = data_uri(&png(1));
    for (length, status) in [(512, StatusCode::CREATED), (513, StatusCode::BAD_REQUEST)] {
        let group = "é".repeat(length);
        let pair = json!({"pairs": [{"anchor": {"image": uri}, "group": group}]});
        let reply = served.post("/v1/pairs", &pair).await;
        assert_eq!(reply.status, status, "{}", reply.text());
        let (media, body) = form(&[
            ("anchor", Some("a.png"), &png(1)),
            ("group", None, group.as_bytes()),
        ]);
        let reply = served.post_as("/v1/pairs", media, body).await;
        assert_eq!(reply.status, status, "{}", reply.text());
    }
}
