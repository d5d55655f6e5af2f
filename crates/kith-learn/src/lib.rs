#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod ahead;
mod anchor;
mod average;
mod batch;
mod batch_layout;
mod config;
mod embedding_cache;
mod embeddings;
mod encoded;
mod error;
mod forward;
#[cfg(test)]
mod frozen;
mod global_loss;
mod learner;
mod loss;
mod objective;
mod objectives;
mod passes;
mod prototypes;
mod prototypes_arrays;
mod report;
mod schedule;
mod softmax;
mod step_inputs;
#[cfg(test)]
mod trial;
#[cfg(test)]
mod unbiased;
mod views;

pub use ahead::StepImages;
pub use average::AveragedWeights;
pub use batch::Batch;
pub use config::{LearnConfig, NeuClipConfig, ObjectiveKind, Scores};
pub use error::{LearnError, Unreadable};
pub use global_loss::{FixedViews, GlobalLoss};
pub use learner::Learner;
pub use prototypes::Prototypes;
pub use report::{STAGE_NORMS_EVERY, StepReport};
pub use schedule::{Decay, ScheduleConfig};
pub use views::{CarriedViews, SharedView};
