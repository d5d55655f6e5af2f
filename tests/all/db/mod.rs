//! The database: what was committed stays, what was refused leaves nothing, and no image is both held out and trained.

mod checkpoints;
mod erasures;
mod keys;
mod places;
mod rows;
mod split;

use kith::{
    db::{Db, DbError, NewImage, NewPair, PairRow, Split},
    types::Sha256,
};
use kith_mcmc::PairKey;
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
    Sha256::digest(&n.to_le_bytes())
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
        weight: None,
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
