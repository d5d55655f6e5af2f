//! `kith verify`: it names what is damaged, missing or foreign in a data folder, and only looks.

use std::fs;

use kith::{
    app::App,
    audit::{Audit, Checked, Event, Finding},
    blobs::BlobKey,
    checkpoint::Checkpoints,
    types::Sha256,
};
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use crate::support::{png, settings};

/// What `kith verify` finds in a folder that has one checkpoint.
async fn audit(folder: &TempDir) -> Vec<Finding> {
    let (checked, found) = audit_of(folder).await;
    assert_eq!(checked.checkpoints, 1);
    found
}

/// What `kith verify` checks and finds.
async fn audit_of(folder: &TempDir) -> (Checked, Vec<Finding>) {
    let (db, blobs) = kith::app::open_read_only(&folder.path().join("data"))
        .await
        .unwrap();
    let checkpoints = Checkpoints::new(blobs.clone(), db.clone(), settings(folder, &[]).policy());
    let mut found = Vec::new();
    let mut tell = |event| {
        if let Event::Found(finding) = event {
            found.push(finding);
        }
    };
    let checked = Audit::new(&blobs, &db, &checkpoints, &mut tell).run().await;
    db.close().await;
    (checked.unwrap(), found)
}

#[tokio::test]
async fn a_check_of_the_folder_names_each_damaged_thing_beside_a_running_server() {
    let folder = tempfile::tempdir().unwrap();
    let app = App::start(settings(&folder, &[])).await.unwrap();
    for seed in 1..=4 {
        app.ingest.add_image(png(seed).into()).await.unwrap();
    }
    assert!(audit(&folder).await.is_empty());

    let data = folder.path().join("data");
    let images = data.join("blobs/images");
    let file = |id: Sha256| images.join(&id.to_string()[..2]).join(id.to_string());
    let [changed, missing, orphan] = [1, 2, 9].map(|seed| Sha256::digest(&png(seed)));
    fs::write(file(changed), png(3)).unwrap();
    fs::remove_file(file(missing)).unwrap();
    app.blobs
        .put(&BlobKey::Image(orphan), png(9).into())
        .await
        .unwrap();
    // Old enough not to be on its way to a row.
    let hour = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    fs::File::options()
        .write(true)
        .open(file(orphan))
        .unwrap()
        .set_modified(hour)
        .unwrap();
    let checkpoint = app.serving.live().unwrap().id;
    let part = data.join(format!("blobs/checkpoints/{checkpoint}/model.safetensors"));
    let mut bytes = fs::read(&part).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&part, bytes).unwrap();

    let found = audit(&folder).await;
    let named: Vec<_> = found.iter().map(|one| (one.kind, one.id.clone())).collect();
    assert_eq!(
        named,
        [
            ("image", changed.to_string()),
            ("image", missing.to_string()),
            ("orphan", orphan.to_string()),
            ("checkpoint", checkpoint.to_string()),
        ]
    );
    assert!(
        app.db.damaged_images(None, 9).await.unwrap().is_empty(),
        "it only looks"
    );
    app.stop().await.unwrap();
}

#[tokio::test]
async fn a_check_names_rows_that_are_gone_or_cannot_be_read_and_what_is_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let app = App::start(settings(&folder, &[])).await.unwrap();
    let id = app.serving.live().unwrap().id;
    app.ingest.add_image(png(1).into()).await.unwrap();
    app.stop().await.unwrap();
    let data = folder.path().join("data");
    fs::remove_file(data.join("reserve")).unwrap();
    fs::create_dir(data.join("reserve")).unwrap();
    let sql = |statement: &'static str| {
        let path = data.join("kith.db");
        async move {
            let options = SqliteConnectOptions::new().filename(path);
            let mut file = options.connect().await.unwrap();
            sqlx::query(statement).execute(&mut file).await.unwrap();
            file.close().await.unwrap();
        }
    };
    sql("DELETE FROM checkpoints").await;
    let found = audit_of(&folder).await.1;
    let named: Vec<_> = found.iter().map(|one| (one.kind, one.id.clone())).collect();
    assert_eq!(
        named,
        [
            ("database", "kith.db".to_owned()),
            ("orphan", id.to_string())
        ]
    );
    assert!(found[0].what.contains("reserve"), "{found:?}");
    sql("UPDATE images SET created_at = 'yesterday'").await;
    let found = audit_of(&folder).await.1;
    assert!(found[1].what.contains("column created_at"), "{found:?}");
}
