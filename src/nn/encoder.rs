//! The encoder as other rooms see it: pixels to vectors, weights in and out.
//! Must never know: how the layers are computed.

use std::sync::Arc;

use candle_core::Tensor;

use super::architecture::{LayerSpec, layers};
use super::arrays::{Import, slots};
use super::layer::Layer;
use super::resnet::{Network, Trace};
use super::{Device, EncoderConfig, Gradients, NnError, Precision, init};
use crate::types::NamedArray;

/// Vectors of a batch, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    /// Values in a row.
    pub dim: usize,
    /// `rows · dim` values.
    pub data: Vec<f32>,
}

impl Vectors {
    fn of(tensor: &Tensor, device: &Device) -> Result<Self, NnError> {
        Ok(Self {
            dim: tensor.dim(3)?,
            data: device.backend.download(tensor)?,
        })
    }
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
    pub(super) device: Device,
    pub(super) specs: Arc<[LayerSpec]>,
    pub(super) layers: Arc<Vec<Layer>>,
}

impl Encoder {
    /// Fresh weights from `seed`: an init that trains without BatchNorm.
    pub fn fresh(config: &EncoderConfig, seed: u64, device: &Device) -> Result<Self, NnError> {
        config.validate()?;
        let specs = layers(config);
        let fresh = |(place, spec): (usize, &LayerSpec)| {
            let on = &device.backend;
            let weight = on.upload(init::weights(seed, place, spec).into(), &spec.inner_shape())?;
            let bias = on.upload(vec![0.0; spec.conv.outputs].into(), &[spec.conv.outputs])?;
            Ok(Layer::new(spec.clone(), weight, bias))
        };
        let layers = specs
            .iter()
            .enumerate()
            .map(fresh)
            .collect::<Result<Vec<_>, NnError>>()?;
        Ok(Self::of(config, device, layers))
    }

    /// Weights from named arrays; all must be there, none left over, each of the right shape.
    pub fn from_arrays(
        config: &EncoderConfig,
        arrays: &[NamedArray],
        device: &Device,
    ) -> Result<Self, NnError> {
        config.validate()?;
        let specs = layers(config);
        let mut import = Import::new(arrays)?;
        let tensors = slots(&specs).map(|slot| slot.import("", &mut import, &*device.backend));
        let tensors = tensors.collect::<Result<Vec<_>, _>>()?;
        import.finish()?;
        let pairs = specs.into_iter().zip(tensors.chunks_exact(2));
        let layers = pairs.map(|(spec, pair)| Layer::new(spec, pair[0].clone(), pair[1].clone()));
        Ok(Self::of(config, device, layers.collect()))
    }

    /// The same encoder, reading its weights in `precision` (on the CPU; other devices take no notice). For encoding only:
    /// gradients taken through rounded weights are not those of the weights.
    pub fn at(mut self, precision: Precision) -> Self {
        let layers = self.layers.iter().cloned();
        self.layers = Arc::new(layers.map(|layer| layer.at(precision)).collect());
        self
    }

    fn of(config: &EncoderConfig, device: &Device, layers: Vec<Layer>) -> Self {
        let specs = layers.iter().map(|layer| layer.spec.clone()).collect();
        Self {
            config: config.clone(),
            device: device.clone(),
            specs,
            layers: Arc::new(layers),
        }
    }

    /// The shape of this network.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// A copy of all weights in a fixed order, with torchvision's names and layout.
    pub fn to_arrays(&self) -> Result<Vec<NamedArray>, NnError> {
        let tensors = self
            .layers
            .iter()
            .flat_map(|layer| [&layer.weight, &layer.bias]);
        slots(&self.specs)
            .zip(tensors)
            .map(|(slot, tensor)| slot.export("", tensor, &*self.device.backend))
            .collect()
    }

    /// Encodes `pixels` (`[batch, side, side, 3]`) without keeping anything for a backward pass.
    pub fn forward(&self, pixels: &[f32]) -> Result<Features, NnError> {
        let network = Network {
            on: &*self.device.backend,
            layers: &self.layers,
        };
        let trace = network.forward(self.pixels(pixels)?, false)?;
        Ok(Features {
            embedding: Vectors::of(&trace.embedding, &self.device)?,
            hidden: Vectors::of(&trace.hidden, &self.device)?,
        })
    }

    /// Encodes `pixels` and keeps what [`Tape::backward`] needs.
    pub fn forward_train(&self, pixels: &[f32]) -> Result<Tape, NnError> {
        let layers: Vec<Layer> = self.layers.iter().map(Layer::fleeting).collect();
        let network = Network {
            on: &*self.device.backend,
            layers: &layers,
        };
        let trace = network.forward(self.pixels(pixels)?, true)?;
        let embedding = Vectors::of(&trace.embedding, &self.device)?;
        Ok(Tape {
            device: self.device.clone(),
            specs: self.specs.clone(),
            layers,
            trace,
            embedding,
        })
    }

    fn pixels(&self, pixels: &[f32]) -> Result<Tensor, NnError> {
        let side = self.config.side;
        let batch = pixels.len() / (side * side * 3);
        if batch == 0 || batch * side * side * 3 != pixels.len() {
            let values = pixels.len();
            let message =
                format!("{values} values are not one or more images of {side} × {side} × 3");
            return Err(NnError::Config(message));
        }
        let shape = [batch, side, side, 3];
        Ok(self.device.backend.upload(pixels.into(), &shape)?)
    }
}

/// A forward pass that can be differentiated once, before the next step of an optimiser.
pub struct Tape {
    device: Device,
    specs: Arc<[LayerSpec]>,
    layers: Vec<Layer>,
    trace: Trace,
    embedding: Vectors,
}

impl Tape {
    /// The embeddings `[batch, dim]`.
    pub fn embedding(&self) -> &Vectors {
        &self.embedding
    }

    /// Gradients of all weights, given the loss's gradient with respect to the embeddings (`[batch, dim]`).
    pub fn backward(self, embedding_gradient: &[f32]) -> Result<Gradients, NnError> {
        let on = &*self.device.backend;
        let embedding = &self.trace.embedding;
        let (found, wanted) = (embedding_gradient.len(), embedding.elem_count());
        if found != wanted {
            return Err(NnError::Config(format!(
                "the gradient has {found} values, the embeddings {wanted}"
            )));
        }
        let gradient = on.upload(embedding_gradient.into(), embedding.dims())?;
        let network = Network {
            on,
            layers: &self.layers,
        };
        let layers = network.backward(self.trace, gradient)?;
        Ok(Gradients {
            device: self.device.clone(),
            specs: self.specs,
            layers,
        })
    }
}
