//! Clients that leave, and files that cannot be removed or read: what was begun is done, and nothing else waits for it.

use std::{path::PathBuf, time::Duration};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use kith::types::Sha256;
use serde_json::json;
use sqlx::{Connection, SqliteConnection};
use tokio::time::{sleep, timeout};

use crate::{
    http::search::{CEILING, ENABLED, indexed, live, space, store},
    support::{Served, data_uri, png},
};

/// Holds up whatever is written to the database until it is dropped.
async fn hold_up(served: &Served) -> SqliteConnection {
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
    let held = hold_up(&served).await;
    let request = Request::builder()
        .method(Method::DELETE)
        .uri(format!("/v1/images/{}", ids[2]))
        .header("x-request-timeout", "0.05");
    let reply = served.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(
        reply.status,
        StatusCode::REQUEST_TIMEOUT,
        "{}",
        reply.text()
    );
    held.close().await.unwrap();
    space(&served, live(&served), |space| space["images"] == 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_answered_as_the_first_request_although_its_client_left() {
    let served = Served::start(&[]).await;
    let pair =
        json!({"anchor": {"image": data_uri(&png(1))}, "positive": {"image": data_uri(&png(2))}});
    let document = json!({"pairs": [pair]}).to_string();
    let post = async |seconds: &str| {
        let request = Request::post("/v1/pairs")
            .header("content-type", "application/json")
            .header("idempotency-key", "once")
            .header("x-request-timeout", seconds);
        let body = Body::from(document.clone());
        served.send(request.body(body).unwrap()).await
    };
    let held = hold_up(&served).await;
    let reply = post("0.05").await;
    assert_eq!(
        reply.status,
        StatusCode::REQUEST_TIMEOUT,
        "{}",
        reply.text()
    );
    held.close().await.unwrap();
    let stored = async {
        while served.app.db.count_images().await.unwrap() < 2 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(CEILING, stored).await.expect("it was dropped");
    let retry = post("60").await;
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
    assert_eq!(thumbnails.get(id).await.unwrap(), None);
    store(&served, [3]).await;
    assert!(thumbnails.get(id).await.unwrap().is_some());
    served.app.ingest.delete_image(id).await.unwrap();
    thumbnails.forget(id).await;
    assert_eq!(thumbnails.get(id).await.unwrap(), None);
}
