//! The integration tests: one binary, a module for each room.

mod config;
mod eval;
mod learn;
mod mcmc;
mod nn;
mod pixels;
mod stationarity;
