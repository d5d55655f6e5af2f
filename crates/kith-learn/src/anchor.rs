//! One anchor as an objective sees it: its scores against the batch and against what else was encoded, and who may be its negative.
//! Must never know: objectives, gradients.

use std::cell::OnceCell;

use super::{forward::Forward, loss::dot};
use kith_mcmc::{ImageKey, PairGraph, Positives, SlotKey, Visit};
use kith_seed::mix;

pub(super) struct Anchor<'a> {
    pub(super) position: usize,
    /// Its row of the batch.
    pub(super) visit: Visit<'a>,
    forward: &'a Forward,
    graph: &'a PairGraph,
    /// Looked up when first asked for: not every objective does.
    positives: OnceCell<Positives<'a>>,
}

impl<'a> Anchor<'a> {
    pub(super) fn new(
        forward: &'a Forward,
        graph: &'a PairGraph,
        seed: u64,
        position: usize,
    ) -> Self {
        let (slots, seat) = (&forward.seating.slots, &forward.seating.seats[position]);
        let key = slots[position].key;
        let visit = Visit {
            anchor: key,
            slots,
            scores: &forward.scores[position * slots.len()..(position + 1) * slots.len()],
            masked: &seat.masked,
            carried: seat.chain.map(|chain| chain.carried),
            step: stamp(forward.step),
            seed: visit_seed(seed, forward.step, key),
        };
        Self {
            position,
            visit,
            forward,
            graph,
            positives: OnceCell::new(),
        }
    }

    /// Positions of the batch that may be its negatives.
    pub(super) fn candidates(&self) -> impl Iterator<Item = usize> {
        (0..self.visit.slots.len()).filter(|other| !self.visit.masked[*other])
    }

    /// The image its chain stands on, if that is not part of the batch.
    pub(super) fn chain_outside(&self) -> Option<ImageKey> {
        self.forward.seating.seats[self.position].outside()
    }

    /// See [`super::seating::Seat::shared_row`].
    pub(super) fn chain_shared_row(&self) -> Option<usize> {
        self.forward.seating.seats[self.position].shared_row()
    }

    /// ln of the number of slots of the batch that hold this position's image.
    pub(super) fn log_repeats(&self, position: usize) -> f32 {
        self.forward.seating.log_repeats[position]
    }

    /// Images outside the batch that were encoded before the visits, by key, with their scores.
    pub(super) fn scored(&self) -> impl Iterator<Item = (ImageKey, f32)> {
        self.forward
            .today()
            .map(|(image, vector)| (image, self.score(vector)))
    }

    /// Whether the image is part of the batch or of [`Self::scored`].
    pub(super) fn knows(&self, image: ImageKey) -> bool {
        self.forward.seating.holds(image) || self.forward.vector(image).is_some()
    }

    /// Whether an image outside the batch may be its negative: no known positive, and not found to be gone.
    pub(super) fn admits(&self, image: ImageKey) -> bool {
        let positives = || self.graph.positives(self.visit.anchor);
        !self.forward.gone.contains(&image)
            && !self.positives.get_or_init(positives).excludes_image(image)
    }

    /// β times the cosine with a vector.
    pub(super) fn score(&self, vector: &[f32]) -> f32 {
        self.forward.beta * dot(self.forward.encoded.row(self.position), vector)
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

/// A step as the table holds it.
pub(super) fn stamp(step: u64) -> u32 {
    u32::try_from(step).unwrap_or(u32::MAX)
}
