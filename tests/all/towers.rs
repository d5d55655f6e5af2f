//! An encoder for each side of pairs, from training to answers: which side a request is on, checkpoints, files in and out.

use std::path::Path;

use axum::http::StatusCode;
use kith::{app::App, checkpoint::Snapshot};
use kith_mcmc::{Side, SlotKey};
use kith_nn::{NamedArray, POSITIVE_PREFIX, arrays_of_side};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    lab::{Lab, config, until},
    support::{Served, data_uri, distance, png, settings, vector},
};

const TWO: &str = "encoder.towers=2";

/// A server whose positives' encoder differs from its anchors'.
async fn apart() -> Served {
    let served = Served::start(&[TWO]).await;
    let turn = |snapshot: &mut Snapshot| {
        let own = snapshot.model.iter_mut();
        let own = own.filter(|array| array.name == format!("{POSITIVE_PREFIX}projection.weight"));
        own.for_each(|array| array.data.reverse());
    };
    let id = served.write_changed(turn).await;
    let promoted = served
        .post(&format!("/v1/checkpoints/{id}/promote"), &json!({}))
        .await;
    assert_eq!(promoted.status, StatusCode::OK, "{}", promoted.text());
    served
}

async fn embed(served: &Served, input_type: &str, image: u32) -> Vec<f32> {
    let asked = json!({"input": data_uri(&png(image)), "input_type": input_type});
    let reply = served.post("/v1/embeddings", &asked).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    vector(&reply.json(), 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_has_vectors_of_its_own_under_all_its_names_and_from_the_cache_too() {
    let served = apart().await;
    let (anchor, positive) = (
        embed(&served, "anchor", 1).await,
        embed(&served, "positive", 1).await,
    );
    assert!(distance(&anchor, &positive) > 1e-3);
    for (names, expected) in [
        (["query", "search_query", "image_query", "anchor"], &anchor),
        (
            ["document", "search_document", "positive", "document"],
            &positive,
        ),
    ] {
        for name in names {
            assert_eq!(&embed(&served, name, 1).await, expected, "{name}");
        }
    }
    // Requests of both sides at once: no pass mixes them.
    let sides = ["anchor", "positive"].into_iter().cycle().take(12);
    let asked = sides.zip(2..).map(|(side, image)| {
        let served = &served;
        async move { (embed(served, side, image).await, side, image) }
    });
    for (found, side, image) in futures::future::join_all(asked).await {
        assert_eq!(found, embed(&served, side, image).await, "{side} {image}");
    }
    let model = served.get("/v1/models/kith").await.json();
    assert_eq!(model["towers"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_names_no_side_is_refused_with_the_remedy_where_there_are_two() {
    let served = Served::start(&[TWO]).await;
    let image = data_uri(&png(1));
    for (path, mut body) in [
        ("/v1/embeddings", json!({"input": image})),
        (
            "/v2/embed",
            json!({"images": [image], "embedding_types": ["float"]}),
        ),
    ] {
        for (input_type, code) in [
            (Value::Null, "missing_field"),
            (json!("image"), "invalid_field"),
            (json!("clustering"), "invalid_field"),
        ] {
            body["input_type"] = input_type;
            let reply = served.post(path, &body).await;
            let refused = (code.to_owned(), Some("input_type".to_owned()));
            assert_eq!(reply.error(StatusCode::BAD_REQUEST), refused, "{path}");
            assert!(reply.text().contains("positive"), "{}", reply.text());
        }
        body["input_type"] = json!("search_query");
        assert_eq!(
            served.post(path, &body).await.status,
            StatusCode::OK,
            "{path}"
        );
    }
    let raw = "/v1/embeddings?input_type=document";
    let reply = served.post_as(raw, "image/png", png(1)).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());

    let one = Served::start(&[]).await;
    let answers = [
        Value::Null,
        json!("query"),
        json!("positive"),
        json!("image"),
    ];
    let mut found = Vec::new();
    for input_type in answers {
        let body = json!({"input": image, "input_type": input_type});
        found.push(vector(&one.post("/v1/embeddings", &body).await.json(), 0));
    }
    assert!(found.iter().all(|vector| *vector == found[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_towers_train_their_chains_stand_on_the_other_side_and_candidates_are_judged() {
    let lab = Lab::new(0.3).await;
    lab.post(0..24).await;
    let trainer = lab.start(config(&[TWO])).await;
    until(&trainer, |status| status.step >= 12).await;
    let row = lab.take(&trainer, None).await;
    let judged = crate::lab::poll(async || {
        let row = lab.db.checkpoint(row.id).await.unwrap().unwrap();
        row.evaluation
    });
    let judged = judged.await.expect("it is judged");
    assert!(serde_json::to_value(&judged).unwrap()["pairs"].as_u64() > Some(0));
    trainer.stop().await.unwrap();

    let (_, newest) = lab.checkpoints.newest().await.unwrap().unwrap();
    assert_eq!(newest.encoder.towers, 2);
    let [anchor, positive] =
        Side::BOTH.map(|side| arrays_of_side(&newest.encoder, &newest.model, side));
    assert_ne!(anchor, positive);
    let chains = newest.chains.anchor.iter().zip(&newest.chains.negative);
    let mut sides = [0; 2];
    for (anchor, negative) in
        chains.map(|(a, b)| (SlotKey::from_packed(*a), SlotKey::from_packed(*b)))
    {
        assert_ne!(anchor.side(), negative.side());
        sides[anchor.side().index()] += 1;
    }
    assert!(sides[0] > 0 && sides[1] > 0, "{sides:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_another_number_of_towers_is_refused_with_both_numbers() {
    let folder = tempfile::tempdir().unwrap();
    for (first, then) in [("encoder.towers=1", TWO), (TWO, "encoder.towers=1")] {
        let data = TempDir::new_in(folder.path()).unwrap();
        let app = App::start(settings(&data, &[first])).await.unwrap();
        app.stop().await.unwrap();
        let refused = App::start(settings(&data, &[then])).await.err().unwrap();
        let refused = refused.to_string();
        assert!(
            refused.contains("towers 1") && refused.contains("towers 2"),
            "{refused}"
        );
    }
}

/// Runs `kith checkpoint export` of the live checkpoint.
fn export(served: &Served, format: &str, out: &Path) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_kith"))
        .args(["checkpoint", "export", "live", "--format", format, "--out"])
        .arg(out)
        .arg("--data-dir")
        .arg(&served.app.settings.storage.data_dir)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
}

/// The arrays of the live checkpoint of a folder that starts with these settings, by name.
async fn first_arrays(sets: &[&str]) -> Vec<NamedArray> {
    let served = Served::start(sets).await;
    live_arrays(&served.app).await
}

async fn live_arrays(app: &App) -> Vec<NamedArray> {
    let id = app.db.live_checkpoint().await.unwrap().unwrap().id;
    let mut arrays = app.checkpoints.load_model(id).await.unwrap().arrays;
    arrays.sort_by(|a, b| a.name.cmp(&b.name));
    arrays
}

#[tokio::test(flavor = "multi_thread")]
async fn both_towers_go_out_as_files_and_come_in_from_one() {
    let served = apart().await;
    let out = tempfile::tempdir().unwrap();
    let place = |name: &str| out.path().join(name);
    for format in ["torchvision", "onnx", "kith"] {
        export(&served, format, &place(format));
        let readme = std::fs::read_to_string(place(format).join("README.md")).unwrap();
        assert!(readme.contains("two networks"), "{format}");
    }
    for side in ["anchor", "positive"] {
        assert!(place("onnx").join(side).join("model.onnx").is_file());
        assert!(
            place("torchvision")
                .join(side)
                .join("head.safetensors")
                .is_file()
        );
    }

    // kith's own file brings both back; a file of one network gives it to both.
    let own = format!(
        "encoder.start={}",
        place("kith").join("model.safetensors").display()
    );
    assert_eq!(
        first_arrays(&[TWO, &own]).await,
        live_arrays(&served.app).await
    );
    let network = place("torchvision/positive/resnet18.safetensors");
    let one = format!("encoder.start={}", network.display());
    let arrays = first_arrays(&[TWO, &one, "encoder.dim=64"]).await;
    let (positive, anchor): (Vec<_>, Vec<_>) = arrays
        .into_iter()
        .partition(|array| array.name.starts_with(POSITIVE_PREFIX));
    let renamed: Vec<NamedArray> = positive
        .into_iter()
        .map(|array| NamedArray {
            name: array.name[POSITIVE_PREFIX.len()..].to_owned(),
            ..array
        })
        .collect();
    assert_eq!(renamed, anchor);

    // One encoder for both sides cannot be two.
    let folder = tempfile::tempdir().unwrap();
    let refused = App::start(settings(&folder, &[&own])).await.err().unwrap();
    let refused = refused.to_string();
    assert!(refused.contains("encoder.towers"), "{refused}");
}
