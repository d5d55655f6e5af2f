#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod architecture;
mod arrays;
mod arrays_file;
mod backend;
mod config;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod encoder;
mod gradients;
mod init;
mod kernels;
mod layer;
mod measure;
pub mod memory;
mod named_array;
mod optimizer;
mod resnet;
mod slices;
#[cfg(test)]
mod tests;
mod update;

pub use arrays_file::{arrays_from_bytes, arrays_to_bytes};
pub use config::{Compute, CudaConfig, EncoderConfig, Precision};
pub use device::{Device, Purpose, compute_in_background};
pub use encoder::{Encoder, Features, Tape, Vectors};
pub use gradients::Gradients;
pub use kernels::{product, product_with_transposed, transposed_product};
pub use measure::{LayerProbe, LayerShape, PeakFlops, layer_shapes};
pub use named_array::NamedArray;
pub use optimizer::{Optimizer, OptimizerConfig, OptimizerKind};

/// What can go wrong in the encoder.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    /// A setting or an argument cannot be used; says which and what to do.
    #[error("{0}")]
    Config(String),
    /// The device is not there or cannot be used; says what to do.
    #[error("{0}")]
    Device(String),
    /// Weights do not fit the network; names the array.
    #[error("{0}")]
    Weights(String),
    /// The device's memory does not hold this batch; nothing has changed. Says what to do.
    #[error("{0}")]
    Memory(String),
    /// The tensor library failed.
    #[error(transparent)]
    Tensor(candle_core::Error),
}

impl From<candle_core::Error> for NnError {
    fn from(error: candle_core::Error) -> Self {
        match &error {
            candle_core::Error::Cuda(cause) if cause.is::<Exhausted>() => {
                Self::Memory(cause.to_string())
            }
            _ => Self::Tensor(error),
        }
    }
}

/// A device's memory is used up. Travels through the tensor library's errors.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Exhausted(String);
