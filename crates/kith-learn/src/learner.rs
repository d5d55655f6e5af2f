//! The encoder in training with its optimiser and its chains, and the order of things in a step: nothing is written before all that is
//! to be written is known to be finite. Must never know: where batches come from.

use std::{
    collections::{BTreeSet, HashSet},
    time::Instant,
};

use super::{
    CarriedViews, LearnConfig, LearnError, ObjectiveKind, StepReport,
    embedding_cache::{EmbeddingCache, Fresh},
    forward::{Context, Forward},
    objective::objective,
};
use kith_mcmc::{ChainState, ChainTable, ImageKey, PairGraph, PairKey, Side, SlotKey};
use kith_nn::{Encoder, Gradients, Optimizer};

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
    /// The chains, or what the objective keeps in their place.
    pub table: ChainTable,
    cache: EmbeddingCache,
    config: LearnConfig,
    seed: u64,
}

impl Learner {
    /// Puts the parts together; `seed` is the run's. A table whose states are of another kind than the objective's is not read as if they
    /// were: the objective starts with an empty one, which is logged as an error.
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
            table: fitting(&config, table),
            cache: EmbeddingCache::default(),
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
        self.write(estimate.states, estimate.fresh, (batch.step, graph));
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
        self.write(estimate.states, estimate.fresh, (batch.step, graph));
        Ok((estimate.report, estimate.gradients))
    }

    /// [`Learner::gradient`] that leaves everything where it stands, chains and caches included: what a step would find, without being one.
    pub fn peek(
        &self,
        batch: &Batch,
        graph: &PairGraph,
        carried: &dyn CarriedViews,
    ) -> Result<(StepReport, Option<Gradients>), LearnError> {
        let estimate = self.estimate(batch, graph, carried)?;
        Ok((estimate.report, estimate.gradients))
    }

    /// Everything a step finds out, written nowhere.
    fn estimate(
        &self,
        batch: &Batch,
        graph: &PairGraph,
        carried: &dyn CarriedViews,
    ) -> Result<Estimated, LearnError> {
        let objective = objective(&self.config, &self.table, &self.cache);
        let context = Context {
            beta: self.config.beta,
            seed: self.seed,
            encoder: &self.encoder,
            objective: &*objective,
            graph,
            source: carried,
        };
        let forward = Forward::run(context, batch)?;
        let report = StepReport::of(&forward, self.config.beta, graph.len());
        let fresh = objective.keeps_vectors().then(|| forward.fresh());
        let mut estimate = Estimated::of(forward, report, batch.step)?;
        estimate.fresh = fresh;
        Ok(estimate)
    }

    fn write(
        &mut self,
        states: Vec<(SlotKey, ChainState)>,
        fresh: Option<Fresh>,
        (step, graph): (u64, &PairGraph),
    ) {
        for (anchor, state) in states {
            self.table.put(anchor, state);
        }
        if let Some(fresh) = fresh {
            let bounds = (self.config.cache_images, self.config.cache_refresh);
            self.cache.take(step, fresh, graph, bounds);
        }
    }

    /// The images outside of a batch of `pairs` on which its chains stand: what its step will ask views of, unless it is changed or moved
    /// before. To load them ahead; ascending, each once.
    pub fn carried(&self, pairs: &[PairKey], graph: &PairGraph) -> Vec<ImageKey> {
        if self.config.objective != ObjectiveKind::Emc2 {
            return Vec::new();
        }
        let sides = [Side::Anchor, Side::Positive];
        let slots = || (pairs.iter()).flat_map(|pair| sides.map(|side| SlotKey::new(*pair, side)));
        let own: BTreeSet<ImageKey> = slots().filter_map(|slot| graph.image(slot)).collect();
        let stands_on = |slot| graph.image(self.table.get(slot)?.negative);
        let outside: BTreeSet<ImageKey> = slots()
            .filter_map(stands_on)
            .filter(|image| !own.contains(image))
            .collect();
        outside.into_iter().collect()
    }

    /// Forgets all that is kept of pairs that are gone, and of images that only they held; `graph` is what is left.
    pub fn forget(&mut self, gone: &HashSet<PairKey>, graph: &PairGraph) {
        self.table.forget_pairs(gone);
        self.cache.forget_strangers(graph);
    }
}

/// `table`, if its states are the objective's.
fn fitting(config: &LearnConfig, table: ChainTable) -> ChainTable {
    let Some(wanted) = config
        .objective
        .states()
        .filter(|kind| *kind != table.kind())
    else {
        return table;
    };
    if !table.is_empty() {
        tracing::error!(
            objective = ?config.objective, found = ?table.kind(), states = table.len(),
            "the table was written under another objective and means something else: all states start anew"
        );
    }
    ChainTable::new(wanted)
}

/// What a step would write. All of it is finite.
struct Estimated {
    report: StepReport,
    /// `None`: no anchor has a candidate.
    gradients: Option<Gradients>,
    states: Vec<(SlotKey, ChainState)>,
    fresh: Option<Fresh>,
}

impl Estimated {
    fn of(forward: Forward, mut report: StepReport, step: u64) -> Result<Self, LearnError> {
        let started = Instant::now();
        let states = forward.next_states();
        let mut gradients = None;
        if report.anchors > 0 {
            let encoded = &forward.encoded;
            let (value, gradient) = forward.cosines().pull(encoded.dim, &encoded.embedding);
            report.loss = finite("loss", value + forward.offset(), step)?;
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
            fresh: None,
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
