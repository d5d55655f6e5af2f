//! The integration tests: one binary, a module for each room.
// A helper of a test may unwrap as the test itself may; the lint only sees `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod app;
mod bench;
mod blobs;
mod checkpoint;
mod cli;
mod config;
mod cuda;
mod db;
mod db_checkpoints;
mod eligible;
mod eval;
mod gradient;
mod http;
mod ingest;
mod kernel;
mod lab;
mod learn;
mod life;
mod mcmc;
mod nn;
mod objectives;
mod pixel_files;
mod pixel_kinds;
mod pixels;
mod probes;
mod signals;
mod stationarity;
mod storage;
mod study;
mod support;
mod tiny;
mod train;
mod train_life;
