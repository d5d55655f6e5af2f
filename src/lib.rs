//! kith: a server for image embeddings that keeps learning from the pairs its users post.
//!
//! The rooms of the house, from the ground up; imports point only downwards (`docs/architecture.md`,
//! held by `tests/tidy.rs`).

pub mod app;
pub mod audit;
pub mod bench;
pub mod blobs;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod db;
mod disk;
pub mod eval;
pub mod http;
pub mod image_store;
pub mod ingest;
pub mod learn;
pub mod mcmc;
mod memory;
pub mod nn;
pub mod pixels;
pub mod serve;
pub mod study;
pub mod telemetry;
pub mod train;
pub mod types;
