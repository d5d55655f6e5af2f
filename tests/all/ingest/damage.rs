//! Bytes that are lost, damaged or nobody's: never given to a caller, and put right.

use kith::{
    blobs::BlobKey,
    image_store::{ImageError, ImageStore},
    ingest::IngestError,
    types::Sha256,
};

use super::{blob_file, bytes, open, pair, png};

#[tokio::test]
async fn bytes_that_were_lost_come_back_with_the_next_upload() {
    let fixture = open().await;
    let (row, _) = fixture.ingest.add_image(png(1)).await.unwrap();
    fixture
        .blobs
        .delete(&BlobKey::Image(row.sha256))
        .await
        .unwrap();
    assert!(
        fixture.ingest.image_bytes(row.sha256).await.is_err(),
        "a row without bytes is a failure, not an absence"
    );
    assert_eq!(
        fixture.ingest.add_image(png(1)).await.unwrap(),
        (row.clone(), false)
    );
    assert_eq!(
        fixture.ingest.image_bytes(row.sha256).await.unwrap(),
        Some(png(1))
    );
}

#[tokio::test]
async fn bytes_that_no_row_names_are_swept_and_others_stay() {
    let fixture = open().await;
    let (row, _) = fixture.ingest.add_image(png(1)).await.unwrap();
    let orphan = Sha256::digest(&png(2));
    fixture
        .blobs
        .put(&BlobKey::Image(orphan), png(2))
        .await
        .unwrap();
    assert_eq!(fixture.ingest.sweep_orphans().await.unwrap(), 1);
    assert_eq!(fixture.ingest.sweep_orphans().await.unwrap(), 0);
    assert!(!blob_file(&fixture, orphan).exists());
    assert!(blob_file(&fixture, row.sha256).exists());
}

#[tokio::test]
async fn damaged_bytes_are_never_given_are_listed_and_are_healed_by_posting_them() {
    let fixture = open().await;
    let (row, _) = fixture.ingest.add_image(png(1)).await.unwrap();
    let (id, file) = (row.sha256, blob_file(&fixture, row.sha256));
    let whole = std::fs::read(&file).unwrap();
    let zeroed = vec![0; whole.len()];
    for wrong in [Vec::new(), zeroed, png(2).to_vec()] {
        std::fs::write(&file, &wrong).unwrap();
        let refused = fixture.ingest.image_bytes(id).await;
        assert!(
            matches!(refused, Err(IngestError::Image(ImageError::Damaged { .. }))),
            "{refused:?}"
        );
        assert_eq!(fixture.db.damaged_images(None, 10).await.unwrap(), [id]);
        assert!(fixture.db.image(id).await.unwrap().unwrap().damaged);
        // By a pair in one round, by the image in the others.
        match wrong.is_empty() {
            true => drop(
                fixture
                    .ingest
                    .add_pairs(vec![pair(bytes(1), None)])
                    .await
                    .unwrap(),
            ),
            false => drop(fixture.ingest.add_image(png(1)).await.unwrap()),
        }
        assert_eq!(fixture.ingest.image_bytes(id).await.unwrap(), Some(png(1)));
        assert!(
            fixture
                .db
                .damaged_images(None, 10)
                .await
                .unwrap()
                .is_empty()
        );
    }
}

#[tokio::test]
async fn a_damaged_image_whose_file_was_put_back_is_listed_no_more() {
    let fixture = open().await;
    let (row, _) = fixture.ingest.add_image(png(1)).await.unwrap();
    let file = blob_file(&fixture, row.sha256);
    let images = ImageStore::new(fixture.blobs.clone(), fixture.db.clone());
    std::fs::write(&file, b"").unwrap();
    assert!(images.read(row.sha256).await.is_err());
    assert_eq!(images.recheck().await.unwrap(), 0);
    std::fs::write(&file, png(1)).unwrap();
    assert_eq!(images.recheck().await.unwrap(), 1);
    assert!(!fixture.db.image(row.sha256).await.unwrap().unwrap().damaged);
}
