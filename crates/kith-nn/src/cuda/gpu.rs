//! A GPU with the libraries that compute on it, and what all layers use: arrays in other types, the max-pool, sums.

use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm};
use candle_core::{Result, Tensor};

use super::arrays::{ActivationType, Span};
use super::convolution::Convolutions;
use super::launch::Arg;
use super::product::Products;
use super::stream_context::CudaStreamContext;
use crate::{Compute, CudaConfig};

/// Threads of a block of kernels with a block for each row of pixels: they fill rows of 24 and 56 pixels of 64 channels without rest.
pub(super) const ROW_BLOCK: (u32, u32) = (64, 1);
/// Minimum rows that a block sums.
const MIN_SUM_ROWS: usize = 256;
/// Maximum blocks that share a column.
const MAX_SUM_BLOCKS: usize = 128;

/// A batch of square images on the GPU.
#[derive(Clone, Copy)]
pub(super) struct ImageBatch<'a, T> {
    /// `[batch, side, side, channels]`.
    pub(super) data: Span<'a, T>,
    pub(super) batch: usize,
    pub(super) side: usize,
}

impl<T> ImageBatch<'_, T> {
    /// Pixels of all images.
    pub(super) fn pixels(&self) -> usize {
        self.batch * self.side * self.side
    }
}

/// A GPU that computes in `T`.
pub(super) struct Gpu<T> {
    pub(super) ctx: CudaStreamContext,
    pub(super) convolutions: Convolutions<T>,
    pub(super) products: Products<T>,
    config: CudaConfig,
    /// The same GPU on the stream of graph captures, opened when first needed.
    pub(super) capturer: Mutex<Option<Box<Self>>>,
}

impl<T: ActivationType> Gpu<T>
where
    CudaBlas: Gemm<T>,
{
    /// Compiles the kernels and opens the libraries on the stream of `ctx`.
    pub(super) fn new(
        mut ctx: CudaStreamContext,
        config: &CudaConfig,
    ) -> std::result::Result<Self, String> {
        ctx.load_kernels(T::HALF)?;
        Self::from_context(ctx, config)
    }

    /// The same on another stream.
    fn for_capture(&self) -> std::result::Result<Self, String> {
        Self::from_context(self.ctx.for_capture()?, &self.config)
    }

    fn from_context(
        ctx: CudaStreamContext,
        config: &CudaConfig,
    ) -> std::result::Result<Self, String> {
        let exact = config.compute != Compute::Tf32;
        Ok(Self {
            convolutions: Convolutions::new(ctx.stream.clone(), config.workspace_bytes(), exact)?,
            products: Products::new(ctx.stream.clone())?,
            ctx,
            config: config.clone(),
            capturer: Mutex::default(),
        })
    }

    /// Calls `capture` with the stream of captures, on which no other thread queues anything meanwhile.
    pub(super) fn with_capturer<R>(&self, capture: impl FnOnce(&Self) -> Result<R>) -> Result<R> {
        let mut capturer = self.capturer.lock().unwrap_or_else(PoisonError::into_inner);
        let gpu = match &mut *capturer {
            Some(gpu) => gpu,
            none => none.insert(Box::new(
                self.for_capture().map_err(candle_core::Error::Msg)?,
            )),
        };
        let result = capture(gpu);
        if result.is_err() {
            // The stream may be in any state.
            *capturer = None;
        }
        result
    }

    /// The images of `tensor`, `[batch, side, side, channels]`.
    pub(super) fn images<'a>(&'a self, tensor: &'a Tensor) -> Result<ImageBatch<'a, T>> {
        let (batch, side, _, _) = tensor.dims4()?;
        let data = self.activations(tensor)?;
        Ok(ImageBatch { data, batch, side })
    }

    /// The values of `tensor`, which must have the type of activations.
    pub(super) fn activations<'a>(&'a self, tensor: &'a Tensor) -> Result<Span<'a, T>> {
        self.ctx.span(tensor)
    }

    /// The values of `tensor`, which must be `f32`.
    pub(super) fn floats<'a>(&'a self, tensor: &'a Tensor) -> Result<Span<'a, f32>> {
        self.ctx.span(tensor)
    }

    /// `values` in the type of activations.
    pub(super) fn narrowed(&self, values: Span<'_, f32>) -> Result<Tensor> {
        self.ctx.build::<T>(values.len, |out| {
            let count = Arg::Size(values.len as u64);
            let args = [values.into(), out.into(), count];
            self.ctx.each("narrow_all", values.len, &args)
        })
    }

    /// The sum of a matrix's rows.
    pub(super) fn sum_rows(&self, matrix: Span<'_, T>, columns: usize) -> Result<Tensor> {
        let rows = matrix.len / columns;
        let chunk = MIN_SUM_ROWS.max(rows.div_ceil(MAX_SUM_BLOCKS));
        let parts = rows.div_ceil(chunk);
        let held = self.ctx.scratch::<f32>(parts * columns)?;
        let sums = self.floats(&held)?;
        let (width, chunk) = (Arg::Int(columns as i32), Arg::Int(chunk as i32));
        let rows = Arg::Size(rows as u64);
        let args = [matrix.into(), sums.into(), width, rows, chunk];
        let grid = (columns.div_ceil(32) as u32, parts as u32);
        self.ctx.launch("sum_rows", grid, (32, 8), &args)?;
        let total = self.ctx.build::<f32>(columns, |out| {
            let args = [sums.into(), out.into(), width, Arg::Int(parts as i32)];
            self.ctx.launch("sum_parts", (grid.0, 1), (32, 8), &args)
        });
        self.ctx.recycle(held);
        total
    }

    /// Scales each column of `gradient` down to `share` of the norm of the same column of `weight`, or of `smallest` if that is more.
    pub(super) fn clip_columns(
        &self,
        [gradient, weight]: [Span<'_, f32>; 2],
        columns: usize,
        [share, smallest]: [f32; 2],
    ) -> Result<()> {
        let rows = gradient.len / columns;
        let chunk = MIN_SUM_ROWS.max(rows.div_ceil(MAX_SUM_BLOCKS));
        let parts = rows.div_ceil(chunk);
        let held = self.ctx.scratch::<f32>(2 * parts * columns)?;
        let squares = self.floats(&held)?;
        let (width, chunk) = (Arg::Int(columns as i32), Arg::Int(chunk as i32));
        let rows = Arg::Size(rows as u64);
        let grid = (columns.div_ceil(32) as u32, parts as u32);
        let (gradient, weight) = (gradient.into(), weight.into());
        let args = [gradient, weight, squares.into(), width, rows, chunk];
        self.ctx.launch("filter_squares", grid, (32, 8), &args)?;
        let [share, smallest] = [share, smallest].map(Arg::Float);
        let args = [
            gradient,
            squares.into(),
            width,
            rows,
            chunk,
            share,
            smallest,
        ];
        self.ctx.launch("clip_filters", grid, (32, 8), &args)?;
        self.ctx.recycle(held);
        Ok(())
    }

    /// The values of `tensor` as floats. Floats are returned as they are.
    pub(super) fn widened(&self, tensor: &Tensor) -> Result<Tensor> {
        if self.floats(tensor).is_ok() {
            return Ok(tensor.clone());
        }
        let values = self.activations(tensor)?;
        self.ctx.build::<f32>(values.len, |out| {
            let args = [values.into(), out.into(), Arg::Size(values.len as u64)];
            self.ctx.each("widen_all", values.len, &args)
        })
    }

    /// The max-pool 3×3/2, with `save` also its argmax indices.
    pub(super) fn max_pool(
        &self,
        activations: &Tensor,
        save: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let (batch, side, _, channels) = activations.dims4()?;
        let pooled = (side - 1) / 2 + 1;
        let input = self.activations(activations)?;
        let shape = (batch, pooled, pooled, channels);
        // The launch below writes it.
        let argmax = save.then(|| self.ctx.build::<u8>(shape, |_| Ok(())));
        let argmax = argmax.transpose()?;
        let indices = match &argmax {
            Some(argmax) => self.ctx.span::<u8>(argmax)?.into(),
            None => Arg::At(0),
        };
        let out = self.ctx.build::<T>(shape, |out| {
            let sizes = [side, pooled, channels / 8].map(|size| Arg::Int(size as i32));
            let [side, pooled_side, eights] = sizes;
            let args = [input.into(), out.into(), indices, side, pooled_side, eights];
            self.ctx
                .launch("max_pool", rows(batch, pooled), ROW_BLOCK, &args)
        })?;
        Ok((out, argmax))
    }

    /// The gradient of the max-pool with respect to activations of `side`.
    pub(super) fn max_pool_gradient(
        &self,
        gradient: &Tensor,
        argmax: &Tensor,
        side: usize,
    ) -> Result<Tensor> {
        let (batch, pooled, _, channels) = gradient.dims4()?;
        let argmax = self.ctx.span::<u8>(argmax)?;
        let gradient = self.activations(gradient)?;
        self.ctx.build::<T>((batch, side, side, channels), |out| {
            let sizes = [side, pooled, channels / 8].map(|size| Arg::Int(size as i32));
            let [width, pooled, eights] = sizes;
            let args = [
                gradient.into(),
                argmax.into(),
                out.into(),
                width,
                pooled,
                eights,
            ];
            self.ctx
                .launch("max_pool_gradient", rows(batch, side), ROW_BLOCK, &args)
        })
    }
}

/// A block for each row of `side` pixels of a batch.
pub(super) fn rows(batch: usize, side: usize) -> (u32, u32) {
    ((batch * side) as u32, 1)
}

/// The error of a result that was not computed.
pub(super) fn missing<T>() -> Result<T> {
    candle_core::bail!("not computed")
}
