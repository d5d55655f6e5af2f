//! Chooses the images and the chains that an audit of the sampler compares: a sample of both where there are many.

use std::collections::{HashMap, HashSet};

use kith_mcmc::{ChainColumns, ChainState, PairEntry, PairGraph, PairKey, SidedImage, SlotKey};
use kith_seed::mix;

use crate::db::{Db, DbError, Split};

/// Rows read from the database at once.
const PAGE: u32 = 4096;
/// What the seeds below are for.
const IMAGES: u64 = 1;
const CHAINS: u64 = 2;

/// The trained pairs of a database.
pub(super) struct TrainedPairs {
    pub(super) graph: PairGraph,
    /// Ascending.
    keys: Vec<PairKey>,
}

impl TrainedPairs {
    /// Reads all of them. `directed`: each side of a pair has an encoder of its own.
    pub(super) async fn read(db: &Db, directed: bool) -> Result<Self, DbError> {
        let graph = if directed {
            PairGraph::directed()
        } else {
            PairGraph::default()
        };
        let (mut pairs, mut after) = (
            Self {
                graph,
                keys: Vec::new(),
            },
            PairKey(0),
        );
        loop {
            let page = db.pair_keys_after(after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(pairs);
            };
            after = last.pair;
            for row in page.iter().filter(|row| row.split == Split::Train) {
                let entry = PairEntry {
                    images: row.images,
                    group: row.group,
                    weight: row.weight,
                };
                pairs.graph.insert(row.pair, entry);
                pairs.keys.push(row.pair);
            }
        }
    }
}

/// How much is compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleSize {
    pub(super) images: usize,
    pub(super) chains: usize,
    /// Fewest visits of a chain.
    pub(super) min_visits: u32,
    pub(super) seed: u64,
}

/// A chain and the state that it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct HeldState {
    pub(super) anchor: SlotKey,
    pub(super) state: ChainState,
}

/// What is compared.
pub(super) struct Sample {
    /// Images that states are compared among, each with one of its slots, ascending.
    pub(super) images: Vec<(SidedImage, SlotKey)>,
    /// Images that they were chosen from.
    pub(super) all_images: usize,
    /// Chains whose state is one of the images.
    pub(super) chains: Vec<HeldState>,
    /// Chains whose state is no candidate any more: its pair was deleted, or its image is a known positive by now.
    pub(super) dropped: usize,
}

impl Sample {
    /// Chooses images and chains by hashes of their keys and the seed, which the states do not depend on. Given that a chain's state is one of the
    /// chosen images, it is distributed by the softmax over these. Images of pairs that came after the newest chain are left out, as no chain could
    /// have met them.
    pub(super) fn new(pairs: &TrainedPairs, columns: &ChainColumns, size: SampleSize) -> Self {
        let newest = columns.anchor.iter().max().copied().unwrap_or_default();
        let newest = SlotKey::from_packed(newest).pair();
        let mut slots: HashMap<SidedImage, SlotKey> = HashMap::new();
        for pair in pairs.keys.iter().filter(|pair| **pair <= newest) {
            for slot in pair.slots() {
                if let Some(image) = pairs.graph.sided_image(slot) {
                    slots.entry(image).or_insert(slot);
                }
            }
        }
        let all_images = slots.len();
        let key = |(image, _): &(SidedImage, SlotKey)| {
            let words = [size.seed, IMAGES, image.image.0.into()];
            mix(&[&words[..], &[image.side.index() as u64]].concat())
        };
        let mut images = smallest(slots.into_iter().collect(), size.images, key);
        images.sort_unstable();
        let chosen: HashSet<SidedImage> = images.iter().map(|(image, _)| *image).collect();
        let (mut chains, mut dropped) = (Vec::new(), 0);
        for held in rows(columns).filter(|held| held.state.visits >= size.min_visits) {
            let positives = pairs.graph.positives(held.anchor);
            match pairs.graph.sided_image(held.state.negative) {
                Some(_) if positives.excludes(held.state.negative) => dropped += 1,
                Some(image) if chosen.contains(&image) => chains.push(held),
                Some(_) => {}
                None => dropped += 1,
            }
        }
        let key = |held: &HeldState| mix(&[size.seed, CHAINS, held.anchor.packed().into()]);
        Self {
            images,
            all_images,
            chains: smallest(chains, size.chains, key),
            dropped,
        }
    }
}

fn rows(columns: &ChainColumns) -> impl Iterator<Item = HeldState> {
    let row = |row: usize| HeldState {
        anchor: SlotKey::from_packed(columns.anchor[row]),
        state: ChainState {
            negative: SlotKey::from_packed(columns.negative[row]),
            log_score: columns.log_score[row],
            step: columns.step[row],
            visits: columns.visits[row],
            visits_since_move: columns.visits_since_move[row],
        },
    };
    (0..columns.anchor.len()).map(row)
}

/// The `count` items with the smallest keys.
fn smallest<T>(mut items: Vec<T>, count: usize, key: impl Fn(&T) -> u64) -> Vec<T> {
    if items.len() > count {
        items.sort_by_cached_key(key);
        items.truncate(count);
    }
    items
}

#[cfg(test)]
mod tests {
    use kith_mcmc::{ChainTable, ImageKey, PairWeight, StateKind};

    use super::*;

    /// Pairs 1 to `count`, of images of their own.
    fn pairs(count: u32) -> TrainedPairs {
        let mut graph = PairGraph::default();
        let keys: Vec<PairKey> = (1..=count).map(PairKey).collect();
        for key in &keys {
            let entry = PairEntry {
                images: [ImageKey(2 * key.0), ImageKey(2 * key.0 + 1)],
                group: None,
                weight: PairWeight::ONE,
            };
            graph.insert(*key, entry);
        }
        TrainedPairs { graph, keys }
    }

    /// Chains of all slots of pairs 1 to `count`, each in the slot `ahead` of it, around the circle.
    fn chains(count: u32, ahead: u32) -> ChainColumns {
        let table = ChainTable::new(StateKind::Chains);
        for slot in 2..2 * count + 2 {
            let state = ChainState {
                negative: SlotKey::from_packed((slot - 2 + ahead) % (2 * count) + 2),
                log_score: 0.0,
                step: 1,
                visits: slot,
                visits_since_move: 0,
            };
            table.put(SlotKey::from_packed(slot), state);
        }
        table.to_columns()
    }

    const ALL: SampleSize = SampleSize {
        images: 1000,
        chains: 1000,
        min_visits: 1,
        seed: 0,
    };

    #[test]
    fn pairs_newer_than_every_chain_have_no_candidates_among_the_images() {
        let sample = Sample::new(&pairs(30), &chains(20, 4), ALL);
        assert_eq!((sample.images.len(), sample.all_images), (40, 40));
        assert_eq!((sample.chains.len(), sample.dropped), (40, 0));
    }

    #[test]
    fn states_that_are_no_candidates_any_more_are_counted() {
        let mut pairs = pairs(20);
        pairs.graph.remove(PairKey(7));
        // The anchors of the pair that is gone have no positives: both chains count, and the two that hold its slots.
        assert_eq!(Sample::new(&pairs, &chains(20, 4), ALL).dropped, 4);
        // Partners are positives.
        let own = chains(20, 0);
        assert_eq!(Sample::new(&pairs, &own, ALL).dropped, own.anchor.len());
    }

    #[test]
    fn a_sample_has_its_size_and_only_chains_whose_state_is_in_it() {
        let pairs = pairs(100);
        let size = |images, chains, min_visits| SampleSize {
            images,
            chains,
            min_visits,
            seed: 5,
        };
        let part = Sample::new(&pairs, &chains(100, 4), size(50, 1000, 1));
        assert_eq!((part.images.len(), part.all_images), (50, 200));
        assert_eq!(part.chains.len(), 50);
        let fewer = Sample::new(&pairs, &chains(100, 4), size(50, 10, 1));
        assert_eq!(fewer.chains.len(), 10);
        let old = Sample::new(&pairs, &chains(100, 4), size(200, 1000, 150));
        assert_eq!(old.chains.len(), 52);
    }
}
