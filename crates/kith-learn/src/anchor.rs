//! One anchor as an objective sees it: its scores, its chain's state, and who may be its negative.

use std::cell::OnceCell;

use super::{
    batch::step_stamp,
    batch_layout::{AnchorMask, BatchLayout},
    embeddings::Embeddings,
    loss::dot,
};
use kith_mcmc::{PairGraph, Positives, SidedImage, SlotKey, Visit};
use kith_seed::mix;

/// The scores of a step, and what they were computed from.
#[derive(Clone, Copy)]
pub(super) struct StepScores<'a> {
    pub(super) layout: &'a BatchLayout,
    pub(super) embeddings: &'a Embeddings,
    pub(super) graph: &'a PairGraph,
    /// `[slots, slots]`: β times the cosine.
    pub(super) scores: &'a [f32],
    pub(super) beta: f32,
    pub(super) step: u64,
    /// The run's seed.
    pub(super) seed: u64,
}

/// One anchor of the batch.
pub(super) struct Anchor<'a> {
    pub(super) position: usize,
    /// Its row of the score matrix and its chain's state.
    pub(super) visit: Visit<'a>,
    step: StepScores<'a>,
    /// Looked up on first use: not every objective needs them.
    known_positives: OnceCell<Positives<'a>>,
}

impl<'a> Anchor<'a> {
    /// The anchor at `position` of the batch.
    pub(super) fn new(step: StepScores<'a>, position: usize) -> Self {
        let (slots, mask) = (&step.layout.slots, &step.layout.masks[position]);
        let key = slots[position].key;
        let visit = Visit {
            anchor: key,
            slots,
            scores: &step.scores[position * slots.len()..(position + 1) * slots.len()],
            masked: &mask.masked,
            directed: step.layout.directed,
            carried: mask.chain.map(|chain| chain.carried),
            step: step_stamp(step.step),
            seed: visit_seed(step.seed, step.step, key),
        };
        Self {
            position,
            visit,
            step,
            known_positives: OnceCell::new(),
        }
    }

    /// Positions of the batch that may be its negatives.
    pub(super) fn candidates(&self) -> impl Iterator<Item = usize> {
        (0..self.visit.slots.len()).filter(|other| !self.visit.masked[*other])
    }

    /// Positions of the batch that hold positives of the anchor: its partner, then both images of each other pair of its group, or only those
    /// of the other side where pairs are directed.
    pub(super) fn positives(&self) -> Vec<usize> {
        let partner = self.position ^ 1;
        let group = |position: usize| {
            let pair = self.visit.slots[position].key.pair();
            self.step.graph.get(pair)?.group
        };
        let own = group(self.position);
        let others = (0..self.visit.slots.len()).filter(|other| {
            let other_side = other % 2 != self.position % 2;
            let eligible = other / 2 != self.position / 2 && (other_side || !self.visit.directed);
            eligible && own.is_some() && group(*other) == own
        });
        std::iter::once(partner).chain(others).collect()
    }

    /// See [`AnchorMask::image_outside`].
    pub(super) fn chain_image_outside(&self) -> Option<SidedImage> {
        self.mask().image_outside()
    }

    /// See [`AnchorMask::shared_row`].
    pub(super) fn chain_shared_row(&self) -> Option<usize> {
        self.mask().shared_row()
    }

    fn mask(&self) -> &AnchorMask {
        &self.step.layout.masks[self.position]
    }

    /// ln of the number of slots of the batch that hold the image at `position`.
    pub(super) fn log_repeats(&self, position: usize) -> f32 {
        self.step.layout.log_repeats[position]
    }

    /// ln of how often the image at `position` comes up in batches, in proportion to an image of one pair that is drawn in every epoch.
    pub(super) fn log_repetition(&self, position: usize) -> f64 {
        let slot = &self.visit.slots[position];
        f64::from(slot.log_degree + slot.log_odds)
    }

    /// Images outside the batch that were encoded before the visits, with their scores, in a fixed order.
    pub(super) fn scored_outside(&self) -> impl Iterator<Item = (SidedImage, f32)> {
        self.step
            .embeddings
            .current_embeddings()
            .map(|(image, vector)| (image, self.score(vector)))
    }

    /// Whether the image was encoded in this step, in the batch or outside of it.
    pub(super) fn is_encoded(&self, image: SidedImage) -> bool {
        self.step.layout.contains(image) || self.step.embeddings.vector(image).is_some()
    }

    /// Whether an image outside the batch may be its negative: it is no known positive and was not found missing.
    pub(super) fn admits(&self, image: SidedImage) -> bool {
        let positives = || self.step.graph.positives(self.visit.anchor);
        !self.step.embeddings.missing.contains(&image)
            && !self
                .known_positives
                .get_or_init(positives)
                .excludes_image(image)
    }

    /// β times the cosine with the embedding `vector`, `[dim]`.
    pub(super) fn score(&self, vector: &[f32]) -> f32 {
        self.step.beta * dot(self.step.embeddings.with_grad.row(self.position), vector)
    }
}

/// Seed of one anchor's visit.
fn visit_seed(seed: u64, step: u64, anchor: SlotKey) -> u64 {
    mix(&[
        seed,
        step,
        u64::from_be_bytes(*b"   visit"),
        u64::from(anchor.packed()),
    ])
}
