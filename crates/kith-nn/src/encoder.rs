//! The encoder: pixels to vectors, gradients, weights in and out.

use std::sync::Arc;

use candle_core::{Tensor, bail};

use super::architecture::{LayerSpec, PLACES, STEM, layers};
use super::arrays::{Import, slots};
use super::backend::{Backend, GraphCache, PixelsAhead, SavedActivations, TrainingForward};
use super::layer::Layer;
use super::resnet::{ForwardTrace, Network};
use super::{
    Device, EncoderConfig, Gradients, Images, NamedArray, NnError, Precision, init, whitening_stem,
};

/// The vectors of a batch, row-major: `[rows, dim]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    /// Values in a vector.
    pub dim: usize,
    /// `rows · dim` values.
    pub data: Vec<f32>,
}

/// The result of a forward pass: embeddings, and the kinds of features of which they are projections.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// `[batch, dim]`, each row of unit length.
    pub embedding: Vectors,
    /// `[batch, 8 · width]`, after fc + ReLU.
    pub hidden: Vectors,
    /// For each of [`PLACES`] the means of its stage's activations over each of its places, row by row: `[batch, grid² · channels]`.
    pub places: [Vectors; PLACES.len()],
}

/// A network with its weights on a device. Training changes them in place. A copy to serve from is another `Encoder` from the same arrays.
pub struct Encoder {
    config: EncoderConfig,
    pub(super) device: Device,
    pub(super) specs: Arc<[LayerSpec]>,
    pub(super) layers: Arc<Vec<Layer>>,
    /// Graphs of passes that only encode. They hold for these weights only.
    graphs: GraphCache,
    /// Graphs of training passes, which outlive updates of the weights.
    training_graphs: Arc<GraphCache>,
}

impl Encoder {
    /// An encoder with initial weights drawn from `seed`. The initialisation trains without BatchNorm.
    ///
    /// # Errors
    /// `config` is not valid, or the device failed.
    pub fn fresh(config: &EncoderConfig, seed: u64, device: &Device) -> Result<Self, NnError> {
        config.validate()?;
        let specs = layers(config);
        let fresh = |(place, spec): (usize, &LayerSpec)| {
            let backend = &device.backend;
            let weight =
                backend.upload(init::weights(seed, place, spec).into(), &spec.inner_shape())?;
            let bias = backend.upload(vec![0.0; spec.conv.outputs].into(), &[spec.conv.outputs])?;
            Ok(Layer::new(spec.clone(), weight, bias))
        };
        let layers = specs
            .iter()
            .enumerate()
            .map(fresh)
            .collect::<Result<Vec<_>, NnError>>()?;
        Ok(Self::from_layers(config, device, layers))
    }

    /// The same encoder with a stem whose filters whiten patches of natural images, and which [`super::Optimizer`] leaves as it is. One narrower than 16
    /// keeps the stem that it has.
    ///
    /// # Errors
    /// The device failed, or the encoder [only encodes](Encoder::only_encoding).
    pub fn with_whitening_stem(mut self) -> Result<Self, NnError> {
        let backend = self.device.backend.clone();
        let stem = &mut self.layers_to_update()[STEM];
        let (conv, shape) = (stem.spec.conv, stem.spec.inner_shape());
        if let Some(weights) = whitening_stem::weights(&conv) {
            let [weight, _] = stem.parameters()?;
            *weight = backend.upload(weights.into(), &shape)?;
            stem.is_trained = false;
            // Passes captured before it compute the stem's gradient.
            self.training_graphs = Arc::default();
        }
        Ok(self)
    }

    /// Whether the stem is that of [`Encoder::with_whitening_stem`], which training leaves as it is. It has no gradient.
    pub fn has_whitening_stem(&self) -> bool {
        !self.layers[STEM].is_trained
    }

    /// An encoder with weights from named arrays, as [`Encoder::to_arrays`] gives them. A stem of [`Encoder::with_whitening_stem`] is known by its values.
    ///
    /// # Errors
    /// `config` is not valid, or an array is missing, left over, there twice or of another shape. The text names it.
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
        let mut layers: Vec<Layer> = layers.collect();
        let stem = &mut layers[STEM];
        let weights = device.backend.download(stem.weight()?)?;
        stem.is_trained = !whitening_stem::is_whitening(&stem.spec.conv, &weights);
        Ok(Self::from_layers(config, device, layers))
    }

    /// The same encoder for passes that only encode. On the CPU it keeps each weight once, in `precision` and in the order in which the kernels
    /// read it: [`Encoder::to_arrays`], training passes and updates fail from then on. Other devices ignore it.
    ///
    /// # Errors
    /// The device failed.
    pub fn only_encoding(mut self, precision: Precision) -> Result<Self, NnError> {
        let backend = &*self.device.backend;
        let layers = self.layers.iter().cloned();
        let layers = layers.map(|layer| backend.only_encoding(layer, precision));
        self.layers = Arc::new(layers.collect::<candle_core::Result<_>>()?);
        Ok(self)
    }

    fn from_layers(config: &EncoderConfig, device: &Device, layers: Vec<Layer>) -> Self {
        let specs = layers.iter().map(|layer| layer.spec.clone()).collect();
        Self {
            config: config.clone(),
            device: device.clone(),
            specs,
            layers: Arc::new(layers),
            graphs: GraphCache::default(),
            training_graphs: Arc::default(),
        }
    }

    /// The layers, for an update of all their weights. Graphs made from the old weights are dropped.
    pub(super) fn layers_to_update(&mut self) -> &mut [Layer] {
        self.graphs = GraphCache::default();
        Arc::make_mut(&mut self.layers).as_mut_slice()
    }

    /// The shape of this network.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// A copy of all weights in a fixed order, with torchvision's names and layout.
    ///
    /// # Errors
    /// The device failed.
    pub fn to_arrays(&self) -> Result<Vec<NamedArray>, NnError> {
        let mut tensors = Vec::with_capacity(2 * self.layers.len());
        for layer in self.layers.iter() {
            tensors.extend([layer.weight()?, &layer.bias]);
        }
        slots(&self.specs)
            .zip(tensors)
            .map(|(slot, tensor)| slot.export("", tensor, &*self.device.backend))
            .collect()
    }

    /// Moves every weight towards that of `other`, an encoder of the same shape, by `share` of the way.
    ///
    /// # Errors
    /// The device failed. Some weights may then have moved.
    pub fn blend(&mut self, other: &Self, share: f32) -> Result<(), NnError> {
        let backend = self.device.backend.clone();
        let pairs = self.layers_to_update().iter_mut().zip(&*other.layers);
        for (layer, newer) in pairs {
            let [weight, bias] = layer.parameters()?;
            backend.blend(weight, newer.weight()?, share)?;
            backend.blend(bias, &newer.bias, share)?;
        }
        Ok(())
    }

    /// Encodes `pixels` (`[batch, side, side, 3]`).
    ///
    /// # Errors
    /// `pixels` are not one or more whole images, or the device failed.
    pub fn forward(&self, pixels: &[f32]) -> Result<Features, NnError> {
        self.forward_all(&[pixels])
    }

    /// [`Encoder::forward`] of the concatenation of `parts`, without copying them together.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub fn forward_all(&self, parts: &[&[f32]]) -> Result<Features, NnError> {
        self.forward_images(self.own(parts))
    }

    /// [`Encoder::forward`] of images of any size that the network takes.
    ///
    /// # Errors
    /// As [`Encoder::forward`], or of another size than [`Encoder::config`] has after [`Encoder::only_encoding`].
    pub fn forward_images(&self, images: Images<'_>) -> Result<Features, NnError> {
        let pass = |backend: &dyn Backend, pixels: Tensor| {
            let layers = &self.layers;
            let trace = Network { backend, layers }.forward(pixels, false)?;
            let [places, fine_places] = trace.places;
            Ok([trace.embedding, trace.hidden, places, fine_places])
        };
        let pixels = images.pixels()?;
        let rows = pixels.shape[0];
        let outputs = self.device.backend.infer(&self.graphs, pixels, &pass)?;
        let [embedding, hidden, places, fine_places] = outputs.map(|data| {
            let dim = data.len() / rows;
            Vectors { dim, data }
        });
        Ok(Features {
            embedding,
            hidden,
            places: [places, fine_places],
        })
    }

    /// Number of batch sizes whose pass the device has captured as a CUDA graph: `[encoding, training]`. On the CPU both are 0.
    ///
    /// A size is captured when it comes for the second time. Graphs of encoding are dropped when the weights change.
    pub fn captured_graphs(&self) -> [usize; 2] {
        [&self.graphs, &*self.training_graphs]
            .map(|graphs| self.device.backend.captured_graphs(graphs))
    }

    /// Encodes `pixels` (`[batch, side, side, 3]`) and saves the activations that [`Tape::backward`] needs.
    ///
    /// # Errors
    /// As [`Encoder::forward`]. [`NnError::Memory`] if the batch does not fit the device's memory.
    pub fn forward_train(&self, pixels: &[f32]) -> Result<Tape, NnError> {
        self.forward_train_all(&[pixels])
    }

    /// [`Encoder::forward_train`] of the concatenation of `parts`, without copying them together.
    ///
    /// # Errors
    /// As [`Encoder::forward_train`].
    pub fn forward_train_all(&self, parts: &[&[f32]]) -> Result<Tape, NnError> {
        self.forward_train_uploaded(self.own(parts), None)
    }

    /// Whether the device uploads pixels while it computes, so that [`Encoder::upload_ahead`] is of use.
    pub fn uploads_ahead(&self) -> bool {
        self.device.backend.uploads_ahead()
    }

    /// Uploads `images` for a later [`Encoder::forward_train_uploaded`] while the device computes what is queued. `None`: the device is the CPU, or
    /// it holds pixels of another pass already.
    ///
    /// # Errors
    /// `images` are not one or more whole images of a size that the network takes.
    pub fn upload_ahead(&self, images: Images<'_>) -> Result<Option<UploadedPixels>, NnError> {
        let mut pixels = images.pixels()?;
        let backend = &self.device.backend;
        pixels.shape[0] = backend.training_rows(pixels.shape[0]);
        let shape = pixels.shape;
        let ahead = backend.upload_ahead(pixels);
        Ok(ahead.map(|ahead| UploadedPixels { shape, ahead }))
    }

    /// [`Encoder::forward_train`] of images of any size that the network takes, which [`Encoder::upload_ahead`] may have uploaded. Uploads of
    /// another shape are dropped.
    ///
    /// # Errors
    /// As [`Encoder::forward_train`].
    pub fn forward_train_uploaded(
        &self,
        images: Images<'_>,
        uploaded: Option<UploadedPixels>,
    ) -> Result<Tape, NnError> {
        let pass = |backend: &dyn Backend, pixels: Tensor| {
            let layers: Vec<Layer> = self.layers.iter().map(Layer::without_cache).collect();
            let network = Network {
                backend,
                layers: &layers,
            };
            let trace = network.forward(pixels, true)?;
            let embedding = trace.embedding.clone();
            let saved: SavedActivations = Arc::new(TapeState { layers, trace });
            Ok((saved, embedding))
        };
        let backend = &self.device.backend;
        let mut pixels = images.pixels()?;
        let batch = pixels.shape[0];
        pixels.shape[0] = backend.training_rows(batch);
        let graphs = &self.training_graphs;
        let uploaded = uploaded.filter(|uploaded| uploaded.shape == pixels.shape);
        let ahead = uploaded.map(|uploaded| uploaded.ahead);
        let forward = backend.forward_train(graphs, (pixels, ahead), &pass);
        let mut forward = forward.map_err(|error| free_graphs(graphs, error))?;
        let (rows, dim) = (pixels.shape[0], self.config.dim);
        let mut data = std::mem::take(&mut forward.embedding);
        data.truncate(batch * dim);
        let trained = self.layers.iter().filter(|layer| layer.is_trained);
        Ok(Tape {
            device: self.device.clone(),
            specs: trained.map(|layer| layer.spec.clone()).collect(),
            graphs: graphs.clone(),
            forward,
            rows,
            embedding: Vectors { dim, data },
        })
    }

    /// `parts` as images of the size that is served.
    fn own<'a>(&self, parts: &'a [&'a [f32]]) -> Images<'a> {
        let side = self.config.side;
        Images { side, parts }
    }
}

/// Pixels of a training pass that are on the device before it.
pub struct UploadedPixels {
    /// Of the array on the device.
    shape: [usize; 4],
    ahead: PixelsAhead,
}

/// A forward pass that can be differentiated once, before the next step of the optimiser.
pub struct Tape {
    device: Device,
    /// Of the layers that are trained.
    specs: Arc<[LayerSpec]>,
    graphs: Arc<GraphCache>,
    forward: TrainingForward,
    /// Rows of the pass: those of the embeddings, and possibly more.
    rows: usize,
    embedding: Vectors,
}

/// Converts `error`. If the device's memory is used up, it drops `graphs`, so that the next pass has their memory.
fn free_graphs(graphs: &GraphCache, error: candle_core::Error) -> NnError {
    let error = NnError::from(error);
    if matches!(error, NnError::Memory(_)) {
        graphs.clear();
    }
    error
}

/// The input of a backward pass.
#[derive(Clone)]
struct TapeState {
    layers: Vec<Layer>,
    trace: ForwardTrace,
}

impl Tape {
    /// The embeddings `[batch, dim]`.
    pub fn embedding(&self) -> &Vectors {
        &self.embedding
    }

    /// The gradients of all weights that are trained, from the loss's gradient with respect to the embeddings (`[batch, dim]`).
    ///
    /// # Errors
    /// `embedding_gradient` has another length than the embeddings, or the device failed.
    pub fn backward(self, embedding_gradient: &[f32]) -> Result<Gradients, NnError> {
        let Vectors { dim, data } = &self.embedding;
        let (found, wanted) = (embedding_gradient.len(), data.len());
        if found != wanted {
            return Err(NnError::Config(format!(
                "the gradient has {found} values, the embeddings {wanted}"
            )));
        }
        let pass = |backend: &dyn Backend, gradient: Tensor, saved: SavedActivations| {
            let Ok(state) = saved.downcast::<TapeState>() else {
                bail!("not the saved activations of a forward pass")
            };
            // Without another owner, each activation is recycled after its last use.
            let TapeState { layers, trace } = Arc::unwrap_or_clone(state);
            let layers = &layers;
            Network { backend, layers }.backward(trace, gradient)
        };
        let TrainingForward { saved, lease, .. } = self.forward;
        let shape = [self.rows, 1, 1, *dim];
        let backend = &self.device.backend;
        let gradients = backend.backward((saved, lease), (embedding_gradient, &shape), &pass);
        let (layers, lease) = gradients.map_err(|error| free_graphs(&self.graphs, error))?;
        Ok(Gradients {
            device: self.device.clone(),
            specs: self.specs,
            layers,
            _lease: lease,
        })
    }
}
