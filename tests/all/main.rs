//! The integration tests: one binary, with a module for each module of the server.
// A helper of a test may unwrap as the test itself may; the lint only sees `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod app;
mod audit;
mod augment_command;
mod bench;
mod blobs;
mod checkpoint;
mod cli;
mod commands;
mod config;
mod db;
mod document;
mod evaluate_command;
mod event_commands;
mod exports;
mod first_weights;
mod fuzz;
mod http;
mod ingest;
mod key_commands;
mod lab;
mod life;
mod program;
mod sampler_audit;
mod search_commands;
mod signals;
mod storage;
mod support;
mod towers;
mod traces;
mod train;
mod train_alarms;
mod train_average;
mod train_effects;
mod train_head;
mod train_judging;
mod train_life;
mod train_resize;
mod train_snapshots;
mod train_stores;
mod train_upkeep;
