//! kith: a server for image embeddings that keeps learning from the pairs its users post.
//!
//! The rooms of the house, from the ground up; imports point only downwards (`docs/architecture.md`,
//! held by `tests/tidy.rs`).
#![forbid(unsafe_code)]

pub mod app;
pub mod audit;
pub mod bench;
pub mod blobs;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod db;
mod disk;
pub mod http;
pub mod image_store;
pub mod ingest;
pub mod serve;
pub mod telemetry;
pub mod train;
pub mod types;
