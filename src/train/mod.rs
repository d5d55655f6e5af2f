//! The background trainer: it draws batches from the stored pairs, learns from them step by step, and takes, evaluates and promotes
//! snapshots. Serving learns of a promotion from the database row of the live checkpoint.

mod alarms;
mod backoff;
mod batch_loader;
mod batches;
mod config;
mod context;
mod control;
mod epoch;
mod error;
mod feed;
mod first_weights;
mod handle;
mod head;
mod held_learner;
mod image_loader;
mod judge;
mod meter;
mod origin;
mod over_fitting;
mod pair_effect;
mod recent;
mod recovery;
mod rollback;
mod run;
mod snapshot_job;
mod snapshots;
mod snapshotter;
mod status;
mod step;
mod stores;
mod supervisor;
mod training_set;
mod triggers;
mod weights_file;

pub use alarms::{Alarm, AlarmKind};
pub use config::{RunConfig, SnapshotConfig, StartWeights, TrainConfig};
pub use error::{TrainError, WriteFailure};
pub use handle::Trainer;
pub use origin::import;
pub use pair_effect::PairEffect;
pub use status::{TrainingState, TrainingStatus};
pub use stores::Stores;
pub use weights_file::WeightsFile;
