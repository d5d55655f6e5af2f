//! Additions that are refused or dropped midway: they name what was wrong and leave nothing behind.

use bytes::Bytes;
use kith::{
    db::DbError,
    ingest::{IngestError, Place, Upload},
    types::Sha256,
};
use kith_pixels::PixelError;

use super::{LIMITS, bytes, files, id, open, pair, png};

/// A PNG whose header is whole and whose pixels are not.
fn torn() -> Bytes {
    let whole = png(1);
    whole.slice(..whole.len() - 24)
}

#[tokio::test]
async fn a_request_with_an_undecodable_image_stores_nothing() {
    let fixture = open().await;
    let pairs = vec![
        pair(bytes(1), bytes(2)),
        pair(bytes(3), Upload::Bytes(torn())),
    ];
    let refused = fixture.ingest.add_pairs(pairs).await;
    let Err(IngestError::Pixels { place, source }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        place,
        Some(Place {
            index: 1,
            side: "positive"
        })
    );
    assert!(matches!(source, PixelError::Undecodable(_)));
    fixture.assert_holds(0, 0).await;

    let refused = fixture.ingest.add_image(torn()).await;
    assert!(
        matches!(refused, Err(IngestError::Pixels { place: None, .. })),
        "{refused:?}"
    );
    fixture.assert_holds(0, 0).await;
}

#[tokio::test]
async fn an_image_beyond_the_limits_names_its_place() {
    let fixture = open().await;
    let large = Upload::Bytes(vec![0; LIMITS.max_bytes + 1].into());
    let refused = fixture.ingest.add_pairs(vec![pair(large, bytes(1))]).await;
    let Err(IngestError::Pixels { place, source }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        place,
        Some(Place {
            index: 0,
            side: "anchor"
        })
    );
    assert_eq!(source.code(), "image_too_large");
    fixture.assert_holds(0, 0).await;
}

#[tokio::test]
async fn an_unknown_id_names_its_pair_and_side() {
    let fixture = open().await;
    let pairs = vec![
        pair(bytes(1), bytes(2)),
        pair(bytes(3), bytes(4)),
        pair(bytes(5), id(9)),
    ];
    let refused = fixture.ingest.add_pairs(pairs).await;
    let Err(IngestError::UnknownImage { place, id }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        place,
        Place {
            index: 2,
            side: "positive"
        }
    );
    assert_eq!(id, Sha256::digest(&png(9)));
    fixture.assert_holds(0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_that_are_dropped_midway_leave_no_bytes_without_a_row() {
    let fixture = open().await;
    for round in 0..60u8 {
        let ingest = fixture.ingest.clone();
        let pairs = (0..4).map(|n| pair(bytes(round * 4 + n), None)).collect();
        let request = tokio::spawn(async move { ingest.add_pairs(pairs).await });
        // Dropped at another moment in each round.
        tokio::time::sleep(std::time::Duration::from_micros(u64::from(round) * 250)).await;
        request.abort();
        let _ = request.await;
    }
    // An erasure waits until every addition has ended.
    fixture
        .ingest
        .delete_image(Sha256::digest(b"none"))
        .await
        .unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(60), async {
        loop {
            let rows = fixture.db.count_images().await.unwrap();
            let stored = files(&fixture.folder.path().join("blobs/images"));
            if stored as u64 == rows {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("every stored image has a row in the end");
}

#[tokio::test]
async fn an_addition_that_the_database_refuses_leaves_no_bytes() {
    let fixture = open().await;
    fixture
        .ingest
        .add_pairs(vec![pair(bytes(1), bytes(2))])
        .await
        .unwrap();
    let mut conflict = pair(bytes(1), bytes(2));
    conflict.group = Some("other".into());
    let refused = fixture
        .ingest
        .add_pairs(vec![pair(bytes(3), bytes(4)), conflict])
        .await;
    assert!(
        matches!(
            refused,
            Err(IngestError::Db(DbError::OtherGroup { index: 1, .. }))
        ),
        "{refused:?}"
    );
    let stored = files(&fixture.folder.path().join("blobs/images"));
    assert_eq!(stored, 2);
    assert_eq!(
        fixture
            .ingest
            .image_bytes(Sha256::digest(&png(1)))
            .await
            .unwrap(),
        Some(png(1))
    );
}
