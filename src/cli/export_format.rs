//! The forms in which a checkpoint can be exported.

use clap::ValueEnum;

/// A form of exported files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Weights that torchvision.models.resnet18() loads, and the head beside them
    Torchvision,
    /// A graph for onnxruntime and others
    Onnx,
    /// model.safetensors and its manifest, as kith reads them
    Kith,
}

impl Format {
    /// Its name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Torchvision => "torchvision",
            Self::Onnx => "onnx",
            Self::Kith => "kith",
        }
    }
}
