//! The slots of a batch and, for each of them as an anchor, which slots may be its negatives and the state of its chain.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rayon::prelude::*;

use super::Batch;
use kith_mcmc::{
    BatchSlot, Candidate, Carried, ChainState, ChainTable, Draws, PairEntry, PairGraph, PairKey,
    Positives, Recency, SidedImage, SlotKey,
};

/// The pairs of a batch, and how they were drawn.
#[derive(Clone, Copy)]
pub(super) struct DrawnPairs<'a> {
    pub(super) pairs: &'a [PairKey],
    pub(super) recency: Recency,
}

impl<'a> From<&'a Batch> for DrawnPairs<'a> {
    fn from(batch: &'a Batch) -> Self {
        Self {
            pairs: &batch.pairs,
            recency: batch.recency,
        }
    }
}

/// The batch as the sampler sees it. Each slot is both a candidate and an anchor.
pub(super) struct BatchLayout {
    pub(super) slots: Vec<BatchSlot>,
    /// `[slots]`: one for each slot as an anchor.
    pub(super) masks: Vec<AnchorMask>,
    /// `[slots]`: ln of the number of slots of the batch that hold the slot's image.
    pub(super) log_repeats: Vec<f32>,
    /// `[slots]`: the factor of the slot's terms in the loss, see [`Draws::loss_factor`].
    pub(super) loss_factors: Vec<f32>,
    /// The images of the batch, with the first position of each.
    pub(super) images: BTreeMap<SidedImage, usize>,
    /// See [`PairGraph::is_directed`].
    pub(super) directed: bool,
}

/// Which negatives an anchor may have.
pub(super) struct AnchorMask {
    /// `[slots]`: which slots of the batch may not be its negatives.
    pub(super) masked: Vec<bool>,
    /// Its chain; `None` if there is none, or if the chain's state may not be its negative any more.
    pub(super) chain: Option<Chain>,
}

/// A chain whose state is still an eligible negative.
#[derive(Clone, Copy)]
pub(super) struct Chain {
    pub(super) carried: Carried,
    /// The image of the chain's state.
    pub(super) image: SidedImage,
    /// Position of a slot of the batch that holds `image`, be it the state's own or another: the image is then encoded with the batch.
    pub(super) row: Option<usize>,
}

impl AnchorMask {
    /// The image of its chain's state, if the batch does not contain the image.
    pub(super) fn image_outside(&self) -> Option<SidedImage> {
        self.chain
            .filter(|chain| chain.row.is_none())
            .map(|chain| chain.image)
    }

    /// Position of another slot of the batch that holds the image of its chain's state, if the state's own slot is not in the batch.
    pub(super) fn shared_row(&self) -> Option<usize> {
        self.chain
            .filter(|chain| chain.carried.in_batch.is_none())
            .and_then(|chain| chain.row)
    }

    /// Whether it has a negative in the batch or by its chain.
    fn has_negative(&self) -> bool {
        self.chain.is_some() || self.masked.iter().any(|masked| !masked)
    }
}

impl BatchLayout {
    /// Lays out the `drawn` pairs; `table` is `None` for an objective without chains. Runs in rayon's current pool.
    pub(super) fn new(
        drawn: DrawnPairs<'_>,
        graph: &PairGraph,
        table: Option<&ChainTable>,
    ) -> Self {
        Self::with_states(drawn, graph, (table, &HashMap::new()))
    }

    /// The same with `states` in place of those that `table` has for their anchors.
    pub(super) fn with_states(
        DrawnPairs { pairs, recency }: DrawnPairs<'_>,
        graph: &PairGraph,
        (table, states): (Option<&ChainTable>, &HashMap<SlotKey, ChainState>),
    ) -> Self {
        let keys: Vec<SlotKey> = pairs.iter().flat_map(|pair| pair.slots()).collect();
        let candidates: Vec<Option<Candidate<'_>>> =
            keys.iter().map(|key| graph.candidate(*key)).collect();
        let slots = keys.iter().zip(&candidates).map(|(key, candidate)| {
            let log_degree = candidate.as_ref().map_or(0.0, Candidate::log_degree);
            BatchSlot {
                key: *key,
                log_degree,
                log_odds: graph.log_odds(*key) + recency.of(*key),
            }
        });
        let positions: HashMap<SlotKey, usize> = keys
            .iter()
            .enumerate()
            .map(|(position, key)| (*key, position))
            .collect();
        let image = |candidate: &Option<Candidate<'_>>| candidate.map(|held| held.image);
        let held: Vec<Option<SidedImage>> = candidates.iter().map(image).collect();
        let places = held.iter().enumerate().rev();
        let images: BTreeMap<SidedImage, usize> = places
            .filter_map(|(slot, image)| Some(((*image)?, slot)))
            .collect();
        let chain = |anchor: SlotKey, positives: &Positives<'_>| {
            let table = table?;
            let state = states.get(&anchor).copied().or_else(|| table.get(anchor))?;
            let mut chain = Chain::new(state, positives, graph, (&positions, &images))?;
            chain.carried.log_odds += recency.of(state.negative);
            Some(chain)
        };
        let masks = keys.par_iter().map(|anchor| {
            let positives = graph.positives(*anchor);
            let masked = candidates.iter();
            AnchorMask {
                masked: masked
                    .map(|candidate| positives.excludes_candidate(candidate.as_ref()))
                    .collect(),
                chain: chain(*anchor, &positives),
            }
        });
        Self {
            slots: slots.collect(),
            masks: masks.collect(),
            log_repeats: log_repeats(&held),
            loss_factors: loss_factors(pairs, graph),
            images,
            directed: graph.is_directed(),
        }
    }

    /// Whether some anchor has a negative, in the batch or by its chain.
    pub(super) fn has_negatives(&self) -> bool {
        self.masks.iter().any(AnchorMask::has_negative)
    }

    /// Whether the batch contains the image.
    pub(super) fn contains(&self, image: SidedImage) -> bool {
        self.images.contains_key(&image)
    }

    /// The images of chain states that the batch does not contain, ascending.
    pub(super) fn images_outside(&self) -> Vec<SidedImage> {
        self.masks
            .iter()
            .filter_map(AnchorMask::image_outside)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Restarts the chains whose state's image, outside the batch, is one of `missing`.
    pub(super) fn restart_chains(&mut self, missing: &BTreeSet<SidedImage>) {
        for mask in &mut self.masks {
            if mask
                .image_outside()
                .is_some_and(|image| missing.contains(&image))
            {
                mask.chain = None;
            }
        }
    }
}

impl Chain {
    /// The chain at `state`; `None` if the state may not be the anchor's negative any more.
    fn new(
        state: ChainState,
        positives: &Positives<'_>,
        graph: &PairGraph,
        (positions, images): (&HashMap<SlotKey, usize>, &BTreeMap<SidedImage, usize>),
    ) -> Option<Self> {
        let candidate = graph.candidate(state.negative)?;
        if positives.excludes_candidate(Some(&candidate)) {
            return None;
        }
        let in_batch = positions.get(&state.negative).copied();
        let carried = Carried {
            state,
            log_degree: candidate.log_degree(),
            log_odds: graph.log_odds(state.negative),
            in_batch,
        };
        Some(Self {
            carried,
            image: candidate.image,
            row: in_batch.or_else(|| images.get(&candidate.image).copied()),
        })
    }
}

/// For each slot the ln of the number of slots that hold its image; 0 for a slot whose pair was removed.
fn log_repeats(held: &[Option<SidedImage>]) -> Vec<f32> {
    let mut repeats = BTreeMap::<SidedImage, u32>::new();
    for image in held.iter().flatten() {
        *repeats.entry(*image).or_default() += 1;
    }
    let log_repeats = |image: &Option<SidedImage>| {
        let repeats = image.map_or(1, |image| repeats[&image]);
        (repeats as f32).ln()
    };
    held.iter().map(log_repeats).collect()
}

/// See [`BatchLayout::loss_factors`]; 1 for a slot whose pair was removed.
fn loss_factors(pairs: &[PairKey], graph: &PairGraph) -> Vec<f32> {
    let draws: Draws = graph.draws();
    let factor = |entry: PairEntry| draws.loss_factor(entry.weight);
    let factors = pairs
        .iter()
        .map(|pair| graph.get(*pair).map_or(1.0, factor));
    factors.flat_map(|factor| [factor; 2]).collect()
}
