//! The HTTP interface: routes, extractors, errors (`docs/api.md`).
//! Must never know: how anything is done; a handler extracts, calls one room and responds. Only room that uses `axum` and `tower`.

mod budget;
mod checkpoints;
mod context;
mod embeddings;
mod error;
mod extract;
mod health;
mod idempotency;
mod images;
mod input;
mod mapping;
mod middleware;
mod models;
mod multipart;
mod ndjson;
mod page;
mod pair_request;
mod pairs;
mod server;
mod training;

pub use server::{router, serve};
