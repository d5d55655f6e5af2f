#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod chains_file;
mod config;
mod eligible;
mod graph;
mod keys;
mod membership;
mod positives;
mod recency;
mod sampler;
pub mod simulation;
mod subset;
mod table;
mod visit;
mod walk;
mod weights;

pub use chains_file::{ChainsFileError, chains_from_bytes, chains_to_bytes};
pub use config::{Estimator, Proposals, SamplerConfig};
pub use graph::PairGraph;
pub use keys::{GroupKey, ImageKey, PairKey, Side, SidedImage, SlotKey};
pub use membership::PairEntry;
pub use positives::{Candidate, Positives};
pub use recency::Recency;
pub use sampler::visit;
pub use table::{ChainColumns, ChainState, ChainTable, StateKind, UnevenColumns};
pub use visit::{BatchSlot, Carried, Estimate, Visit};
pub use weights::{DrawShare, Draws, PairWeight};
