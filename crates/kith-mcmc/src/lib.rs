#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod chains_file;
mod eligible;
mod graph;
mod keys;
pub mod simulation;
mod subset;
mod table;
mod visit;
mod walk;

pub use chains_file::{chains_from_bytes, chains_to_bytes};
pub use graph::{Candidate, PairEntry, PairGraph, Positives};
pub use keys::{GroupKey, ImageKey, PairKey, Side, SlotKey};
pub use table::{ChainColumns, ChainState, ChainTable, StateKind, UnevenColumns};
pub use visit::{BatchSlot, Carried, Estimate, Estimator, Proposals, SamplerConfig, Visit, visit};
