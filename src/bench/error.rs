//! Why a cell could not be measured.

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
