//! The encoder: ResNet-18 without BatchNorm and its projection head, its kernels, its optimiser, weights in and out.
//! Must never know: images, chains, databases, HTTP. Only room that uses candle; others see plain `f32` slices.
//!
//! From the outside in: `encoder` and `optimizer` are the interface, `resnet` the network, `backend` the operations that it needs of a
//! device, `cpu` and `cuda` the devices, `kernels` the arithmetic of the first.

mod architecture;
mod arrays;
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
mod optimizer;
mod resnet;
mod slices;
#[cfg(test)]
mod tests;
mod update;

pub use config::{Compute, CudaConfig, EncoderConfig, Precision};
pub use device::{Device, Purpose};
pub use encoder::{Encoder, Features, Tape, Vectors};
pub use gradients::Gradients;
pub use measure::{Burst, LayerProbe, LayerShape, layer_shapes};
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
    /// The tensor library failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
