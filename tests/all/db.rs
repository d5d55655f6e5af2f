//! The database: what was committed stays, what was refused leaves nothing, and no image is both held out and trained.

use std::collections::HashSet;

use kith::{
    db::{Db, DbError, NewImage, NewPair, PairRow, Split},
    types::Sha256,
};
use kith_mcmc::{ImageKey, PairKey};
use proptest::prelude::*;
use tempfile::TempDir;

struct Fixture {
    db: Db,
    folder: TempDir,
}

/// Number of pairs by split: (train, holdout, unused).
pub(crate) async fn count_pairs(db: &Db) -> (u64, u64, u64) {
    let pairs = db.pair_keys_after(PairKey(0), u32::MAX).await.unwrap();
    let count = |split| pairs.iter().filter(|pair| pair.split == split).count() as u64;
    (
        count(Split::Train),
        count(Split::Holdout),
        count(Split::Unused),
    )
}

async fn open() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&folder.path().join("kith.db")).await.unwrap();
    Fixture { db, folder }
}

fn sha(n: u32) -> Sha256 {
    Sha256::of(&n.to_le_bytes())
}

fn image(n: u32) -> NewImage {
    NewImage {
        sha256: sha(n),
        bytes: 100,
        width: 4,
        height: 3,
        format: "png".into(),
    }
}

fn pair(anchor: u32, positive: u32, group: Option<&str>) -> NewPair {
    NewPair {
        anchor: sha(anchor),
        positive: sha(positive),
        group: group.map(str::to_owned),
    }
}

/// Posts pairs of images by number, all in one request.
async fn post(db: &Db, pairs: &[(u32, u32, Option<&str>)], share: f64) -> Vec<(PairRow, bool)> {
    try_post(db, pairs, share).await.unwrap()
}

async fn try_post(
    db: &Db,
    pairs: &[(u32, u32, Option<&str>)],
    share: f64,
) -> Result<Vec<(PairRow, bool)>, DbError> {
    let images: Vec<_> = pairs
        .iter()
        .flat_map(|(anchor, positive, _)| [image(*anchor), image(*positive)])
        .collect();
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(a, p, group)| pair(*a, *p, *group))
        .collect();
    db.insert_pairs(&images, &pairs, share).await
}

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
async fn a_new_pair_follows_the_pairs_it_is_related_to() {
    let Fixture {
        db,
        folder: _folder,
    } = open().await;
    // A share of 1 or 0 says what the hash would.
    assert_eq!(
        post(&db, &[(1, 2, Some("held"))], 1.0).await[0].0.split,
        Split::Holdout
    );
    assert_eq!(
        post(&db, &[(3, 4, Some("trained"))], 0.0).await[0].0.split,
        Split::Train
    );
    let cases = [
        ((5, 2, None), 0.0, Split::Holdout),
        ((6, 7, Some("held")), 0.0, Split::Holdout),
        ((8, 7, None), 0.0, Split::Holdout),
        ((3, 9, None), 1.0, Split::Train),
        ((10, 11, Some("trained")), 1.0, Split::Train),
        ((1, 3, None), 0.0, Split::Unused),
        ((12, 2, Some("trained")), 0.0, Split::Unused),
        ((12, 13, None), 1.0, Split::Holdout), // an unused pair decides nothing
    ];
    for (pair, share, split) in cases {
        assert_eq!(
            post(&db, &[pair], share).await[0].0.split,
            split,
            "{pair:?}"
        );
    }
    // Earlier pairs of the same request count.
    let together = post(&db, &[(20, 21, None), (21, 22, None), (22, 23, None)], 1.0).await;
    assert!(together.iter().all(|(row, _)| row.split == Split::Holdout));
    assert_eq!(
        post(&db, &[(23, 24, None)], 0.0).await[0].0.split,
        Split::Holdout
    );
    assert_eq!(count_pairs(&db).await, (3, 9, 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_image_and_no_group_is_both_trained_and_held_out(
        requests in prop::collection::vec(prop::collection::vec((0u32..24, 0u32..24, prop::option::of(0u8..6)), 1..6), 1..12),
        erase in prop::collection::vec(0u32..24, 0..4),
        share in 0.1f64..0.9,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (rows, unused) = runtime.block_on(async {
            let Fixture { db, folder: _folder } = open().await;
            for (at, request) in requests.iter().enumerate() {
                let names: Vec<_> = request.iter().map(|(.., group)| group.map(|g| format!("g{g}"))).collect();
                let pairs: Vec<_> = request.iter().zip(&names).map(|((a, p, _), g)| (*a, *p, g.as_deref())).collect();
                match try_post(&db, &pairs, share).await {
                    Ok(_) | Err(DbError::OtherGroup { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                if let Some(image) = erase.get(at) {
                    db.delete_image(sha(*image)).await.unwrap();
                }
            }
            (db.pairs_after(PairKey(0), 1000, None).await.unwrap(), count_pairs(&db).await)
        });
        let of = |split| rows.iter().filter(move |row| row.split == split);
        let images = |split| of(split).flat_map(|row| [row.anchor, row.positive]).collect::<HashSet<_>>();
        let groups = |split| of(split).filter_map(|row| row.group.clone()).collect::<HashSet<_>>();
        prop_assert!(images(Split::Train).is_disjoint(&images(Split::Holdout)));
        prop_assert!(groups(Split::Train).is_disjoint(&groups(Split::Holdout)));
        let counts = [Split::Train, Split::Holdout, Split::Unused].map(|split| of(split).count() as u64);
        prop_assert_eq!(unused, (counts[0], counts[1], counts[2]));
    }
}

#[tokio::test]
async fn deleting_an_image_takes_its_pairs_and_logs_them() {
    let Fixture {
        db,
        folder: _folder,
    } = open().await;
    let stored = post(
        &db,
        &[
            (1, 2, Some("g")),
            (3, 1, None),
            (4, 5, Some("h")),
            (1, 1, None),
        ],
        0.0,
    )
    .await;
    assert!(db.delete_image(sha(1)).await.unwrap());
    assert!(!db.delete_image(sha(1)).await.unwrap());
    assert_eq!(db.image(sha(1)).await.unwrap(), None);
    let left = db.pairs_after(PairKey(0), 10, None).await.unwrap();
    assert_eq!(left, [stored[2].0.clone()]);
    assert!(
        db.image(sha(2)).await.unwrap().is_some(),
        "the other images stay"
    );

    let log = db.erasures_after(0, 10).await.unwrap();
    let erased: HashSet<_> = log.iter().map(|erasure| erasure.pair).collect();
    assert_eq!(
        erased,
        HashSet::from([0, 1, 3].map(|pair: usize| stored[pair].0.key))
    );
    assert!(log.is_sorted_by_key(|erasure| erasure.sequence));
    assert_eq!(
        db.erasures_after(log[0].sequence, 1).await.unwrap(),
        log[1..2]
    );

    assert!(db.delete_pair(left[0].id).await.unwrap());
    assert!(!db.delete_pair(left[0].id).await.unwrap());
    let log = db.erasures_after(log[2].sequence, 10).await.unwrap();
    assert_eq!(
        log.iter().map(|erasure| erasure.pair).collect::<Vec<_>>(),
        [left[0].key]
    );
}

#[tokio::test]
async fn an_erased_image_is_remembered_as_unlinked_until_it_is_forgotten() {
    let Fixture {
        db,
        folder: _folder,
    } = open().await;
    db.insert_images(&[image(1), image(2)]).await.unwrap();
    db.delete_image(sha(1)).await.unwrap();
    assert_eq!(db.unlinked_images().await.unwrap(), [sha(1)]);
    db.forget_unlinked(sha(1)).await.unwrap();
    assert!(db.unlinked_images().await.unwrap().is_empty());
}

#[tokio::test]
async fn keys_are_never_used_twice() {
    let Fixture { db, folder } = open().await;
    let before = post(&db, &[(1, 2, Some("g"))], 0.0).await;
    let keys = db.pair_keys_after(PairKey(0), 1).await.unwrap()[0];
    db.delete_image(sha(1)).await.unwrap();
    db.delete_image(sha(2)).await.unwrap();
    db.close().await;
    let db = Db::open(&folder.path().join("kith.db")).await.unwrap();
    let after = post(&db, &[(1, 2, Some("g"))], 0.0).await;
    assert!(after[0].0.key > before[0].0.key);
    let again = db.pair_keys_after(PairKey(0), 1).await.unwrap()[0];
    assert!(again.images.iter().min() > keys.images.iter().max());
    assert!(again.group > keys.group);
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
async fn erasures_that_were_taken_in_are_forgotten_and_their_numbers_are_never_used_again() {
    let Fixture {
        db,
        folder: _folder,
    } = open().await;
    assert_eq!(db.last_erasure().await.unwrap(), 0);
    for n in 0..3 {
        let stored = post(&db, &[(1, 2 + n, None)], 0.0).await;
        db.delete_pair(stored[0].0.id).await.unwrap();
    }
    let last = db.last_erasure().await.unwrap();
    assert_eq!(db.prune_erasures(last - 1).await.unwrap(), 2);
    let left = db.erasures_after(0, 10).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(db.prune_erasures(last).await.unwrap(), 1);
    assert_eq!(db.prune_erasures(last).await.unwrap(), 0);
    assert_eq!(db.last_erasure().await.unwrap(), last);
    let stored = post(&db, &[(1, 9, None)], 0.0).await;
    db.delete_pair(stored[0].0.id).await.unwrap();
    assert_eq!(db.last_erasure().await.unwrap(), last + 1);
    assert_eq!(db.erasures_after(last, 10).await.unwrap().len(), 1);
}
