//! The weights of a first checkpoint: from a file, from the program, or random; and weights that are imported later.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use kith::{
    app::{self, App},
    blobs::BlobKey,
    checkpoint::{Label, MANIFEST, Manifest, OriginKind},
    types::CheckpointId,
};
use kith_nn::{Device, Encoder, EncoderConfig};
use kith_weights::{TorchvisionFiles, Weights};
use tempfile::TempDir;

use crate::support::{Served, data_uri, distance, png, settings, start_and_stop, vector};

/// A file in torchvision's layout with random weights of width 8.
fn torchvision_file(folder: &TempDir) -> PathBuf {
    let config = EncoderConfig {
        width: 8,
        side: 32,
        dim: 16,
    };
    let encoder = Encoder::fresh(&config, 7, &Device::cpu()).unwrap();
    let files = TorchvisionFiles::new(&config, &encoder.to_arrays().unwrap()).unwrap();
    let path = folder.path().join("resnet18.safetensors");
    std::fs::write(&path, files.network).unwrap();
    path
}

fn from_file(path: &Path) -> String {
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
    assert_eq!(model["preprocessing_hash"].as_str().unwrap().len(), 12);

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

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_for_images_prepared_otherwise_is_refused_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let app = App::start(settings(&folder, &[])).await.unwrap();
    let id = live(&app).await;
    let mut changed = manifest(&app, id).await;
    let preprocessing = changed.preprocessing.as_mut().unwrap();
    preprocessing.mean = [0.5; 3];
    let key = BlobKey::CheckpointPart(id, MANIFEST.to_owned());
    let bytes = serde_json::to_vec(&changed).unwrap();
    app.blobs.put(&key, bytes.into()).await.unwrap();
    app.stop().await.unwrap();
    let refused = App::start(settings(&folder, &[])).await.err().unwrap();
    assert!(refused.to_string().contains("0.485"), "{refused}");
}
