//! Measures how fast this machine encodes, trains and decodes: cells, each measured for a while, and the report that they make.

mod cell;
mod clock;
mod error;
mod plan;
mod report;
mod runner;
mod work;

pub use cell::{Cell, DecodeStage, Pass, Setup};
pub use clock::Figure;
pub use error::BenchError;
pub use plan::{Kind, Plan};
pub use report::{DecodeRow, ForwardRow, LayerRow, PeakRow, Report, TrainRow, WalkRow};
pub use runner::Bench;
