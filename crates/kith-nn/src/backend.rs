//! The operations the network is made of, each with its gradient, as any device must offer them: the seam between the network and
//! whatever computes it. Must never know: the network's shape.
//!
//! Gradients are taken by hand, not by candle's graph: the network is fixed, and so nothing is stored, zeroed or
//! added that it does not need. Activations are `[batch, side, side, channels]`, in whatever type the device computes in.

use std::any::Any;
use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Result, Tensor};

use super::layer::Layer;
use super::update::Rule;

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
pub(super) enum Input {
    /// In a new tensor.
    New,
    /// Added to this one.
    AddTo(Tensor),
}

/// Weights in training, with what an update needs.
pub(super) struct Parameter<'a> {
    /// Decay per unit of learning rate.
    pub(super) decay: f32,
    /// `[weight, first moment, second moment]`; the last is empty for rules that are not adaptive.
    pub(super) state: [&'a mut Tensor; 3],
    pub(super) gradient: &'a Tensor,
}

/// Images in the host's memory: those of `parts` one after the other, `shape` (`[batch, side, side, 3]`) together. If they are fewer, the
/// rest is zero.
#[derive(Clone, Copy)]
pub(super) struct Pixels<'a> {
    pub(super) parts: &'a [&'a [f32]],
    pub(super) shape: [usize; 4],
}

/// A pass that only encodes, from images on the device to their embeddings and hidden features. It queues the same operations each time.
pub(super) type Pass<'a> = &'a dyn Fn(&dyn Backend, Tensor) -> Result<[Tensor; 2]>;

/// Whatever a forward pass leaves for its backward pass.
pub(super) type Kept = Arc<dyn Any + Send + Sync>;

/// Held as long as arrays are in use that a device will write again.
pub(super) type Lease = Arc<dyn Any + Send + Sync>;

/// A forward pass that a backward pass may follow.
pub(super) struct Taped {
    pub(super) kept: Kept,
    /// `[rows, dim]`.
    pub(super) embedding: Vec<f32>,
    pub(super) lease: Option<Lease>,
}

/// A forward pass, from images on the device to what it keeps and the embeddings, and the backward pass, from the gradient of these.
/// Each queues the same operations each time.
pub(super) type TapePass<'a> = &'a dyn Fn(&dyn Backend, Tensor) -> Result<(Kept, Tensor)>;
pub(super) type BackwardPass<'a> =
    &'a dyn Fn(&dyn Backend, Tensor, Kept) -> Result<Vec<LayerGradient>>;

/// What a device keeps with an encoder.
#[derive(Default)]
pub(super) struct Memo(Mutex<Option<Box<dyn Any + Send>>>);

impl Memo {
    /// Gives back all that is kept.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(feature = "cuda")]
impl Memo {
    /// What `look` finds or changes in what is kept, which is an `M`. It must be short, and not wait for the pool that computes: a thread
    /// that waits there takes up other passes, which may look here too.
    pub(super) fn with<M: Any + Default + Send, R>(&self, look: impl FnOnce(&mut M) -> R) -> R {
        // A panic leaves nothing half written.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = kept.take().and_then(|kept| kept.downcast().ok());
        let result = look(found.get_or_insert_default());
        *kept = found.map(|found: Box<M>| found as Box<dyn Any + Send>);
        result
    }
}

/// A device's arithmetic. Tensors of one backend mean nothing to another.
pub(super) trait Backend: Send + Sync {
    /// Prepares this thread for dropping tensors.
    fn enter(&self);

    /// `values` on the device, as `f32`. What is owned need not be copied.
    fn upload(&self, values: Cow<'_, [f32]>, shape: &[usize]) -> Result<Tensor>;

    /// The values of `tensor`. Waits for all that they depend on.
    fn download(&self, tensor: &Tensor) -> Result<Vec<f32>>;

    /// `values` on the device as maps.
    fn maps(&self, values: &[f32], shape: &[usize]) -> Result<Tensor>;

    /// Images on the device, as the stem reads them.
    fn pixels(&self, pixels: Pixels<'_>) -> Result<Tensor>;

    /// What `pass` makes of `pixels`. A device may record it in `memo` and repeat it.
    fn infer(&self, memo: &Memo, pixels: Pixels<'_>, pass: Pass<'_>) -> Result<[Vec<f32>; 2]>;

    /// Rows in which a training pass of `batch` images is computed: a device may add some, whose gradient is to be zero, so that fewer
    /// sizes occur.
    fn training_rows(&self, batch: usize) -> usize;

    /// What `pass` makes of `pixels`. A device may record it in `memo`, which outlasts changes of the weights, and repeat it.
    fn tape(&self, memo: &Memo, pixels: Pixels<'_>, pass: TapePass<'_>) -> Result<Taped>;

    /// What `pass` makes of what [`Backend::tape`] kept and of the `gradient` of the embeddings, `shape` (if it is shorter, the rest is
    /// zero); and a lease on it.
    fn backward(
        &self,
        tape: (Kept, Option<Lease>),
        gradient: (&[f32], &[usize]),
        pass: BackwardPass<'_>,
    ) -> Result<(Vec<LayerGradient>, Option<Lease>)>;

    /// How many batch sizes have a recorded pass in `memo`.
    fn recorded(&self, memo: &Memo) -> usize;

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
        input: Input,
    ) -> Result<(Tensor, LayerGradient)>;

    /// The stem: convolution of `pixels` (of [`Backend::pixels`]), ReLU and max-pool 3×3/2. With `keep`, also which place of each window was the
    /// largest.
    fn stem(&self, layer: &Layer, pixels: &Tensor, keep: bool) -> Result<(Tensor, Option<Tensor>)>;

    /// The gradients of [`Backend::stem`]'s weights, from the gradient of its output with the ReLU's mask applied (a pooled value is
    /// positive where its place before the pool is).
    fn stem_gradient(
        &self,
        layer: &Layer,
        pixels: &Tensor,
        picks: &Tensor,
        gradient: &Tensor,
    ) -> Result<LayerGradient>;

    /// ReLU's gradient: `gradient` where `output` is positive, else 0.
    fn mask(&self, gradient: Tensor, output: &Tensor) -> Result<Tensor>;

    /// The mean over pixels: `[batch, 1, 1, channels]`.
    fn mean(&self, images: &Tensor) -> Result<Tensor>;

    /// The gradient of [`Backend::mean`] with respect to images of `side`.
    fn mean_gradient(&self, gradient: &Tensor, side: usize) -> Result<Tensor>;

    /// Rows scaled to unit length (`[batch, 1, 1, dim]`), and their lengths (`[batch, 1, 1, 1]`), both `f32`.
    fn normalize(&self, rows: Tensor) -> Result<(Tensor, Tensor)>;

    /// The gradient of [`Backend::normalize`] with respect to its rows, from its results and their gradient, all `f32`.
    fn normalize_gradient(
        &self,
        gradient: Tensor,
        unit: &Tensor,
        lengths: &Tensor,
    ) -> Result<Tensor>;

    /// One optimiser step on all `parameters`, in place. What is wrong with them, or memory that is not there, is found before anything
    /// is written.
    fn update(&self, rule: &Rule, parameters: Vec<Parameter<'_>>) -> Result<()>;

    /// Adds `values` to `target`; both `f32`.
    fn add(&self, target: &Tensor, values: &Tensor) -> Result<()>;

    /// √ Σ value² over all `tensors`, which are `f32`; not finite if any value is not.
    fn norm(&self, tensors: &[&Tensor]) -> Result<f32>;

    /// Gives back the memory of `tensor` for later use. No other handle to its storage may be used afterwards.
    fn recycle(&self, tensor: Tensor) -> Result<()>;
}
