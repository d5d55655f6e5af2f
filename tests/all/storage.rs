//! What a data folder goes through: a lost database, a replaced folder, damaged files, foreign files.

use std::{fs, path::PathBuf};

use kith::app::{App, StartError};
use tempfile::TempDir;

use crate::support::{png, settings};

const ACCEPT: &str = "storage.accept_loss=true";

fn database(folder: &TempDir) -> PathBuf {
    folder.path().join("data/kith.db")
}

/// A data folder with one image and a checkpoint, its server stopped.
async fn used_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let app = App::start(settings(&folder, &[])).await.unwrap();
    app.ingest.add_image(png(1).into()).await.unwrap();
    app.stop().await.unwrap();
    folder
}

async fn refusal(folder: &TempDir) -> String {
    let refused: StartError = App::start(settings(folder, &[])).await.err().unwrap();
    refused.to_string()
}

#[tokio::test]
async fn a_database_that_is_lost_beside_stored_images_is_not_replaced_by_an_empty_one() {
    let folder = used_folder().await;
    let database = database(&folder);
    fs::remove_file(&database).unwrap();
    let refused = refusal(&folder).await;
    assert!(
        refused.contains("storage.accept_loss=true") && refused.contains("backup"),
        "{refused}"
    );
    assert!(!database.exists(), "a refusal makes no file");

    fs::write(&database, b"").unwrap();
    assert!(refusal(&folder).await.contains("storage.accept_loss"));

    let app = App::start(settings(&folder, &[ACCEPT])).await.unwrap();
    assert_eq!(app.db.count_images().await.unwrap(), 0);
    app.stop().await.unwrap();
    let app = App::start(settings(&folder, &[])).await.unwrap();
    app.stop().await.unwrap();
}
