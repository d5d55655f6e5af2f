#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod correlation;
mod error;
mod file;
mod fold;
mod keys;
mod linear;
mod moments;
mod network;
mod onnx;
mod onnx_proto;
mod projection;
mod safetensors_file;
mod source;
mod starter;
mod torch_file;
mod torch_pickle;
mod torchvision;
mod weights;
mod whitening;

pub use correlation::PairCorrelation;
pub use error::{KeyProblems, WeightsError, printable};
pub use onnx::onnx;
pub use projection::{PrincipalComponents, Projection, ProjectionKind};
pub use starter::{STARTER_WIDTH, starter};
pub use torchvision::TorchvisionFiles;
pub use weights::Weights;
pub use whitening::PairWhitening;
