//! EMC²'s sampler: who may be whose negative, the chain table, the walk and the subset kernel.
//! Must never know: tensors, images, databases. No IO; the table gives and takes columns, a higher room writes them.
//! Only room that uses `dashmap`.

mod eligible;
mod graph;
mod subset;
mod table;
mod visit;
mod walk;

pub use graph::{Candidate, PairEntry, PairGraph, Positives};
pub use table::{ChainColumns, ChainState, ChainTable, StateKind, UnevenColumns};
pub use visit::{BatchSlot, Carried, Estimate, Estimator, Proposals, SamplerConfig, Visit, visit};
