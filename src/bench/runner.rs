//! Measures cells, one after the other.

use std::{collections::HashMap, time::Duration};

use rayon::ThreadPoolBuilder;

use super::{BenchError, Cell, Figure, Setup, work};
use kith_nn::Encoder;

/// Measures cells, and keeps between them what takes long to make.
pub struct Bench {
    setup: Setup,
    /// By side.
    encoders: HashMap<usize, Encoder>,
}

impl Bench {
    /// Nothing is made yet.
    pub fn new(setup: Setup) -> Self {
        Self {
            setup,
            encoders: HashMap::new(),
        }
    }

    /// One round of a cell: a run to warm up, then runs for `budget`, at least one.
    pub fn run(&mut self, cell: &Cell, budget: Duration) -> Result<Figure, BenchError> {
        let pool = ThreadPoolBuilder::new().num_threads(cell.threads());
        let pool = pool.build()?;
        match cell {
            Cell::Peak { .. } => pool.install(|| work::peak(budget)),
            Cell::Forward { side, batch, .. } => {
                let encoder = self.encoder(*side)?;
                pool.install(|| work::forward(encoder, *batch, budget))
            }
            Cell::Train { side, pairs, .. } => {
                pool.install(|| work::train(&self.setup, *side, *pairs, budget))
            }
            Cell::Layer {
                shape, pass, batch, ..
            } => pool.install(|| work::layer(shape, *pass, (*batch, &self.setup.device), budget)),
            Cell::Walk { pairs, .. } => {
                pool.install(|| work::walk(&self.setup.learning.sampler, *pairs, budget))
            }
            Cell::Decode { part, side } => {
                pool.install(|| work::decode_stage(&self.setup, *part, *side, budget))
            }
        }
    }

    fn encoder(&mut self, side: usize) -> Result<&Encoder, BenchError> {
        if !self.encoders.contains_key(&side) {
            let fresh = work::fresh(&self.setup, side)?;
            self.encoders.insert(side, fresh);
        }
        Ok(&self.encoders[&side])
    }
}
