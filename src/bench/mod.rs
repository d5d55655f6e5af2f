//! What a machine does with kith: cells, each measured for a while, and the report that they make.
//! Must never know: command lines, how a table looks, stored data.

mod cell;
mod clock;
mod plan;
mod report;
mod work;

pub use cell::{Bench, Cell, Pass, Picturing, Setup};
pub use clock::Figure;
pub use plan::{Kind, Plan};
pub use report::{DecodeRow, ForwardRow, LayerRow, PeakRow, Report, TrainRow, WalkRow};

use kith_learn::LearnError;
use kith_nn::NnError;
use kith_pixels::PixelError;

/// Why a cell could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The encoder failed, or a side or width cannot be used.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// A training step failed.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// A sample image could not be decoded.
    #[error(transparent)]
    Pixels(#[from] PixelError),
    /// Threads could not be started.
    #[error(transparent)]
    Threads(#[from] rayon::ThreadPoolBuildError),
}
