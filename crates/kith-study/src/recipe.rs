//! Creates a learner, captures its state and restores it.

use std::fmt::Display;

use super::{StudyError, method::Method, run_state::RunState};
use kith_learn::{Learner, ObjectiveKind, Prototypes};
use kith_mcmc::{ChainColumns, ChainTable, chains_from_bytes, chains_to_bytes};
use kith_nn::{
    Device, EncoderConfig, NamedArray, OptimizerConfig, OptimizerKind, TowerOptimizer, Towers,
    arrays_from_bytes, arrays_to_bytes,
};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const CHAINS: &str = "chains.safetensors";

/// The settings of a learner.
#[derive(Clone)]
pub(super) struct Recipe {
    pub(super) encoder: EncoderConfig,
    pub(super) optimizer: OptimizerConfig,
    pub(super) method: Method,
    pub(super) beta: f32,
    /// Number of distinct images that are trained on.
    pub(super) images: usize,
    pub(super) seed: u64,
    pub(super) device: Device,
}

impl Recipe {
    /// A learner with fresh weights from the seed.
    pub(super) fn fresh(&self) -> Result<Learner, StudyError> {
        let towers = Towers::fresh(&self.encoder, self.seed, &self.device)?;
        self.with_towers(towers)
    }

    /// A learner with given weights, and fresh moments and chains.
    pub(super) fn with_towers(&self, towers: Towers) -> Result<Learner, StudyError> {
        let optimizer = TowerOptimizer::new(&self.optimizer, &towers)?;
        let config = self.method.config(self.beta, self.images);
        Ok(Learner::new(
            config,
            self.seed,
            towers,
            optimizer,
            ChainTable::default(),
        ))
    }

    /// The learner whose state [`Snapshot::to_state`] saved.
    ///
    /// # Errors
    /// [`StudyError::Config`] if a file is missing or damaged.
    pub(super) fn restore(&self, state: &RunState) -> Result<Learner, StudyError> {
        let file = |name: &str| {
            let found = state.file(name);
            found.ok_or_else(|| damaged(format!("{name} is not there")))
        };
        let model = arrays_from_bytes(file(MODEL)?).map_err(damaged)?;
        let mut moments = arrays_from_bytes(file(OPTIMIZER)?).map_err(damaged)?;
        let chains = chains_from_bytes(file(CHAINS)?).map_err(damaged)?;
        let towers = Towers::from_arrays(&self.encoder, &model, &self.device)?;
        let mut learner = self.with_towers(towers)?;
        learner.prototypes = Prototypes::take_from(&mut moments, self.encoder.dim)?;
        learner.optimizer.load_arrays(&moments)?;
        learner.table = chain_table(&chains)?;
        Ok(learner)
    }
}

/// A copy of a learner's weights, moments and chains.
pub(super) struct Snapshot {
    pub(super) model: Vec<NamedArray>,
    /// And the prototypes of `neuclip`.
    pub(super) moments: Vec<NamedArray>,
    pub(super) chains: ChainColumns,
}

impl Snapshot {
    /// Copies the state, as the trainer does between two steps.
    pub(super) fn capture(learner: &Learner) -> Result<Self, StudyError> {
        let mut moments = learner.optimizer.to_arrays()?;
        moments.append(&mut learner.prototypes.to_arrays());
        Ok(Self {
            model: learner.towers.to_arrays()?,
            moments,
            chains: learner.table.to_columns(),
        })
    }

    /// The copy as the files of a run's state at position `at`.
    pub(super) fn to_state(&self, at: u64) -> Result<RunState, StudyError> {
        let files = [
            (MODEL, arrays_to_bytes(&self.model).map_err(damaged)?),
            (OPTIMIZER, arrays_to_bytes(&self.moments).map_err(damaged)?),
            (CHAINS, chains_to_bytes(&self.chains).map_err(damaged)?),
        ];
        let files = files.map(|(name, bytes)| (name.to_owned(), bytes)).into();
        Ok(RunState { at, files })
    }
}

/// Whether a [`Snapshot`] holds all that the learner remembers. The negative cache keeps embeddings that are not part of it.
pub(super) fn can_resume(learner: &Learner) -> bool {
    learner.config().objective != ObjectiveKind::NegativeCache
}

/// A chain table from its columns.
pub(super) fn chain_table(columns: &ChainColumns) -> Result<ChainTable, StudyError> {
    ChainTable::from_columns(columns).map_err(damaged)
}

fn damaged(what: impl Display) -> StudyError {
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
        adaptive_clip: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_restores_weights_moments_and_chains() {
        let recipe = Recipe {
            encoder: EncoderConfig {
                width: 8,
                side: 32,
                dim: 8,
                towers: 1,
            },
            optimizer: adam(0.0),
            method: Method::Emc2Subset,
            beta: 5.0,
            images: 4,
            seed: 1,
            device: Device::cpu(),
        };
        let mut learner = recipe.fresh().unwrap();
        learner.table = chain_table(&ChainColumns {
            anchor: vec![0],
            negative: vec![2],
            log_score: vec![1.0],
            step: vec![1],
            visits: vec![1],
            visits_since_move: vec![1],
            ..ChainColumns::default()
        })
        .unwrap();
        let saved = Snapshot::capture(&learner).unwrap();
        let restored = recipe.restore(&saved.to_state(7).unwrap()).unwrap();
        let again = Snapshot::capture(&restored).unwrap();
        let values = |arrays: &[NamedArray]| -> Vec<Vec<f32>> {
            arrays.iter().map(|array| array.data.clone()).collect()
        };
        assert_eq!(values(&again.model), values(&saved.model));
        assert_eq!(values(&again.moments), values(&saved.moments));
        assert_eq!(again.chains, saved.chains);
        let count = |arrays: &[NamedArray]| values(arrays).iter().map(Vec::len).sum::<usize>();
        // Adam has two moments of every weight.
        assert!(count(&saved.moments) >= 2 * count(&saved.model));
    }
}
