//! A data folder in trouble: a lost database, a replaced folder, damaged files, foreign files.

use std::{fs, path::PathBuf};

use axum::http::StatusCode;
use kith::{
    app::{App, StartError},
    blobs::{BlobKey, Blobs},
    types::{CheckpointId, Sha256},
};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Served, data_uri, png, settings, start_and_stop};

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
async fn bytes_that_cannot_be_removed_do_not_refuse_a_start() {
    let folder = used_folder().await;
    let app = App::start(settings(&folder, &[])).await.unwrap();
    let id = Sha256::digest(&png(1));
    let hex = id.to_string();
    let images = folder.path().join("data/blobs/images");
    let path = images.join(&hex[..2]).join(&hex);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(app.ingest.delete_image(id).await.is_err());
    app.stop().await.unwrap();

    let app = App::start(settings(&folder, &[])).await.unwrap();
    let unlinked = app.db.unlinked_images().await.unwrap();
    assert_eq!(unlinked, [id], "it is tried again at the next start");
    app.stop().await.unwrap();
    fs::remove_dir(&path).unwrap();
    let app = App::start(settings(&folder, &[])).await.unwrap();
    assert_eq!(app.db.unlinked_images().await.unwrap(), []);
    app.stop().await.unwrap();
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

#[tokio::test]
async fn a_damaged_database_and_one_of_a_newer_kith_are_refused_by_name() {
    let folder = used_folder().await;
    let database = database(&folder);
    let whole = fs::read(&database).unwrap();
    let mut damaged = whole.clone();
    // Behind the first page, which holds the schema's root.
    damaged[4096..].fill(0xa5);
    fs::write(&database, &damaged).unwrap();
    let refused = refusal(&folder).await;
    assert!(
        refused.contains("damaged") && refused.contains("backup"),
        "{refused}"
    );
    fs::write(&database, b"this is no database, whatever its name says").unwrap();
    assert!(refusal(&folder).await.contains("damaged"));

    fs::write(&database, &whole).unwrap();
    execute(
        &database,
        "INSERT INTO _sqlx_migrations VALUES (9999, 'later', '2026-01-01', 1, x'00', 0)",
    )
    .await;
    for refused in [refusal(&folder).await, look(&folder).await] {
        assert!(refused.contains("newer kith"), "{refused}");
    }
    execute(&database, "DELETE FROM _sqlx_migrations WHERE version > 4").await;
    let before = fs::read(&database).unwrap();
    let refused = look(&folder).await;
    assert!(
        refused.contains("older kith") && refused.contains("start the server"),
        "{refused}"
    );
    assert_eq!(
        fs::read(&database).unwrap(),
        before,
        "a look writes nothing"
    );
}

async fn execute(database: &std::path::Path, sql: &'static str) {
    use sqlx::{ConnectOptions, Connection};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database);
    let mut connection = options.connect().await.unwrap();
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn an_older_schema_has_no_keys_and_is_not_migrated_beside_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let app = App::start(settings(&folder, &[])).await.unwrap();
    let database = database(&folder);
    execute(&database, "DELETE FROM _sqlx_migrations WHERE version > 5").await;
    for later in [
        "DROP TABLE api_keys",
        "DROP TABLE canaries",
        "DROP TRIGGER images_unembedded",
        "DROP TRIGGER images_counted",
        "DROP TRIGGER images_uncounted",
        "DROP TABLE image_count",
        "DROP TABLE vector_places",
        "DROP TABLE vectors",
        "DROP TABLE vector_spaces",
        "DROP TABLE history",
        "DROP VIEW pair_rows",
        "ALTER TABLE pairs DROP COLUMN weight",
        "CREATE VIEW pair_rows AS SELECT 1",
    ] {
        execute(&database, later).await;
    }
    let public = settings(&folder, &["server.listen=0.0.0.0:0"]);
    let refused = kith::app::check_exposure(&public).await.unwrap_err();
    assert!(refused.to_string().contains("there is no key"), "{refused}");
    let data = folder.path().join("data");
    let refused = kith::app::open_for_changes(&data, true).await.err();
    let refused = refused.unwrap().to_string();
    assert!(refused.contains("older kith"), "{refused}");
    app.stop().await.unwrap();
    // Without a server the command does what a start does.
    let opened = kith::app::open_for_changes(&data, true).await.unwrap();
    assert_eq!(opened.db.keys().await.unwrap(), []);
    opened.close().await.unwrap();
}

/// Why a look at the folder is refused.
async fn look(folder: &TempDir) -> String {
    let looked = kith::app::open_read_only(&folder.path().join("data")).await;
    looked.err().unwrap().to_string()
}

#[tokio::test]
async fn a_look_reads_beside_a_running_server_and_in_a_stopped_ones_folder() {
    let folder = tempfile::tempdir().unwrap();
    let app = App::start(settings(&folder, &[])).await.unwrap();
    app.ingest.add_image(png(1).into()).await.unwrap();
    let data = folder.path().join("data");
    let (db, _) = kith::app::open_read_only(&data).await.unwrap();
    assert_eq!(
        db.count_images().await.unwrap(),
        1,
        "what is in the log counts"
    );
    app.ingest.add_image(png(2).into()).await.unwrap();
    assert_eq!(db.count_images().await.unwrap(), 2);
    assert!(db.probe_write().await.is_err(), "a look cannot write");
    db.close().await;
    app.stop().await.unwrap();

    let before = fs::read(data.join("kith.db")).unwrap();
    let (db, blobs) = kith::app::open_read_only(&data).await.unwrap();
    assert_eq!(db.count_images().await.unwrap(), 2);
    assert_eq!(blobs.checkpoint_ids().await.unwrap().len(), 1);
    db.close().await;
    assert_eq!(fs::read(data.join("kith.db")).unwrap(), before);

    // As on a read-only disk: the log's index cannot be made.
    let _ = fs::remove_file(data.join("kith.db-shm"));
    fs::create_dir(data.join("kith.db-shm")).unwrap();
    let (db, _) = kith::app::open_read_only(&data).await.unwrap();
    assert_eq!(db.count_images().await.unwrap(), 2);
    db.close().await;
}

#[tokio::test]
async fn a_folder_that_is_taken_away_takes_no_writes_and_says_so() {
    let served = Served::start(&[]).await;
    served.get("/readyz").await;
    let data = served.app.settings.storage.data_dir.clone();
    fs::rename(&data, data.with_file_name("moved")).unwrap();
    for again in [false, true] {
        if again {
            // Another folder in its place is not the one that was opened either.
            fs::create_dir_all(data.join("blobs")).unwrap();
        }
        let refused = served
            .app
            .ingest
            .add_image(png(1).into())
            .await
            .unwrap_err();
        assert!(
            refused.to_string().contains("removed or replaced"),
            "{refused}"
        );
        let refused = served.app.db.probe_write().await.unwrap_err();
        assert!(
            refused.to_string().contains("removed or replaced"),
            "{refused}"
        );
        assert!(!data.join("kith.db").exists() && !data.join("blobs/images").exists());
    }
    // The answer from before holds for two seconds.
    let not_ready = async {
        while served.get("/readyz").await.status.is_success() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        served.get("/readyz").await
    };
    let reply = tokio::time::timeout(std::time::Duration::from_secs(30), not_ready).await;
    let reply = reply.unwrap();
    assert_eq!(reply.error(StatusCode::SERVICE_UNAVAILABLE).0, "not_ready");
    assert!(
        reply.text().contains("removed or replaced"),
        "{}",
        reply.text()
    );
}

#[cfg(unix)]
#[tokio::test]
async fn a_sweep_follows_no_link_and_removes_only_names_that_kith_makes() {
    let (folder, foreign) = (used_folder().await, tempfile::tempdir().unwrap());
    let hex = "ab".repeat(32);
    let inside = foreign.path().join("ab");
    fs::create_dir(&inside).unwrap();
    let kept = ["note", "note#1", &format!("{hex}#1"), "c#sharp"];
    kept.iter()
        .for_each(|name| fs::write(inside.join(name), "mine").unwrap());
    let images = folder.path().join("data/blobs/images");
    std::os::unix::fs::symlink(&inside, images.join("ab")).unwrap();
    let checkpoints = folder.path().join("data/blobs/checkpoints");
    let checkpoint = checkpoints.join(CheckpointId::now().to_string());
    std::os::unix::fs::symlink(&inside, checkpoint).unwrap();
    let own = images.join("ac");
    fs::create_dir_all(&own).unwrap();
    let hex = "ac".repeat(32);
    let (torn, mine) = (own.join(format!("{hex}#7")), own.join("note#7"));
    fs::write(&torn, "torn").unwrap();
    fs::write(&mine, "mine").unwrap();
    start_and_stop(&folder).await;
    assert!(!torn.exists() && mine.exists());
    for name in kept {
        assert!(inside.join(name).exists(), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn a_sweep_leaves_a_folder_of_images_that_is_itself_a_link() {
    let (folder, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let torn = foreign.path().join(format!("ab/{}#1", "ab".repeat(32)));
    fs::create_dir(foreign.path().join("ab")).unwrap();
    fs::write(&torn, "mine").unwrap();
    let blobs = Blobs::local(folder.path()).unwrap();
    let images = folder.path().join("images");
    let _ = fs::remove_dir_all(&images);
    std::os::unix::fs::symlink(foreign.path(), &images).unwrap();
    blobs.sweep().unwrap();
    assert!(torn.exists());
}

/// Empties the file of a stored image.
fn damage(served: &Served, id: Sha256) {
    let hex = id.to_string();
    let images = served.app.settings.storage.data_dir.join("blobs/images");
    fs::write(images.join(&hex[..2]).join(&hex), b"").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn training_skips_a_damaged_image_and_lists_it() {
    let served = Served::start(&["pairs.holdout_share=0"]).await;
    for seed in 0..12 {
        let document = json!({"pairs": [{"anchor": {"image": data_uri(&png(seed))}}]});
        served.post("/v1/pairs", &document).await;
    }
    let id = Sha256::digest(&png(3));
    damage(&served, id);
    let sets = [
        "pairs.holdout_share=0",
        "training.enabled=true",
        "training.batch=4",
        "training.min_pairs=2",
    ];
    let served = served.restart(&sets).await;
    let trained = async {
        loop {
            let listed = served.app.db.damaged_images(None, 10).await.unwrap();
            let step = served.get("/v1/training").await.json()["step"].as_u64();
            if listed == [id] && step > Some(6) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(120), trained)
        .await
        .expect("training goes on without the image, which is listed");
    served.app.stop().await.unwrap();
}

#[tokio::test]
async fn looking_at_a_folder_whose_database_is_lost_or_empty_says_so() {
    let folder = tempfile::tempdir().unwrap();
    start_and_stop(&folder).await;
    let data = folder.path().join("data");
    for empty in [true, false] {
        fs::remove_file(data.join("kith.db")).unwrap();
        if empty {
            fs::write(data.join("kith.db"), "").unwrap();
        }
        let Err(refused) = kith::app::open_read_only(&data).await else {
            panic!("a folder without its database must be refused");
        };
        assert!(
            refused.to_string().contains("put kith.db back"),
            "{refused}"
        );
        fs::write(data.join("kith.db"), "").unwrap();
    }
}

#[tokio::test]
async fn a_start_removes_the_bytes_of_images_that_have_no_row() {
    let folder = used_folder().await;
    let orphan = Sha256::digest(&png(9));
    let blobs = Blobs::local(&folder.path().join("data/blobs")).unwrap();
    let key = BlobKey::Image(orphan);
    blobs.put(&key, png(9).into()).await.unwrap();
    start_and_stop(&folder).await;
    assert!(blobs.get(&key).await.is_err());
    let kept = BlobKey::Image(Sha256::digest(&png(1)));
    assert!(blobs.get(&kept).await.is_ok());
}

#[tokio::test]
async fn a_damaged_page_that_a_start_does_not_need_refuses_it_all_the_same() {
    let folder = used_folder().await;
    let database = database(&folder);
    // Nothing reads this table.
    execute(&database, "CREATE TABLE aside (text TEXT) STRICT").await;
    execute(
        &database,
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 20)
         INSERT INTO aside SELECT 'needle' || hex(zeroblob(1000)) FROM numbers",
    )
    .await;
    let mut bytes = fs::read(&database).unwrap();
    let page = bytes.windows(6).position(|six| six == b"needle").unwrap() / 4096 * 4096;
    // The page's own header, not its texts.
    bytes[page..page + 8].fill(0xa5);
    fs::write(&database, &bytes).unwrap();
    assert!(refusal(&folder).await.contains("damaged"));
}

#[tokio::test]
async fn a_server_whose_blobs_take_no_write_is_not_ready_though_its_database_does() {
    let served = Served::start(&[]).await;
    let blobs = served.app.settings.storage.data_dir.join("blobs");
    fs::rename(&blobs, blobs.with_file_name("away")).unwrap();
    served.app.db.probe_write().await.unwrap();
    let reply = served.get("/readyz").await;
    assert_eq!(reply.error(StatusCode::SERVICE_UNAVAILABLE).0, "not_ready");
}
