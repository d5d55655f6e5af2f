//! The files of a checkpoint, and what can be wrong with one.

use crate::types::CheckpointId;
use kith_mcmc::ChainsFileError;
use kith_nn::ArraysFileError;

/// Version of the format that this program writes; others are refused.
pub const FORMAT: u32 = 1;
/// The manifest's own file, written last.
pub const MANIFEST: &str = "manifest.json";
/// Weights under torchvision's names.
pub const MODEL: &str = "model.safetensors";
/// The optimiser's moments.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// The chain table.
pub const CHAINS: &str = "chains.safetensors";
/// The trainer's position.
pub const TRAINER: &str = "trainer.json";
/// All parts, in the order in which they are written.
pub const PARTS: [&str; 4] = [MODEL, OPTIMIZER, CHAINS, TRAINER];

/// What is wrong with a file of a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It has another length than the manifest says.
    #[error("{name} has {found} bytes, the manifest says {wanted}")]
    Length {
        /// The file.
        name: String,
        /// Its length.
        found: usize,
        /// The length in the manifest.
        wanted: u64,
    },
    /// Its content is not what was written.
    #[error("the SHA-256 of {0} is not the manifest's")]
    Hash(String),
    /// The manifest is not JSON of the right form.
    #[error("{MANIFEST} cannot be read: {0}")]
    Manifest(serde_json::Error),
    /// The manifest is of another version of the format.
    #[error("its format is version {0}, this program reads version {FORMAT}")]
    Version(u32),
    /// The manifest states a number that no checkpoint has.
    #[error("{MANIFEST} states the {what} {number}, which no checkpoint has")]
    Number {
        /// `step`, `range`, or `size` for that of all files.
        what: &'static str,
        /// The number.
        number: String,
    },
    /// The manifest belongs to another checkpoint.
    #[error("{MANIFEST} belongs to checkpoint {0}")]
    OtherCheckpoint(CheckpointId),
    /// The manifest lacks a file.
    #[error("{MANIFEST} does not name {0}")]
    Unnamed(&'static str),
    /// The trainer's position is that of another step.
    #[error("it is of step {found}, {MANIFEST} of step {wanted}")]
    OtherStep {
        /// Its step.
        found: u64,
        /// The step in the manifest.
        wanted: u64,
    },
    /// Images must be prepared in a way that this program does not know.
    #[error("its images must be prepared as {wanted}, and this program prepares them as {known}")]
    Preprocessing {
        /// What the manifest says.
        wanted: String,
        /// What this program does.
        known: String,
    },
    /// A file of JSON cannot be read or written.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A file of weights or moments cannot be read or written.
    #[error(transparent)]
    Arrays(#[from] ArraysFileError),
    /// A file of chains cannot be read or written.
    #[error(transparent)]
    Chains(#[from] ChainsFileError),
}
