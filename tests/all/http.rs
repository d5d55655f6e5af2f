//! The HTTP interface through all its layers, over a real app with a tiny encoder.

mod aliases;
mod bodies;
mod checkpoints;
mod connections;
mod dashboard;
mod dialects;
mod downloads;
mod embeddings;
mod errors;
mod events;
mod fairness;
mod gauges;
mod guard;
mod images;
mod keys;
mod live;
mod load;
mod messages;
mod metrics;
mod monitoring;
mod openapi;
mod pair_streams;
mod pairs;
mod search;
mod server;
mod training;
