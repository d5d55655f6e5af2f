//! The weights of a first checkpoint: from a file, from the program, or random; and weights that are imported later.

use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use bytes::Bytes;
use kith::{
    app::{self, App},
    blobs::BlobKey,
    checkpoint::{CheckpointError, Label, MANIFEST, Manifest, OriginKind},
    types::CheckpointId,
};
use kith_nn::{Device, Encoder, EncoderConfig};
use kith_weights::{TorchvisionFiles, Weights};
use tempfile::TempDir;

use crate::lab::{Lab, config, poll};
use crate::support::{Served, data_uri, distance, png, settings, start_and_stop, vector};
use crate::train::train_to_the_end;

/// A file in torchvision's layout with random weights of width 8.
pub(crate) fn torchvision_file(folder: &TempDir) -> PathBuf {
    let config = EncoderConfig {
        width: 8,
        side: 32,
        dim: 16,
        towers: 1,
    };
    let encoder = Encoder::fresh(&config, 7, &Device::cpu()).unwrap();
    let files = TorchvisionFiles::new(&config, &encoder.to_arrays().unwrap()).unwrap();
    let path = folder.path().join("resnet18.safetensors");
    std::fs::write(&path, files.network).unwrap();
    path
}

pub(crate) fn from_file(path: &Path) -> String {
    format!("encoder.start={}", path.display())
}

async fn manifest(app: &App, id: CheckpointId) -> Manifest {
    app.checkpoints.manifest(id).await.unwrap()
}

async fn live(app: &App) -> CheckpointId {
    app.db.live_checkpoint().await.unwrap().unwrap().id
}

/// The hidden features of a file's network for an image, scaled to unit length.
fn features(path: &Path, image: &[u8]) -> Vec<f32> {
    let config = EncoderConfig {
        width: 8,
        side: 32,
        dim: 64,
        towers: 1,
    };
    let weights = Weights::read(path).unwrap();
    let arrays = weights.arrays(&weights.projection(64));
    let encoder = Encoder::from_arrays(&config, &arrays, &Device::cpu()).unwrap();
    let limits = kith_pixels::Limits {
        max_bytes: 1 << 20,
        max_pixels: 1 << 20,
        decode_memory_mb: 64,
    };
    let image = kith_pixels::decode(image, &limits).unwrap();
    let found = encoder.forward(&kith_pixels::fit(&image, 32)).unwrap();
    let hidden = found.hidden.data;
    let length = hidden.iter().map(|x| x * x).sum::<f32>().sqrt();
    hidden.iter().map(|x| x / length).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_from_a_file_serves_its_features_and_says_where_they_come_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = torchvision_file(&folder);
    let served = Served::start(&[&from_file(&path), "encoder.dim=64"]).await;
    let image = png(3);
    let asked = serde_json::json!({"model": "kith", "input": [data_uri(&image)]});
    let answer = served.post("/v1/embeddings", &asked).await.json();
    assert!(distance(&vector(&answer, 0), &features(&path, &image)) < 1e-5);

    let model = served.get("/v1/models/kith").await.json();
    let origin = &model["origin"];
    assert_eq!(origin["kind"], "file");
    assert_eq!(origin["file"], "resnet18.safetensors");
    assert_eq!(origin["projection"], "the features themselves");
    assert_eq!(
        origin["dropped"],
        serde_json::json!(["fc.bias", "fc.weight"])
    );
    assert_eq!(origin["sha256"].as_str().unwrap().len(), 64);
    let preprocessing = &model["preprocessing"];
    assert_eq!(preprocessing["side"], 32);
    assert_eq!(preprocessing["background"], "white");
    let written = manifest(&served.app, live(&served.app).await).await;
    let hash = written.preprocessing_hash.unwrap();
    assert_eq!(
        (hash.len(), &model["preprocessing_hash"]),
        (12, &serde_json::json!(hash))
    );

    // Where there is a checkpoint, the file is not asked for any more; what is trained from it still says where it began.
    std::fs::remove_file(&path).unwrap();
    let served = served.restart(&[&from_file(&path), "encoder.dim=64"]).await;
    let (checkpoints, parent) = (&served.app.checkpoints, live(&served.app).await);
    let trained = Label::new(Some(parent));
    checkpoints.begin(&trained, 0).await.unwrap();
    let snapshot = checkpoints.load(parent).await.unwrap();
    checkpoints.write(&trained, snapshot, None).await.unwrap();
    let origin = manifest(&served.app, trained.id).await.origin.unwrap();
    assert_eq!(origin.kind, OriginKind::File);
}

#[tokio::test(flavor = "multi_thread")]
async fn random_weights_begin_with_a_stem_that_whitens_and_training_leaves_it() {
    for (width, whitens) in [("encoder.width=16", true), ("encoder.width=8", false)] {
        let lab = Lab::new(0.0).await;
        lab.post(0..11).await;
        let until = config(&[width, "training.max_steps=3"]);
        let encoder = until.encoder.clone();
        let trained = train_to_the_end(&lab, until).await;
        assert_eq!(trained.trainer.step, 3);
        let served = Encoder::from_arrays(&encoder, &trained.model, &Device::cpu()).unwrap();
        assert_eq!(served.has_whitening_stem(), whitens, "{width}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_used_is_refused_by_its_name_and_nothing_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = torchvision_file(&folder);
    for (sets, why) in [
        (vec![from_file(&folder.path().join("none.pth"))], "none.pth"),
        (
            vec![from_file(&path), "encoder.width=16".to_owned()],
            "encoder.width is 16",
        ),
    ] {
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let refused = App::start(settings(&folder, &sets)).await.err().unwrap();
        assert!(refused.to_string().contains(why), "{refused}");
    }
    // A later start with another choice begins anew.
    start_and_stop(&folder).await;
}

/// The file again with each weight of a convolution `factor` times as large.
fn scale(path: &Path, factor: f32) {
    let bytes = std::fs::read(path).unwrap();
    let mut arrays = kith_nn::arrays_from_bytes(&bytes).unwrap();
    let kernels = arrays.iter_mut().filter(|array| array.shape.len() == 4);
    kernels.for_each(|array| array.data.iter_mut().for_each(|value| *value *= factor));
    std::fs::write(path, kith_nn::arrays_to_bytes(&arrays).unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn finite_weights_whose_features_are_not_are_refused_and_leave_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = torchvision_file(&folder);
    scale(&path, 1e20);
    let refused = App::start(settings(&folder, &[&from_file(&path)])).await;
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("features"), "{refused}");
    assert!(refused.contains("resnet18.safetensors"), "{refused}");
    // A later start without the file finds no checkpoint in its way.
    start_and_stop(&folder).await;
    let refused = app::import_weights(&settings(&folder, &[]), &path).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("features"), "{refused}");
    start_and_stop(&folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_fails_leaves_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder, &[]);
    let missing = folder.path().join("none.pth");
    let refused = app::import_weights(&settings, &missing).await.unwrap_err();
    assert!(refused.to_string().contains("none.pth"), "{refused}");
    assert!(!settings.storage.data_dir.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_takes_the_place_of_lost_checkpoints_only_where_loss_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let path = torchvision_file(&folder);
    start_and_stop(&folder).await;
    let data = settings(&folder, &[]).storage.data_dir;
    for entry in std::fs::read_dir(data.join("blobs/checkpoints")).unwrap() {
        std::fs::remove_file(entry.unwrap().path().join("model.safetensors")).unwrap();
    }
    let refused = app::import_weights(&settings(&folder, &[]), &path).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("storage.accept_loss"), "{refused}");
    let accepted = settings(&folder, &["storage.accept_loss=true"]);
    let (id, _) = app::import_weights(&accepted, &path).await.unwrap();
    let app = App::start(settings(&folder, &[])).await.unwrap();
    assert_eq!(live(&app).await, id);
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_starts_training_that_gave_up_and_says_at_which_step_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let path = torchvision_file(&folder);
    let app = App::start(settings(&folder, &[])).await.unwrap();
    let first = live(&app).await;
    let mut snapshot = app.checkpoints.load(first).await.unwrap();
    snapshot.trainer.step = 70;
    let later = Label::new(Some(first));
    app.checkpoints.begin(&later, 70).await.unwrap();
    app.checkpoints.write(&later, snapshot, None).await.unwrap();
    app.db.set_training_given_up(Some("lost")).await.unwrap();
    app.stop().await.unwrap();
    let (id, origin) = app::import_weights(&settings(&folder, &[]), &path)
        .await
        .unwrap();
    assert_eq!(origin.step, 70);
    let app = App::start(settings(&folder, &[])).await.unwrap();
    let choices = app.db.training_choices().await.unwrap();
    assert_eq!(choices.given_up, None);
    assert_eq!(manifest(&app, id).await.origin.unwrap().step, 70);
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_starter_encoder_begins_with_its_own_projection_where_the_program_has_it() {
    let sets = [
        "encoder.start=starter",
        "encoder.width=64",
        "encoder.dim=128",
    ];
    let served = Served::start(&sets).await;
    let origin = manifest(&served.app, live(&served.app).await).await.origin;
    let origin = origin.unwrap();
    if kith_weights::starter().unwrap().is_none() {
        assert_eq!(origin.kind, OriginKind::Fresh);
        return;
    }
    assert_eq!(origin.kind, OriginKind::Starter);
    let projection = origin.projection.unwrap();
    assert_eq!(projection, "the file's own projection");
    let asked = serde_json::json!({"model": "kith", "input": [data_uri(&png(3))]});
    let answer = served.post("/v1/embeddings", &asked).await.json();
    assert_eq!(vector(&answer, 0).len(), 128);
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_of_a_file_learn_at_a_part_of_the_rate_from_full_views_and_a_callers_rate_is_taken_as_it_stands()
 {
    let folder = tempfile::tempdir().unwrap();
    let file = from_file(&torchvision_file(&folder));
    for (start, rate, side) in [("encoder.start=fresh", 4e-4_f32, 32), (&file, 1e-4, 64)] {
        let sets = [
            start,
            "training.enabled=true",
            "schedule.warmup_steps=0",
            "schedule.learning_rate=4e-4",
            "schedule.pretrained_factor=0.25",
            "schedule.resize_steps=1000",
            "encoder.side=64",
        ];
        let served = Served::start(&sets).await;
        let shown = async || {
            let training = served.get("/v1/training").await.json();
            let shown = training["learning_rate"].as_f64().unwrap() as f32;
            (shown == rate && training["view_side"] == side).then_some(())
        };
        // The trainer shows it once it has looked around.
        assert!(poll(shown).await.is_some(), "{start}");
        let set = serde_json::json!({"learning_rate": 0.003});
        let training = served.patch("/v1/training", &set).await.json();
        assert_eq!(training["learning_rate"].as_f64().unwrap() as f32, 0.003);
        let back = serde_json::json!({"learning_rate": "schedule"});
        let training = served.patch("/v1/training", &back).await.json();
        assert_eq!(training["learning_rate"].as_f64().unwrap() as f32, rate);
        assert!(training["set_learning_rate"].is_null(), "{training}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_width_that_the_starter_encoder_lacks_starts_fresh_and_says_so() {
    let served = Served::start(&["encoder.start=starter"]).await;
    let origin = manifest(&served.app, live(&served.app).await).await.origin;
    assert_eq!(origin.unwrap().kind, OriginKind::Fresh);
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_imported_only_while_no_server_uses_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = torchvision_file(&folder);
    let settings = settings(&folder, &[]);
    let (first, origin) = app::import_weights(&settings, &path).await.unwrap();
    assert!(origin.projection.unwrap().contains("fixed orthogonal"));
    let app = App::start(settings.clone()).await.unwrap();
    assert_eq!(
        live(&app).await,
        first,
        "it is checkpoint 0 of an empty folder"
    );
    let refused = app::import_weights(&settings, &path).await.unwrap_err();
    assert!(
        refused.to_string().contains("another kith process"),
        "{refused}"
    );
    for seed in 0..20 {
        app.ingest.add_image(Bytes::from(png(seed))).await.unwrap();
    }
    app.stop().await.unwrap();

    // With images stored, 16 values are their principal components.
    let (second, origin) = app::import_weights(&settings, &path).await.unwrap();
    let projection = origin.projection.unwrap();
    assert!(
        projection.contains("16 principal components"),
        "{projection}"
    );
    let app = App::start(settings).await.unwrap();
    assert_eq!(app.trainer.status().resumed_from, Some(second));
    assert_eq!(
        live(&app).await,
        first,
        "what serves changes by promotion only"
    );
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_of_another_shape_than_the_folders_are_not_imported() {
    let folder = tempfile::tempdir().unwrap();
    let path = torchvision_file(&folder);
    start_and_stop(&folder).await;
    let other = settings(&folder, &["encoder.dim=32"]);
    let refused = app::import_weights(&other, &path).await.unwrap_err();
    assert!(refused.to_string().contains("dim 16"), "{refused}");
}

/// Makes a checkpoint one for images that are prepared otherwise.
async fn prepare_otherwise(app: &App, id: CheckpointId) {
    let mut changed = manifest(app, id).await;
    let preprocessing = changed.preprocessing.as_mut().unwrap();
    preprocessing.mean = [0.5; 3];
    let key = BlobKey::CheckpointPart(id, MANIFEST.to_owned());
    let bytes = serde_json::to_vec(&changed).unwrap();
    app.blobs.put(&key, bytes.into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_for_images_prepared_otherwise_is_refused_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let app = App::start(settings(&folder, &[])).await.unwrap();
    let id = live(&app).await;
    prepare_otherwise(&app, id).await;
    app.stop().await.unwrap();
    let refused = App::start(settings(&folder, &[])).await.err().unwrap();
    assert!(refused.to_string().contains("0.485"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_checkpoint_for_images_prepared_otherwise_is_neither_served_nor_promoted() {
    let served = Served::start(&[]).await;
    let (app, first) = (&served.app, live(&served.app).await);
    let older = Label::new(Some(first));
    let newest = Label::new(Some(first));
    for label in [&older, &newest] {
        app.checkpoints.begin(label, 0).await.unwrap();
        let snapshot = app.checkpoints.load(first).await.unwrap();
        app.checkpoints.write(label, snapshot, None).await.unwrap();
    }
    prepare_otherwise(app, older.id).await;
    let refused = app.checkpoints.load_model(older.id).await.unwrap_err();
    assert!(
        matches!(refused, CheckpointError::Preprocessing { id, .. } if id == older.id),
        "{refused}"
    );
    let pinned = format!("kith@{}", older.id);
    let asked = serde_json::json!({"model": pinned, "input": [data_uri(&png(3))]});
    let promote = format!("/v1/checkpoints/{}/promote", older.id);
    for answer in [
        served.post("/v1/embeddings", &asked).await,
        served.post(&promote, &serde_json::json!({})).await,
    ] {
        let (code, _) = answer.error(StatusCode::CONFLICT);
        assert_eq!(code, "checkpoint_preprocessing");
        assert!(answer.text().contains("0.485"), "{}", answer.text());
    }
    assert_eq!(live(app).await, first);
    // A rollback passes over it, and a start goes on from the newest.
    let found = app.checkpoints.first_of(&[older.id, first]).await.unwrap();
    assert_eq!(found.unwrap().0, first);
    let served = served.restart(&[]).await;
    let resumed = served.app.trainer.status().resumed_from;
    assert_eq!(resumed, Some(newest.id));
}
