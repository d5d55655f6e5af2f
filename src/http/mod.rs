//! The HTTP interface: routes, extractors, errors (`docs/api.md`).
//! A handler extracts, calls one module and responds. `axum`, `hyper` and `tower` are used only here.

mod access;
mod activity;
mod aliases;
mod auth;
mod bare_response;
mod body_budget;
mod body_error;
mod body_limits;
mod checkpoints;
mod connections;
mod context;
mod download;
mod embeddings;
mod encoding;
mod error;
mod error_mapping;
mod extract;
mod field_error;
mod health;
mod idempotency;
mod images;
mod input;
mod json;
mod load;
mod media;
mod metered_body;
mod middleware;
mod models;
mod multipart;
mod ndjson;
mod origin;
mod page;
mod pair_request;
mod pair_response;
mod pairs;
mod query_guard;
mod range;
mod request_id;
mod security_headers;
mod server;
mod text;
mod training;
mod transport;

pub use server::{router, serve};
