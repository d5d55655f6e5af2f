//! The background trainer: epochs, loader threads, the step loop, snapshots, evaluation, gate, recovery.
//! It meets the serving side only in the database row of the live checkpoint.

mod config;
mod context;
mod control;
mod epoch;
mod feed;
mod handle;
mod judge;
mod loader;
mod meter;
mod origin;
mod pictures;
mod recovery;
mod run;
mod snapshots;
mod snapshotter;
mod status;
mod step;
mod supervisor;
mod triggers;

pub use config::{RunConfig, SnapshotConfig, TrainConfig};
pub use handle::{TrainError, Trainer};
pub use status::{TrainingState, TrainingStatus};
