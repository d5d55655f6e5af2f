//! The integration tests: one binary, a module for each room.

mod app;
mod config;
mod eval;
mod http;
mod learn;
mod mcmc;
mod nn;
mod pixels;
mod stationarity;
mod support;
