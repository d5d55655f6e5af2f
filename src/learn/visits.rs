//! The visits of one step: what they share, read from many threads. Must never know: embeddings, gradients.

use super::{
    objective::{Objective, Term},
    seating::Seating,
};
use crate::{
    mcmc::Visit,
    types::{SlotKey, mix},
};

/// What the visits of a step share; read from many threads.
pub(super) struct Visits<'a> {
    pub(super) objective: &'a dyn Objective,
    pub(super) seating: &'a Seating,
    pub(super) scores: &'a [f32],
    pub(super) seed: u64,
    pub(super) step: u64,
}

impl Visits<'_> {
    /// The term of the anchor at this position.
    pub(super) fn of(&self, anchor: usize) -> Option<Term> {
        let Seating { slots, seats } = self.seating;
        let key = slots[anchor].key;
        let visit = Visit {
            anchor: key,
            slots,
            scores: &self.scores[anchor * slots.len()..(anchor + 1) * slots.len()],
            masked: &seats[anchor].masked,
            carried: seats[anchor].chain.map(|chain| chain.carried),
            step: stamp(self.step),
            seed: visit_seed(self.seed, self.step, key),
        };
        self.objective.term(anchor, &visit)
    }
}

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
