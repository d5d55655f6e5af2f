//! Uploads: what is answered is on disk with its bytes; what is refused leaves nothing; what is erased is gone.

use std::{io::Cursor, path::Path};

use bytes::Bytes;
use image::{ImageFormat, Rgb, RgbImage};
use kith::{
    blobs::{BlobKey, Blobs},
    db::{Db, DbError, Split},
    image_store::{ImageError, ImageStore},
    ingest::{Ingest, IngestError, PairUpload, Place, Upload},
    types::Sha256,
};
use kith_mcmc::PairKey;
use kith_pixels::{Limits, PixelError};
use tempfile::TempDir;

use crate::db::count_pairs;

const LIMITS: Limits = Limits {
    max_bytes: 1 << 16,
    max_pixels: 1 << 12,
    decode_memory_mb: 1024,
};

struct Fixture {
    ingest: Ingest,
    db: Db,
    blobs: Blobs,
    folder: TempDir,
}

async fn open_in(folder: TempDir) -> Fixture {
    let blobs = Blobs::local(&folder.path().join("blobs")).unwrap();
    let db = Db::open(&folder.path().join("kith.db")).await.unwrap();
    let ingest = Ingest::new(blobs.clone(), db.clone(), LIMITS, 0.0);
    Fixture {
        ingest,
        db,
        blobs,
        folder,
    }
}

async fn open() -> Fixture {
    open_in(tempfile::tempdir().unwrap()).await
}

fn png(shade: u8) -> Bytes {
    let mut bytes = Cursor::new(Vec::new());
    let image = RgbImage::from_pixel(6, 4, Rgb([shade, 7, 9]));
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner().into()
}

/// A PNG whose header is whole and whose pixels are not.
fn torn() -> Bytes {
    let whole = png(1);
    whole.slice(..whole.len() - 24)
}

fn pair(anchor: Upload, positive: impl Into<Option<Upload>>) -> PairUpload {
    PairUpload {
        anchor,
        positive: positive.into(),
        group: None,
    }
}

fn bytes(shade: u8) -> Upload {
    Upload::Bytes(png(shade))
}

fn id(shade: u8) -> Upload {
    Upload::Id(Sha256::of(&png(shade)))
}

/// Number of files below a folder.
fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path()),
            false => 1,
        })
        .sum()
}

impl Fixture {
    async fn assert_holds(&self, images: u64, pairs: u64) {
        let (train, holdout, unused) = count_pairs(&self.db).await;
        assert_eq!(self.db.count_images().await.unwrap(), images);
        assert_eq!(train + holdout + unused, pairs);
        assert_eq!(files(&self.folder.path().join("blobs")), images as usize);
    }
}

#[tokio::test]
async fn an_image_is_stored_once_with_what_its_header_says() {
    let fixture = open().await;
    let (row, new) = fixture.ingest.add_image(png(1)).await.unwrap();
    assert!(new);
    assert_eq!(row.sha256, Sha256::of(&png(1)));
    assert_eq!(row.bytes, png(1).len() as u64);
    assert_eq!((row.width, row.height, row.format.as_str()), (6, 4, "png"));
    assert_eq!(
        fixture.ingest.add_image(png(1)).await.unwrap(),
        (row.clone(), false)
    );
    assert_eq!(
        fixture.ingest.image_bytes(row.sha256).await.unwrap(),
        Some(png(1))
    );
    assert_eq!(
        fixture
            .ingest
            .image_bytes(Sha256::of(b"none"))
            .await
            .unwrap(),
        None
    );
    fixture.assert_holds(1, 0).await;
}

#[tokio::test]
async fn pairs_come_as_bytes_and_ids_and_alone() {
    let fixture = open().await;
    fixture.ingest.add_image(png(1)).await.unwrap();
    let pairs = vec![
        pair(id(1), bytes(2)),
        pair(bytes(3), None),
        pair(bytes(2), id(1)),
        pair(id(2), bytes(3)), // an id names what is stored before the request
    ];
    let refused = fixture.ingest.add_pairs(pairs.clone()).await;
    assert!(
        matches!(refused, Err(IngestError::UnknownImage { .. })),
        "{refused:?}"
    );
    fixture.assert_holds(1, 0).await;

    let stored = fixture.ingest.add_pairs(pairs[..3].to_vec()).await.unwrap();
    let [one, two, three] = [1, 2, 3].map(|shade| Sha256::of(&png(shade)));
    let ids: Vec<_> = stored
        .iter()
        .map(|(row, _)| (row.anchor, row.positive))
        .collect();
    assert_eq!(ids, [(one, two), (three, three), (one, two)]);
    assert_eq!(
        stored
            .iter()
            .map(|(_, duplicate)| *duplicate)
            .collect::<Vec<_>>(),
        [false, false, true]
    );
    assert!(stored.iter().all(|(row, _)| row.split == Split::Train));
    fixture.assert_holds(3, 2).await;
    assert!(
        fixture
            .ingest
            .add_pairs(Vec::new())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn groups_stay_with_their_own_pairs() {
    let fixture = open().await;
    let grouped = |anchor, positive: Option<Upload>, group: Option<&str>| PairUpload {
        group: group.map(str::to_owned),
        ..pair(anchor, positive)
    };
    let pairs = vec![
        grouped(bytes(1), Some(bytes(2)), Some("first")),
        grouped(bytes(3), None, None),
        grouped(bytes(4), None, Some("third")),
    ];
    let stored = fixture.ingest.add_pairs(pairs).await.unwrap();
    let groups: Vec<_> = stored.iter().map(|(row, _)| row.group.as_deref()).collect();
    assert_eq!(groups, [Some("first"), None, Some("third")]);
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
    assert_eq!(id, Sha256::of(&png(9)));
    fixture.assert_holds(0, 0).await;
}

#[tokio::test]
async fn a_pair_that_was_answered_is_there_after_reopening_with_its_bytes() {
    let fixture = open().await;
    let stored = fixture
        .ingest
        .add_pairs(vec![pair(bytes(1), bytes(2))])
        .await
        .unwrap();
    let Fixture { db, folder, .. } = fixture;
    db.close().await;
    let fixture = open_in(folder).await;
    let rows = fixture.db.pairs_after(PairKey(0), 10, None).await.unwrap();
    assert_eq!(rows, [stored[0].0.clone()]);
    for shade in [1, 2] {
        let bytes = fixture.ingest.image_bytes(Sha256::of(&png(shade))).await;
        assert_eq!(bytes.unwrap(), Some(png(shade)));
    }
}

#[tokio::test]
async fn an_erased_image_is_gone_with_its_bytes_and_its_pairs() {
    let fixture = open().await;
    let one = Sha256::of(&png(1));
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
    let [one, two] = [1, 2].map(|shade| Sha256::of(&png(shade)));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_erasure_beside_an_upload_never_leaves_a_row_without_bytes() {
    let fixture = open().await;
    let one = Sha256::of(&png(1));
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

fn blob_file(fixture: &Fixture, id: Sha256) -> std::path::PathBuf {
    let hex = id.to_string();
    let folder = fixture.folder.path().join("blobs/images").join(&hex[..2]);
    folder.join(hex)
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
        .delete_image(Sha256::of(b"none"))
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
            .image_bytes(Sha256::of(&png(1)))
            .await
            .unwrap(),
        Some(png(1))
    );
}

#[tokio::test]
async fn bytes_that_no_row_names_are_swept_and_others_stay() {
    let fixture = open().await;
    let (row, _) = fixture.ingest.add_image(png(1)).await.unwrap();
    let orphan = Sha256::of(&png(2));
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
