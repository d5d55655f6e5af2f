//! Chooses the pairs of the database that a model is evaluated on, and reads their images.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::{
    CheckpointError, Checkpoints,
    pair_sample::{PairSample, RecentShare, choose, choose_mixed},
};
use crate::{
    db::{PairKeys, Split},
    image_store::{ImageError, ImageStore},
    types::Sha256,
};
use kith_eval::EvaluationSet;
use kith_mcmc::{GroupKey, ImageKey};

/// Largest sum of a set's encoded images in bytes: further pairs are left out.
const MAX_BYTES: usize = 256 << 20;

impl Checkpoints {
    /// The held-out pairs of the database, at most `max_pairs` (a fixed choice by hash, so that evaluations compare), each image once.
    ///
    /// A pair of one image with itself says nothing about retrieval and is left out. So is a pair with an image that is on the other side of
    /// a chosen pair: a query that finds itself in the gallery would count as a hit.
    ///
    /// # Errors
    /// A failure of a store. An image that is damaged or missing is none: its pair is left out.
    pub async fn held_out_set(&self, max_pairs: usize) -> Result<EvaluationSet, CheckpointError> {
        let chosen = choose(&self.db, Split::Holdout, max_pairs).await?;
        self.evaluation_set(&one_sided(chosen)).await
    }

    /// A fixed sample of trained pairs, for the geometry of the embeddings only.
    ///
    /// # Errors
    /// Those of [`Checkpoints::held_out_set`].
    pub async fn trained_set(&self, max_pairs: usize) -> Result<EvaluationSet, CheckpointError> {
        let chosen = choose(&self.db, Split::Train, max_pairs).await?;
        self.evaluation_set(&chosen).await
    }

    /// At most `max_pairs` trained pairs, of which the recent ones have their share.
    ///
    /// # Errors
    /// A failure of the database.
    pub async fn trained_pairs(
        &self,
        max_pairs: usize,
        recent: RecentShare,
    ) -> Result<PairSample, CheckpointError> {
        choose_mixed(&self.db, max_pairs, recent).await
    }

    /// The encoded bytes of a stored image; `None`: it is damaged or gone.
    ///
    /// # Errors
    /// A failure of a store.
    pub async fn image_bytes(&self, image: ImageKey) -> Result<Option<Bytes>, CheckpointError> {
        let id = self
            .db
            .image_ids(&[image])
            .await?
            .into_iter()
            .next()
            .flatten();
        let Some(id) = id else { return Ok(None) };
        match ImageStore::new(self.blobs.clone(), self.db.clone())
            .read(id)
            .await
        {
            Ok(bytes) => Ok(bytes),
            // Listed and logged when it was found.
            Err(ImageError::Damaged { .. }) => Ok(None),
            Err(ImageError::Blobs(error)) => Err(error.into()),
            Err(ImageError::Db(error)) => Err(error.into()),
        }
    }

    async fn evaluation_set(&self, pairs: &[PairKeys]) -> Result<EvaluationSet, CheckpointError> {
        let labels = labels(pairs);
        let mut images = Images::default();
        let mut seen: [HashSet<ImageKey>; 2] = Default::default();
        let mut set = EvaluationSet::default();
        let mut asked = Vec::new();
        for (place, (pair, label)) in pairs.iter().zip(labels).enumerate() {
            if images.bytes > MAX_BYTES {
                let chosen = pairs.len();
                tracing::warn!(
                    pairs = place,
                    chosen,
                    "the evaluation's images are too large together: some pairs are left out"
                );
                break;
            }
            let anchor = images.get(self, pair.images[0]).await?;
            let positive = images.get(self, pair.images[1]).await?;
            let (Some(anchor), Some(positive)) = (anchor, positive) else {
                continue;
            };
            if seen[0].insert(pair.images[0]) {
                set.anchors.push(anchor);
                set.anchor_labels.push(label);
                asked.push([0, u64::from(pair.images[0].0), label]);
            }
            if seen[1].insert(pair.images[1]) {
                set.positives.push(positive);
                set.positive_labels.push(label);
                asked.push([1, u64::from(pair.images[1].0), label]);
            }
        }
        set.questions = digest(&asked);
        Ok(set)
    }
}

/// Half of a SHA-256 over (side, image, label) of all images: keys of images are never used twice.
fn digest(asked: &[[u64; 3]]) -> String {
    let bytes: Vec<u8> = asked
        .as_flattened()
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect();
    Sha256::digest(&bytes).to_string()[..32].to_owned()
}

/// Images read so far: an image of several pairs is read once.
#[derive(Default)]
struct Images {
    known: HashMap<ImageKey, Option<Bytes>>,
    bytes: usize,
}

impl Images {
    /// `None`, with a warning, where the image is gone.
    async fn get(
        &mut self,
        checkpoints: &Checkpoints,
        image: ImageKey,
    ) -> Result<Option<Bytes>, CheckpointError> {
        if let Some(known) = self.known.get(&image) {
            return Ok(known.clone());
        }
        let bytes = checkpoints.image_bytes(image).await?;
        match &bytes {
            Some(bytes) => self.bytes += bytes.len(),
            None => tracing::warn!(image = image.0, "an evaluation image is gone"),
        }
        self.known.insert(image, bytes.clone());
        Ok(bytes)
    }
}

/// Drops each pair that would put an image on the other side, too.
fn one_sided(pairs: Vec<PairKeys>) -> Vec<PairKeys> {
    let mut sides: [HashSet<ImageKey>; 2] = Default::default();
    let mut fits = |pair: &PairKeys| {
        let [anchor, positive] = pair.images;
        let fits = !sides[1].contains(&anchor) && !sides[0].contains(&positive);
        if fits {
            sides[0].insert(anchor);
            sides[1].insert(positive);
        }
        fits
    };
    pairs.into_iter().filter(|pair| fits(pair)).collect()
}

/// One label a pair, equal for pairs that are joined by shared images and groups.
fn labels(pairs: &[PairKeys]) -> Vec<u64> {
    let mut parents: Vec<usize> = (0..pairs.len()).collect();
    let mut first_image: HashMap<ImageKey, usize> = HashMap::new();
    let mut first_group: HashMap<GroupKey, usize> = HashMap::new();
    for (row, pair) in pairs.iter().enumerate() {
        for image in pair.images {
            let first = *first_image.entry(image).or_insert(row);
            join(&mut parents, first, row);
        }
        if let Some(group) = pair.group {
            let first = *first_group.entry(group).or_insert(row);
            join(&mut parents, first, row);
        }
    }
    (0..pairs.len())
        .map(|row| root(&mut parents, row) as u64)
        .collect()
}

fn join(parents: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(parents, a), root(parents, b));
    parents[a.max(b)] = a.min(b);
}

fn root(parents: &mut [usize], mut row: usize) -> usize {
    while parents[row] != row {
        parents[row] = parents[parents[row]];
        row = parents[row];
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_mcmc::{PairKey, PairWeight};

    fn pair(key: u32, images: [u32; 2], group: Option<u32>) -> PairKeys {
        PairKeys {
            pair: PairKey(key),
            images: images.map(ImageKey),
            group: group.map(GroupKey),
            weight: PairWeight::ONE,
            split: Split::Holdout,
            created_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn pairs_joined_by_an_image_or_a_group_share_a_label() {
        let pairs = [
            pair(1, [1, 2], None),
            pair(2, [3, 4], Some(9)),
            pair(3, [1, 5], None),
            pair(4, [6, 7], Some(9)),
            pair(5, [5, 7], None),
            pair(6, [8, 9], None),
        ];
        let labels = labels(&pairs);
        assert!(labels[..5].iter().all(|label| *label == labels[0]));
        assert_ne!(labels[5], labels[0]);
    }

    #[test]
    fn no_image_is_both_query_and_gallery() {
        let pairs = vec![
            pair(1, [1, 2], None),
            pair(2, [1, 3], None),
            pair(3, [2, 3], None),
            pair(4, [4, 1], None),
            pair(5, [4, 3], None),
        ];
        let kept: Vec<u32> = one_sided(pairs).iter().map(|pair| pair.pair.0).collect();
        assert_eq!(kept, [1, 2, 5]);
    }
}
