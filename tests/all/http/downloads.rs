//! Downloads: in chunks, by ranges, and 304 for a client that has the file.

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use futures::StreamExt;
use kith::types::Sha256;
use tower::ServiceExt;

use crate::support::{Reply, Served, png};

async fn ask(served: &Served, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    served.send(request.body(Body::empty()).unwrap()).await
}

/// Paths of a stored image and of a checkpoint's file.
async fn files(served: &Served) -> [String; 2] {
    let image = png(1);
    served
        .post_as("/v1/images", "image/png", image.clone())
        .await;
    let id = served.app.serving.live().unwrap().id;
    [
        format!("/v1/images/{}/content", Sha256::digest(&image)),
        format!("/v1/checkpoints/{id}/files/model.safetensors"),
    ]
}

#[tokio::test]
async fn a_file_is_downloaded_whole_by_ranges_or_not_at_all_when_unmodified() {
    let served = Served::start(&[]).await;
    for path in files(&served).await {
        let whole = served.get(&path).await;
        let size = whole.body.len();
        let etag = whole.header("etag").unwrap();
        assert_eq!(etag, format!("\"{}\"", Sha256::digest(&whole.body)));
        assert_eq!(
            whole.header("content-length"),
            Some(size.to_string().as_str())
        );
        assert_eq!(whole.header("accept-ranges"), Some("bytes"));
        let part = ask(&served, &path, &[("range", "bytes=10-19")]).await;
        assert_eq!(
            (part.status, &part.body[..]),
            (StatusCode::PARTIAL_CONTENT, &whole.body[10..20])
        );
        let place = format!("bytes 10-19/{size}");
        assert_eq!(part.header("content-range"), Some(place.as_str()));
        let rest = ask(
            &served,
            &path,
            &[("range", "bytes=10-"), ("if-range", etag)],
        )
        .await;
        assert_eq!(rest.body, whole.body[10..]);
        let known = ask(&served, &path, &[("if-none-match", etag)]).await;
        assert_eq!(
            (known.status, known.body.len()),
            (StatusCode::NOT_MODIFIED, 0)
        );
        let beyond = ask(&served, &path, &[("range", "bytes=999999999-")]).await;
        let (code, _) = beyond.error(StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(code, "invalid_range");
        assert_eq!(beyond.header("content-type"), Some("application/json"));
    }
}

#[tokio::test]
async fn a_download_reads_on_only_as_it_is_read_and_survives_a_deletion() {
    let served = Served::start(&[]).await;
    let id = served.write_checkpoint(7).await;
    let path = format!("/v1/checkpoints/{id}/files/model.safetensors");
    let whole = served.get(&path).await;
    let request = Request::get(&path).body(Body::empty()).unwrap();
    let response = kith::http::router(served.app.clone())
        .oneshot(request)
        .await
        .unwrap();
    let mut chunks = response.into_body().into_data_stream();
    let mut read = chunks.next().await.unwrap().unwrap().to_vec();
    assert!(read.len() <= 64 * 1024 && read.len() < whole.body.len());
    served.app.checkpoints.delete(id).await.unwrap();
    while let Some(chunk) = chunks.next().await {
        read.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(Sha256::digest(&read), Sha256::digest(&whole.body));
}

#[tokio::test]
async fn a_truncated_file_is_refused_before_the_answer_begins() {
    let served = Served::start(&[]).await;
    let id = served.write_checkpoint(7).await;
    let folder = served
        .app
        .settings
        .storage
        .data_dir
        .join("blobs/checkpoints");
    let file = folder.join(id.to_string()).join("model.safetensors");
    std::fs::File::options()
        .write(true)
        .open(file)
        .unwrap()
        .set_len(100)
        .unwrap();
    let path = format!("/v1/checkpoints/{id}/files/model.safetensors");
    let (code, _) = served.get(&path).await.error(StatusCode::CONFLICT);
    assert_eq!(code, "checkpoint_damaged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_checkpoint_that_is_being_deleted_is_unknown_and_not_damaged() {
    let served = Served::start(&[]).await;
    for seed in 0..20 {
        let id = served.write_checkpoint(seed).await;
        let (checkpoint, file) = (
            format!("/v1/checkpoints/{id}"),
            format!("/v1/checkpoints/{id}/files/chains.safetensors"),
        );
        let delete = served.delete(&checkpoint);
        let ask = async {
            loop {
                let reply = served.get(&file).await;
                if reply.status != StatusCode::OK {
                    return reply;
                }
            }
        };
        let (deleted, reply) = futures::join!(delete, ask);
        assert_eq!(deleted.status, StatusCode::NO_CONTENT);
        // Unknown, or deleted between the look and the first byte.
        let (code, _) = reply.error(StatusCode::NOT_FOUND);
        assert!(
            ["unknown_checkpoint", "not_found"].contains(&&*code),
            "{code}"
        );
    }
}
