//! Gradients of the weights of an encoder.

use std::sync::Arc;

use candle_core::Tensor;

use super::architecture::LayerSpec;
use super::arrays::slots;
use super::backend::{GraphLease, LayerGradient};
use super::{Device, NamedArray, NnError, StageNorms};

/// The gradient of a loss with respect to all weights of an [`super::Encoder`] that are trained: all but those of
/// [a stem that whitens](super::Encoder::with_whitening_stem).
pub struct Gradients {
    pub(super) device: Device,
    /// Of the layers that are trained.
    pub(super) specs: Arc<[LayerSpec]>,
    pub(super) layers: Vec<LayerGradient>,
    /// As long as it is held, no later pass writes to the gradients.
    pub(super) _lease: Option<GraphLease>,
}

impl Drop for Gradients {
    fn drop(&mut self) {
        self.device.backend.bind_thread();
        for LayerGradient { weight, bias } in self.layers.drain(..) {
            for tensor in [weight, bias] {
                // Memory that cannot be recycled is freed.
                let _ = self.device.backend.recycle(tensor);
            }
        }
    }
}

impl Gradients {
    /// Adds the gradients of another pass of the same encoder.
    ///
    /// # Errors
    /// The device failed.
    pub fn add(&mut self, other: &Gradients) -> Result<(), NnError> {
        for (mine, theirs) in self.tensors().zip(other.tensors()) {
            self.device.backend.add(mine, theirs)?;
        }
        Ok(())
    }

    /// The L2 norm of all gradients together. It is not finite if any value is not.
    ///
    /// # Errors
    /// The device failed.
    pub fn norm(&self) -> Result<f32, NnError> {
        let all: Vec<&Tensor> = self.tensors().collect();
        Ok(self.device.backend.norm(&all)?)
    }

    /// The L2 norm of each stage's gradients. On a GPU it waits for the device once a stage.
    ///
    /// # Errors
    /// The device failed.
    pub fn stage_norms(&self) -> Result<StageNorms, NnError> {
        let mut stages: [Vec<&Tensor>; StageNorms::COUNT] = Default::default();
        for (spec, layer) in self.specs.iter().zip(&self.layers) {
            stages[StageNorms::stage(&spec.name)].extend(layer.tensors());
        }
        let mut norms = [0.0; StageNorms::COUNT];
        // A stem that is not trained has no gradients, and a device may not take none.
        let with_any = norms.iter_mut().zip(&stages);
        for (norm, tensors) in with_any.filter(|(_, tensors)| !tensors.is_empty()) {
            *norm = self.device.backend.norm(tensors)?;
        }
        Ok(StageNorms::new(norms))
    }

    /// A copy of all values as one vector, in an order that is the same for all gradients of a network.
    ///
    /// # Errors
    /// The device failed.
    pub fn to_flat(&self) -> Result<Vec<f32>, NnError> {
        let mut flat = Vec::new();
        for tensor in self.tensors() {
            flat.extend(self.device.backend.download(tensor)?);
        }
        Ok(flat)
    }

    /// A copy with the names and layout of [`super::Encoder::to_arrays`], where they are trained.
    ///
    /// # Errors
    /// The device failed.
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
