//! The encoder in training with its optimiser and its chains, and the order of things in a step: nothing is written before all that is
//! to be written is known to be finite. Must never know: where batches come from.

use std::time::Instant;

use super::{
    CarriedViews, LearnConfig, LearnError, StepReport,
    forward::{Context, Forward},
    objective::objective,
    seating::Seating,
};
use crate::{
    mcmc::{ChainState, ChainTable, PairGraph},
    nn::{Encoder, Gradients, Optimizer},
    types::{PairKey, SlotKey},
};

/// The pairs of one step, with their augmented images.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The step's number; all randomness of the step derives from it.
    pub step: u64,
    /// The pairs, each at most once.
    pub pairs: Vec<PairKey>,
    /// `[2 · pairs, side, side, 3]`: each pair's anchor, then its positive.
    pub pixels: Vec<f32>,
}

/// The encoder in training, its optimiser and its chains.
pub struct Learner {
    /// The network.
    pub encoder: Encoder,
    /// Its moments.
    pub optimizer: Optimizer,
    /// The chains.
    pub table: ChainTable,
    config: LearnConfig,
    seed: u64,
}

impl Learner {
    /// Puts the parts together; `seed` is the run's.
    pub fn new(
        config: LearnConfig,
        seed: u64,
        encoder: Encoder,
        optimizer: Optimizer,
        table: ChainTable,
    ) -> Self {
        Self {
            encoder,
            optimizer,
            table,
            config,
            seed,
        }
    }

    /// The settings.
    pub fn config(&self) -> &LearnConfig {
        &self.config
    }

    /// One step at learning rate `rate`, computing in rayon's current pool.
    ///
    /// A pair that is not (any more) in `graph` is neither anchor nor negative. A batch in which no anchor has a candidate updates nothing.
    /// On [`LearnError::NonFinite`] nothing has changed: neither weights nor moments nor chains.
    pub fn step(
        &mut self,
        batch: &Batch,
        graph: &PairGraph,
        carried: &dyn CarriedViews,
        rate: f32,
    ) -> Result<StepReport, LearnError> {
        finite("learning rate", rate, batch.step)?;
        let mut estimate = self.estimate(batch, graph, carried)?;
        let started = Instant::now();
        if let Some(gradients) = &estimate.gradients {
            let norm = estimate.report.gradient_norm;
            self.optimizer
                .step(&mut self.encoder, gradients, norm, rate)?;
        }
        self.write(&estimate.states);
        estimate.report.backward_seconds += started.elapsed().as_secs_f64();
        Ok(estimate.report)
    }

    /// [`Learner::step`] without the update: chains move, weights and moments stay, and the gradient is the caller's. `None` if no anchor
    /// has a candidate.
    pub fn gradient(
        &mut self,
        batch: &Batch,
        graph: &PairGraph,
        carried: &dyn CarriedViews,
    ) -> Result<(StepReport, Option<Gradients>), LearnError> {
        let estimate = self.estimate(batch, graph, carried)?;
        self.write(&estimate.states);
        Ok((estimate.report, estimate.gradients))
    }

    /// Everything a step finds out, written nowhere.
    fn estimate(
        &self,
        batch: &Batch,
        graph: &PairGraph,
        carried: &dyn CarriedViews,
    ) -> Result<Estimated, LearnError> {
        let objective = objective(&self.config);
        let started = Instant::now();
        let table = objective.has_chains().then_some(&self.table);
        let seating = Seating::new(&batch.pairs, graph, table);
        let seated = started.elapsed().as_secs_f64();
        let context = Context {
            config: &self.config,
            seed: self.seed,
            encoder: &self.encoder,
            objective: &*objective,
            source: carried,
        };
        let forward = Forward::run(context, seating, batch)?;
        let mut report = StepReport::of(&forward, self.config.beta, graph.len());
        report.walk_seconds += seated;
        Estimated::of(forward, report, batch.step)
    }

    fn write(&self, states: &[(SlotKey, ChainState)]) {
        states
            .iter()
            .for_each(|(anchor, state)| self.table.put(*anchor, *state));
    }
}

/// What a step would write. All of it is finite.
struct Estimated {
    report: StepReport,
    /// `None`: no anchor has a candidate.
    gradients: Option<Gradients>,
    states: Vec<(SlotKey, ChainState)>,
}

impl Estimated {
    fn of(forward: Forward, mut report: StepReport, step: u64) -> Result<Self, LearnError> {
        let started = Instant::now();
        let states = forward.next_states();
        let mut gradients = None;
        if report.anchors > 0 {
            let cosines = forward.cosines();
            let encoded = &forward.encoded;
            let value = cosines.value(encoded.dim, &encoded.embedding) + forward.offset();
            report.loss = finite("loss", value, step)?;
            let gradient = cosines.gradient(encoded.dim, &encoded.embedding);
            gradients = forward.encoded.backward(&gradient)?;
        }
        if let Some(gradients) = &gradients {
            report.gradient_norm = finite("gradient", gradients.norm()?, step)?;
        }
        report.backward_seconds = started.elapsed().as_secs_f64();
        Ok(Self {
            report,
            gradients,
            states,
        })
    }
}

fn finite(what: &'static str, value: f32, step: u64) -> Result<f32, LearnError> {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(LearnError::NonFinite { what, step })
    }
}
