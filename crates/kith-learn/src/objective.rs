//! The seam between a step and what it descends: one anchor's candidates in, weights of its negatives (and the anchor's next state) out.
//! Must never know: gradients, how an image is encoded.

use std::collections::BTreeMap;

use super::{
    LearnConfig, LearnError, ObjectiveKind, anchor::Anchor, embedding_cache::EmbeddingCache,
    emc2::Emc2, exact::Exact, infonce::InfoNce, negative_cache::NegativeCache, seating::Seating,
    sogclr::SogClr,
};
use kith_mcmc::{ChainState, ChainTable, ImageKey, PairGraph};

/// A loss of the form mean over anchors of −(score of the positive) + (a term whose gradient is Σ weight · ∇ score).
pub(super) trait Objective: Sync {
    /// The chains that anchors stand on before the step, if they have any.
    fn chains(&self) -> Option<&ChainTable> {
        None
    }

    /// The images outside the batch whose vectors of today the terms are made from.
    fn outside(&self, _seating: &Seating, _graph: &PairGraph) -> Result<Outside, LearnError> {
        Ok(Outside::default())
    }

    /// The second term of one anchor; its positive stands at `position ^ 1` of the batch.
    /// `None`: there is no candidate, the anchor takes no part in the step.
    fn term(&self, anchor: &Anchor<'_>) -> Option<Term>;

    /// For each anchor a random factor of mean 1 on its weights outside the batch; where it is 0, nothing is encoded. `None`: all are 1.
    fn factors(
        &self,
        _seeds: [u64; 2],
        _seating: &Seating,
        _terms: &[Option<Term>],
    ) -> Option<Vec<f32>> {
        None
    }

    /// Whether the vectors of this step are to be kept for later ones.
    fn keeps_vectors(&self) -> bool {
        false
    }
}

/// Images to encode before the terms are made.
#[derive(Debug, Default)]
pub(super) struct Outside {
    /// Each once.
    pub(super) images: Vec<ImageKey>,
    /// Whether all of them will have a gradient: they are then encoded once, with the batch.
    pub(super) with_gradient: bool,
}

/// An anchor's second term.
#[derive(Clone, Debug, Default)]
pub(super) struct Term {
    /// (position in the batch, weight); constants in the gradient.
    pub(super) weights: Vec<(usize, f32)>,
    /// (image outside the batch, weight).
    pub(super) outside: Vec<(ImageKey, f32)>,
    /// The term's value less Σ weight · score.
    pub(super) offset: f32,
    /// The anchor's new state.
    pub(super) next: Option<ChainState>,
    /// Proposals made and accepted, see [`kith_mcmc::Estimate`].
    pub(super) proposals: u32,
    pub(super) accepted: u32,
}

/// The configured objective, on what it remembers.
pub(super) fn objective<'a>(
    config: &'a LearnConfig,
    table: &'a ChainTable,
    cache: &'a EmbeddingCache,
) -> Box<dyn Objective + 'a> {
    match config.objective {
        ObjectiveKind::Emc2 => Box::new(Emc2 { config, table }),
        ObjectiveKind::InfoNce => Box::new(InfoNce),
        ObjectiveKind::SogClr => Box::new(SogClr {
            gamma: config.sogclr_gamma,
            table,
        }),
        ObjectiveKind::NegativeCache => Box::new(NegativeCache { cache }),
        ObjectiveKind::Exact => Box::new(Exact {
            most_images: config.exact_images,
        }),
    }
}

/// Weights proportional to exp of given logarithms.
pub(super) struct Softmax {
    /// They sum to 1.
    pub(super) weights: Vec<f64>,
    /// ln of the sum of the exponentials.
    pub(super) log_sum: f64,
}

impl Softmax {
    /// `None` of nothing. The largest is taken out first: neither overflow nor division by zero.
    pub(super) fn of(logs: &[f64]) -> Option<Self> {
        let largest = logs.iter().copied().reduce(f64::max)?;
        let mut weights: Vec<f64> = logs.iter().map(|log| (log - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
        Some(Self {
            weights,
            log_sum: largest + sum.ln(),
        })
    }
}

/// Counts, by key.
pub(super) fn counts<K: Ord>(keys: impl Iterator<Item = K>) -> BTreeMap<K, u32> {
    let mut counts = BTreeMap::new();
    keys.for_each(|key| *counts.entry(key).or_default() += 1);
    counts
}
