//! Gradients of all weights.
//! Must never know: how they came about.

use std::sync::Arc;

use candle_core::Tensor;

use super::architecture::LayerSpec;
use super::arrays::slots;
use super::backend::{LayerGradient, Lease};
use super::{Device, NnError};
use crate::NamedArray;

/// Gradients in the order of the encoder's weights.
pub struct Gradients {
    pub(super) device: Device,
    pub(super) specs: Arc<[LayerSpec]>,
    pub(super) layers: Vec<LayerGradient>,
    /// Until it is gone, no later pass writes to them.
    pub(super) _lease: Option<Lease>,
}

impl Drop for Gradients {
    fn drop(&mut self) {
        self.device.backend.enter();
        for LayerGradient { weight, bias } in self.layers.drain(..) {
            for tensor in [weight, bias] {
                // Memory that cannot be given back is freed, no more.
                let _ = self.device.backend.recycle(tensor);
            }
        }
    }
}

impl Gradients {
    /// Adds another pass's gradients.
    pub fn add(&mut self, other: &Gradients) -> Result<(), NnError> {
        for (mine, theirs) in self.tensors().zip(other.tensors()) {
            self.device.backend.add(mine, theirs)?;
        }
        Ok(())
    }

    /// The global L2 norm; not finite if any value is not.
    pub fn norm(&self) -> Result<f32, NnError> {
        let all: Vec<&Tensor> = self.tensors().collect();
        Ok(self.device.backend.norm(&all)?)
    }

    /// All values one after the other, in an order that is the same for all gradients of a network: for distances, angles and means.
    pub fn to_flat(&self) -> Result<Vec<f32>, NnError> {
        let mut flat = Vec::new();
        for tensor in self.tensors() {
            flat.extend(self.device.backend.download(tensor)?);
        }
        Ok(flat)
    }

    /// A copy with names and layout as [`super::Encoder::to_arrays`] (for tests and studies).
    pub fn to_arrays(&self) -> Result<Vec<NamedArray>, NnError> {
        slots(&self.specs)
            .zip(self.tensors())
            .map(|(slot, tensor)| slot.export("", tensor, &*self.device.backend))
            .collect()
    }

    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.layers.iter().flat_map(LayerGradient::tensors)
    }
}
