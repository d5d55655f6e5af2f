//! kith: a server for image embeddings that keeps learning from the pairs its users post.
//!
//! Modules use only modules of lower layers (`docs/architecture.md`); `tests/tidy` checks that.
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
pub mod doctor;
pub mod events;
pub mod foreground;
pub mod history;
pub mod http;
pub mod image_store;
pub mod ingest;
pub mod keys;
pub mod search;
pub mod serve;
pub mod telemetry;
pub mod thumbnails;
pub mod train;
pub mod types;
