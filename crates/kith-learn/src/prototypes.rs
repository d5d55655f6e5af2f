//! A small network that predicts the log normaliser of any anchor from its embedding, and its training.

use std::collections::HashSet;

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{
    NeuClipConfig,
    anchor::StepScores,
    softmax::{Softmax, log_ratio},
};
use kith_mcmc::{Candidate, PairKey, SlotKey};
use kith_nn::{product_with_transposed, transposed_product};
use kith_seed::mix;

/// Keeps AdaGrad's quotient finite where no gradient has come yet.
const EPSILON: f32 = 1e-10;

/// ν(x) = ln of the mean over prototypes p of exp(β cos(φ(x), p)) / repetition(p), in which prototypes that began as a known positive of x are
/// left out.
///
/// A prototype begins as the embedding of a slot of some batch, and counts as often as that slot's image should: ν begins as an estimate from a
/// sample. Training lowers the convex conjugate exp(z − ν) + ν of the log normaliser over the anchors of a batch by AdaGrad, where exp(z) is the
/// batch's mean of exp(score).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prototypes {
    /// The slot whose embedding each prototype began as.
    pub(super) sources: Vec<SlotKey>,
    /// `[prototypes]`: ln of how often the slot's image comes up in batches.
    pub(super) log_repetitions: Vec<f32>,
    /// `[prototypes, dim]`, of any length.
    pub(super) values: Vec<f32>,
    /// `[prototypes, dim]`: AdaGrad's sums of squares.
    pub(super) squares: Vec<f32>,
    /// The prototype that is the next to begin anew.
    pub(super) next: usize,
}

/// The anchors of a batch before the network.
pub(super) struct NetworkInputs<'a> {
    step: StepScores<'a>,
    /// `[slots, dim]`.
    rows: &'a [f32],
    /// `[slots, prototypes]`: which prototypes count for an anchor.
    eligible: Vec<bool>,
}

impl Prototypes {
    /// Number of prototypes.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// The pairs of which an image became a prototype, which may be there more than once.
    pub fn pairs(&self) -> impl Iterator<Item = PairKey> + '_ {
        self.sources.iter().map(|source| source.pair())
    }

    /// Removes the prototypes that began as an image of the `removed` pairs.
    pub fn forget_pairs(&mut self, removed: &HashSet<PairKey>) {
        self.retain(|source| !removed.contains(&source.pair()));
    }

    /// Keeps the prototypes whose source is kept.
    pub(super) fn retain(&mut self, keep: impl Fn(SlotKey) -> bool) {
        let dim = self.values.len() / self.len().max(1);
        let kept: Vec<usize> = (0..self.len())
            .filter(|place| keep(self.sources[*place]))
            .collect();
        if kept.len() == self.len() {
            return;
        }
        let rows = |values: &[f32]| -> Vec<f32> {
            let row = |place: &usize| values[place * dim..(place + 1) * dim].to_vec();
            kept.iter().flat_map(row).collect()
        };
        *self = Self {
            sources: kept.iter().map(|place| self.sources[*place]).collect(),
            log_repetitions: (kept.iter())
                .map(|place| self.log_repetitions[*place])
                .collect(),
            values: rows(&self.values),
            squares: rows(&self.squares),
            next: kept.iter().filter(|place| **place < self.next).count(),
        };
    }

    /// The anchors of a step, with the prototypes that count for each.
    pub(super) fn inputs<'a>(&self, step: StepScores<'a>) -> NetworkInputs<'a> {
        let candidates: Vec<Option<Candidate<'_>>> = (self.sources.iter())
            .map(|source| step.graph.candidate(*source))
            .collect();
        let slots = step.layout.slots.par_iter();
        let eligible = slots.flat_map_iter(|slot| {
            let positives = step.graph.positives(slot.key);
            let excluded =
                move |candidate: &Option<_>| positives.excludes_candidate(candidate.as_ref());
            candidates
                .iter()
                .map(move |candidate| !excluded(candidate))
                .collect::<Vec<bool>>()
        });
        let encoded = &step.embeddings.with_grad;
        NetworkInputs {
            step,
            rows: &encoded.embedding[..step.layout.slots.len() * encoded.dim],
            eligible: eligible.collect(),
        }
    }

    /// ν of each anchor; `None` where no prototype counts.
    pub(super) fn predict(&self, inputs: &NetworkInputs<'_>) -> Vec<Option<f64>> {
        let (unit, _) = self.unit(inputs.dim());
        let anchors = inputs.cosines(&unit).into_par_iter().enumerate();
        anchors
            .map(|(anchor, cosines)| {
                let (_, softmax) = self.softmax(inputs, anchor, &cosines)?;
                Some(softmax.log_mean())
            })
            .collect()
    }

    /// One update by AdaGrad. `targets` has z of each anchor; anchors without one take no part.
    pub(super) fn update(
        &mut self,
        inputs: &NetworkInputs<'_>,
        targets: &[Option<f64>],
        rate: f32,
    ) {
        let dim = inputs.dim();
        let (unit, lengths) = self.unit(dim);
        let count = targets.iter().flatten().count().max(1) as f64;
        let anchors = inputs
            .cosines(&unit)
            .into_par_iter()
            .zip(targets)
            .enumerate();
        // The derivative of the mean conjugate with respect to each cosine, `[slots, prototypes]`.
        let slopes = anchors.flat_map_iter(|(anchor, (cosines, target))| {
            let mut slopes = vec![0.0_f32; self.len()];
            let found = target.zip(self.softmax(inputs, anchor, &cosines));
            if let Some((z, (places, softmax))) = found {
                let slope = (1.0 - log_ratio(z, softmax.log_mean()).exp()) / count;
                let scale = slope * f64::from(inputs.step.beta);
                for (place, weight) in places.into_iter().zip(softmax.weights) {
                    slopes[place] = (scale * weight) as f32;
                }
            }
            slopes
        });
        let slopes: Vec<f32> = slopes.collect();
        let pulls = transposed_product(&slopes, inputs.rows, inputs.slots());
        let rows = (self.values.par_chunks_exact_mut(dim))
            .zip(self.squares.par_chunks_exact_mut(dim))
            .zip(unit.par_chunks_exact(dim).zip(&lengths))
            .zip(pulls.par_chunks_exact(dim));
        rows.for_each(|(((values, squares), (unit, length)), pull)| {
            // A cosine does not change along the prototype itself.
            let along: f32 = pull.iter().zip(unit).map(|(a, b)| a * b).sum();
            for (place, value) in values.iter_mut().enumerate() {
                let slope = (pull[place] - along * unit[place]) / length;
                squares[place] += slope * slope;
                *value -= rate * slope / (squares[place].sqrt() + EPSILON);
            }
        });
    }

    /// Sets prototypes to embeddings of the batch: all that are missing, and each one once in `restart_steps`.
    pub(super) fn restart(&mut self, inputs: &NetworkInputs<'_>, config: &NeuClipConfig) {
        let dim = inputs.dim();
        let StepScores { step, seed, .. } = inputs.step;
        self.truncate(config.prototypes, dim);
        let mut slots: Vec<usize> = (0..inputs.slots())
            .filter(|slot| {
                let key = inputs.step.layout.slots[*slot].key;
                inputs.step.graph.candidate(key).is_some()
            })
            .collect();
        let seed = mix(&[seed, step, u64::from_be_bytes(*b"restarts")]);
        slots.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let missing = config.prototypes - self.len();
        let (share, steps) = (self.len() as u64, config.restart_steps.max(1));
        // The shares of all steps differ by 1 at most, and those of `restart_steps` steps in a row add up to all prototypes.
        let due = (step % steps + 1) * share / steps - step % steps * share / steps;
        let mut slots = slots.into_iter();
        for slot in slots.by_ref().take(missing) {
            self.extend(dim);
            self.begin(self.len() - 1, inputs, slot);
        }
        for slot in slots.take(due as usize) {
            self.next = if self.next < self.len() { self.next } else { 0 };
            self.begin(self.next, inputs, slot);
            self.next += 1;
        }
    }

    fn truncate(&mut self, max: usize, dim: usize) {
        self.sources.truncate(max);
        self.log_repetitions.truncate(max);
        self.values.truncate(max * dim);
        self.squares.truncate(max * dim);
    }

    fn extend(&mut self, dim: usize) {
        self.sources.push(SlotKey::from_packed(0));
        self.log_repetitions.push(0.0);
        self.values.resize(self.len() * dim, 0.0);
        self.squares.resize(self.len() * dim, 0.0);
    }

    fn begin(&mut self, place: usize, inputs: &NetworkInputs<'_>, slot: usize) {
        let dim = inputs.dim();
        let (own, source) = (
            place * dim..(place + 1) * dim,
            &inputs.step.layout.slots[slot],
        );
        self.sources[place] = source.key;
        self.log_repetitions[place] = source.log_degree + source.log_odds;
        self.values[own.clone()].copy_from_slice(&inputs.rows[slot * dim..(slot + 1) * dim]);
        self.squares[own].fill(0.0);
    }

    /// The prototypes at length 1, `[prototypes, dim]`, and their lengths.
    fn unit(&self, dim: usize) -> (Vec<f32>, Vec<f32>) {
        let mut unit = self.values.clone();
        let lengths = unit.chunks_exact_mut(dim).map(|row| {
            let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            let length = length.max(f32::MIN_POSITIVE);
            row.iter_mut().for_each(|value| *value /= length);
            length
        });
        let lengths = lengths.collect();
        (unit, lengths)
    }

    /// The prototypes that count for an anchor, and the softmax of their log terms.
    fn softmax(
        &self,
        inputs: &NetworkInputs<'_>,
        anchor: usize,
        cosines: &[f32],
    ) -> Option<(Vec<usize>, Softmax)> {
        let eligible = &inputs.eligible[anchor * self.len()..(anchor + 1) * self.len()];
        let places: Vec<usize> = (0..self.len()).filter(|place| eligible[*place]).collect();
        let log = |place: &usize| {
            f64::from(inputs.step.beta * cosines[*place] - self.log_repetitions[*place])
        };
        let softmax = Softmax::new(&places.iter().map(log).collect::<Vec<f64>>())?;
        Some((places, softmax))
    }
}

impl NetworkInputs<'_> {
    fn dim(&self) -> usize {
        self.step.embeddings.with_grad.dim
    }

    fn slots(&self) -> usize {
        self.step.layout.slots.len()
    }

    /// `[slots][prototypes]`: the cosines of the anchors with `unit`, rows of length 1.
    fn cosines(&self, unit: &[f32]) -> Vec<Vec<f32>> {
        if unit.is_empty() {
            return vec![Vec::new(); self.slots()];
        }
        let cosines = product_with_transposed(self.rows, unit, self.dim());
        let rows = cosines.chunks_exact(unit.len() / self.dim());
        rows.map(<[f32]>::to_vec).collect()
    }
}
