//! The split into training and held-out pairs, which no image and no group is on both sides of.

use std::collections::HashSet;

use kith::db::{DbError, Split};
use kith_mcmc::PairKey;
use proptest::prelude::*;

use super::{Fixture, count_pairs, open, post, sha, try_post};

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
