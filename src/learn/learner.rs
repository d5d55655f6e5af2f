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
    nn::{Encoder, Optimizer},
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
        if !rate.is_finite() {
            return Err(LearnError::NonFinite {
                what: "learning rate",
                step: batch.step,
            });
        }
        let objective = objective(&self.config);
        let started = Instant::now();
        let seating = Seating::new(
            &batch.pairs,
            graph,
            objective.has_chains().then_some(&self.table),
        );
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
        if report.anchors > 0 {
            self.update(forward, batch.step, rate, &mut report)?;
        }
        Ok(report)
    }

    /// Loss, gradient, weights, chains.
    fn update(
        &mut self,
        forward: Forward,
        step: u64,
        rate: f32,
        report: &mut StepReport,
    ) -> Result<(), LearnError> {
        let started = Instant::now();
        let finite = |what, value: f32| {
            if value.is_finite() {
                Ok(value)
            } else {
                Err(LearnError::NonFinite { what, step })
            }
        };
        let cosines = forward.cosines();
        let encoded = &forward.encoded;
        let offset: f32 = forward
            .terms
            .iter()
            .flatten()
            .map(|term| term.offset)
            .sum::<f32>()
            / report.anchors as f32;
        report.loss = finite(
            "loss",
            cosines.value(encoded.dim, &encoded.embedding) + offset,
        )?;
        let gradient = cosines.gradient(encoded.dim, &encoded.embedding);
        let states = forward.next_states();
        if let Some(gradients) = forward.encoded.backward(&gradient)? {
            report.gradient_norm = finite("gradient", gradients.norm()?)?;
            self.optimizer
                .step(&mut self.encoder, &gradients, report.gradient_norm, rate)?;
        }
        self.write(&states);
        report.backward_seconds = started.elapsed().as_secs_f64();
        Ok(())
    }

    fn write(&self, states: &[(SlotKey, ChainState)]) {
        states
            .iter()
            .for_each(|(anchor, state)| self.table.put(*anchor, *state));
    }
}
