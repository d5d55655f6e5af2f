//! The experiments of the paper, on any image folder: what kith claims about its sampler, its gradient, its learning and its cost, each
//! measured, drawn and judged. Must never know: servers, databases, how progress is shown. Only room that uses `plotters`.
//!
//! A study is a list of runs (a series of it under one seed); `conduct` keeps what was measured in the output folder, so that a study
//! that was broken off goes on where it was, and writes the report.

mod axis;
mod conduct;
mod cost;
mod deviation;
mod error;
mod experiment;
mod figure1;
mod figure2;
mod fixed;
mod gradient;
mod images;
mod lead;
mod method;
mod notebook;
mod plot;
mod points;
mod report;
mod rig;
mod settings;
pub mod simulation;
mod state;
mod stationarity;
mod stl10;

pub use conduct::{Order, Outcome, conduct};
pub use error::StudyError;
pub use experiment::{Progress, Silent};
pub use points::{Claim, Point, Points, Run};
pub use settings::{Scale, StudyKind};
