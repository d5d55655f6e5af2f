//! Images and pairs in rows: stored once, whole or not at all, and read in pages.

use kith::db::{Db, DbError, NewPair};
use kith_mcmc::{ImageKey, PairKey, PairWeight};

use super::{
    Fixture, checkpoints::open_before, count_pairs, image, open, pair, post, sha, try_post,
};

#[tokio::test]
async fn images_and_pairs_are_there_after_reopening() {
    let Fixture { db, folder } = open().await;
    let stored = post(&db, &[(1, 2, Some("g")), (3, 3, None)], 0.0).await;
    db.close().await;

    let db = Db::open(&folder.path().join("kith.db")).await.unwrap();
    db.ping().await.unwrap();
    let rows = db.pairs_after(PairKey(0), 10, None).await.unwrap();
    assert_eq!(
        rows,
        stored
            .iter()
            .map(|(row, _)| row.clone())
            .collect::<Vec<_>>()
    );
    assert_eq!(rows[0].group.as_deref(), Some("g"));
    assert_eq!((rows[1].anchor, rows[1].positive), (sha(3), sha(3)));
    assert_eq!(db.pair(rows[1].id).await.unwrap().as_ref(), Some(&rows[1]));
    assert_eq!(db.count_images().await.unwrap(), 3);
    assert_eq!(count_pairs(&db).await, (2, 0, 0));
    let keys = db.pair_keys_after(PairKey(0), 10).await.unwrap();
    assert_eq!(keys[1].images[0], keys[1].images[1]);
    assert_ne!(keys[0].group, None);
    assert_eq!(keys[1].group, None);
}

#[tokio::test]
async fn an_image_keeps_the_row_of_its_first_upload() {
    let Fixture {
        db,
        folder: _folder,
    } = open().await;
    let first = db
        .insert_images(&[image(1), image(2), image(1)])
        .await
        .unwrap();
    assert_eq!(
        first.iter().map(|(_, new)| *new).collect::<Vec<_>>(),
        [true, true, false]
    );
    assert_eq!(first[2].0, first[0].0);
    let again = db.insert_images(&[image(2)]).await.unwrap();
    assert_eq!(again, [(first[1].0.clone(), false)]);
    assert_eq!(db.image(sha(2)).await.unwrap().as_ref(), Some(&first[1].0));
    assert_eq!(db.image(sha(9)).await.unwrap(), None);
}

#[tokio::test]
async fn images_are_counted_once_each_and_those_of_an_older_database_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kith.db");
    let old = open_before(11, &file).await;
    for key in 1..=3_u8 {
        sqlx::query("INSERT INTO images VALUES (?, ?, 1, 1, 1, 'png', '2026-01-02T03:04:05Z')")
            .bind(key)
            .bind(sha(key.into()).as_bytes().to_vec())
            .execute(&old)
            .await
            .unwrap();
    }
    old.close().await;
    let db = Db::open(&file).await.unwrap();
    assert_eq!(db.count_images().await.unwrap(), 3);
    db.insert_images(&[image(3), image(4), image(4)])
        .await
        .unwrap();
    assert_eq!(db.count_images().await.unwrap(), 4);
    assert!(db.delete_image(sha(2)).await.unwrap());
    assert!(!db.delete_image(sha(2)).await.unwrap());
    assert_eq!(db.count_images().await.unwrap(), 3);
}

#[tokio::test]
async fn pages_go_through_everything_once() {
    let Fixture {
        db,
        folder: _folder,
    } = open().await;
    let pairs: Vec<_> = (0..10)
        .map(|n| {
            (
                2 * n,
                2 * n + 1,
                Some(if n % 2 == 0 { "even" } else { "odd" }),
            )
        })
        .collect();
    post(&db, &pairs, 0.0).await;
    let mut seen = Vec::new();
    let mut after = PairKey(0);
    loop {
        let page = db.pairs_after(after, 3, None).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.key;
        seen.extend(page.iter().map(|row| row.anchor));
    }
    assert_eq!(seen, (0..10).map(|n| sha(2 * n)).collect::<Vec<_>>());
    let even = db.pairs_after(PairKey(0), 4, Some("even")).await.unwrap();
    assert_eq!(
        even.iter().map(|row| row.anchor).collect::<Vec<_>>(),
        [0, 4, 8, 12].map(sha)
    );
    let rest = db.pairs_after(even[3].key, 4, Some("even")).await.unwrap();
    assert_eq!(rest.len(), 1);
    assert!(
        db.pairs_after(PairKey(0), 4, Some("no such"))
            .await
            .unwrap()
            .is_empty()
    );

    let images = db.images_after(ImageKey(0), 100, None).await.unwrap();
    assert_eq!(images.len(), 20);
    let page = db.images_after(images[4].key, 3, None).await.unwrap();
    assert_eq!(page, images[5..8]);
}

#[tokio::test]
async fn a_request_with_an_unknown_image_leaves_nothing() {
    let Fixture {
        db,
        folder: _folder,
    } = open().await;
    let pairs = [pair(1, 2, Some("g")), pair(1, 7, None)];
    let refused = db.insert_pairs(&[image(1), image(2)], &pairs, 0.5).await;
    assert!(
        matches!(refused, Err(DbError::MissingImage(id)) if id == sha(7)),
        "{refused:?}"
    );
    assert_eq!(db.count_images().await.unwrap(), 0);
    assert_eq!(count_pairs(&db).await, (0, 0, 0));
    assert!(
        db.insert_images(&[image(1)]).await.unwrap()[0].1,
        "the database goes on"
    );
}

#[tokio::test]
async fn the_same_two_images_are_one_pair_either_way_round_and_within_a_request() {
    let Fixture {
        db,
        folder: _folder,
    } = open().await;
    let stored = post(
        &db,
        &[(1, 2, Some("g")), (2, 1, Some("g")), (1, 1, None)],
        0.0,
    )
    .await;
    assert_eq!(
        stored
            .iter()
            .map(|(_, duplicate)| *duplicate)
            .collect::<Vec<_>>(),
        [false, true, false]
    );
    assert_eq!(stored[1].0, stored[0].0);
    let again = post(&db, &[(2, 1, None)], 1.0).await;
    assert_eq!(again, [(stored[0].0.clone(), true)]);
    // Another group than it has is refused, with all that came beside it, also where it has none.
    for (index, wrong) in [
        (1, [(5, 6, None), (2, 1, Some("h"))]),
        (0, [(1, 1, Some("h")), (5, 6, None)]),
    ] {
        let refused = try_post(&db, &wrong, 0.0).await.unwrap_err();
        assert!(
            matches!(refused, DbError::OtherGroup { index: at, .. } if at == index),
            "{refused}"
        );
    }
    assert_eq!(count_pairs(&db).await, (2, 0, 0));
}

#[tokio::test]
async fn ids_are_answered_in_the_order_asked() {
    let Fixture {
        db,
        folder: _folder,
    } = open().await;
    let rows = db
        .insert_images(&[image(1), image(2), image(3)])
        .await
        .unwrap();
    let keys: Vec<_> = rows.iter().map(|(row, _)| row.key).collect();
    db.delete_image(sha(2)).await.unwrap();
    let ids = db
        .image_ids(&[keys[2], keys[1], keys[0], keys[2]])
        .await
        .unwrap();
    assert_eq!(ids, [Some(sha(3)), None, Some(sha(1)), Some(sha(3))]);
    assert!(db.image_ids(&[]).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_and_readers_are_never_refused() {
    let Fixture { db, folder } = open().await;
    // A second handle stands for a second process on the same file.
    let other = Db::open(&folder.path().join("kith.db")).await.unwrap();
    let tasks = (0..16u32).map(|n| {
        let db = if n % 2 == 0 {
            db.clone()
        } else {
            other.clone()
        };
        tokio::spawn(async move {
            for round in 0..5 {
                let first = 1000 * n + 10 * round;
                post(
                    &db,
                    &[(first, first + 1, Some("one")), (7, first, None)],
                    0.5,
                )
                .await;
                db.pairs_after(PairKey(0), 10, None).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let (train, holdout, unused) = count_pairs(&db).await;
    assert_eq!(train + holdout + unused, 160);
}

#[tokio::test]
async fn pairs_of_an_older_database_have_weight_1_and_another_weight_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kith.db");
    let old = super::checkpoints::open_before(8, &file).await;
    for n in [1, 2] {
        sqlx::query("INSERT INTO images (sha256, bytes, width, height, format, created_at) VALUES (?, 100, 4, 3, 'png', '2026-01-02T03:04:05Z')")
            .bind(&sha(n).as_bytes()[..])
            .execute(&old)
            .await
            .unwrap();
    }
    sqlx::query("INSERT INTO pairs (id, anchor, positive, split, created_at) VALUES (?, 1, 2, 'train', '2026-01-02T03:04:05Z')")
        .bind(&[7_u8; 16][..])
        .execute(&old)
        .await
        .unwrap();
    old.close().await;

    let db = Db::open(&file).await.unwrap();
    let weight = |value| NewPair {
        weight: PairWeight::new(value),
        ..pair(1, 2, None)
    };
    let keys = db.pair_keys_after(PairKey(0), 9).await.unwrap();
    assert_eq!(keys[0].weight, PairWeight::ONE);
    let (row, duplicate) = db.insert_pairs(&[], &[weight(1.0)], 0.0).await.unwrap()[0].clone();
    assert_eq!((row.weight, duplicate), (PairWeight::ONE, true));
    let refused = db.insert_pairs(&[], &[weight(2.0)], 0.0).await;
    assert!(matches!(refused, Err(DbError::OtherWeight { .. })));
}
