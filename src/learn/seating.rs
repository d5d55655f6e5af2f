//! Who is in the batch: its slots, and for each anchor who may be its negative and where its chain stands.
//! Must never know: embeddings, scores.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rayon::prelude::*;

use super::objective::counts;
use crate::{
    mcmc::{BatchSlot, Carried, ChainTable, PairGraph},
    types::{ImageKey, PairKey, Side, SlotKey},
};

/// The batch as the sampler sees it. Every slot is a candidate and an anchor.
pub(super) struct Seating {
    pub(super) slots: Vec<BatchSlot>,
    pub(super) seats: Vec<Seat>,
    /// For each slot ln of the number of slots here that hold its image.
    pub(super) log_repeats: Vec<f32>,
    /// The images of the slots, with the first slot of each.
    pub(super) images: BTreeMap<ImageKey, usize>,
}

/// One anchor.
pub(super) struct Seat {
    /// Which slots of the batch may not be its negatives.
    pub(super) masked: Vec<bool>,
    /// Where its chain stands, if that place may be its negative (still).
    pub(super) chain: Option<Chain>,
}

#[derive(Clone, Copy)]
pub(super) struct Chain {
    pub(super) carried: Carried,
    pub(super) image: ImageKey,
}

impl Seat {
    /// The image its chain stands on, when that is not part of the batch.
    pub(super) fn outside(&self) -> Option<ImageKey> {
        self.chain
            .filter(|chain| chain.carried.in_batch.is_none())
            .map(|chain| chain.image)
    }
}

impl Seating {
    /// `table`: `None` for an objective without chains. Runs in rayon's current pool.
    pub(super) fn new(pairs: &[PairKey], graph: &PairGraph, table: Option<&ChainTable>) -> Self {
        let keys: Vec<SlotKey> = pairs
            .iter()
            .flat_map(|pair| {
                [
                    SlotKey::new(*pair, Side::Anchor),
                    SlotKey::new(*pair, Side::Positive),
                ]
            })
            .collect();
        let log_degree = |slot: &SlotKey| {
            graph
                .image(*slot)
                .map_or(0.0, |image| graph.log_degree(image))
        };
        let slots = keys
            .iter()
            .map(|key| BatchSlot {
                key: *key,
                log_degree: log_degree(key),
            })
            .collect();
        let positions: HashMap<SlotKey, usize> = keys
            .iter()
            .enumerate()
            .map(|(position, key)| (*key, position))
            .collect();
        let seats = keys
            .par_iter()
            .map(|anchor| Seat::new(*anchor, &keys, &positions, graph, table))
            .collect();
        let held: Vec<Option<ImageKey>> = keys.iter().map(|key| graph.image(*key)).collect();
        let repeats = counts(held.iter().flatten().copied());
        let log_repeats = held.iter().map(|image| {
            let repeats = image.map_or(1, |image| repeats[&image]);
            (repeats as f32).ln()
        });
        let places = held.iter().enumerate().rev();
        Self {
            slots,
            seats,
            log_repeats: log_repeats.collect(),
            images: places
                .filter_map(|(slot, image)| Some(((*image)?, slot)))
                .collect(),
        }
    }

    /// Whether the image stands in the batch.
    pub(super) fn holds(&self, image: ImageKey) -> bool {
        self.images.contains_key(&image)
    }

    /// The distinct images outside the batch on which chains stand.
    pub(super) fn outside(&self) -> Vec<ImageKey> {
        self.seats
            .iter()
            .filter_map(Seat::outside)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Chains that stand on one of `images` start anew.
    pub(super) fn restart_on(&mut self, images: &BTreeSet<ImageKey>) {
        let gone = |seat: &&mut Seat| seat.outside().is_some_and(|image| images.contains(&image));
        self.seats
            .iter_mut()
            .filter(gone)
            .for_each(|seat| seat.chain = None);
    }
}

impl Seat {
    fn new(
        anchor: SlotKey,
        keys: &[SlotKey],
        positions: &HashMap<SlotKey, usize>,
        graph: &PairGraph,
        table: Option<&ChainTable>,
    ) -> Self {
        let positives = graph.positives(anchor);
        let masked = keys
            .iter()
            .map(|candidate| positives.excludes(*candidate))
            .collect();
        let state = table
            .and_then(|table| table.get(anchor))
            .filter(|state| !positives.excludes(state.negative));
        let chain = state.and_then(|state| {
            let image = graph.image(state.negative)?;
            let in_batch = positions.get(&state.negative).copied();
            Some(Chain {
                carried: Carried {
                    state,
                    log_degree: graph.log_degree(image),
                    in_batch,
                },
                image,
            })
        });
        Self { masked, chain }
    }
}
