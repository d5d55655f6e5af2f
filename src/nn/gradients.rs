//! Gradients of all weights.
//! Must never know: how they came about.

use std::sync::Arc;

use super::NnError;
use super::architecture::LayerSpec;
use super::arrays::slots;
use super::ops::{self, LayerGradient};
use crate::types::NamedArray;

/// Gradients in the order of the encoder's weights.
pub struct Gradients {
    pub(super) specs: Arc<[LayerSpec]>,
    pub(super) layers: Vec<LayerGradient>,
}

impl Drop for Gradients {
    fn drop(&mut self) {
        for LayerGradient { weight, bias } in self.layers.drain(..) {
            for tensor in [weight, bias] {
                // Memory that cannot be given back is freed, no more.
                let _ = ops::recycle(tensor);
            }
        }
    }
}

impl Gradients {
    /// Adds another pass's gradients.
    pub fn add(&mut self, other: &Gradients) -> Result<(), NnError> {
        for (mine, theirs) in self.layers.iter_mut().zip(&other.layers) {
            ops::add(&mut mine.weight, &theirs.weight)?;
            ops::add(&mut mine.bias, &theirs.bias)?;
        }
        Ok(())
    }

    /// The global L2 norm; not finite if any value is not.
    pub fn norm(&self) -> Result<f32, NnError> {
        let mut sum = 0.0;
        for layer in &self.layers {
            sum += ops::sum_squares(&layer.weight)? + ops::sum_squares(&layer.bias)?;
        }
        Ok(sum.sqrt() as f32)
    }

    /// All values one after the other, in an order that is the same for all gradients of a network: for distances, angles and means.
    pub fn to_flat(&self) -> Result<Vec<f32>, NnError> {
        let mut flat = Vec::new();
        for layer in &self.layers {
            for tensor in [&layer.weight, &layer.bias] {
                flat.extend(tensor.flatten_all()?.to_vec1::<f32>()?);
            }
        }
        Ok(flat)
    }

    /// A copy with names and layout as [`super::Encoder::to_arrays`] (for tests and studies).
    pub fn to_arrays(&self) -> Result<Vec<NamedArray>, NnError> {
        let tensors = self
            .layers
            .iter()
            .flat_map(|layer| [&layer.weight, &layer.bias]);
        slots(&self.specs)
            .zip(tensors)
            .map(|(slot, tensor)| slot.export("", tensor))
            .collect()
    }
}
