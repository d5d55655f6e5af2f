//! The learner of a run: in memory, or on the disk where training is off.

use std::collections::HashSet;

use super::{context::Context, error::TrainFailure, origin::Start};
use crate::{
    checkpoint::{InUse, Origin, Snapshot, TrainerState, kept_as_start, kept_as_trained},
    types::CheckpointId,
};
use kith_learn::{AveragedWeights, Learner, ObjectiveKind, Prototypes};
use kith_mcmc::{ChainTable, PairGraph, PairKey, SlotKey};
use kith_nn::{NamedArray, TowerOptimizer, Towers};

/// Network, moments and chains of a run.
pub(super) enum HeldLearner {
    /// In memory.
    Loaded(Box<Learner>),
    /// In a checkpoint, which no step has changed.
    Stored(Stored),
}

/// Weights and moments of a checkpoint, which are read when they are needed.
pub(super) struct Stored {
    checkpoint: CheckpointId,
    /// Those of the checkpoint without those of pairs that were erased since.
    chains: ChainTable,
    /// In the same way.
    prototypes: Prototypes,
    /// Keeps the checkpoint from being pruned.
    _in_use: InUse,
}

impl HeldLearner {
    /// The learner of a run from `start`. With training off it stays on the disk: its weights and moments would take up to five times the memory of
    /// weights, for nothing.
    pub(super) fn new(context: &Context, start: Start) -> Result<Self, TrainFailure> {
        let Start {
            parent,
            mut snapshot,
            ..
        } = start;
        match parent {
            Some(checkpoint) if !context.config.run.enabled => Ok(Self::Stored(Stored {
                checkpoint,
                chains: chains(&snapshot)?,
                prototypes: take_prototypes(context, &mut snapshot.optimizer),
                _in_use: context.checkpoints.begin_use(checkpoint),
            })),
            _ => Ok(Self::Loaded(Box::new(learner(context, snapshot)?))),
        }
    }

    /// The learner, for a step. From then on it is in memory.
    pub(super) fn load(&mut self, context: &Context) -> Result<&mut Learner, TrainFailure> {
        if let Self::Stored(stored) = self {
            let snapshot = stored.read(context)?;
            *self = Self::Loaded(Box::new(learner(context, snapshot)?));
        }
        match self {
            Self::Loaded(learner) => Ok(learner),
            Self::Stored(_) => Err(TrainFailure::broken("the learner is not in memory")),
        }
    }

    /// The chains.
    pub(super) fn chains(&self) -> &ChainTable {
        match self {
            Self::Loaded(learner) => &learner.table,
            Self::Stored(stored) => &stored.chains,
        }
    }

    /// The pairs of which something was learned that is kept by itself: a chain's, or a prototype's. They may be there more than once.
    pub(super) fn pairs(&self) -> Vec<PairKey> {
        let prototypes = match self {
            Self::Loaded(learner) => &learner.prototypes,
            Self::Stored(stored) => &stored.prototypes,
        };
        let chains = self.chains().to_columns();
        let slots = chains.anchor.iter().chain(&chains.negative);
        let of_chains = slots.map(|slot| SlotKey::from_packed(*slot).pair());
        of_chains.chain(prototypes.pairs()).collect()
    }

    /// Forgets the `removed` pairs. `graph` holds those that remain.
    pub(super) fn forget(&mut self, removed: &HashSet<PairKey>, graph: &PairGraph) {
        match self {
            Self::Loaded(learner) => learner.forget(removed, graph),
            Self::Stored(stored) => {
                stored.chains.forget_pairs(removed);
                stored.prototypes.forget_pairs(removed);
            }
        }
    }

    /// A copy of everything, at the position `trainer`.
    pub(super) fn snapshot(
        &self,
        context: &Context,
        trainer: TrainerState,
        origin: Option<Origin>,
    ) -> Result<Snapshot, TrainFailure> {
        Ok(match self {
            Self::Loaded(learner) => {
                let (model, optimizer) = weights_and_moments(learner)?;
                Snapshot {
                    encoder: learner.towers.config().clone(),
                    model,
                    optimizer,
                    chains: learner.table.to_columns(),
                    trainer,
                    origin,
                }
            }
            Self::Stored(stored) => Snapshot {
                trainer,
                origin,
                ..stored.read(context)?
            },
        })
    }
}

impl Stored {
    fn read(&self, context: &Context) -> Result<Snapshot, TrainFailure> {
        let mut stored = context.wait(context.checkpoints.load(self.checkpoint))?;
        take_prototypes(context, &mut stored.optimizer);
        stored.optimizer.append(&mut self.prototypes.to_arrays());
        Ok(Snapshot {
            chains: self.chains.to_columns(),
            ..stored
        })
    }
}

/// Removes the prototypes of `neuclip` from the arrays beside the moments.
fn take_prototypes(context: &Context, arrays: &mut Vec<NamedArray>) -> Prototypes {
    let found = Prototypes::take_from(arrays, context.config.encoder.dim);
    found.unwrap_or_else(|error| {
        tracing::warn!(%error, "the prototypes of the checkpoint cannot be used: they start anew");
        Prototypes::default()
    })
}

fn chains(snapshot: &Snapshot) -> Result<ChainTable, TrainFailure> {
    ChainTable::from_columns(&snapshot.chains).map_err(TrainFailure::broken)
}

/// Network, moments and chains from a snapshot.
fn learner(context: &Context, mut snapshot: Snapshot) -> Result<Learner, TrainFailure> {
    snapshot.take_back_fit();
    let (trained, start) = (snapshot.take_trained(), snapshot.take_start());
    let start = start_weights(context, &snapshot, start);
    let chains = chains(&snapshot)?;
    let config = &context.config;
    let open =
        |arrays: &[NamedArray]| Towers::from_arrays(&config.encoder, arrays, &context.device);
    let averages = config.learn.average_steps > 0;
    let mut moments = snapshot.optimizer;
    let prototypes = take_prototypes(context, &mut moments);
    // Without averages, or from a checkpoint without them, training goes on from the weights that serve, unless a share of those is the start's.
    let goes_on = (averages || start.is_some()) && !trained.is_empty();
    let towers = open(if goes_on { &trained } else { &snapshot.model })?;
    let averaged = averages.then(|| open(&snapshot.model)).transpose()?;
    let kept = start.filter(|_| averages && config.learn.start_share > 0.0);
    let start = kept.map(|start| open(&start)).transpose()?;
    let mut optimizer = TowerOptimizer::new(&config.optimizer, &towers)?;
    // Moments that were lost have been reported when the checkpoint was read.
    if !moments.is_empty()
        && let Err(error) = optimizer.load_arrays(&moments)
    {
        tracing::warn!(%error, "the optimiser's moments are of another kind: they start anew");
        optimizer = TowerOptimizer::new(&config.optimizer, &towers)?;
    }
    let mut learner = Learner::new(
        config.learn.clone(),
        snapshot.trainer.seed,
        towers,
        optimizer,
        chains,
    );
    learner.averaged = averaged.map(|weights| AveragedWeights { weights, start });
    if config.learn.objective == ObjectiveKind::NeuClip {
        learner.prototypes = prototypes;
    }
    Ok(learner)
}

/// The weights that training began with, if those had learned before: those that `snapshot` kept, or its own if they are the first. `None`: nothing says
/// what they were.
fn start_weights(
    context: &Context,
    snapshot: &Snapshot,
    kept: Vec<NamedArray>,
) -> Option<Vec<NamedArray>> {
    if !kept.is_empty() {
        return Some(kept);
    }
    let origin = snapshot.origin.as_ref();
    if !Origin::is_pretrained(origin) {
        return None;
    }
    // Later moments may be lost, which makes weights that have learned no first ones.
    let step = snapshot.trainer.step;
    let are_first =
        snapshot.optimizer.is_empty() && origin.is_some_and(|origin| origin.step == step);
    if are_first {
        return Some(snapshot.model.clone());
    }
    let learn = &context.config.learn;
    let share = learn.start_share;
    if share > 0.0 && learn.average_steps > 0 {
        tracing::info!(
            step,
            share,
            "no share of what serves stays with the weights that training began with: this checkpoint does not have them"
        );
    }
    None
}

/// The weights that serve, and what training goes on from beside them: the prototypes of `neuclip`, its own weights if those that serve
/// are their average, and those that it began with if a share of the average stays with them.
fn weights_and_moments(
    learner: &Learner,
) -> Result<(Vec<NamedArray>, Vec<NamedArray>), TrainFailure> {
    let mut moments = learner.optimizer.to_arrays()?;
    moments.append(&mut learner.prototypes.to_arrays());
    let mut weights = learner.towers.to_arrays()?;
    if let Some(averaged) = &learner.averaged {
        moments.append(&mut kept_as_trained(weights));
        weights = averaged.weights.to_arrays()?;
        if let Some(start) = &averaged.start {
            moments.append(&mut kept_as_start(start.to_arrays()?));
        }
    }
    Ok((weights, moments))
}
