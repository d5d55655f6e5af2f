//! The things that can be measured, and the settings that their figures depend on.

use kith_learn::LearnConfig;
use kith_nn::{Device, EncoderConfig, LayerShape, OptimizerConfig, PeakFlops};
use kith_pixels::{AugmentConfig, Limits};

/// The settings that figures depend on, whatever the cell.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The network; each cell has its own side.
    pub encoder: EncoderConfig,
    /// Where it runs.
    pub device: Device,
    /// Of training steps.
    pub optimizer: OptimizerConfig,
    /// Of walks, and of training steps, whose objective is the softmax over the batch.
    pub learning: LearnConfig,
    /// Of decoding.
    pub limits: Limits,
    /// Of augmented views.
    pub augment: AugmentConfig,
}

/// One thing to measure.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Multiply-adds on registers alone, by all threads at once.
    Peak {
        /// Threads of the pool.
        threads: usize,
    },
    /// Pixels to embeddings.
    Forward {
        /// Pixels across.
        side: usize,
        /// Images at once.
        batch: usize,
        /// Threads of the pool.
        threads: usize,
    },
    /// A training step: forward, in-batch contrastive loss, backward, clipping, update.
    Train {
        /// Pixels across.
        side: usize,
        /// Half as many as images.
        pairs: usize,
        /// Threads of the pool.
        threads: usize,
    },
    /// One layer alone.
    Layer {
        /// Its shape, of a network for `side`.
        shape: LayerShape,
        /// Which way.
        pass: Pass,
        /// Pixels across of the network's input.
        side: usize,
        /// Images at once.
        batch: usize,
        /// Threads of the pool.
        threads: usize,
    },
    /// A visit of each anchor of a batch: what EMC² adds to a step besides the images it carries in.
    Walk {
        /// Half as many as anchors.
        pairs: usize,
        /// Threads of the pool.
        threads: usize,
    },
    /// What one thread does to an image before it can be encoded.
    Decode {
        /// Which part.
        part: DecodeStage,
        /// Pixels across of what the encoder sees.
        side: usize,
    },
}

/// The ways through a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// Its output.
    Forward,
    /// The gradients of its weights and input.
    Backward,
}

/// The parts of making pixels of a photograph's size ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecodeStage {
    /// Bytes of a JPEG to pixels.
    DecodeJpeg,
    /// Bytes of a PNG to pixels.
    DecodePng,
    /// Pixels to what serving sees.
    Resize,
    /// Pixels to a random view, as training sees it.
    Augment,
    /// The same, of an image that is transparent around a disc.
    AugmentCutOut,
}

impl DecodeStage {
    /// All, in order.
    pub const ALL: [Self; 5] = [
        Self::DecodeJpeg,
        Self::DecodePng,
        Self::Resize,
        Self::Augment,
        Self::AugmentCutOut,
    ];
}

impl Cell {
    /// Multiply-adds of a run, where that is what it is measured for; else 0.
    pub(super) fn multiply_adds(&self) -> usize {
        match self {
            Self::Peak { threads } => threads * PeakFlops::multiply_adds(),
            Self::Layer {
                shape, pass, batch, ..
            } => match pass {
                Pass::Forward => batch * shape.forward_multiply_adds(),
                Pass::Backward => batch * shape.backward_multiply_adds(),
            },
            _ => 0,
        }
    }

    /// Threads of its pool.
    pub fn threads(&self) -> usize {
        match self {
            Self::Peak { threads }
            | Self::Forward { threads, .. }
            | Self::Train { threads, .. }
            | Self::Layer { threads, .. }
            | Self::Walk { threads, .. } => *threads,
            Self::Decode { .. } => 1,
        }
    }
}
