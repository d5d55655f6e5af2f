//! The integration tests: one binary, a module for each room.

mod app;
mod checkpoint;
mod config;
mod eval;
mod http;
mod lab;
mod learn;
mod mcmc;
mod nn;
mod pixels;
mod stationarity;
mod support;
mod train;
