#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

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
mod state;
mod stationarity;
mod stl10;

pub use conduct::{Order, Outcome, conduct};
pub use error::StudyError;
pub use experiment::{Progress, Silent};
pub use points::{Claim, Point, Points, Run};
pub use settings::{Scale, StudyKind};
