//! Who is in the batch: its slots, and for each anchor who may be its negative and where its chain stands.
//! Must never know: embeddings, scores.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rayon::prelude::*;

use super::objective::counts;
use kith_mcmc::{
    BatchSlot, Candidate, Carried, ChainState, ChainTable, ImageKey, PairGraph, PairKey, Positives,
    Side, SlotKey,
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
    /// A slot of the batch that holds the image, its own or another's: the image is then encoded with the batch.
    pub(super) row: Option<usize>,
}

impl Seat {
    /// The image its chain stands on, when that is not part of the batch.
    pub(super) fn outside(&self) -> Option<ImageKey> {
        self.chain
            .filter(|chain| chain.row.is_none())
            .map(|chain| chain.image)
    }

    /// The slot of the batch that holds the image its chain stands on, when the chain's own slot is not part of the batch.
    pub(super) fn shared_row(&self) -> Option<usize> {
        self.chain
            .filter(|chain| chain.carried.in_batch.is_none())
            .and_then(|chain| chain.row)
    }

    /// Whether it has a negative in the batch, or stands on one.
    fn has_negative(&self) -> bool {
        self.chain.is_some() || self.masked.iter().any(|masked| !masked)
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
        let candidates: Vec<Option<Candidate<'_>>> =
            keys.iter().map(|key| graph.candidate(*key)).collect();
        let slots = keys.iter().zip(&candidates).map(|(key, candidate)| {
            let log_degree = candidate.as_ref().map_or(0.0, Candidate::log_degree);
            BatchSlot {
                key: *key,
                log_degree,
            }
        });
        let positions: HashMap<SlotKey, usize> = keys
            .iter()
            .enumerate()
            .map(|(position, key)| (*key, position))
            .collect();
        let image = |candidate: &Option<Candidate<'_>>| candidate.map(|held| held.image);
        let held: Vec<Option<ImageKey>> = candidates.iter().map(image).collect();
        let places = held.iter().enumerate().rev();
        let images: BTreeMap<ImageKey, usize> = places
            .filter_map(|(slot, image)| Some(((*image)?, slot)))
            .collect();
        let chain = |anchor: SlotKey, positives: &Positives<'_>| {
            let state = table?.get(anchor)?;
            Chain::at(state, positives, graph, (&positions, &images))
        };
        let seats = keys.par_iter().map(|anchor| {
            let positives = graph.positives(*anchor);
            let masked = candidates.iter();
            Seat {
                masked: masked
                    .map(|candidate| positives.excludes_candidate(candidate.as_ref()))
                    .collect(),
                chain: chain(*anchor, &positives),
            }
        });
        let repeats = counts(held.iter().flatten().copied());
        let log_repeats = held.iter().map(|image| {
            let repeats = image.map_or(1, |image| repeats[&image]);
            (repeats as f32).ln()
        });
        Self {
            slots: slots.collect(),
            seats: seats.collect(),
            log_repeats: log_repeats.collect(),
            images,
        }
    }

    /// Whether some anchor has a negative in the batch, or a chain that stands on one.
    pub(super) fn has_negatives(&self) -> bool {
        self.seats.iter().any(Seat::has_negative)
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

impl Chain {
    /// Where the state stands, unless that may not be the anchor's negative any more.
    fn at(
        state: ChainState,
        positives: &Positives<'_>,
        graph: &PairGraph,
        (positions, images): (&HashMap<SlotKey, usize>, &BTreeMap<ImageKey, usize>),
    ) -> Option<Self> {
        let candidate = graph.candidate(state.negative)?;
        if positives.excludes_candidate(Some(&candidate)) {
            return None;
        }
        let in_batch = positions.get(&state.negative).copied();
        let carried = Carried {
            state,
            log_degree: candidate.log_degree(),
            in_batch,
        };
        Some(Self {
            carried,
            image: candidate.image,
            row: in_batch.or_else(|| images.get(&candidate.image).copied()),
        })
    }
}
