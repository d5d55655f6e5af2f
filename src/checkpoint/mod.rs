//! Checkpoints: writing, verifying and loading them, and the state machine that decides which one serves and which are kept.

mod decide;
mod evaluation_set;
mod files;
mod gate;
mod kept_weights;
mod life;
mod load;
mod manifest;
mod pair_sample;
mod policy;
mod probe;
mod reason;
mod retention;
mod roles;
mod start;
mod store;
mod trainer_state;
mod usage;

pub use files::{CHAINS, FORMAT, FileError, MANIFEST, MODEL, OPTIMIZER, PARTS, TRAINER};
pub use gate::{Finding, GateConfig};
pub use kept_weights::{kept_as_start, kept_as_trained};
pub use life::{Action, Entry, Event, Life, Outcome};
pub use manifest::{Manifest, Origin, OriginKind, Part, preprocessing_hash};
pub use pair_sample::{PairSample, RecentShare};
pub use policy::Policy;
pub use probe::probe;
pub use retention::Retention;
pub use store::Checkpoints;
pub use trainer_state::{CollapseWatch, RecentDraws, Recovery, TrainerState};
pub use usage::InUse;

use crate::{blobs::BlobError, db::DbError, types::CheckpointId};
use kith_eval::{EvalError, EvalReport, EvaluationSet};
use kith_mcmc::ChainColumns;
use kith_nn::{Device, EncoderConfig, NamedArray, NnError, Precision, Towers};
use kith_pixels::Limits;

/// A consistent copy of the trainer at one step boundary.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Shape of the network.
    pub encoder: EncoderConfig,
    /// Its weights, as [`Towers::to_arrays`] names them.
    pub model: Vec<NamedArray>,
    /// The optimiser's moments.
    pub optimizer: Vec<NamedArray>,
    /// The chain table.
    pub chains: ChainColumns,
    /// The position.
    pub trainer: TrainerState,
    /// Where the first weights came from, of which these were trained. `None`: nobody knows any more.
    pub origin: Option<Origin>,
}

/// The identity given to a snapshot when it is asked for.
#[derive(Clone, Debug)]
pub struct Label {
    /// Its id.
    pub id: CheckpointId,
    /// The caller's note.
    pub note: Option<String>,
    /// The checkpoint it was trained from.
    pub parent: Option<CheckpointId>,
    /// Whether retention leaves it alone: a caller asked for it.
    pub kept: bool,
}

impl Label {
    /// A new id, without a note.
    pub fn new(parent: Option<CheckpointId>) -> Self {
        Self {
            id: CheckpointId::now(),
            note: None,
            parent,
            kept: false,
        }
    }
}

/// Why a checkpoint could not be read, written or changed.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// No such checkpoint, or it is not complete.
    #[error("no complete checkpoint {0}")]
    Unknown(CheckpointId),
    /// A part is missing, or its hash or content is wrong.
    #[error("checkpoint {id}: {what}")]
    Damaged {
        /// Which.
        id: CheckpointId,
        /// What is wrong.
        what: String,
    },
    /// Its weights are not finite: no vector of it would mean anything.
    #[error("the weights of checkpoint {0} are not finite: choose another, and delete it")]
    NotFinite(CheckpointId),
    /// Its images must be prepared in a way that this program does not know.
    #[error("checkpoint {id}: {what}")]
    Preprocessing {
        /// Which.
        id: CheckpointId,
        /// The two ways.
        what: String,
    },
    /// The live checkpoint cannot be deleted.
    #[error("checkpoint {0} is live: promote another first")]
    Live(CheckpointId),
    /// A name points to it.
    #[error("a name points to checkpoint {0}: move the name first (GET /v1/aliases lists them)")]
    Aliased(CheckpointId),
    /// As many checkpoints are kept as may be.
    #[error(
        "{kept} checkpoints are kept, and retention.max_kept allows no more: delete one, let one go with {{\"keep\": false}}, or raise the setting"
    )]
    Quota {
        /// Those that are kept.
        kept: usize,
    },
    /// No checkpoint of a data folder that held some can be read.
    #[error(
        "none of the {complete} checkpoints can be read: restore them from a backup, or start from fresh weights in their place with \
         --set storage.accept_loss=true"
    )]
    AllLost {
        /// Those that should be there.
        complete: usize,
    },
    /// The blob store failed.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The encoder failed.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// The program is ending.
    #[error("the server is stopping")]
    Stopping,
}

impl CheckpointError {
    /// The checkpoint that this program cannot use, however often it tries: it is damaged, not finite, or made for images prepared otherwise.
    pub fn unusable(&self) -> Option<CheckpointId> {
        match self {
            Self::Damaged { id, .. } | Self::NotFinite(id) | Self::Preprocessing { id, .. } => {
                Some(*id)
            }
            _ => None,
        }
    }
}

/// A verified model, as serving and evaluation need it.
#[derive(Clone, Debug)]
pub struct Model {
    /// The checkpoint.
    pub id: CheckpointId,
    /// Step at which it was taken.
    pub step: u64,
    /// Shape of the network.
    pub encoder: EncoderConfig,
    /// Its weights, as [`Towers::to_arrays`] names them.
    pub arrays: Vec<NamedArray>,
    /// See [`Manifest::range`].
    pub range: Option<f32>,
}

impl Model {
    /// The encoders on `device`, for encoding only, in `precision`. They are packed in rayon's current pool.
    ///
    /// # Errors
    /// [`NnError`] if the weights do not fit the network, or the device has no memory for them.
    pub fn open(&self, device: &Device, precision: Precision) -> Result<Towers, NnError> {
        Towers::from_arrays(&self.encoder, &self.arrays, device)?.only_encoding(precision)
    }

    /// Evaluates this model, opened as `towers`, on `set`: see [`EvaluationSet::evaluate`].
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] where its embeddings are not finite: such a model is of no use.
    pub fn evaluate(
        &self,
        towers: &Towers,
        set: &EvaluationSet,
        limits: &Limits,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Option<EvalReport>, CheckpointError> {
        let report = set.evaluate(towers, limits, keep_going);
        report.map_err(|error| match error {
            EvalError::Nn(error) => error.into(),
            EvalError::NotFinite => CheckpointError::Damaged {
                id: self.id,
                what: error.to_string(),
            },
        })
    }
}
