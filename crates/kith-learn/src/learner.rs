//! The encoders in training with their optimiser and their chains. A step computes everything first and writes only if all of it is finite.

use std::{
    collections::{BTreeSet, HashSet},
    time::Instant,
};

use super::{
    AveragedWeights, Batch, CarriedViews, LearnConfig, LearnError, ObjectiveKind, Prototypes,
    StepImages, StepReport,
    ahead::Ahead,
    embedding_cache::{CacheLimits, EmbeddingCache, FreshEmbeddings},
    forward::Forward,
    objectives::objective,
    report::STAGE_NORMS_EVERY,
    step_inputs::StepInputs,
};
use kith_mcmc::{ChainState, ChainTable, ImageKey, PairGraph, PairKey, SidedImage, SlotKey};
use kith_nn::{TowerGradients, TowerOptimizer, Towers};

/// The encoders in training, their optimiser and their chains.
pub struct Learner {
    /// The encoders in training. A graph of pairs that a step is given is directed if they are two.
    pub towers: Towers,
    /// The optimiser with its moments.
    pub optimizer: TowerOptimizer,
    /// The moving average of the weights of `towers` over [`LearnConfig::average_steps`], if it is kept.
    pub averaged: Option<AveragedWeights>,
    /// The chains, or the objective's other states ([`ObjectiveKind::states`]).
    pub table: ChainTable,
    /// The network of `neuclip`; empty under another objective.
    pub prototypes: Prototypes,
    cache: EmbeddingCache,
    /// The images of the next step, if they are on the device.
    ahead: Option<Ahead>,
    config: LearnConfig,
    seed: u64,
}

impl Learner {
    /// A learner from its parts; `seed` is the run's.
    ///
    /// If the states of `table` are of another kind than the objective's, the objective starts with an empty table; if states are lost by
    /// that, an error is logged.
    pub fn new(
        config: LearnConfig,
        seed: u64,
        towers: Towers,
        optimizer: TowerOptimizer,
        table: ChainTable,
    ) -> Self {
        Self {
            towers,
            optimizer,
            averaged: None,
            table: of_fitting_kind(&config, table),
            prototypes: Prototypes::default(),
            cache: EmbeddingCache::default(),
            ahead: None,
            config,
            seed,
        }
    }

    /// The settings.
    pub fn config(&self) -> &LearnConfig {
        &self.config
    }

    /// One training step at learning rate `rate`. Computes in rayon's current pool.
    ///
    /// `carried` gives views of the negatives outside the batch. A pair that is not in `graph` is neither anchor nor negative. A batch in which
    /// no anchor has a candidate updates nothing.
    ///
    /// On [`LearnError::NonFinite`] nothing has changed: neither weights nor moments nor chains.
    pub fn step(
        &mut self,
        batch: &Batch,
        graph: &PairGraph,
        carried: &dyn CarriedViews,
        rate: f32,
    ) -> Result<StepReport, LearnError> {
        self.step_ahead((StepImages { batch, carried }, None), graph, rate)
    }

    /// [`Learner::step`] on the first images, while those of the `next` step are uploaded if the device can do both. The results are the same.
    ///
    /// `next` must be the step after this one, and keep its pixels where they are. If another one follows, its images are uploaded then.
    pub fn step_ahead(
        &mut self,
        (StepImages { batch, carried }, next): (StepImages<'_>, Option<StepImages<'_>>),
        graph: &PairGraph,
        rate: f32,
    ) -> Result<StepReport, LearnError> {
        let ahead = self.ahead.take();
        finite("learning rate", rate, batch.step)?;
        let mut estimate = self.estimate((batch, ahead), next, graph, carried)?;
        self.ahead = estimate.ahead.take();
        let started = Instant::now();
        if let Some(gradients) = &mut estimate.gradients {
            let norm = estimate.report.gradient_norm;
            self.optimizer
                .step(&mut self.towers, gradients, norm, rate)?;
            if let Some(averaged) = &mut self.averaged {
                averaged.take_in(&self.towers, self.optimizer.updates(), &self.config)?;
            }
        }
        self.write(estimate.written, (batch.step, graph));
        estimate.report.backward_seconds += started.elapsed().as_secs_f64();
        Ok(estimate.report)
    }

    /// Like [`Learner::step`] without the update: chains move, weights and moments stay. Returns the gradient, or `None` if no anchor has a
    /// candidate.
    pub fn gradient(
        &mut self,
        batch: &Batch,
        graph: &PairGraph,
        carried: &dyn CarriedViews,
    ) -> Result<(StepReport, Option<TowerGradients>), LearnError> {
        let estimate = self.estimate((batch, None), None, graph, carried)?;
        self.write(estimate.written, (batch.step, graph));
        Ok((estimate.report, estimate.gradients))
    }

    /// Like [`Learner::gradient`], but changes nothing: chains and caches stay too.
    pub fn peek(
        &self,
        batch: &Batch,
        graph: &PairGraph,
        carried: &dyn CarriedViews,
    ) -> Result<(StepReport, Option<TowerGradients>), LearnError> {
        let estimate = self.estimate((batch, None), None, graph, carried)?;
        Ok((estimate.report, estimate.gradients))
    }

    /// Computes a step without writing anything, and uploads the images of the `next` one meanwhile.
    fn estimate(
        &self,
        (batch, ahead): (&Batch, Option<Ahead>),
        next: Option<StepImages<'_>>,
        graph: &PairGraph,
        carried: &dyn CarriedViews,
    ) -> Result<Estimate, LearnError> {
        let objective = objective(&self.config, &self.table, (&self.cache, &self.prototypes));
        let inputs = StepInputs {
            beta: self.config.beta,
            seed: self.seed,
            towers: &self.towers,
            objective: &*objective,
            graph,
            source: carried,
        };
        let forward = Forward::run(inputs, batch, ahead)?;
        let fresh = objective.keeps_vectors().then(|| forward.fresh());
        let meanwhile = |forward: &Forward, states: &[(SlotKey, ChainState)]| {
            let ahead = next.and_then(|next| Ahead::upload(inputs, next, states));
            let report = StepReport::new(forward, self.config.beta, graph.draws().pairs_per_epoch);
            (ahead, report)
        };
        let mut estimate = Estimate::new(forward, batch.step, meanwhile)?;
        estimate.written.fresh = fresh;
        Ok(estimate)
    }

    fn write(&mut self, written: Written, (step, graph): (u64, &PairGraph)) {
        for (anchor, state) in written.states {
            self.table.put(anchor, state);
        }
        if let Some(prototypes) = written.prototypes {
            self.prototypes = prototypes;
        }
        if let Some(fresh) = written.fresh {
            let limits = CacheLimits {
                max_images: self.config.cache_images,
                refresh: self.config.cache_refresh,
            };
            self.cache.update(step, fresh, graph, limits);
        }
    }

    /// The images of the chain states of a batch of `pairs` that the batch does not contain; ascending, each once.
    ///
    /// A step over the batch asks for views of these images, unless the chains or the graph change before. So a caller can load them ahead.
    pub fn carried(&self, pairs: &[PairKey], graph: &PairGraph) -> Vec<ImageKey> {
        if self.config.objective != ObjectiveKind::Emc2 {
            return Vec::new();
        }
        let slots = || pairs.iter().flat_map(|pair| pair.slots());
        let own: BTreeSet<SidedImage> =
            slots().filter_map(|slot| graph.sided_image(slot)).collect();
        let state_image = |slot| graph.sided_image(self.table.get(slot)?.negative);
        let outside: BTreeSet<ImageKey> = slots()
            .filter_map(state_image)
            .filter(|image| !own.contains(image))
            .map(|image| image.image)
            .collect();
        outside.into_iter().collect()
    }

    /// Forgets the chains of the `removed` pairs and the cached embeddings of images that are not in `graph`, the remaining pairs.
    pub fn forget(&mut self, removed: &HashSet<PairKey>, graph: &PairGraph) {
        self.table.forget_pairs(removed);
        self.prototypes.forget_pairs(removed);
        self.cache.retain_known(graph);
    }
}

/// `table` if its states are of the objective's kind, else an empty table.
fn of_fitting_kind(config: &LearnConfig, table: ChainTable) -> ChainTable {
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
            "the chain table was written under another objective: all states start anew"
        );
    }
    ChainTable::new(wanted)
}

/// The results of a step before they are written. All values are finite.
struct Estimate {
    report: StepReport,
    /// `None`: no anchor has a candidate.
    gradients: Option<TowerGradients>,
    written: Written,
    ahead: Option<Ahead>,
}

/// What a step leaves for later ones, besides weights and moments.
struct Written {
    states: Vec<(SlotKey, ChainState)>,
    prototypes: Option<Prototypes>,
    fresh: Option<FreshEmbeddings>,
}

impl Estimate {
    /// Computes the gradients. `meanwhile` gets the chains' new states and is called while the device computes.
    fn new(
        mut forward: Forward,
        step: u64,
        meanwhile: impl FnOnce(&Forward, &[(SlotKey, ChainState)]) -> (Option<Ahead>, StepReport),
    ) -> Result<Self, LearnError> {
        let started = Instant::now();
        let states = forward.next_states();
        let (mut loss, mut gradients) = (0.0, None);
        if forward.anchors() > 0 {
            let encoded = &forward.embeddings.with_grad;
            let cosines = forward.cosines();
            let (value, gradient) = cosines.value_and_grad(encoded.dim, &encoded.embedding);
            loss = finite("loss", value + forward.offset(), step)?;
            gradients = forward.embeddings.with_grad.backward(&gradient)?;
        }
        let (ahead, report) = meanwhile(&forward, &states);
        let gradient_norm = match &gradients {
            Some(gradients) => finite("gradient", gradients.norm()?, step)?,
            None => report.gradient_norm,
        };
        let measured = gradients.as_ref();
        let measured = measured.filter(|_| step.is_multiple_of(STAGE_NORMS_EVERY));
        let stage_norms = measured.map(TowerGradients::stage_norms).transpose()?;
        let report = StepReport {
            loss,
            gradient_norm,
            stage_norms,
            backward_seconds: started.elapsed().as_secs_f64(),
            ..report
        };
        Ok(Self {
            report,
            gradients,
            written: Written {
                states,
                prototypes: forward.prototypes.take(),
                fresh: None,
            },
            ahead,
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
