//! Clients that leave, and files that cannot be removed or read: what was begun is done, and nothing else waits for it.

use std::{path::PathBuf, time::Duration};

use axum::http::{Request, StatusCode, request::Builder};
use kith::{thumbnails::ThumbnailError, types::Sha256};
use serde_json::json;
use sqlx::{Connection, SqliteConnection};
use tokio::time::{sleep, timeout};

use crate::{
    http::search::{CEILING, ENABLED, indexed, live, space, store},
    support::{Served, data_uri, png},
};

/// Sends a request whose client leaves before anything can be written to the database.
async fn leave(served: &Served, request: Builder, body: String) {
    let held = lock_database(served).await;
    let request = request.header("x-request-timeout", "0.05");
    let reply = served.send(request.body(body.into()).unwrap()).await;
    let text = reply.text();
    assert_eq!(reply.status, StatusCode::REQUEST_TIMEOUT, "{text}");
    held.close().await.unwrap();
}

/// Keeps the server from writing to the database until the connection is closed.
async fn lock_database(served: &Served) -> SqliteConnection {
    let path = served.app.settings.storage.data_dir.join("kith.db");
    let url = format!("sqlite://{}", path.display());
    let mut database = SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut database)
        .await
        .unwrap();
    database
}

/// Puts a folder in the place of an image's bytes.
fn block(served: &Served, id: &str) -> PathBuf {
    let images = served.app.settings.storage.data_dir.join("blobs/images");
    let path = images.join(&id[..2]).join(id);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_whose_client_left_while_it_was_deleted_is_gone_from_the_search() {
    let served = Served::start(ENABLED).await;
    let ids = store(&served, 0..6).await;
    assert_eq!(indexed(&served, live(&served)).await["images"], 6);
    let request = Request::delete(format!("/v1/images/{}", ids[2]));
    leave(&served, request, String::new()).await;
    space(&served, live(&served), |space| space["images"] == 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_answered_as_the_first_request_although_its_client_left() {
    let served = Served::start(&[]).await;
    let pair =
        json!({"anchor": {"image": data_uri(&png(1))}, "positive": {"image": data_uri(&png(2))}});
    let document = json!({"pairs": [pair]}).to_string();
    let post = || {
        Request::post("/v1/pairs")
            .header("content-type", "application/json")
            .header("idempotency-key", "once")
    };
    leave(&served, post(), document.clone()).await;
    let stored = async {
        while served.app.db.count_images().await.unwrap() < 2 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(CEILING, stored).await.expect("it was dropped");
    let retry = served.send(post().body(document.into()).unwrap()).await;
    assert_eq!(retry.status, StatusCode::CREATED, "{}", retry.text());
    assert_eq!(retry.json()["data"][0]["duplicate"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_cannot_be_removed_are_no_failure_of_another_deletion() {
    let served = Served::start(ENABLED).await;
    let ids = store(&served, 0..4).await;
    indexed(&served, live(&served)).await;
    block(&served, &ids[0]);
    let reply = served.delete(&format!("/v1/images/{}", ids[0])).await;
    assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
    // It is gone all the same.
    let reply = served.get(&format!("/v1/images/{}", ids[0])).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    space(&served, live(&served), |space| space["images"] == 3).await;
    let reply = served.delete(&format!("/v1/images/{}", ids[1])).await;
    assert_eq!(reply.status, StatusCode::NO_CONTENT, "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_queue_and_a_file_that_cannot_be_read_keep_no_other_image_from_the_search() {
    let served = Served::start(&[]).await;
    let ids = store(&served, 0..20).await;
    block(&served, &ids[3]);
    let sets = [ENABLED, &["serving.queue_images=8"]].concat();
    let served = served.restart(&sets).await;
    space(&served, live(&served), |space| space["images"] == 19).await;
}

#[tokio::test]
async fn a_thumbnail_is_there_once_its_image_is() {
    let served = Served::start(&[]).await;
    let id = Sha256::digest(&png(3));
    let thumbnails = &served.app.thumbnails;
    let is_unknown = |got| matches!(got, Err(ThumbnailError::Unknown(found)) if found == id);
    assert!(is_unknown(thumbnails.get(id).await));
    store(&served, [3]).await;
    assert!(!thumbnails.get(id).await.unwrap().is_empty());
    served.app.ingest.delete_image(id).await.unwrap();
    thumbnails.forget(id).await;
    assert!(is_unknown(thumbnails.get(id).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_whose_client_left_is_applied() {
    let served = Served::start(&["training.enabled=true"]).await;
    let request = Request::patch("/v1/training").header("content-type", "application/json");
    leave(&served, request, json!({"state": "paused"}).to_string()).await;
    let paused = async {
        while served.get("/v1/training").await.json()["state"] != "paused" {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(CEILING, paused)
        .await
        .expect("it was kept and not applied");
}
