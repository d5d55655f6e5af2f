//! `/v1/search`: the nearest stored images, under one checkpoint, through promotions, restarts and erasures.

use std::time::Duration;

use axum::http::StatusCode;
use kith::types::CheckpointId;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::support::{Served, data_uri, png, vector};

/// Longer than anything here takes on a busy machine.
pub(super) const CEILING: Duration = Duration::from_secs(120);

pub(super) const ENABLED: &[&str] = &["search.enabled=true", "search.background_share=1"];

/// Stores images and gives their ids.
pub(super) async fn store(served: &Served, seeds: impl IntoIterator<Item = u32>) -> Vec<String> {
    let mut ids = Vec::new();
    for seed in seeds {
        let reply = served.post_as("/v1/images", "image/png", png(seed)).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text());
        ids.push(reply.json()["id"].as_str().unwrap().to_owned());
    }
    ids
}

async fn search(served: &Served, query: Value) -> Value {
    let reply = served.post("/v1/search", &query).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    reply.json()
}

/// The space of a checkpoint, once `ready` accepts it.
pub(super) async fn space(
    served: &Served,
    id: CheckpointId,
    ready: impl Fn(&Value) -> bool,
) -> Value {
    let look = async {
        loop {
            let state = served.get("/v1/search").await.json();
            let mut spaces = state["data"].as_array().unwrap().iter();
            let own = spaces.find(|space| space["checkpoint"] == id.to_string());
            if let Some(own) = own.filter(|own| ready(own)) {
                return own.clone();
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(CEILING, look).await.expect("the space is never so")
}

pub(super) async fn indexed(served: &Served, id: CheckpointId) -> Value {
    space(served, id, |space| space["indexed_share"] == 1.0).await
}

pub(super) fn live(served: &Served) -> CheckpointId {
    served.app.serving.live().unwrap().id
}

/// The embedding of an image under a checkpoint, by the interface.
async fn embedding(served: &Served, seed: u32, id: CheckpointId) -> Vec<f32> {
    let document = json!({"model": format!("kith@{id}"), "input": data_uri(&png(seed))});
    let reply = served.post("/v1/embeddings", &document).await;
    vector(&reply.json(), 0)
}

/// Asserts that `answer` lists the `k` images of `seeds` nearest to `query` under `id`, with their cosines.
async fn check(served: &Served, answer: &Value, query: &[f32], seeds: &[u32], id: CheckpointId) {
    assert_eq!(answer["model"], format!("kith@{id}"));
    let mut expected = Vec::new();
    for seed in seeds {
        let own = embedding(served, *seed, id).await;
        let cosine: f32 = own.iter().zip(query).map(|(a, b)| a * b).sum();
        let image = kith::types::Sha256::digest(&png(*seed)).to_string();
        expected.push((cosine, image));
    }
    expected.sort_by(|a, b| b.0.total_cmp(&a.0));
    let found = answer["data"].as_array().unwrap();
    assert!(!found.is_empty() && found.len() <= expected.len());
    for (found, (cosine, image)) in found.iter().zip(&expected) {
        let off = (found["score"].as_f64().unwrap() - f64::from(*cosine)).abs();
        assert!(off < 1e-5, "{found} is not {cosine} {image}");
    }
    assert_eq!(found[0]["id"], expected[0].1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_an_id_and_a_vector_find_the_nearest_by_cosine() {
    let served = Served::start(ENABLED).await;
    let seeds: Vec<u32> = (0..30).collect();
    let ids = store(&served, seeds.clone()).await;
    let id = live(&served);
    indexed(&served, id).await;
    let query = embedding(&served, 7, id).await;

    let by_image = search(&served, json!({"image": data_uri(&png(7))})).await;
    check(&served, &by_image, &query, &seeds, id).await;
    let found = by_image["data"].as_array().unwrap();
    assert_eq!(found.len(), 10, "unless k says otherwise");
    assert_eq!(found[0]["id"], ids[7]);
    assert_eq!(
        (&by_image["indexed_share"], &by_image["next"]),
        (&json!(1.0), &Value::Null)
    );

    // The length of a vector does not matter.
    let longer: Vec<f32> = query.iter().map(|value| value * 3.0).collect();
    let by_vector = search(&served, json!({"vector": longer, "k": 30})).await;
    assert_eq!(by_vector["data"].as_array().unwrap().len(), 30);
    check(&served, &by_vector, &query, &seeds, id).await;

    let by_id = search(&served, json!({"id": ids[7], "k": 30})).await;
    let others: Vec<u32> = seeds.into_iter().filter(|seed| *seed != 7).collect();
    assert_eq!(by_id["data"].as_array().unwrap().len(), 29);
    check(&served, &by_id, &query, &others, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_narrows_the_search_to_the_images_of_its_pairs() {
    let served = Served::start(ENABLED).await;
    let mut pairs = Vec::new();
    for (at, group) in ["a", "b", "a"].into_iter().enumerate() {
        let image = |seed: usize| json!({"image": data_uri(&png(seed as u32))});
        pairs.push(json!({"anchor": image(2 * at), "positive": image(2 * at + 1), "group": group}));
    }
    let posted = served.post("/v1/pairs", &json!({"pairs": pairs})).await;
    assert_eq!(posted.status, StatusCode::CREATED, "{}", posted.text());
    store(&served, 6..9).await;
    let id = live(&served);
    indexed(&served, id).await;
    let query = embedding(&served, 2, id).await;
    let asked = |group: &str| json!({"image": data_uri(&png(2)), "group": group});
    let found = search(&served, asked("a")).await;
    check(&served, &found, &query, &[0, 1, 4, 5], id).await;
    let found = found["data"].as_array().unwrap();
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|image| image["group"] == "a"));
    let nothing = search(&served, asked("nobody's")).await;
    assert_eq!(nothing["data"], json!([]));
    let all = search(&served, json!({"image": data_uri(&png(2))})).await;
    let groups = all["data"].as_array().unwrap().iter();
    let alone = groups.filter(|image| image["group"].is_null()).count();
    assert_eq!(alone, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_promotion_every_answer_is_wholly_of_the_old_or_of_the_complete_new_checkpoint() {
    let served = Served::start(ENABLED).await;
    let seeds: Vec<u32> = (0..40).collect();
    store(&served, seeds.clone()).await;
    let old = live(&served);
    indexed(&served, old).await;
    let new = served.write_checkpoint(7).await;
    let queries = [
        embedding(&served, 3, old).await,
        embedding(&served, 3, new).await,
    ];
    let path = format!("/v1/checkpoints/{new}/promote");
    let promoted = served.post(&path, &json!({})).await;
    assert_eq!(promoted.status, StatusCode::OK, "{}", promoted.text());
    assert_eq!(live(&served), new);
    let moved = async {
        loop {
            let answer = search(&served, json!({"image": data_uri(&png(3)), "k": 40})).await;
            assert_eq!(answer["indexed_share"], 1.0);
            if answer["model"] == format!("kith@{old}") {
                check(&served, &answer, &queries[0], &seeds, old).await;
                assert_eq!(answer["next"]["model"], format!("kith@{new}"));
            } else {
                check(&served, &answer, &queries[1], &seeds, new).await;
                assert_eq!(answer["next"], Value::Null);
                return;
            }
        }
    };
    timeout(CEILING, moved).await.unwrap();
    // A rollback to what is still embedded answers at once.
    let path = format!("/v1/checkpoints/{old}/promote");
    served.post(&path, &json!({})).await;
    space(&served, old, |space| space["role"] == "answering").await;
    let answer = search(&served, json!({"image": data_uri(&png(3))})).await;
    check(&served, &answer, &queries[0], &seeds, old).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_checkpoint_can_be_searched_by_name_and_is_forgotten_with_its_deletion() {
    let served = Served::start(ENABLED).await;
    let seeds: Vec<u32> = (0..12).collect();
    store(&served, seeds.clone()).await;
    let other = served.write_checkpoint(9).await;
    let query = json!({"image": data_uri(&png(3)), "checkpoint": other.to_string()});
    let first = search(&served, query.clone()).await;
    assert_eq!(first["model"], format!("kith@{other}"));
    indexed(&served, other).await;
    let vector = embedding(&served, 3, other).await;
    check(
        &served,
        &search(&served, query).await,
        &vector,
        &seeds,
        other,
    )
    .await;
    // Its own vectors find the same; under the live checkpoint they would not.
    let by_vector = json!({"vector": vector, "checkpoint": other.to_string()});
    check(
        &served,
        &search(&served, by_vector).await,
        &vector,
        &seeds,
        other,
    )
    .await;
    let deleted = served.delete(&format!("/v1/checkpoints/{other}")).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT, "{}", deleted.text());
    let spaces = served.get("/v1/search").await.json();
    let mut spaces = spaces["data"].as_array().unwrap().iter();
    assert!(spaces.all(|space| space["checkpoint"] != other.to_string()));
    assert_eq!(served.app.db.vector_spaces(false).await.unwrap().len(), 1);
    let gone = json!({"id": "0".repeat(64), "checkpoint": other.to_string()});
    let gone = served.post("/v1/search", &gone).await;
    let (code, param) = gone.error(StatusCode::NOT_FOUND);
    assert_eq!(
        (&*code, param.as_deref()),
        ("unknown_checkpoint", Some("checkpoint"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_image_is_never_found_and_a_restart_embeds_nothing_again() {
    let served = Served::start(ENABLED).await;
    let ids = store(&served, 0..12).await;
    let id = live(&served);
    indexed(&served, id).await;
    let deleted = served.delete(&format!("/v1/images/{}", ids[3])).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    let query = json!({"image": data_uri(&png(3)), "k": 12});
    let found = async |served: &Served| {
        let answer = search(served, query.clone()).await;
        let found = answer["data"].as_array().unwrap().iter();
        let found: Vec<String> = found
            .map(|image| image["id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(found.len(), 11);
        assert!(!found.contains(&ids[3]));
        found
    };
    let before = found(&served).await;
    assert_eq!(indexed(&served, id).await["images"], 11);
    let served = served.restart(ENABLED).await;
    assert_eq!(found(&served).await, before);
    assert_eq!(indexed(&served, id).await["images"], 11);
    let metrics = served.get("/metrics").await.text();
    assert!(
        metrics.contains("\nkith_search_embedded_images_total 0\n"),
        "{metrics}"
    );
    // What comes later is found as well.
    store(&served, 3..4).await;
    space(&served, id, |space| space["images"] == 12).await;
    let again = search(&served, query.clone()).await;
    assert_eq!(again["data"][0]["id"], ids[3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_two_towers_a_query_is_an_anchor_and_what_is_found_are_positives() {
    let sets = [ENABLED, &["encoder.towers=2"]].concat();
    let served = Served::start(&sets).await;
    let ids = store(&served, 0..8).await;
    indexed(&served, live(&served)).await;
    let embed = async |seed: u32, side: &str| {
        let document = json!({"input": data_uri(&png(seed)), "input_type": side});
        vector(&served.post("/v1/embeddings", &document).await.json(), 0)
    };
    let query = embed(3, "anchor").await;
    let mut expected = Vec::new();
    for (seed, id) in (0..8).zip(&ids) {
        let found = embed(seed, "positive").await;
        let cosine: f32 = found.iter().zip(&query).map(|(a, b)| a * b).sum();
        expected.push((cosine, id.as_str()));
    }
    expected.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (question, left_out) in [
        (json!({"image": data_uri(&png(3))}), None),
        (json!({"vector": query}), None),
        (json!({"id": ids[3]}), Some(ids[3].as_str())),
    ] {
        let answer = search(&served, question).await;
        let found = answer["data"].as_array().unwrap();
        let expected = expected.iter().filter(|one| Some(one.1) != left_out);
        assert_eq!(found.len(), expected.clone().count());
        for (found, (cosine, _)) in found.iter().zip(expected) {
            let off = (found["score"].as_f64().unwrap() - f64::from(*cosine)).abs();
            assert!(off < 1e-5, "{found} is not {cosine}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_set_is_searched_through_a_graph() {
    let sets = [ENABLED, &["search.max_scanned=20"]].concat();
    let served = Served::start(&sets).await;
    let seeds: Vec<u32> = (0..40).collect();
    store(&served, seeds.clone()).await;
    let id = live(&served);
    space(&served, id, |space| {
        space["indexed_share"] == 1.0 && space["graph_images"].as_u64() > Some(20)
    })
    .await;
    let query = embedding(&served, 5, id).await;
    let answer = search(&served, json!({"image": data_uri(&png(5)), "k": 8})).await;
    assert_eq!(answer["data"].as_array().unwrap().len(), 8);
    check(&served, &answer, &query, &seeds, id).await;
}

/// Asserts that a search is refused with this status, code and field.
async fn refused(served: &Served, query: Value, status: u16, code: &str, param: Option<&str>) {
    let reply = served.post("/v1/search", &query).await;
    let (found, field) = reply.error(StatusCode::from_u16(status).unwrap());
    assert_eq!((&*found, field.as_deref()), (code, param), "{query}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_makes_no_sense_is_refused_with_its_field() {
    let served = Served::start(ENABLED).await;
    let image = data_uri(&png(1));
    let bad = async |query: Value, code: &str, param: &str| {
        let param = Some(param).filter(|param| !param.is_empty());
        refused(&served, query, 400, code, param).await;
    };
    bad(json!({}), "invalid_query", "").await;
    bad(json!({"image": image, "id": "0"}), "invalid_query", "").await;
    bad(json!({"image": image, "k": 0}), "invalid_k", "k").await;
    bad(json!({"image": image, "k": 1001}), "invalid_k", "k").await;
    bad(json!({"image": image, "near": 1}), "invalid_field", "near").await;
    bad(json!({"id": "7"}), "invalid_id", "id").await;
    bad(json!({"vector": [1.0]}), "invalid_vector", "vector").await;
    bad(json!({"vector": vec![0.0; 16]}), "invalid_vector", "vector").await;
    bad(json!({"vector": "a"}), "invalid_field", "vector").await;
    for text in ["!", "aaaa"] {
        bad(json!({"image": text}), "image_undecodable", "image").await;
    }
    let url = "https://example.org/a.png";
    bad(json!({"image": url}), "url_not_supported", "image").await;
    let newest = json!({"image": image, "checkpoint": "newest"});
    bad(newest, "invalid_id", "checkpoint").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_404_and_leaves_nothing_behind() {
    let served = Served::start(ENABLED).await;
    let nobody = json!({"id": "0".repeat(64)});
    refused(&served, nobody, 404, "unknown_image", Some("id")).await;
    let nowhere = CheckpointId::now().to_string();
    let query = json!({"image": data_uri(&png(1)), "checkpoint": nowhere});
    let field = Some("checkpoint");
    refused(&served, query, 404, "unknown_checkpoint", field).await;
    let spaces = served.app.db.vector_spaces(false).await.unwrap();
    assert_eq!(spaces.len(), 1, "that of the live checkpoint");
}

#[tokio::test]
async fn a_server_that_does_not_search_says_so() {
    let served = Served::start(&[]).await;
    let refused = served.post("/v1/search", &json!({"vector": [1.0]})).await;
    assert_eq!(refused.error(StatusCode::CONFLICT).0, "search_disabled");
    let state = served.get("/v1/search").await.json();
    assert_eq!(
        state,
        json!({"enabled": false, "stored_images": 0, "data": []})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_beyond_the_bound_are_refused_at_once() {
    let sets = [ENABLED, &["search.queue_requests=1"]].concat();
    let served = Served::start(&sets).await;
    store(&served, 0..2).await;
    indexed(&served, live(&served)).await;
    let ask = || search_status(&served);
    let statuses = futures::future::join_all((0..32).map(|_| ask())).await;
    assert!(statuses.contains(&StatusCode::OK), "{statuses:?}");
    assert!(
        statuses.contains(&StatusCode::TOO_MANY_REQUESTS),
        "{statuses:?}"
    );
    // All places are free again.
    assert_eq!(ask().await, StatusCode::OK);
}

async fn search_status(served: &Served) -> StatusCode {
    let query = json!({"image": data_uri(&png(1))});
    served.post("/v1/search", &query).await.status
}
