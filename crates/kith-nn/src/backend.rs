//! The operations that the network is made of, each with its gradient. A device implements [`Backend`].
//!
//! Gradients are written by hand and not taken by candle's graph. The network is fixed, so nothing is stored, zeroed or added that it does not
//! need. Activations are `[batch, side, side, channels]`, in the type in which the device computes.

use std::any::Any;
use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Result, Tensor};

use super::Precision;
use super::architecture::PLACES;
use super::layer::Layer;
use super::update::Rule;

/// The norm of a filter's weights below which it counts as this large when its gradient is clipped, so that weights of zero can learn (Brock et
/// al. 2021).
pub(super) const SMALLEST_FILTER: f32 = 1e-3;

/// The gradients of a layer's weights, in `f32`.
#[derive(Clone)]
pub(super) struct LayerGradient {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
}

impl LayerGradient {
    pub(super) fn tensors(&self) -> [&Tensor; 2] {
        [&self.weight, &self.bias]
    }
}

/// Where the gradient with respect to a layer's input goes.
pub(super) enum GradientTarget {
    /// To a new tensor.
    New,
    /// Added to this tensor.
    AddTo(Tensor),
}

/// One array of weights with the inputs of its update.
pub(super) struct Parameter<'a> {
    /// Decay per unit of learning rate.
    pub(super) decay: f32,
    /// `[weight, first moment, second moment]`; the last is empty for rules that are not adaptive.
    pub(super) state: [&'a mut Tensor; 3],
    pub(super) gradient: &'a Tensor,
}

/// Images in the host's memory: `parts` concatenated have `shape` (`[batch, side, side, 3]`). If they are shorter, the rest is zero.
#[derive(Clone, Copy)]
pub(super) struct Pixels<'a> {
    pub(super) parts: &'a [&'a [f32]],
    pub(super) shape: [usize; 4],
}

/// Embeddings, hidden features and the means over places of a batch, for each of [`PLACES`].
pub(super) type Outputs<A> = [A; 2 + PLACES.len()];

/// All outputs, or the first error among them.
pub(super) fn collect_outputs<A>(outputs: Outputs<Result<A>>) -> Result<Outputs<A>> {
    let [embedding, hidden, places, fine_places] = outputs;
    Ok([embedding?, hidden?, places?, fine_places?])
}

/// A forward pass without a backward pass, from images on the device to its outputs. Each call queues the same operations.
pub(super) type InferencePass<'a> = &'a dyn Fn(&dyn Backend, Tensor) -> Result<Outputs<Tensor>>;

/// What a forward pass saves for its backward pass.
pub(super) type SavedActivations = Arc<dyn Any + Send + Sync>;

/// The right to the arrays of a captured graph. As long as it is held, the device does not run the graph again.
pub(super) type GraphLease = Arc<dyn Any + Send + Sync>;

/// Pixels on the device that were uploaded before their pass.
pub(super) type PixelsAhead = Box<dyn Any + Send + Sync>;

/// The result of a forward pass that a backward pass may follow.
pub(super) struct TrainingForward {
    pub(super) saved: SavedActivations,
    /// `[rows, dim]`.
    pub(super) embedding: Vec<f32>,
    pub(super) lease: Option<GraphLease>,
}

/// A forward pass from images on the device to its saved activations and the embeddings. Each call queues the same operations.
pub(super) type TrainingPass<'a> =
    &'a dyn Fn(&dyn Backend, Tensor) -> Result<(SavedActivations, Tensor)>;

/// A backward pass from the gradient of the embeddings to those of all layers. Each call queues the same operations.
pub(super) type BackwardPass<'a> =
    &'a dyn Fn(&dyn Backend, Tensor, SavedActivations) -> Result<Vec<LayerGradient>>;

/// The graphs of an encoder that a device has captured.
#[derive(Default)]
pub(super) struct GraphCache(Mutex<Option<Box<dyn Any + Send>>>);

impl GraphCache {
    /// Drops all graphs, and with them their memory.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(feature = "cuda")]
impl GraphCache {
    /// Calls `access` with the content, which is a `G`. The call must be short and must not wait for the rayon pool: a thread that waits there
    /// takes up other passes, which may lock this cache too.
    pub(super) fn with<G: Any + Default + Send, R>(&self, access: impl FnOnce(&mut G) -> R) -> R {
        // A panic leaves nothing half written.
        let mut content = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut graphs = content.take().and_then(|graphs| graphs.downcast().ok());
        let result = access(graphs.get_or_insert_default());
        *content = graphs.map(|graphs: Box<G>| graphs as Box<dyn Any + Send>);
        result
    }
}

/// The operations of a device. A tensor of one backend must not be given to another.
pub(super) trait Backend: Send + Sync {
    /// Prepares the calling thread for dropping tensors.
    fn bind_thread(&self);

    /// Uploads `values` as `f32`. Owned values need not be copied.
    fn upload(&self, values: Cow<'_, [f32]>, shape: &[usize]) -> Result<Tensor>;

    /// The values of `tensor`. Waits for the operations that they depend on.
    fn download(&self, tensor: &Tensor) -> Result<Vec<f32>>;

    /// Uploads `values` in the type of activations.
    fn upload_activations(&self, values: &[f32], shape: &[usize]) -> Result<Tensor>;

    /// Uploads images as the stem reads them.
    fn upload_pixels(&self, pixels: Pixels<'_>) -> Result<Tensor>;

    /// Runs `pass` on `pixels`. A device may capture it in `graphs` and launch it again.
    fn infer(
        &self,
        graphs: &GraphCache,
        pixels: Pixels<'_>,
        pass: InferencePass<'_>,
    ) -> Result<Outputs<Vec<f32>>>;

    /// Number of rows in which a training pass of `batch` images is computed. A device may add rows so that fewer sizes occur. Their gradient must
    /// be zero.
    fn training_rows(&self, batch: usize) -> usize;

    /// Whether [`Backend::upload_ahead`] is of any use.
    fn uploads_ahead(&self) -> bool;

    /// Uploads the pixels of a later [`Backend::forward_train`] while the device computes. `None`: the device does not, or is not able to now.
    fn upload_ahead(&self, pixels: Pixels<'_>) -> Option<PixelsAhead>;

    /// Runs `pass` on `pixels`, which are on the device if they were uploaded `ahead`. A device may capture it in `graphs`, which outlive updates of
    /// the weights, and launch it again.
    fn forward_train(
        &self,
        graphs: &GraphCache,
        pixels: (Pixels<'_>, Option<PixelsAhead>),
        pass: TrainingPass<'_>,
    ) -> Result<TrainingForward>;

    /// Runs `pass` on the results of [`Backend::forward_train`] and the gradient of the embeddings, given with its shape (if it is shorter, the
    /// rest is zero). Returns the layers' gradients with a lease on them.
    fn backward(
        &self,
        forward: (SavedActivations, Option<GraphLease>),
        gradient: (&[f32], &[usize]),
        pass: BackwardPass<'_>,
    ) -> Result<(Vec<LayerGradient>, Option<GraphLease>)>;

    /// Number of batch sizes with a captured pass in `graphs`.
    fn captured_graphs(&self, graphs: &GraphCache) -> usize;

    /// `layer` with what passes that only encode need, in `precision` if the device has a choice.
    fn only_encoding(&self, layer: Layer, precision: Precision) -> Result<Layer>;

    /// `conv(x) + bias (+ residual)`, then ReLU if `relu`.
    fn conv(
        &self,
        layer: &Layer,
        x: &Tensor,
        residual: Option<&Tensor>,
        relu: bool,
    ) -> Result<Tensor>;

    /// The gradients of [`Backend::conv`] (before its ReLU) from its input and the gradient of its output.
    fn conv_gradient(
        &self,
        layer: &Layer,
        x: &Tensor,
        gradient: &Tensor,
        target: GradientTarget,
    ) -> Result<(Tensor, LayerGradient)>;

    /// The stem: convolution of `pixels` (of [`Backend::upload_pixels`]), ReLU and max-pool 3×3/2. With `save`, also the index
    /// of each maximum in its window.
    fn stem(&self, layer: &Layer, pixels: &Tensor, save: bool) -> Result<(Tensor, Option<Tensor>)>;

    /// The gradients of [`Backend::stem`]'s weights, from the gradient of its output with the ReLU's mask applied. (A maximum is positive in the
    /// output exactly where it is before the pool.)
    fn stem_gradient(
        &self,
        layer: &Layer,
        pixels: &Tensor,
        argmax: &Tensor,
        gradient: &Tensor,
    ) -> Result<LayerGradient>;

    /// ReLU's gradient: `gradient` where `output` is positive, else 0.
    fn mask(&self, gradient: Tensor, output: &Tensor) -> Result<Tensor>;

    /// The mean over pixels: `[batch, 1, 1, channels]`.
    fn mean(&self, images: &Tensor) -> Result<Tensor>;

    /// The gradient of [`Backend::mean`] with respect to images of that height and width.
    fn mean_gradient(&self, gradient: &Tensor, size: [usize; 2]) -> Result<Tensor>;

    /// Rows scaled to unit length (`[batch, 1, 1, dim]`), and their lengths (`[batch, 1, 1, 1]`), both `f32`.
    fn normalize(&self, rows: Tensor) -> Result<(Tensor, Tensor)>;

    /// The gradient of [`Backend::normalize`] with respect to its rows, from its results and their gradient, all `f32`.
    fn normalize_gradient(
        &self,
        gradient: Tensor,
        unit: &Tensor,
        lengths: &Tensor,
    ) -> Result<Tensor>;

    /// One optimiser step on all `parameters`, in place. Errors, such as a tensor of another type or too little memory, are found before anything is
    /// written.
    fn update(&self, rule: &Rule, parameters: Vec<Parameter<'_>>) -> Result<()>;

    /// Scales the gradient of each filter (the values of one output, the last axis) down to the norm `share · max(‖weights of the filter‖,
    /// [`SMALLEST_FILTER`])` where it is larger; both `f32`, of the same shape.
    fn clip_filters(&self, gradient: &Tensor, weight: &Tensor, share: f32) -> Result<()>;

    /// Adds `values` to `target`; both `f32`.
    fn add(&self, target: &Tensor, values: &Tensor) -> Result<()>;

    /// Moves `target` towards `values` by `share` of the way; both `f32`, of the same length.
    fn blend(&self, target: &Tensor, values: &Tensor, share: f32) -> Result<()>;

    /// √ Σ value² over all `tensors`, which are `f32`; not finite if any value is not.
    fn norm(&self, tensors: &[&Tensor]) -> Result<f32>;

    /// Lets later tensors use the memory of `tensor`. No other handle to its storage may be used afterwards.
    fn recycle(&self, tensor: Tensor) -> Result<()>;
}
