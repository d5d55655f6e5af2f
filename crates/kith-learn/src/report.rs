//! What a step tells about itself. Must never know: how it was done.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{forward::Forward, objective::Term};

/// What a step saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The objective's own value on this batch.
    pub loss: f32,
    /// Estimate of the global loss: the batch's mean of exp(score) stands for the set's. It comes from below as the batch grows, and takes
    /// all slots but the anchor's own pair for candidates.
    pub global_loss_estimate: f32,
    /// Mean cosine of positives.
    pub positive_cosine: f32,
    /// As [`kith_eval::Geometry::spread`], over the batch.
    pub spread: f32,
    /// Mean cosine of an anchor and a candidate negative of the batch.
    pub mean_cosine: f32,
    /// Accepted share of the proposals (walk), or share of chains that moved (subset kernel). 0 without chains.
    pub acceptance_rate: f32,
    /// Anchors with at least one candidate negative.
    pub anchors: usize,
    /// Carried negatives that were encoded.
    pub carried_encoded: usize,
    /// Global L2 norm of the gradient, before clipping.
    pub gradient_norm: f32,
    /// Seconds in masks and scores, which every objective needs.
    pub score_seconds: f64,
    /// Seconds in visits: weights of negatives and the chains' next states.
    pub walk_seconds: f64,
    /// Seconds in forward passes, loading carried negatives included.
    pub encode_seconds: f64,
    /// Seconds in the loss, the backward passes and the update.
    pub backward_seconds: f64,
}

impl StepReport {
    /// The figures known before the gradient; `pairs` is the size of the trained set.
    pub(super) fn of(forward: &Forward, beta: f32, pairs: usize) -> Self {
        let slots = forward.seating.slots.len();
        let anchors: Vec<Figures> = (0..slots)
            .into_par_iter()
            .filter(|anchor| forward.terms[*anchor].is_some())
            .map(|anchor| Figures::of(forward, anchor))
            .collect();
        let mean = |value: &dyn Fn(&Figures) -> f64| {
            anchors.iter().map(value).sum::<f64>() / anchors.len().max(1) as f64
        };
        let candidates: usize = anchors.iter().map(|figures| figures.candidates).sum();
        let sum: f64 = anchors.iter().map(|figures| figures.sum).sum();
        // ln of the number of slots that may be negatives.
        let slots_of_set = (2.0 * pairs.saturating_sub(1) as f64).max(1.0).ln();
        let spread = kith_eval::spread(
            forward.encoded.dim,
            &forward.encoded.embedding[..slots * forward.encoded.dim],
        );
        Self {
            global_loss_estimate: mean(&|figures| {
                figures.log_mean + slots_of_set - figures.positive
            }) as f32,
            positive_cosine: mean(&|figures| figures.positive / f64::from(beta)) as f32,
            spread: spread as f32,
            mean_cosine: (sum / f64::from(beta) / candidates.max(1) as f64) as f32,
            acceptance_rate: acceptance_rate(&forward.terms),
            anchors: anchors.len(),
            carried_encoded: forward.encoded.carried.len(),
            score_seconds: forward.score_seconds,
            walk_seconds: forward.walk_seconds,
            encode_seconds: forward.encode_seconds,
            ..Self::default()
        }
    }
}

fn acceptance_rate(terms: &[Option<Term>]) -> f32 {
    let (accepted, proposals) = terms
        .iter()
        .flatten()
        .fold((0, 0), |(accepted, made), term| {
            (accepted + term.accepted, made + term.proposals)
        });
    accepted as f32 / proposals.max(1) as f32
}

/// One anchor's scores in short.
struct Figures {
    positive: f64,
    candidates: usize,
    sum: f64,
    /// ln of the mean over the batch's candidates of exp(score) / degree.
    log_mean: f64,
}

impl Figures {
    fn of(forward: &Forward, anchor: usize) -> Self {
        let slots = &forward.seating.slots;
        let scores = &forward.scores[anchor * slots.len()..(anchor + 1) * slots.len()];
        let masked = &forward.seating.seats[anchor].masked;
        let candidates: Vec<usize> = (0..slots.len()).filter(|slot| !masked[*slot]).collect();
        let log_weight =
            |slot: &usize| f64::from(scores[*slot]) - f64::from(slots[*slot].log_degree);
        let largest = candidates
            .iter()
            .map(log_weight)
            .fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = candidates
            .iter()
            .map(|slot| (log_weight(slot) - largest).exp())
            .sum();
        let log_mean = if candidates.is_empty() {
            0.0
        } else {
            largest + (sum / candidates.len() as f64).ln()
        };
        Self {
            positive: f64::from(scores[anchor ^ 1]),
            candidates: candidates.len(),
            sum: candidates.iter().map(|slot| f64::from(scores[*slot])).sum(),
            log_mean,
        }
    }
}
