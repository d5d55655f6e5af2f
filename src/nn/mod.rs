//! The encoder: ResNet-18 without BatchNorm and its projection head, its kernels, its optimiser, weights in and out.
//! Must never know: images, chains, databases, HTTP. Only room that uses candle; others see plain `f32` slices.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::NamedArray;

/// The shape of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Channels of the first stage; 64 is ResNet-18. The hidden features have 8 × width values.
    pub width: usize,
    /// Side of the square input in pixels: a multiple of 32 from 32 to 224.
    pub side: usize,
    /// Values in an embedding.
    pub dim: usize,
}

/// What can go wrong in the encoder.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    /// A setting cannot be used; says which and what to do.
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

/// Where the encoder runs: `cpu`, or `cuda:N` in a build with the `cuda` feature.
#[derive(Clone)]
pub struct Device(pub(crate) candle_core::Device);

impl Device {
    /// Opens `cpu` or `cuda:N`; a device that is not there is a clear error.
    pub fn open(name: &str) -> Result<Self, NnError> {
        todo!("{name}")
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.location())
    }
}

/// Vectors of a batch, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    /// Values in a row.
    pub dim: usize,
    /// `rows · dim` values.
    pub data: Vec<f32>,
}

/// What a forward pass gives: the embedding (unit length) and the hidden features below the projection.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// `[batch, dim]`, each row of unit length.
    pub embedding: Vectors,
    /// `[batch, 8 · width]`, after fc + ReLU.
    pub hidden: Vectors,
}

/// A network with its weights. Training changes them in place; a serving copy is another `Encoder` from the same arrays.
pub struct Encoder {
    config: EncoderConfig,
}

impl Encoder {
    /// Fresh weights from `seed`: an init that trains without BatchNorm.
    pub fn fresh(config: &EncoderConfig, seed: u64, device: &Device) -> Result<Self, NnError> {
        todo!("{config:?} {seed} {device:?}")
    }

    /// Weights from named arrays; all must be there, none left over, each of the right shape.
    pub fn from_arrays(
        config: &EncoderConfig,
        arrays: &[NamedArray],
        device: &Device,
    ) -> Result<Self, NnError> {
        todo!("{config:?} {} {device:?}", arrays.len())
    }

    /// The shape of this network.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// A copy of all weights in a fixed order, with torchvision's names and layout.
    pub fn to_arrays(&self) -> Result<Vec<NamedArray>, NnError> {
        todo!()
    }

    /// Encodes `pixels` (`[batch, side, side, 3]`) without keeping anything for a backward pass.
    pub fn forward(&self, pixels: &[f32]) -> Result<Features, NnError> {
        todo!("{}", pixels.len())
    }

    /// Encodes `pixels` and keeps what [`Tape::backward`] needs.
    pub fn forward_train(&self, pixels: &[f32]) -> Result<Tape, NnError> {
        todo!("{}", pixels.len())
    }
}

/// A forward pass that can be differentiated once.
pub struct Tape {
    embedding: Vectors,
}

impl Tape {
    /// The embeddings `[batch, dim]`.
    pub fn embedding(&self) -> &Vectors {
        &self.embedding
    }

    /// Gradients of all weights, given the loss's gradient with respect to the embeddings (`[batch, dim]`).
    pub fn backward(self, embedding_gradient: &[f32]) -> Result<Gradients, NnError> {
        todo!("{}", embedding_gradient.len())
    }
}

/// Gradients in the order of the encoder's weights.
pub struct Gradients {}

impl Gradients {
    /// Adds another pass's gradients.
    pub fn add(&mut self, other: &Gradients) -> Result<(), NnError> {
        let _ = other;
        todo!()
    }

    /// The global L2 norm; not finite if any value is not.
    pub fn norm(&self) -> Result<f32, NnError> {
        todo!()
    }

    /// A copy with names and layout as [`Encoder::to_arrays`] (for tests and studies).
    pub fn to_arrays(&self) -> Result<Vec<NamedArray>, NnError> {
        todo!()
    }
}

/// Which optimiser, with its constants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// `adamw` (decoupled decay), `adam` (decay in the gradient) or `sgd`.
    pub kind: OptimizerKind,
    /// Decay per unit of learning rate; biases are not decayed.
    pub weight_decay: f32,
    /// SGD's momentum, or Adam's β₁.
    pub momentum: f32,
    /// Adam's β₂.
    pub beta2: f32,
    /// Adam's ε.
    pub epsilon: f32,
    /// Largest global gradient norm; larger ones are scaled down to it. 0: no clipping.
    pub clip_norm: f32,
}

/// The optimisers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019).
    Adamw,
    /// Adam (Kingma & Ba 2015), weight decay added to the gradient.
    Adam,
    /// Stochastic gradient descent with momentum, as PyTorch defines it.
    Sgd,
}

/// The optimiser's moments for one encoder.
pub struct Optimizer {}

impl Optimizer {
    /// Zero moments for `encoder`.
    pub fn new(config: &OptimizerConfig, encoder: &Encoder) -> Result<Self, NnError> {
        let _ = encoder;
        todo!("{config:?}")
    }

    /// Clips by `norm` (of [`Gradients::norm`]) and updates the encoder's weights in place.
    pub fn step(
        &mut self,
        encoder: &mut Encoder,
        gradients: &Gradients,
        norm: f32,
        rate: f32,
    ) -> Result<(), NnError> {
        let _ = (encoder, gradients, norm, rate);
        todo!()
    }

    /// Moments (named `{weight}.m` / `.v`, in the weight's layout) and the update count (`updates`, shape `[1]`... bit-exact for u64 below 2²⁴).
    pub fn to_arrays(&self) -> Result<Vec<NamedArray>, NnError> {
        todo!()
    }

    /// Restores what [`Optimizer::to_arrays`] gave.
    pub fn load_arrays(&mut self, arrays: &[NamedArray]) -> Result<(), NnError> {
        todo!("{}", arrays.len())
    }
}
