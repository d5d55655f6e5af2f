//! Candidates that are tried under a name: which requests they answer, and how they compare where they only shadow.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::{Embedded, neighbours::Neighbours};
use crate::{
    db::{Canary, Db, DbError},
    types::{CheckpointId, Sha256},
};
use kith_seed::{mix, unit};

/// How a shadow compared so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Images that both have embedded.
    pub images: u64,
    /// Mean share of an image's nearest neighbours among the newest images that are the same to both; `None`: too few images yet.
    pub shared_neighbours: Option<f64>,
}

/// The canaries of all names, read from the database at intervals.
pub(super) struct Canaries {
    db: Db,
    by_name: ArcSwap<HashMap<String, Canary>>,
    shadows: Mutex<HashMap<String, Shadow>>,
    /// One comparison runs at a time; what comes meanwhile is left out.
    comparing: Arc<Semaphore>,
}

/// What is known of two checkpoints under a name. It begins anew when either changes.
struct Shadow {
    pair: [CheckpointId; 2],
    neighbours: Neighbours,
}

impl Canaries {
    pub(super) fn new(db: Db) -> Self {
        Self {
            db,
            by_name: ArcSwap::default(),
            shadows: Mutex::default(),
            comparing: Arc::new(Semaphore::new(1)),
        }
    }

    /// Reads the canaries now.
    pub(super) async fn follow(&self) -> Result<(), DbError> {
        let canaries = self.db.canaries().await?;
        let by_name: HashMap<_, _> = canaries
            .into_iter()
            .map(|canary| (canary.name.clone(), canary))
            .collect();
        self.shadows()
            .retain(|name, _| by_name.get(name).is_some_and(|canary| canary.shadow));
        if **self.by_name.load() != by_name {
            self.by_name.store(Arc::new(by_name));
        }
        Ok(())
    }

    /// The candidate that answers the holder of `key` under `name`; always the same for one holder. Callers without a key never get one:
    /// the vectors of one caller must come from one checkpoint.
    pub(super) fn answering(&self, name: &str, key: Option<Uuid>) -> Option<CheckpointId> {
        let canaries = self.by_name.load();
        let canary = canaries.get(name).filter(|canary| !canary.shadow)?;
        let (high, low) = key?.as_u64_pair();
        is_chosen(&[high, low], name, canary.percent).then_some(canary.checkpoint)
    }

    /// The candidate that an image under `name` is compared with, and the permit to do so.
    pub(super) fn shadowing(
        &self,
        name: &str,
        image: &[u8],
    ) -> Option<(CheckpointId, OwnedSemaphorePermit)> {
        let canaries = self.by_name.load();
        let canary = canaries.get(name).filter(|canary| canary.shadow)?;
        // A long file is hashed only where there is a shadow and nothing else is being compared.
        let permit = self.comparing.clone().try_acquire_owned().ok()?;
        let digest = Sha256::digest(image);
        let word = digest
            .as_bytes()
            .first_chunk()
            .copied()
            .map(u64::from_le_bytes)?;
        let chosen = is_chosen(&[word], name, canary.percent);
        chosen.then_some((canary.checkpoint, permit))
    }

    /// Takes the embeddings of one image by both checkpoints.
    pub(super) fn compare(&self, name: &str, own: &Embedded, candidate: &Embedded) {
        let pair = [own.model.id, candidate.model.id];
        let mut shadows = self.shadows();
        let shadow = shadows.entry(name.to_owned()).or_insert_with(|| Shadow {
            pair,
            neighbours: Neighbours::default(),
        });
        if shadow.pair != pair {
            *shadow = Shadow {
                pair,
                neighbours: Neighbours::default(),
            };
        }
        let side = own.side;
        for (own, candidate) in own.rows.iter().zip(&candidate.rows) {
            shadow
                .neighbours
                .add(side, [&own.embedding, &candidate.embedding]);
        }
    }

    /// How the shadow of `name` compared so far.
    pub(super) fn comparison(&self, name: &str) -> Comparison {
        let shadows = self.shadows();
        shadows
            .get(name)
            .map_or_else(Comparison::default, |shadow| Comparison {
                images: shadow.neighbours.images(),
                shared_neighbours: shadow.neighbours.shared(),
            })
    }

    fn shadows(&self) -> MutexGuard<'_, HashMap<String, Shadow>> {
        // A panic leaves at worst one comparison out.
        self.shadows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `key` belongs to the first `percent` of all keys under `name`. More percent keep those that there were.
fn is_chosen(key: &[u64], name: &str, percent: f64) -> bool {
    let name = name.bytes().map(u64::from);
    let words: Vec<u64> = key.iter().copied().chain(name).collect();
    unit(mix(&words)) * 100.0 < percent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_keys_is_chosen_and_stays_chosen_as_the_share_grows() {
        let keys = 4000;
        let chosen = |percent| -> Vec<u64> {
            (0..keys)
                .filter(|key| is_chosen(&[*key], "kith", percent))
                .collect()
        };
        let (few, more) = (chosen(10.0), chosen(30.0));
        // Five standard deviations of a binomial distribution.
        let deviation = (keys as f64 * 0.1 * 0.9).sqrt();
        assert!(
            (few.len() as f64 - 400.0).abs() < 5.0 * deviation,
            "{}",
            few.len()
        );
        assert!(few.iter().all(|key| more.contains(key)));
        assert_eq!(chosen(100.0).len(), keys as usize);
        assert!(chosen(0.0).is_empty());
        let other = (0..keys).filter(|key| is_chosen(&[*key], "shop", 10.0));
        assert_ne!(other.collect::<Vec<_>>(), few);
    }
}
