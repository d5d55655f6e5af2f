//! The encoder as other rooms see it: pixels to vectors, weights in and out.
//! Must never know: how the layers are computed.

use std::sync::Arc;

use candle_core::{Tensor, bail};

use super::architecture::{LayerSpec, layers};
use super::arrays::{Import, slots};
use super::backend::{Backend, Kept, Memo, Pixels, Taped};
use super::layer::Layer;
use super::resnet::{Network, Trace};
use super::{Device, EncoderConfig, Gradients, NnError, Precision, init};
use crate::NamedArray;

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
    pub(super) device: Device,
    pub(super) specs: Arc<[LayerSpec]>,
    pub(super) layers: Arc<Vec<Layer>>,
    /// Of these weights.
    memo: Memo,
    /// Of any weights.
    training_memo: Arc<Memo>,
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
    pub fn with_precision(mut self, precision: Precision) -> Self {
        let layers = self.layers.iter().cloned();
        self.layers = Arc::new(
            layers
                .map(|layer| layer.with_precision(precision))
                .collect(),
        );
        self
    }

    fn of(config: &EncoderConfig, device: &Device, layers: Vec<Layer>) -> Self {
        let specs = layers.iter().map(|layer| layer.spec.clone()).collect();
        Self {
            config: config.clone(),
            device: device.clone(),
            specs,
            layers: Arc::new(layers),
            memo: Memo::default(),
            training_memo: Arc::default(),
        }
    }

    /// The layers, whose weights are about to change.
    pub(super) fn change(&mut self) -> &mut [Layer] {
        self.memo = Memo::default();
        let layers = Arc::make_mut(&mut self.layers);
        layers.iter_mut().for_each(Layer::changed);
        layers
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
        self.forward_all(&[pixels])
    }

    /// [`Encoder::forward`] of images that lie in several places, one after the other.
    pub fn forward_all(&self, parts: &[&[f32]]) -> Result<Features, NnError> {
        let pass = |on: &dyn Backend, pixels: Tensor| {
            let layers = &self.layers;
            let trace = Network { on, layers }.forward(pixels, false)?;
            Ok([trace.embedding, trace.hidden])
        };
        let pixels = self.pixels(parts)?;
        let rows = pixels.shape[0];
        let found = self.device.backend.infer(&self.memo, pixels, &pass)?;
        let [embedding, hidden] = found.map(|data| {
            let dim = data.len() / rows;
            Vectors { dim, data }
        });
        Ok(Features { embedding, hidden })
    }

    /// Batch sizes whose pass the device has recorded and repeats in one call: those that came twice, of passes that only encode since the
    /// weights changed. `[encoding, training]`; none on the CPU.
    pub fn captured_graphs(&self) -> [usize; 2] {
        [&self.memo, &*self.training_memo].map(|memo| self.device.backend.recorded(memo))
    }

    /// Encodes `pixels` and keeps what [`Tape::backward`] needs.
    pub fn forward_train(&self, pixels: &[f32]) -> Result<Tape, NnError> {
        self.forward_train_all(&[pixels])
    }

    /// [`Encoder::forward_train`] of images that lie in several places, one after the other.
    pub fn forward_train_all(&self, parts: &[&[f32]]) -> Result<Tape, NnError> {
        let pass = |on: &dyn Backend, pixels: Tensor| {
            let layers: Vec<Layer> = self.layers.iter().map(Layer::fleeting).collect();
            let network = Network {
                on,
                layers: &layers,
            };
            let trace = network.forward(pixels, true)?;
            let embedding = trace.embedding.clone();
            let kept: Kept = Arc::new(Recorded { layers, trace });
            Ok((kept, embedding))
        };
        let backend = &self.device.backend;
        let mut pixels = self.pixels(parts)?;
        let batch = pixels.shape[0];
        pixels.shape[0] = backend.training_rows(batch);
        let taped = backend.tape(&self.training_memo, pixels, &pass);
        let mut taped = taped.map_err(|error| without(&self.training_memo, error))?;
        let (rows, dim) = (pixels.shape[0], self.config.dim);
        let mut data = std::mem::take(&mut taped.embedding);
        data.truncate(batch * dim);
        Ok(Tape {
            device: self.device.clone(),
            specs: self.specs.clone(),
            memo: self.training_memo.clone(),
            taped,
            rows,
            embedding: Vectors { dim, data },
        })
    }

    fn pixels<'a>(&self, parts: &'a [&'a [f32]]) -> Result<Pixels<'a>, NnError> {
        let side = self.config.side;
        let values: usize = parts.iter().map(|part| part.len()).sum();
        let batch = values / (side * side * 3);
        if batch == 0 || batch * side * side * 3 != values {
            let message =
                format!("{values} values are not one or more images of {side} × {side} × 3");
            return Err(NnError::Config(message));
        }
        let shape = [batch, side, side, 3];
        Ok(Pixels { parts, shape })
    }
}

/// A forward pass that can be differentiated once, before the next step of an optimiser.
pub struct Tape {
    device: Device,
    specs: Arc<[LayerSpec]>,
    memo: Arc<Memo>,
    taped: Taped,
    /// Rows of the pass: those of the embeddings, and maybe more.
    rows: usize,
    embedding: Vectors,
}

/// `error`; if it is for want of memory, the next pass has what `memo` kept.
fn without(memo: &Memo, error: candle_core::Error) -> NnError {
    let error = NnError::from(error);
    if matches!(error, NnError::Memory(_)) {
        memo.forget();
    }
    error
}

/// What a backward pass needs.
#[derive(Clone)]
struct Recorded {
    layers: Vec<Layer>,
    trace: Trace,
}

impl Tape {
    /// The embeddings `[batch, dim]`.
    pub fn embedding(&self) -> &Vectors {
        &self.embedding
    }

    /// Gradients of all weights, given the loss's gradient with respect to the embeddings (`[batch, dim]`).
    pub fn backward(self, embedding_gradient: &[f32]) -> Result<Gradients, NnError> {
        let Vectors { dim, data } = &self.embedding;
        let (found, wanted) = (embedding_gradient.len(), data.len());
        if found != wanted {
            return Err(NnError::Config(format!(
                "the gradient has {found} values, the embeddings {wanted}"
            )));
        }
        let pass = |on: &dyn Backend, gradient: Tensor, kept: Kept| {
            let Ok(recorded) = kept.downcast::<Recorded>() else {
                bail!("not what a forward pass keeps")
            };
            // Where nobody else has it, its maps are given back as they are used up.
            let Recorded { layers, trace } = Arc::unwrap_or_clone(recorded);
            let layers = &layers;
            Network { on, layers }.backward(trace, gradient)
        };
        let (tape, shape) = (self.taped, [self.rows, 1, 1, *dim]);
        let tape = (tape.kept, tape.lease);
        let backend = &self.device.backend;
        let gradients = backend.backward(tape, (embedding_gradient, &shape), &pass);
        let (layers, lease) = gradients.map_err(|error| without(&self.memo, error))?;
        Ok(Gradients {
            device: self.device.clone(),
            specs: self.specs,
            layers,
            _lease: lease,
        })
    }
}
