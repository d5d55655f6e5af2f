//! `POST /v1/embeddings` and `/v1/models`.

use axum::http::{Method, StatusCode};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::support::{Served, data_uri, distance, form, png, request, vector};

/// Batches of different sizes may sum in another order; vectors of unit length then differ in their last bits only.
const ROUNDING: f32 = 1e-5;

fn norm(values: &[f32]) -> f32 {
    values.iter().map(|value| value * value).sum::<f32>().sqrt()
}

#[tokio::test]
async fn one_image_has_one_vector_however_it_is_sent() {
    let served = Served::start(&[]).await;
    let image = png(1);
    let (media, body) = form(&[
        ("file", Some("a.png"), &image),
        ("other", Some("b.png"), &png(2)),
    ]);
    let document = json!({"input": [data_uri(&image), {"image": STANDARD.encode(&image)}]});
    let replies = [
        served
            .post(
                "/v1/embeddings",
                &json!({"model": "kith", "input": data_uri(&image)}),
            )
            .await,
        served
            .post(
                "/v1/embeddings",
                &json!({"input": {"image": data_uri(&image)}}),
            )
            .await,
        served.post("/v1/embeddings", &document).await,
        served
            .post_as("/v1/embeddings", "image/png", image.clone())
            .await,
        served.post_as("/v1/embeddings", media, body).await,
    ];
    let first = vector(&replies[0].json(), 0);
    assert_eq!(first.len(), 16);
    // Unit length within f32's rounding over 16 squares.
    assert!((norm(&first) - 1.0).abs() < 1e-5);
    for reply in &replies {
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        assert!(distance(&vector(&reply.json(), 0), &first) < ROUNDING);
    }
    assert!(distance(&vector(&replies[2].json(), 1), &first) < ROUNDING);
    assert!(
        distance(&vector(&replies[4].json(), 1), &first) > 1e-3,
        "the form's second file is another image"
    );
}

#[tokio::test]
async fn an_answer_has_openais_shape_and_names_its_checkpoint() {
    let served = Served::start(&[]).await;
    let live = served.app.serving.live().unwrap();
    let reply = served
        .post(
            "/v1/embeddings",
            &json!({"input": [data_uri(&png(1)), data_uri(&png(2))], "user": "x"}),
        )
        .await;
    let answer = reply.json();
    assert_eq!(answer["object"], "list");
    assert_eq!(answer["model"], format!("kith@{}", live.id));
    assert_eq!(answer["data"][1]["index"], 1);
    assert_eq!(answer["data"][1]["object"], "embedding");
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": 0, "total_tokens": 0})
    );
}

#[tokio::test]
async fn base64_holds_the_floats_as_little_endian_bytes() {
    let served = Served::start(&[]).await;
    let ask = async |format: &str| {
        let path = format!("/v1/embeddings?encoding_format={format}");
        served.post_as(&path, "image/png", png(3)).await.json()
    };
    let floats = vector(&ask("float").await, 0);
    let text = ask("base64").await["data"][0]["embedding"]
        .as_str()
        .unwrap()
        .to_owned();
    let bytes = STANDARD.decode(text).unwrap();
    let decoded: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
        .collect();
    assert_eq!(decoded, floats, "the same batch of one gives the same bits");
}

#[tokio::test]
async fn fewer_dimensions_are_the_first_ones_at_unit_length() {
    let served = Served::start(&[]).await;
    let ask = async |query: &str| {
        served
            .post_as(&format!("/v1/embeddings{query}"), "image/png", png(3))
            .await
    };
    let whole = vector(&ask("").await.json(), 0);
    let cut = vector(&ask("?dimensions=5").await.json(), 0);
    let expected: Vec<f32> = whole[..5]
        .iter()
        .map(|value| value / norm(&whole[..5]))
        .collect();
    // One division on either side of the same sums.
    assert!(distance(&cut, &expected) < 1e-6);
    assert_eq!(vector(&ask("?dimensions=16").await.json(), 0), whole);
    for query in [
        "?dimensions=17",
        "?dimensions=0",
        "?layer=hidden&dimensions=5",
    ] {
        let (code, param) = ask(query).await.error(StatusCode::BAD_REQUEST);
        assert_eq!(
            (code.as_str(), param.as_deref()),
            ("invalid_dimensions", Some("dimensions"))
        );
    }
}

#[tokio::test]
async fn the_hidden_layer_gives_the_features_below_the_projection() {
    let served = Served::start(&[]).await;
    let reply = served
        .post_as("/v1/embeddings?layer=hidden", "image/png", png(3))
        .await;
    let hidden = vector(&reply.json(), 0);
    assert_eq!(hidden.len(), 64, "8 x width");
    assert!(
        hidden.iter().all(|value| *value >= 0.0),
        "they come after a ReLU"
    );
    assert!(hidden.iter().any(|value| *value > 0.0));
}

#[tokio::test]
async fn a_bad_image_fails_the_request_and_is_named() {
    let served = Served::start(&[]).await;
    let good = data_uri(&png(1));
    let url = "https://example.org/a.png";
    for (input, code, param) in [
        (
            json!([good, data_uri(b"no image"), "b64!"]),
            "image_undecodable",
            "input[2]",
        ),
        (
            json!([good, data_uri(b"no image"), good]),
            "image_undecodable",
            "input[1]",
        ),
        (json!([good, url]), "url_not_supported", "input[1]"),
        (json!({"image": url}), "url_not_supported", "input[0]"),
        (json!([]), "no_images", "input"),
        (
            json!([good, {"image": good, "detail": "low"}]),
            "invalid_field",
            "input[1].detail",
        ),
        (json!([good, 7]), "invalid_field", "input[1]"),
    ] {
        let reply = served
            .post("/v1/embeddings", &json!({"input": input}))
            .await;
        let (got, place) = reply.error(StatusCode::BAD_REQUEST);
        assert_eq!(
            (got.as_str(), place.as_deref()),
            (code, Some(param)),
            "{}",
            reply.text()
        );
    }
}

#[tokio::test]
async fn limits_are_checked_before_the_images_are_decoded() {
    let served = Served::start(&[
        "limits.max_bytes=9000",
        "limits.max_pixels=2000",
        "server.max_images=2",
        "server.max_body_bytes=60000",
    ])
    .await;
    let uri = data_uri(&png(1));
    let big = data_uri(&[0; 9100]);
    let many_pixels = data_uri(&crate::support::png_of(50, 1));
    for (input, code, param) in [
        (json!([uri, big]), "image_too_large", Some("input[1]")),
        (json!([many_pixels]), "image_too_large", Some("input[0]")),
        (json!([uri, uri, uri]), "too_many_images", Some("input")),
        (json!("A".repeat(60001)), "body_too_large", None),
    ] {
        let reply = served
            .post("/v1/embeddings", &json!({"input": input}))
            .await;
        let (got, place) = reply.error(StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(
            (got.as_str(), place.as_deref()),
            (code, param),
            "{}",
            reply.text()
        );
    }
    let (media, body) = form(&[("a", Some("a.png"), &[0; 9100])]);
    let (code, _) = served
        .post_as("/v1/embeddings", media, body)
        .await
        .error(StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(code, "image_too_large");
}

#[tokio::test]
async fn a_full_queue_is_answered_429_at_once_and_a_request_that_never_fits_413() {
    let served = Served::start(&["serving.queue_images=2"]).await;
    let ask = async |images: usize| {
        let input = vec![data_uri(&png(1)); images];
        served
            .post("/v1/embeddings", &json!({"input": input}))
            .await
    };
    let places = served.app.serving.admit(1).unwrap();
    let full = ask(2).await;
    assert_eq!(full.error(StatusCode::TOO_MANY_REQUESTS).0, "overloaded");
    assert_eq!(full.header("retry-after"), Some("1"));
    assert_eq!(ask(1).await.status, StatusCode::OK, "one place is left");
    drop(places);
    assert_eq!(
        ask(2).await.status,
        StatusCode::OK,
        "every place is free again"
    );
    assert_eq!(
        ask(3).await.error(StatusCode::PAYLOAD_TOO_LARGE).0,
        "too_many_images"
    );
}

#[tokio::test]
async fn a_request_larger_than_a_batch_is_split_and_keeps_its_order() {
    let served = Served::start(&["serving.max_batch=2"]).await;
    let input: Vec<String> = (0..5).map(|seed| data_uri(&png(seed))).collect();
    let together = served
        .post("/v1/embeddings", &json!({"input": input}))
        .await
        .json();
    for (index, image) in input.iter().enumerate() {
        let alone = served
            .post("/v1/embeddings", &json!({"input": image}))
            .await
            .json();
        assert!(
            distance(&vector(&together, index), &vector(&alone, 0)) < ROUNDING,
            "image {index}"
        );
    }
}

#[tokio::test]
async fn serving_in_16_bits_answers_nearly_the_same_vectors() {
    let input = json!({"input": data_uri(&png(1))});
    let mut vectors = Vec::new();
    for precision in ["serving.precision=f32", "serving.precision=bf16"] {
        let served = Served::start(&[precision]).await;
        vectors.push(vector(
            &served.post("/v1/embeddings", &input).await.json(),
            0,
        ));
    }
    let apart = distance(&vectors[0], &vectors[1]);
    // Unit vectors with a cosine of 0.999 lie 0.045 apart: no value differs by more.
    assert!(apart > 0.0 && apart < 0.045, "{apart}");
}

#[tokio::test]
async fn models_are_listed_and_can_be_named() {
    let served = Served::start(&[]).await;
    let live = served.app.serving.live().unwrap().id;
    let other = served.write_checkpoint(7).await;
    let list = served.get("/v1/models").await.json();
    let names: Vec<&str> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert_eq!(names[0], "kith");
    for id in [live, other] {
        assert!(names.contains(&format!("kith@{id}").as_str()), "{names:?}");
    }
    let model = served.get(&format!("/v1/models/kith@{other}")).await.json();
    assert_eq!(
        (
            &model["object"],
            &model["dimensions"],
            &model["hidden_dimensions"],
            &model["input_size"]
        ),
        (&json!("model"), &json!(16), &json!(64), &json!(32))
    );
    let ask = async |model: &str| {
        served
            .post(
                "/v1/embeddings",
                &json!({"model": model, "input": data_uri(&png(1))}),
            )
            .await
    };
    let pinned = ask(&format!("kith@{other}")).await.json();
    assert_eq!(pinned["model"], format!("kith@{other}"));
    assert!(
        distance(&vector(&pinned, 0), &vector(&ask("kith").await.json(), 0)) > 1e-3,
        "other weights"
    );
}

#[tokio::test]
async fn an_unknown_model_is_404() {
    let served = Served::start(&[]).await;
    let nobody = kith::types::CheckpointId::now();
    for (model, code) in [
        ("clip".to_owned(), "unknown_model"),
        ("kith@7".to_owned(), "unknown_model"),
        (format!("kith@{nobody}"), "unknown_checkpoint"),
    ] {
        let reply = served
            .post(
                "/v1/embeddings",
                &json!({"model": model, "input": data_uri(&png(1))}),
            )
            .await;
        assert_eq!(reply.error(StatusCode::NOT_FOUND).0, code);
        assert_eq!(
            served
                .get(&format!("/v1/models/{model}"))
                .await
                .error(StatusCode::NOT_FOUND)
                .0,
            code
        );
    }
}

#[tokio::test]
async fn unknown_options_of_a_raw_body_are_refused_by_name() {
    let served = Served::start(&[]).await;
    let raw = request(
        Method::POST,
        "/v1/embeddings?dimension=4",
        Some("image/png"),
        png(1).into(),
    );
    let reply = served.send(raw).await;
    let (code, _) = reply.error(StatusCode::BAD_REQUEST);
    assert_eq!(code, "invalid_parameter");
    assert!(reply.text().contains("dimension"), "{}", reply.text());
}
