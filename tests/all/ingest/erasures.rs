//! Erasures: bytes and pairs go with an image, after a cut as well, and beside uploads.

use kith::{blobs::BlobKey, types::Sha256};

use super::{bytes, open, pair, png};

#[tokio::test]
async fn an_erased_image_is_gone_with_its_bytes_and_its_pairs() {
    let fixture = open().await;
    let one = Sha256::digest(&png(1));
    fixture
        .ingest
        .add_pairs(vec![pair(bytes(1), bytes(2)), pair(bytes(3), None)])
        .await
        .unwrap();
    assert!(fixture.ingest.delete_image(one).await.unwrap());
    assert!(!fixture.ingest.delete_image(one).await.unwrap());
    assert_eq!(fixture.ingest.image_bytes(one).await.unwrap(), None);
    assert!(fixture.db.unlinked_images().await.unwrap().is_empty());
    fixture.assert_holds(2, 1).await;
}

#[tokio::test]
async fn an_erasure_that_was_cut_off_is_finished_later() {
    let fixture = open().await;
    let [one, two] = [1, 2].map(|shade| Sha256::digest(&png(shade)));
    fixture
        .ingest
        .add_pairs(vec![pair(bytes(1), bytes(2))])
        .await
        .unwrap();
    // The rows went, the process died, the bytes stayed; one of the two came again.
    fixture.db.delete_image(one).await.unwrap();
    fixture.db.delete_image(two).await.unwrap();
    fixture.ingest.add_image(png(2)).await.unwrap();
    assert!(fixture.blobs.exists(&BlobKey::Image(one)).await.unwrap());

    assert_eq!(fixture.ingest.finish_erasures().await.unwrap(), 2);
    assert_eq!(fixture.ingest.finish_erasures().await.unwrap(), 0);
    assert_eq!(fixture.ingest.image_bytes(two).await.unwrap(), Some(png(2)));
    fixture.assert_holds(1, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_erasure_beside_an_upload_never_leaves_a_row_without_bytes() {
    let fixture = open().await;
    let one = Sha256::digest(&png(1));
    for round in 0..20 {
        let tasks = (0..6).map(|n| {
            let ingest = fixture.ingest.clone();
            tokio::spawn(async move {
                match n % 3 {
                    0 => ingest.delete_image(one).await.map(drop),
                    1 => ingest.add_image(png(1)).await.map(drop),
                    _ => ingest
                        .add_pairs(vec![pair(bytes(1), bytes(2))])
                        .await
                        .map(drop),
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap().unwrap();
        }
        let row = fixture.db.image(one).await.unwrap();
        let blob = fixture.blobs.exists(&BlobKey::Image(one)).await.unwrap();
        assert_eq!(row.is_some(), blob, "round {round}");
    }
}
