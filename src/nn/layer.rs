//! A layer's weights, with the packed copies that the kernels read.
//! Must never know: the order of layers.

use std::sync::{Arc, OnceLock};

use candle_core::{Result, Tensor};

use super::architecture::LayerSpec;
use super::cpu::View;

/// A convolution's or fully connected layer's weights on the device.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) spec: LayerSpec,
    /// `[kernel, kernel, inputs, outputs]`.
    pub(super) weight: Tensor,
    /// `[outputs]`.
    pub(super) bias: Tensor,
    packed: Arc<Packed>,
}

/// Copies of a weight in the order its kernels read it, made when first needed. An encoder that only serves never has
/// those of the backward pass.
#[derive(Default)]
struct Packed {
    forward: OnceLock<Vec<f32>>,
    backward: OnceLock<Vec<f32>>,
}

impl Layer {
    /// A layer from its weights.
    pub(super) fn new(spec: LayerSpec, weight: Tensor, bias: Tensor) -> Self {
        Self {
            spec,
            weight,
            bias,
            packed: Arc::default(),
        }
    }

    /// What the forward kernel reads.
    pub(super) fn packed_forward(&self) -> Result<&[f32]> {
        let weight = View::of(&self.weight)?;
        Ok(self.packed.forward.get_or_init(|| {
            let mut packed = Vec::new();
            self.spec.conv.pack(&weight, self.spec.side, &mut packed);
            packed
        }))
    }

    /// What the kernel of the input's gradient reads.
    pub(super) fn packed_backward(&self) -> Result<&[f32]> {
        let weight = View::of(&self.weight)?;
        Ok(self.packed.backward.get_or_init(|| {
            let mut packed = Vec::new();
            self.spec
                .conv
                .pack_transposed(&weight, self.spec.side, &mut packed);
            packed
        }))
    }

    /// Packs anew after the weight has changed, into the memory that is there.
    pub(super) fn refresh(&mut self) -> Result<()> {
        match Arc::get_mut(&mut self.packed) {
            Some(packed) => {
                if let Some(forward) = packed.forward.get_mut() {
                    self.spec
                        .conv
                        .pack(&View::of(&self.weight)?, self.spec.side, forward);
                }
                if let Some(backward) = packed.backward.get_mut() {
                    self.spec.conv.pack_transposed(
                        &View::of(&self.weight)?,
                        self.spec.side,
                        backward,
                    );
                }
            }
            // A tape still reads the old copies.
            None => self.packed = Arc::default(),
        }
        Ok(())
    }
}
