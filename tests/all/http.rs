//! The HTTP interface through all its layers, over a real app with a tiny encoder.

mod checkpoints;
mod embeddings;
mod errors;
mod images;
mod pairs;
mod server;
