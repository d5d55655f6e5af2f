//! The measurements of one training step.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use kith_mcmc::BatchSlot;
use kith_nn::StageNorms;

use super::{forward::Forward, objective::NegativeTerm, softmax::log_mean_exp};

/// Steps from one measurement of [`StepReport::stage_norms`] to the next: on a GPU each waits for the device.
pub const STAGE_NORMS_EVERY: u64 = 16;

/// The measurements of one training step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The objective's value on this batch.
    pub loss: f32,
    /// Estimate of the global loss in which the batch's mean of exp(score) stands for that of the set. It takes all slots but the anchor's
    /// own pair for candidates, and approaches the loss from below as the batch grows.
    pub global_loss_estimate: f32,
    /// Mean cosine of positives.
    pub positive_cosine: f32,
    /// [`kith_eval::Geometry::spread`] of the batch; of the side where it is less, if each has an encoder of its own.
    pub spread: f32,
    /// Largest magnitude of a value in the batch's embeddings.
    pub largest_value: f32,
    /// Mean cosine of anchors and their candidate negatives in the batch.
    pub mean_cosine: f32,
    /// Walk: accepted share of the proposals. Subset kernel: share of the chains that moved. 0 without chains.
    pub acceptance_rate: f32,
    /// Mean age of the states that the visited chains started from: steps since their scores were taken. 0 without chains.
    pub chain_age: f32,
    /// The largest of these ages.
    pub max_chain_age: u32,
    /// Mean over the visited chains of the score that is stored with the state, less the score of the same image now. Far above 0, chains are
    /// held by scores of older weights. 0 where no state's image was encoded.
    #[serde(default)]
    pub stored_minus_fresh: f32,
    /// Number of anchors with at least one candidate negative.
    pub anchors: usize,
    /// Number of carried negatives that were encoded.
    pub carried_encoded: usize,
    /// Whether the images of the first pass were on the device before the step.
    #[serde(default)]
    pub uploaded_ahead: bool,
    /// Global L2 norm of the gradient, before clipping.
    pub gradient_norm: f32,
    /// The same of each stage; measured every [`STAGE_NORMS_EVERY`] steps.
    #[serde(default)]
    pub stage_norms: Option<StageNorms>,
    /// Seconds spent on masks and scores, which every objective needs.
    pub score_seconds: f64,
    /// Seconds spent on visits: the weights of negatives and the chains' next states.
    pub walk_seconds: f64,
    /// Seconds spent on forward passes, including the loading of carried negatives.
    pub encode_seconds: f64,
    /// Seconds spent on the loss, the backward passes and the update.
    pub backward_seconds: f64,
}

impl StepReport {
    /// The measurements that are known before the gradient; `pairs` is the mean number of pairs in an epoch.
    pub(super) fn new(forward: &Forward, beta: f32, pairs: f64) -> Self {
        let slots = forward.layout.slots.len();
        let anchors: Vec<AnchorFigures> = (0..slots)
            .into_par_iter()
            .filter(|anchor| forward.terms[*anchor].is_some())
            .map(|anchor| AnchorFigures::new(forward, anchor))
            .collect();
        let mean = |value: &dyn Fn(&AnchorFigures) -> f64| {
            anchors.iter().map(value).sum::<f64>() / anchors.len().max(1) as f64
        };
        let candidates: usize = anchors.iter().map(|figures| figures.candidates).sum();
        let sum: f64 = anchors.iter().map(|figures| figures.sum).sum();
        let ages = || forward.terms.iter().flatten().filter_map(|term| term.age);
        // ln of the number of slots that may be negatives.
        let slots_of_pair = if forward.layout.directed { 1.0 } else { 2.0 };
        let slots_of_set = (slots_of_pair * (pairs - 1.0)).max(1.0).ln();
        let dim = forward.embeddings.with_grad.dim;
        let embeddings = &forward.embeddings.with_grad.embedding[..slots * dim];
        let spread = spread(forward.layout.directed, dim, embeddings);
        let undirected = undirected_pairs(forward.layout.directed, dim, embeddings);
        Self {
            global_loss_estimate: mean(&|figures| {
                figures.log_mean + slots_of_set - figures.positive
            }) as f32,
            positive_cosine: mean(&|figures| figures.positive / f64::from(beta)) as f32,
            spread: spread as f32,
            largest_value: embeddings
                .iter()
                .fold(0.0, |most, value| value.abs().max(most)),
            mean_cosine: (sum / f64::from(beta) / candidates.max(1) as f64 + undirected) as f32,
            acceptance_rate: acceptance_rate(&forward.terms),
            chain_age: ages().map(f64::from).sum::<f64>() as f32 / ages().count().max(1) as f32,
            max_chain_age: ages().max().unwrap_or_default(),
            stored_minus_fresh: stored_minus_fresh(forward),
            anchors: anchors.len(),
            carried_encoded: forward.embeddings.with_grad.carried.len(),
            uploaded_ahead: forward.uploaded_ahead,
            score_seconds: forward.score_seconds,
            walk_seconds: forward.walk_seconds,
            encode_seconds: forward.encode_seconds,
            ..Self::default()
        }
    }
}

/// See [`StepReport::spread`]. Two sides that have both collapsed, to two points, are spread together and not each by itself.
fn spread(directed: bool, dim: usize, embeddings: &[f32]) -> f64 {
    if !directed {
        return kith_eval::spread(dim, embeddings);
    }
    let [anchors, positives] = sides(dim, embeddings);
    kith_eval::spread(dim, &anchors).min(kith_eval::spread(dim, &positives))
}

/// The share of anchors with a candidate of which one has no direction. As in an evaluation they are one point: their cosines of 0 count as 1.
fn undirected_pairs(directed: bool, dim: usize, embeddings: &[f32]) -> f64 {
    let with_direction = |rows: &[f32]| 1.0 - kith_eval::share_without_direction(dim, rows);
    let both = if directed {
        sides(dim, embeddings)
            .map(|rows| with_direction(&rows))
            .iter()
            .product()
    } else {
        with_direction(embeddings).powi(2)
    };
    1.0 - both
}

/// The rows of the anchors and of the positives, which alternate.
fn sides(dim: usize, embeddings: &[f32]) -> [Vec<f32>; 2] {
    [0, 1].map(|first| {
        let rows = embeddings.chunks_exact(dim.max(1));
        let rows: Vec<&[f32]> = rows.skip(first).step_by(2).collect();
        rows.concat()
    })
}

fn stored_minus_fresh(forward: &Forward) -> f32 {
    let anchors = 0..forward.layout.slots.len();
    let gaps: Vec<f32> = anchors
        .filter_map(|anchor| forward.stored_minus_fresh(anchor))
        .collect();
    gaps.iter().sum::<f32>() / gaps.len().max(1) as f32
}

fn acceptance_rate(terms: &[Option<NegativeTerm>]) -> f32 {
    let (accepted, proposals) = terms
        .iter()
        .flatten()
        .fold((0, 0), |(accepted, made), term| {
            (accepted + term.accepted, made + term.proposals)
        });
    accepted as f32 / proposals.max(1) as f32
}

/// A summary of one anchor's scores.
struct AnchorFigures {
    positive: f64,
    candidates: usize,
    sum: f64,
    /// ln of the mean of exp(score) / (degree · odds) over the batch's candidates; 0 without candidates.
    log_mean: f64,
}

impl AnchorFigures {
    fn new(forward: &Forward, anchor: usize) -> Self {
        let slots = &forward.layout.slots;
        let scores = &forward.scores[anchor * slots.len()..(anchor + 1) * slots.len()];
        let masked = &forward.layout.masks[anchor].masked;
        let candidates: Vec<usize> = (0..slots.len()).filter(|slot| !masked[*slot]).collect();
        let log_weights: Vec<f64> = candidates
            .iter()
            .map(|slot| {
                let BatchSlot {
                    log_degree,
                    log_odds,
                    ..
                } = slots[*slot];
                f64::from(scores[*slot]) - f64::from(log_degree + log_odds)
            })
            .collect();
        Self {
            positive: f64::from(scores[anchor ^ 1]),
            candidates: candidates.len(),
            sum: candidates.iter().map(|slot| f64::from(scores[*slot])).sum(),
            log_mean: log_mean_exp(&log_weights).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_has_no_direction_where_one_of_its_images_has_none() {
        let rows = |all: [f32; 4]| all.map(|value| [value, 0.0]).concat();
        // Anchors and positives alternate.
        let one_side = rows([0.0, 1.0, 0.0, -1.0]);
        assert_eq!(undirected_pairs(true, 2, &one_side), 1.0);
        assert_eq!(undirected_pairs(false, 2, &one_side), 0.75);
        let sound = rows([1.0, 1.0, -1.0, 1.0]);
        assert_eq!(
            [true, false].map(|two| undirected_pairs(two, 2, &sound)),
            [0.0; 2]
        );
    }
}
