//! What clients of other interfaces send, and the formats they ask for.

use std::io::Read;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{Reply, Served, data_uri, png, vector};

async fn embed(served: &Served, body: Value) -> Reply {
    let reply = served.post("/v1/embeddings", &body).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    reply
}

fn numbers(answer: &Value) -> Vec<i64> {
    let numbers = answer.as_array().unwrap().iter();
    numbers.map(|number| number.as_i64().unwrap()).collect()
}

#[tokio::test]
async fn an_image_may_stand_in_the_objects_of_other_interfaces() {
    let served = Served::start(&[]).await;
    let uri = data_uri(&png(1));
    let plain = vector(&embed(&served, json!({"input": uri})).await.json(), 0);
    for input in [
        json!({"image": uri}),
        json!({"image": {"url": uri}}),
        json!({"image_url": uri}),
        json!({"type": "image_url", "image_url": {"url": uri, "detail": "high"}}),
        json!({"type": "input_image", "image_url": uri}),
        json!({"type": null, "image": uri, "image_url": null}),
    ] {
        for input in [json!([input]), input.clone()] {
            let answer = embed(&served, json!({"input": input})).await.json();
            assert_eq!(vector(&answer, 0), plain, "{input}");
        }
    }
}

#[tokio::test]
async fn an_object_without_one_image_is_refused_with_its_place() {
    let served = Served::start(&[]).await;
    let uri = data_uri(&png(1));
    for input in [
        json!({}),
        json!({"image": uri, "image_url": uri}),
        json!({"type": "text", "text": "a cat"}),
        json!({"image_url": {"href": uri}}),
        json!(7),
    ] {
        let body = json!({"input": [uri, input]});
        let reply = served.post("/v1/embeddings", &body).await;
        let (_, param) = reply.error(StatusCode::BAD_REQUEST);
        assert!(param.unwrap().starts_with("input[1]"), "{}", reply.text());
    }
}

#[tokio::test]
async fn options_that_other_clients_send_are_accepted_and_null_is_their_default() {
    let served = Served::start(&[]).await;
    let uri = data_uri(&png(1));
    let plain = vector(&embed(&served, json!({"input": uri})).await.json(), 0);
    let names = [
        "anchor",
        "query",
        "search_query",
        "positive",
        "document",
        "search_document",
    ];
    let mut extra: Vec<Value> = names.map(|name| json!({"input_type": name})).to_vec();
    extra.push(
        json!({"user": "u", "modality": "image", "normalized": true, "embedding_type": "float"}),
    );
    extra.push(json!({
        "user": null, "modality": null, "normalized": null, "embedding_type": null, "input_type": null,
        "encoding_format": null, "dimensions": null, "layer": null, "model": null
    }));
    for mut body in extra {
        body["input"] = json!(uri);
        let answer = embed(&served, body.clone()).await.json();
        assert_eq!(vector(&answer, 0), plain, "{body}");
    }
    for (field, value) in [
        ("input_type", json!("title")),
        ("normalized", json!(false)),
        ("modality", json!("audio")),
    ] {
        let body = json!({"input": uri, field: value});
        let reply = served.post("/v1/embeddings", &body).await;
        let (_, param) = reply.error(StatusCode::BAD_REQUEST);
        assert_eq!(param.as_deref(), Some(field));
    }
}

#[tokio::test]
async fn eight_bits_and_bits_stand_for_the_floats() {
    let served = Served::start(&[]).await;
    let uri = data_uri(&png(1));
    let floats = vector(&embed(&served, json!({"input": uri})).await.json(), 0);
    let ask = async |format: &str| {
        let body = json!({"input": uri, "encoding_format": format});
        embed(&served, body).await.json()
    };
    for (format, zero) in [("int8", 0), ("uint8", 128)] {
        let answer = ask(format).await;
        let scale = answer["scale"].as_f64().unwrap() as f32;
        let numbers = numbers(&answer["data"][0]["embedding"]);
        assert_eq!(numbers.len(), floats.len());
        for (number, float) in numbers.iter().zip(&floats) {
            // Rounding costs half a step; the range is wide enough for these weights.
            let off = ((number - zero) as f32 * scale - float).abs();
            assert!(off <= 0.51 * scale, "{format}: {number} for {float}");
        }
    }
    let bits = numbers(&ask("ubinary").await["data"][0]["embedding"]);
    assert_eq!(bits.len(), floats.len() / 8);
    for (place, float) in floats.iter().enumerate() {
        let bit = bits[place / 8] >> (7 - place % 8) & 1;
        assert_eq!(bit == 1, *float > 0.0);
    }
    let signed = numbers(&ask("binary").await["data"][0]["embedding"]);
    assert_eq!(
        signed,
        bits.iter().map(|byte| byte - 128).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn hidden_features_have_no_range_to_round_to() {
    let served = Served::start(&[]).await;
    let body = json!({"input": data_uri(&png(1)), "layer": "hidden", "encoding_format": "int8"});
    let reply = served.post("/v1/embeddings", &body).await;
    let (code, param) = reply.error(StatusCode::BAD_REQUEST);
    assert_eq!(
        (&*code, param.as_deref()),
        ("invalid_field", Some("encoding_format"))
    );
}

async fn accept(served: &Served, accept: &str, body: Value) -> Reply {
    let request = Request::post("/v1/embeddings")
        .header("content-type", "application/json")
        .header("accept", accept)
        .body(Body::from(body.to_string()));
    served.send(request.unwrap()).await
}

#[tokio::test]
async fn a_client_that_accepts_raw_bytes_gets_little_endian_floats() {
    let served = Served::start(&[]).await;
    let body = json!({"input": [data_uri(&png(1)), data_uri(&png(2))]});
    let json = embed(&served, body.clone()).await;
    let raw = accept(&served, "application/octet-stream", body.clone()).await;
    assert_eq!(raw.header("content-type"), Some("application/octet-stream"));
    assert_eq!(raw.header("x-kith-dimensions"), Some("16"));
    assert_eq!(raw.header("x-kith-model"), json.json()["model"].as_str());
    let model = served.get("/v1/models/kith").await.json();
    let hash = model["preprocessing_hash"].as_str().unwrap();
    let preprocessing = format!(
        "\"{hash}\";side=32;crop=centre_square;filter=antialiased_bilinear;mean=\"0.485 0.456 0.406\";\
         deviation=\"0.229 0.224 0.225\";background=white"
    );
    for answer in [&raw, &json] {
        let found = answer.header("x-kith-preprocessing");
        assert_eq!(found, Some(preprocessing.as_str()));
    }
    let floats: Vec<f32> = raw
        .body
        .chunks_exact(4)
        .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
        .collect();
    let both = [vector(&json.json(), 0), vector(&json.json(), 1)].concat();
    assert_eq!(floats, both);
    for other in [
        "*/*",
        "application/json, application/octet-stream",
        "text/html",
    ] {
        let reply = accept(&served, other, body.clone()).await;
        assert_eq!(
            reply.header("content-type"),
            Some("application/json"),
            "{other}"
        );
    }
}

#[tokio::test]
async fn an_answer_is_compressed_for_a_client_that_asks_for_it() {
    let served = Served::start(&[]).await;
    let images: Vec<String> = (0..8).map(|seed| data_uri(&png(seed))).collect();
    let body = json!({"input": images}).to_string();
    let ask = async |encoding: &'static str| {
        let request = Request::post("/v1/embeddings")
            .header("content-type", "application/json")
            .header("accept-encoding", encoding)
            .body(Body::from(body.clone()));
        served.send(request.unwrap()).await
    };
    let plain = ask("identity").await;
    assert_eq!(plain.header("content-encoding"), None);
    let mut gzip = Vec::new();
    let reply = ask("gzip").await;
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    flate2::read::GzDecoder::new(&reply.body[..])
        .read_to_end(&mut gzip)
        .unwrap();
    assert_eq!(gzip, plain.body);
    let reply = ask("zstd").await;
    assert_eq!(reply.header("content-encoding"), Some("zstd"));
    assert_eq!(zstd::decode_all(&reply.body[..]).unwrap(), plain.body);
    // A file stays as it is: its length and ranges count in its own bytes.
    let id = served.app.serving.live().unwrap().id;
    let path = format!("/v1/checkpoints/{id}/files/model.safetensors");
    let request = Request::get(path).header("accept-encoding", "gzip");
    let file = served.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(file.header("content-encoding"), None);
}

#[tokio::test]
async fn coheres_clients_get_the_vectors_by_type() {
    let served = Served::start(&[]).await;
    let images = [data_uri(&png(1)), data_uri(&png(2))];
    let plain = embed(&served, json!({"input": images})).await.json();
    let body = json!({
        "model": "kith", "input_type": "image", "images": images,
        "embedding_types": ["float", "ubinary", "base64", "float"], "texts": []
    });
    let answer = served.post("/v2/embed", &body).await.json();
    assert_eq!(answer["response_type"], "embeddings_by_type");
    let types: Vec<_> = answer["embeddings"].as_object().unwrap().keys().collect();
    assert_eq!(types, ["base64", "float", "ubinary"]);
    for (index, _) in images.iter().enumerate() {
        let floats: Vec<f32> =
            serde_json::from_value(answer["embeddings"]["float"][index].clone()).unwrap();
        assert_eq!(floats, vector(&plain, index));
        let bytes: Vec<u8> = floats
            .iter()
            .flat_map(|float| float.to_le_bytes())
            .collect();
        assert_eq!(
            answer["embeddings"]["base64"][index],
            STANDARD.encode(bytes)
        );
    }
    assert_eq!(answer["meta"]["billed_units"]["images"], 2);

    let content =
        |image: &str| json!({"content": [{"type": "image_url", "image_url": {"url": image}}]});
    let body = json!({"model": "kith", "inputs": images.each_ref().map(|image| content(image)), "output_dimension": 8});
    let answer = served.post("/v2/embed", &body).await.json();
    assert_eq!(
        answer["embeddings"]["float"][1].as_array().unwrap().len(),
        8
    );
}

#[tokio::test]
async fn what_cohere_embeds_besides_images_is_refused_by_name() {
    let served = Served::start(&[]).await;
    for (body, code, param) in [
        (
            json!({"texts": ["a"], "model": "kith"}),
            "invalid_field",
            "texts",
        ),
        (json!({"model": "kith"}), "no_images", "input"),
        (
            json!({"images": ["http://a.b/c.png"]}),
            "url_not_supported",
            "images[0]",
        ),
        (
            json!({"inputs": [{"content": []}]}),
            "invalid_field",
            "inputs[0].content",
        ),
        (
            json!({"images": [data_uri(&png(1))], "embedding_types": ["float", "int4"]}),
            "invalid_field",
            "embedding_types[1]",
        ),
    ] {
        let reply = served.post("/v2/embed", &body).await;
        let found = reply.error(StatusCode::BAD_REQUEST);
        assert_eq!(found, (code.to_owned(), Some(param.to_owned())), "{body}");
    }
}

#[tokio::test]
async fn equal_images_of_a_request_and_of_later_ones_have_equal_vectors_cached_or_not() {
    for sets in [&["serving.cache_mb=0"][..], &[]] {
        let served = Served::start(sets).await;
        let [a, b] = [data_uri(&png(1)), data_uri(&png(2))];
        let body = json!({"input": [a, b, a, a]});
        for _ in 0..2 {
            let answer = embed(&served, body.clone()).await.json();
            let vectors: Vec<_> = (0..4).map(|index| vector(&answer, index)).collect();
            assert_eq!(vectors[0], vectors[2]);
            assert_eq!(vectors[0], vectors[3]);
            assert_ne!(vectors[0], vectors[1]);
        }
        // Another checkpoint's vectors are others.
        let other = served.write_checkpoint(7).await;
        let pinned = json!({"input": a, "model": format!("kith@{other}")});
        let own = vector(&embed(&served, json!({"input": a})).await.json(), 0);
        assert_ne!(vector(&embed(&served, pinned).await.json(), 0), own);
    }
}

/// JSON Schema's `integer` has no other meaning: a client that keeps all numbers as floats may send `4.0`.
#[tokio::test]
async fn a_whole_number_may_be_written_as_a_float() {
    let served = Served::start(&[]).await;
    let uri = data_uri(&png(1));
    let first = vector(
        &embed(&served, json!({"input": uri, "dimensions": 4}))
            .await
            .json(),
        0,
    );
    assert_eq!(first.len(), 4);
    let float = embed(&served, json!({"input": uri, "dimensions": 4.0})).await;
    assert_eq!(vector(&float.json(), 0), first);
    let body =
        json!({"images": [uri], "output_dimension": 4.0, "max_tokens": 9.0, "priority": 3.0});
    let cohere = served.post("/v2/embed", &body).await.json();
    assert_eq!(
        cohere["embeddings"]["float"][0].as_array().unwrap().len(),
        4
    );
    let query = served
        .post_as("/v1/embeddings?dimensions=4.0", "image/png", png(1))
        .await;
    assert_eq!(vector(&query.json(), 0), first);
    for path in ["/v1/pairs?limit=2.0", "/v1/training/metrics?since=1.0"] {
        assert_eq!(served.get(path).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_number_that_is_not_whole_or_does_not_fit_is_refused_with_its_field() {
    let served = Served::start(&[]).await;
    let uri = data_uri(&png(1));
    for number in [
        json!(4.5),
        json!(-1),
        json!(-4.0),
        json!(1e30),
        json!("4"),
        json!(true),
    ] {
        let body = json!({"input": uri, "dimensions": number});
        let reply = served.post("/v1/embeddings", &body).await;
        let (code, param) = reply.error(StatusCode::BAD_REQUEST);
        assert_eq!(
            (code.as_str(), param.as_deref()),
            ("invalid_field", Some("dimensions"))
        );
        assert!(
            reply.text().contains("a whole number, 0 or above"),
            "{}",
            reply.text()
        );
    }
    for number in ["4.5", "-1", "1e30", "NaN", "inf", "", "four"] {
        let path = format!("/v1/embeddings?dimensions={number}");
        let reply = served.post_as(&path, "image/png", png(1)).await;
        let (code, param) = reply.error(StatusCode::BAD_REQUEST);
        assert_eq!(
            (code.as_str(), param.as_deref()),
            ("invalid_parameter", Some("dimensions"))
        );
        assert!(
            reply.text().contains("a whole number, 0 or above"),
            "{}",
            reply.text()
        );
    }
}
