//! What a training step computes from besides its batch.

use super::{CarriedViews, objective::Objective};
use kith_mcmc::PairGraph;
use kith_nn::Towers;

/// The inputs of one training step, except the batch.
#[derive(Clone, Copy)]
pub(super) struct StepInputs<'a> {
    pub(super) beta: f32,
    /// The run's seed.
    pub(super) seed: u64,
    pub(super) towers: &'a Towers,
    pub(super) objective: &'a dyn Objective,
    pub(super) graph: &'a PairGraph,
    pub(super) source: &'a dyn CarriedViews,
}
