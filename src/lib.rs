//! kith: a server for image embeddings that keeps learning from the pairs its users post.
//!
//! The rooms of the house, from the ground up; imports point only downwards (`docs/architecture.md`,
//! held by `tests/tidy.rs`).

pub mod app; // floor 6
pub mod blobs; // floor 3
pub mod checkpoint; // floor 4
pub mod cli;
pub mod config; // floor 6
pub mod db; // floor 3
pub mod eval; // floor 1
pub mod http; // floor 7
pub mod ingest; // floor 4
pub mod learn; // floor 3
pub mod mcmc; // floor 1
pub mod nn; // floor 2
pub mod pixels; // floor 1
pub mod serve; // floor 5
pub mod telemetry; // floor 0
pub mod train; // floor 5
pub mod types; // floor 0 // floor 8
