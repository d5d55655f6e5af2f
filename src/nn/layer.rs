//! A layer's weights, with the packed copies that the kernels read.
//! Must never know: the order of layers.

use std::sync::{Arc, OnceLock};

use candle_core::{Result, Tensor};

use super::architecture::LayerSpec;
use super::config::Precision;
use super::cpu::View;
use super::kernels::{Packed, Panels};

/// A convolution's or fully connected layer's weights on the device.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) spec: LayerSpec,
    /// `[kernel, kernel, inputs, outputs]`.
    pub(super) weight: Tensor,
    /// `[outputs]`.
    pub(super) bias: Tensor,
    copies: Arc<Copies>,
    precision: Precision,
}

/// Copies of a weight in the order its kernels read it, made when first needed. An encoder that only serves never has
/// those of the backward pass.
#[derive(Default)]
struct Copies {
    forward: OnceLock<Packed>,
    backward: OnceLock<Packed>,
}

impl Layer {
    /// A layer from its weights.
    pub(super) fn new(spec: LayerSpec, weight: Tensor, bias: Tensor) -> Self {
        Self {
            spec,
            weight,
            bias,
            copies: Arc::default(),
            precision: Precision::F32,
        }
    }

    /// Its kernels read weights of `precision`.
    pub(super) fn at(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self.copies = Arc::default();
        self
    }

    /// What the forward kernel reads.
    pub(super) fn packed_forward(&self) -> Result<Panels<'_>> {
        let weight = View::of(&self.weight)?;
        let packed = self.copies.forward.get_or_init(|| {
            let mut packed = Vec::new();
            self.spec.conv.pack(&weight, self.spec.side, &mut packed);
            match self.precision {
                Precision::F32 => Packed::Full(packed),
                Precision::Bf16 => Packed::half(&packed),
            }
        });
        Ok(packed.panels())
    }

    /// What the kernel of the input's gradient reads.
    pub(super) fn packed_backward(&self) -> Result<Panels<'_>> {
        let weight = View::of(&self.weight)?;
        let packed = self.copies.backward.get_or_init(|| {
            let mut packed = Vec::new();
            self.spec
                .conv
                .pack_transposed(&weight, self.spec.side, &mut packed);
            Packed::Full(packed)
        });
        Ok(packed.panels())
    }

    /// Packs anew after the weight has changed, into the memory that is there.
    pub(super) fn refresh(&mut self) -> Result<()> {
        match Arc::get_mut(&mut self.copies) {
            Some(copies) if self.precision == Precision::F32 => {
                if let Some(Packed::Full(forward)) = copies.forward.get_mut() {
                    self.spec
                        .conv
                        .pack(&View::of(&self.weight)?, self.spec.side, forward);
                }
                if let Some(Packed::Full(backward)) = copies.backward.get_mut() {
                    self.spec.conv.pack_transposed(
                        &View::of(&self.weight)?,
                        self.spec.side,
                        backward,
                    );
                }
            }
            // A tape still reads the old copies, or they are of another kind.
            _ => self.copies = Arc::default(),
        }
        Ok(())
    }
}
