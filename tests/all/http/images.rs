//! `/v1/images`.

use axum::http::StatusCode;
use kith::types::Sha256;
use serde_json::json;

use crate::support::{Served, data_uri, form, png};

#[tokio::test]
async fn an_image_is_stored_once_under_its_hash_however_it_is_sent() {
    let served = Served::start(&[]).await;
    let image = png(1);
    let first = served
        .post_as("/v1/images", "image/png", image.clone())
        .await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.text());
    let stored = first.json();
    assert_eq!(stored["id"], Sha256::digest(&image).to_string());
    assert_eq!(
        (&stored["width"], &stored["height"], &stored["format"]),
        (&json!(40), &json!(40), &json!("png"))
    );
    assert_eq!(stored["bytes"], image.len());
    let (media, body) = form(&[("file", Some("a.png"), &image)]);
    for again in [
        served.post_as("/v1/images", media, body).await,
        served
            .post("/v1/images", &json!({"image": data_uri(&image)}))
            .await,
    ] {
        assert_eq!(
            (again.status, again.json()),
            (StatusCode::OK, stored.clone())
        );
    }
}

#[tokio::test]
async fn an_image_is_returned_byte_for_byte_until_it_is_deleted() {
    let served = Served::start(&[]).await;
    let image = png(1);
    let id = Sha256::digest(&image);
    served
        .post_as("/v1/images", "image/png", image.clone())
        .await;
    let content = served.get(&format!("/v1/images/{id}/content")).await;
    assert_eq!(
        (content.header("content-type"), &content.body),
        (Some("image/png"), &image)
    );
    assert_eq!(
        served.delete(&format!("/v1/images/{id}")).await.status,
        StatusCode::NO_CONTENT
    );
    for path in [
        format!("/v1/images/{id}"),
        format!("/v1/images/{id}/content"),
    ] {
        assert_eq!(
            served.get(&path).await.error(StatusCode::NOT_FOUND).0,
            "unknown_image"
        );
    }
    served
        .delete(&format!("/v1/images/{id}"))
        .await
        .error(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn pages_list_every_image_once() {
    let served = Served::start(&[]).await;
    for seed in 0..5 {
        served.post_as("/v1/images", "image/png", png(seed)).await;
    }
    let (mut seen, mut path) = (Vec::new(), "/v1/images?limit=2".to_owned());
    let sizes = loop {
        let page = served.get(&path).await.json();
        let data = page["data"].as_array().unwrap().clone();
        seen.push(
            data.iter()
                .map(|image| image["id"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>(),
        );
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/images?limit=2&after={next}"),
            None => break seen.iter().map(Vec::len).collect::<Vec<_>>(),
        }
    };
    assert_eq!(sizes, [2, 2, 1]);
    let expected: Vec<String> = (0..5)
        .map(|seed| Sha256::digest(&png(seed)).to_string())
        .collect();
    assert_eq!(seen.concat(), expected, "in order of arrival");
}

#[tokio::test]
async fn page_parameters_out_of_range_are_refused() {
    let served = Served::start(&[]).await;
    for (query, param) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("after=x", "after"),
        ("group=g", "group"),
    ] {
        let (_, place) = served
            .get(&format!("/v1/images?{query}"))
            .await
            .error(StatusCode::BAD_REQUEST);
        assert_eq!(place.as_deref(), Some(param));
    }
}

#[tokio::test]
async fn a_file_that_is_no_image_is_not_stored() {
    let served = Served::start(&[]).await;
    let mut torn = png(1);
    torn.truncate(torn.len() / 2);
    for body in [b"text".to_vec(), torn, Vec::new()] {
        let (code, _) = served
            .post_as("/v1/images", "image/png", body)
            .await
            .error(StatusCode::BAD_REQUEST);
        assert_eq!(code, "image_undecodable");
    }
    assert_eq!(served.app.db.count_images().await.unwrap(), 0);
}

#[tokio::test]
async fn a_damaged_image_is_listed_and_repaired_by_posting_it() {
    let served = Served::start(&[]).await;
    let id = Sha256::digest(&png(1)).to_string();
    for seed in [1, 2] {
        served.post_as("/v1/images", "image/png", png(seed)).await;
    }
    let images = served.app.settings.storage.data_dir.join("blobs/images");
    std::fs::write(images.join(&id[..2]).join(&id), png(2)).unwrap();

    let content = format!("/v1/images/{id}/content");
    let reply = served.get(&content).await;
    assert_eq!(reply.error(StatusCode::CONFLICT).0, "image_damaged");
    assert!(reply.text().contains("post the same image again"));
    let listed = served.get("/v1/images?damaged=true").await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&listed["data"][0]["id"], &listed["data"][0]["damaged"]),
        (&json!(id), &json!(true))
    );
    let whole = served.get("/v1/images?damaged=false").await.json();
    assert_eq!(whole["data"].as_array().unwrap().len(), 1);

    let again = served.post_as("/v1/images", "image/png", png(1)).await;
    assert_eq!(
        (again.status, &again.json()["damaged"]),
        (StatusCode::OK, &json!(false))
    );
    assert_eq!(served.get(&content).await.body, png(1));
    let listed = served.get("/v1/images?damaged=true").await.json();
    assert!(listed["data"].as_array().unwrap().is_empty());
}
