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
mod error;
mod gradients;
mod images;
mod init;
mod kernels;
mod layer;
mod measure;
pub mod memory;
mod named_array;
mod optimizer;
mod optimizer_config;
mod resnet;
mod slices;
mod stage_norms;
#[cfg(test)]
mod tests;
mod towers;
mod update;
mod whitening_stem;

pub use architecture::{PLACES, PlacesPart};
pub use arrays_file::{ArraysFileError, arrays_from_bytes, arrays_to_bytes};

pub use config::{Compute, CudaConfig, EncoderConfig, Precision, Purpose};
pub use device::Device;
pub use encoder::{Encoder, Features, Tape, UploadedPixels, Vectors};
pub use error::NnError;
pub use gradients::Gradients;
pub use images::Images;
pub use kernels::{compute_in_background, product, product_with_transposed, transposed_product};
pub use measure::{LayerProbe, LayerShape, PeakFlops, layer_shapes};
pub use named_array::NamedArray;
pub use optimizer::Optimizer;
pub use optimizer_config::{OptimizerConfig, OptimizerKind};
pub use stage_norms::StageNorms;
pub use towers::{
    POSITIVE_PREFIX, TowerGradients, TowerOptimizer, Towers, arrays_of_side, arrays_of_towers,
};
