//! Why an audit of the sampler has no figures.

use super::sampler_report::MIN_CHAINS;
use crate::{blobs::BlobError, checkpoint::CheckpointError, db::DbError, types::CheckpointId};
use kith_nn::NnError;

/// Why chains cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum SamplerAuditError {
    /// No chain was visited.
    #[error(
        "checkpoint {0} has no chains: train with learning.objective = \"emc2\", or name a later checkpoint"
    )]
    NoChains(CheckpointId),
    /// Its states are those of another objective.
    #[error(
        "the states of checkpoint {0} are the normalisers of learning.objective = \"sogclr\" or \"scent\" and no chains: name a checkpoint of \"emc2\""
    )]
    Averages(CheckpointId),
    /// Too few chains hold one of the chosen images.
    #[error(
        "only {found} chains can be compared, and {MIN_CHAINS} are needed: raise --images and --anchors, lower --min-visits, or train on"
    )]
    TooFew {
        /// Chains that can be compared.
        found: usize,
    },
    /// The encoder gives vectors that mean nothing.
    #[error("the embeddings are not finite: name another checkpoint")]
    NotFinite,
    /// A thread that embeds ended early.
    #[error("embedding failed: {0}")]
    Thread(String),
    /// The blob store failed.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The encoder failed.
    #[error(transparent)]
    Nn(#[from] NnError),
}
