//! Deleted images and pairs: what goes with them, what is logged, and that their numbers are never used again.

use std::collections::HashSet;

use kith::db::Db;
use kith_mcmc::PairKey;

use super::{Fixture, image, open, post, sha};

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
