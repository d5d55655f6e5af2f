//! A learner from scratch, as files, and back. Must never know: what it learns from.

use super::{StudyError, method::Method, notebook::Page};
use kith_learn::{Learner, ObjectiveKind};
use kith_mcmc::{ChainTable, chains_from_bytes, chains_to_bytes};
use kith_nn::{
    Device, Encoder, EncoderConfig, Optimizer, OptimizerConfig, OptimizerKind, arrays_from_bytes,
    arrays_to_bytes,
};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const CHAINS: &str = "chains.safetensors";

/// How a learner begins.
#[derive(Clone)]
pub(super) struct Recipe {
    pub(super) encoder: EncoderConfig,
    pub(super) optimizer: OptimizerConfig,
    pub(super) method: Method,
    pub(super) beta: f32,
    /// Distinct images of the set.
    pub(super) images: usize,
    pub(super) seed: u64,
    pub(super) device: Device,
}

impl Recipe {
    /// Fresh weights from the seed.
    pub(super) fn fresh(&self) -> Result<Learner, StudyError> {
        let encoder = Encoder::fresh(&self.encoder, self.seed, &self.device)?;
        self.around(encoder)
    }

    /// New chains and moments around given weights.
    pub(super) fn around(&self, encoder: Encoder) -> Result<Learner, StudyError> {
        let optimizer = Optimizer::new(&self.optimizer, &encoder)?;
        let config = self.method.config(self.beta, self.images);
        Ok(Learner::new(
            config,
            self.seed,
            encoder,
            optimizer,
            ChainTable::default(),
        ))
    }

    /// What [`page`] wrote down.
    pub(super) fn restored(&self, page: &Page) -> Result<Learner, StudyError> {
        let file = |name: &str| {
            let found = page.iter().find(|(found, _)| found == name);
            let (_, bytes) = found.ok_or_else(|| damaged(format!("{name} is not there")))?;
            Ok::<_, StudyError>(&bytes[..])
        };
        let model = arrays_from_bytes(file(MODEL)?).map_err(damaged)?;
        let moments = arrays_from_bytes(file(OPTIMIZER)?).map_err(damaged)?;
        let chains = chains_from_bytes(file(CHAINS)?).map_err(damaged)?;
        let mut learner =
            self.around(Encoder::from_arrays(&self.encoder, &model, &self.device)?)?;
        learner.optimizer.load_arrays(&moments)?;
        learner.table = table(&chains)?;
        Ok(learner)
    }
}

/// The state of a learner as files; `None` under an objective that remembers more than they hold: its run cannot be broken off.
pub(super) fn page(learner: &Learner) -> Result<Option<Page>, StudyError> {
    if learner.config().objective == ObjectiveKind::NegativeCache {
        return Ok(None);
    }
    let arrays = |arrays| arrays_to_bytes(arrays).map_err(damaged);
    let chains = chains_to_bytes(&learner.table.to_columns()).map_err(damaged)?;
    Ok(Some(vec![
        (MODEL.to_owned(), arrays(&learner.encoder.to_arrays()?)?),
        (
            OPTIMIZER.to_owned(),
            arrays(&learner.optimizer.to_arrays()?)?,
        ),
        (CHAINS.to_owned(), chains),
    ]))
}

/// A table from its columns.
pub(super) fn table(columns: &kith_mcmc::ChainColumns) -> Result<ChainTable, StudyError> {
    ChainTable::from_columns(columns).map_err(|error| damaged(error.to_string()))
}

fn damaged(what: String) -> StudyError {
    StudyError::config(format!(
        "the state of the run in progress: {what}; remove the folder state to begin the run anew"
    ))
}

/// Plain stochastic gradient descent.
pub(super) fn sgd(momentum: f32) -> OptimizerConfig {
    optimizer(OptimizerKind::Sgd, momentum, 0.0)
}

/// Adam with PyTorch's constants.
pub(super) fn adam(weight_decay: f32) -> OptimizerConfig {
    optimizer(OptimizerKind::Adam, 0.9, weight_decay)
}

fn optimizer(kind: OptimizerKind, momentum: f32, weight_decay: f32) -> OptimizerConfig {
    OptimizerConfig {
        kind,
        weight_decay,
        momentum,
        beta2: 0.999,
        epsilon: 1e-8,
        clip_norm: 0.0,
    }
}
