#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod axis;
mod comparison;
mod config;
mod cost;
mod encoder_study;
mod error;
mod experiment;
mod figure1;
mod figure2;
mod fixture;
mod gradient;
mod gradient_error;
mod images;
mod method;
mod number;
mod plot;
mod points;
mod progress;
mod recipe;
mod report;
mod results_log;
mod run_recorder;
mod run_state;
mod run_study;
mod settings;
mod stationarity;
mod stl10;
mod table_cost;
mod towers;
mod views;

pub use config::StudyConfig;
pub use error::StudyError;
pub use points::{Claim, Point, Points, Run, Statistics};
pub use progress::{NoProgress, Progress};
pub use run_study::{Outcome, run_study};
pub use settings::{Scale, StudyKind};
