#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod anchor;
mod carried;
mod config;
mod embedding_cache;
mod emc2;
mod encoded;
mod exact;
mod forward;
#[cfg(test)]
mod frozen;
mod global_loss;
mod infonce;
mod learner;
mod loss;
mod negative_cache;
mod objective;
mod report;
mod schedule;
mod seating;
mod sogclr;
#[cfg(test)]
mod unbiased;

pub use carried::{CarriedViews, SharedView};
pub use config::{LearnConfig, LearnError, ObjectiveKind, Scores};
pub use global_loss::{FixedViews, GlobalLoss};
pub use learner::{Batch, Learner};
pub use report::StepReport;
pub use schedule::{Decay, ScheduleConfig};
