//! The HTTP interface: routes, extractors, errors (`docs/api.md`).
//! A handler extracts, calls one module and responds. `axum`, `hyper` and `tower` are used only here.

mod activity;
mod aliases;
mod bare_answer;
mod budget;
mod checkpoints;
mod connections;
mod context;
mod download;
mod embeddings;
mod encoding;
mod error;
mod extract;
mod health;
mod idempotency;
mod images;
mod incoming;
mod input;
mod json;
mod mapping;
mod middleware;
mod models;
mod multipart;
mod ndjson;
mod origin;
mod page;
mod pair_request;
mod pairs;
mod query;
mod range;
mod request_id;
mod server;
mod training;
mod transport;
mod words;
mod wrong_field;

pub use server::{router, serve};
