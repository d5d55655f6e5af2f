//! The life of a checkpoint: parts, manifest, write, verify, load, evaluate, gate, promote, retention.
//! Must never know: how training or serving work.

mod evaluation;
mod evaluation_set;
mod gate;
mod load;
mod manifest;
mod parts;
mod retention;
mod start;
mod store;

pub use evaluation::Evaluation;
pub use evaluation_set::EvaluationSet;
pub use gate::{GateConfig, Verdict, judge};
pub use manifest::{
    CHAINS, FORMAT, MANIFEST, MODEL, Manifest, OPTIMIZER, PARTS, Part, TRAINER, TrainerState,
};
pub use parts::{arrays_from_bytes, arrays_to_bytes, chains_from_bytes, chains_to_bytes};
pub use retention::Retention;
pub use store::Checkpoints;

use crate::{
    blobs::BlobError,
    db::DbError,
    mcmc::ChainColumns,
    nn::{Device, Encoder, EncoderConfig, NnError, Precision},
    types::{CheckpointId, NamedArray},
};

/// A consistent copy of the trainer at one step boundary.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Shape of the network.
    pub encoder: EncoderConfig,
    /// Its weights.
    pub model: Vec<NamedArray>,
    /// The optimiser's moments.
    pub optimizer: Vec<NamedArray>,
    /// The chain table.
    pub chains: ChainColumns,
    /// The position.
    pub trainer: TrainerState,
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
}

/// What can go wrong.
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
    /// The live checkpoint cannot be deleted.
    #[error("checkpoint {0} is live: promote another first")]
    Live(CheckpointId),
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

/// A verified model: what serving and evaluation need.
#[derive(Clone, Debug)]
pub struct Model {
    /// The checkpoint.
    pub id: CheckpointId,
    /// Step at which it was taken.
    pub step: u64,
    /// Shape of the network.
    pub encoder: EncoderConfig,
    /// Its weights.
    pub arrays: Vec<NamedArray>,
}

impl Model {
    /// The encoder on `device`, for encoding in `precision`.
    pub fn open(&self, device: &Device, precision: Precision) -> Result<Encoder, NnError> {
        Ok(Encoder::from_arrays(&self.encoder, &self.arrays, device)?.at(precision))
    }
}
