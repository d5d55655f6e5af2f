//! The parts of a layer on a GPU: weights in cuDNN's layout, convolutions and products with their epilogue, the max-pool, sums.

use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm};
use candle_core::{Result, Tensor};

use super::arrays::{ActivationType, Span};
use super::convolution::{Convolutions, Epilogue, Shape};
use super::launch::Arg;
use super::product::Products;
use super::stream_context::CudaStreamContext;
use crate::backend::{Pixels, PixelsAhead};
use crate::kernels::Conv;
use crate::layer::Layer;
use crate::{Compute, CudaConfig};

/// Channels are padded to a multiple of this.
const PIXEL_CHANNELS: usize = 8;
/// Rows of pixels in the channels of the stem's input. With 2, and taps of 4 × 4, it was 4 % slower.
const FOLDED_ROWS: usize = 8;
/// Number of weights of the stem after folding, for each output.
const FOLDED_WEIGHTS: usize = 256;
/// Threads of a block of kernels with a block for each row of pixels: they fill rows of 24 and 56 pixels of 64 channels without rest.
const ROW_BLOCK: (u32, u32) = (64, 1);
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

    /// A layer's weights and bias as cuDNN and cuBLAS read them, made when first needed after an update.
    pub(super) fn cast(&self, layer: &Layer) -> Result<[Tensor; 2]> {
        layer.cast(|| {
            let conv = layer.spec.conv;
            let weight = self.floats(&layer.weight)?;
            let weight = if is_product(&conv) {
                self.narrowed(weight)?
            } else if is_folded(&conv) {
                let count = conv.outputs * FOLDED_WEIGHTS;
                self.ctx.build::<T>(count, |out| {
                    self.fold("fold_weights", &conv, [weight.into(), out.into()])
                })?
            } else {
                let count = conv.outputs * conv.kernel * conv.kernel * padded_channels(conv.inputs);
                self.ctx.build::<T>(count, |out| {
                    self.transpose_weights("pack_weights", &conv, [weight.into(), out.into()])
                })?
            };
            Ok([weight, self.narrowed(self.floats(&layer.bias)?)?])
        })
    }

    /// Folds the stem's weights from the layout of [`Layer`], or unfolds them.
    fn fold(&self, kernel: &str, conv: &Conv, [from, to]: [Arg; 2]) -> Result<()> {
        let count = conv.outputs * FOLDED_WEIGHTS;
        let [outputs, rows] = [conv.outputs, FOLDED_ROWS].map(|size| Arg::Int(size as i32));
        let args = [from, to, outputs, rows, Arg::Size(count as u64)];
        self.ctx.each(kernel, count, &args)
    }

    /// `values` in the type of activations.
    fn narrowed(&self, values: Span<'_, f32>) -> Result<Tensor> {
        self.ctx.build::<T>(values.len, |out| {
            let count = Arg::Size(values.len as u64);
            let args = [values.into(), out.into(), count];
            self.ctx.each("narrow_all", values.len, &args)
        })
    }

    /// Transposes weights from the layout of [`Layer`] to cuDNN's or back.
    fn transpose_weights(&self, kernel: &str, conv: &Conv, [from, to]: [Arg; 2]) -> Result<()> {
        let (taps, inputs) = (conv.kernel * conv.kernel, padded_channels(conv.inputs));
        let rows = taps * inputs;
        let sizes = [taps, conv.inputs, inputs, conv.outputs].map(|size| Arg::Int(size as i32));
        let [taps, inputs, padded, outputs] = sizes;
        let grid = (conv.outputs.div_ceil(32) as u32, rows.div_ceil(32) as u32);
        let args = [from, to, taps, inputs, padded, outputs];
        self.ctx.launch(kernel, grid, (32, 8), &args)
    }

    /// `conv(x) + bias (+ residual)`, then ReLU if `relu`, of activations whose channels are padded.
    pub(super) fn convolve(
        &self,
        layer: &Layer,
        x: ImageBatch<'_, T>,
        residual: Option<Span<'_, T>>,
        relu: bool,
    ) -> Result<Tensor> {
        let conv = layer.spec.conv;
        let [weight, bias] = self.cast(layer)?;
        let (weight, bias) = (self.activations(&weight)?, self.activations(&bias)?);
        let plan = convolution(conv, x.side, x.batch);
        let [height, width] = plan.output();
        let shape = (x.batch, height, width, conv.outputs);
        self.ctx.build::<T>(shape, |out| {
            let arrays = [x.data, weight, out];
            let fused = if is_product(&conv) {
                self.products.forward(&conv, x.pixels(), arrays)?;
                false
            } else if is_strided_product(&conv) {
                let even = self.even_pixels(x, conv)?;
                let arrays = [self.activations(&even)?, weight, out];
                let pixels = x.batch * height * width;
                self.products.forward_transposed(&conv, pixels, arrays)?;
                self.ctx.recycle(even);
                false
            } else {
                let wanted = Epilogue {
                    bias,
                    residual,
                    relu,
                };
                self.convolutions.forward(&self.ctx, plan, arrays, wanted)?
            };
            if fused {
                return Ok(());
            }
            if conv.outputs % 8 > 0 {
                // The projection, which has neither.
                debug_assert!(residual.is_none() && !relu);
                let channels = Arg::Int(conv.outputs as i32);
                let args = [out.into(), bias.into(), channels, Arg::Size(out.len as u64)];
                return self.ctx.each("add_bias", out.len, &args);
            }
            let residual = residual.map_or(Arg::At(0), Arg::from);
            let args = [
                out.into(),
                bias.into(),
                residual,
                Arg::Int((conv.outputs / 8) as i32),
                Arg::Int(i32::from(relu)),
                Arg::Size((out.len / 8) as u64),
            ];
            self.ctx.each("epilogue", out.len / 8, &args)
        })
    }

    /// The pixels that a 1 × 1 convolution of stride 2 reads.
    fn even_pixels(&self, x: ImageBatch<'_, T>, conv: Conv) -> Result<Tensor> {
        let half = conv.output_side(x.side);
        self.ctx
            .build::<T>((x.batch, half, half, conv.inputs), |out| {
                let sizes = [x.side, half, conv.inputs / 8].map(|size| Arg::Int(size as i32));
                let [side, width, eights] = sizes;
                let args = [x.data.into(), out.into(), side, width, eights];
                self.ctx
                    .launch("take_even", rows(x.batch, half), ROW_BLOCK, &args)
            })
    }

    /// The gradient of the weights, from activations whose channels are padded.
    pub(super) fn weight_gradient(
        &self,
        conv: Conv,
        x: ImageBatch<'_, T>,
        gradient: Span<'_, T>,
    ) -> Result<Tensor> {
        let shape = [conv.kernel, conv.kernel, conv.inputs, conv.outputs];
        if is_product(&conv) {
            let product = self.ctx.scratch::<T>(conv.weights())?;
            let span = self.activations(&product)?;
            let arrays = [x.data, gradient, span];
            self.products.weights(&conv, x.pixels(), arrays)?;
            let wide = self.ctx.build::<f32>(&shape[..], |out| {
                let args = [span.into(), out.into(), Arg::Size(out.len as u64)];
                self.ctx.each("widen_all", out.len, &args)
            });
            self.ctx.recycle(product);
            return wide;
        }
        let plan = convolution(conv, x.side, x.batch);
        let transposed = self.ctx.scratch::<T>(plan.weights())?;
        let span = self.activations(&transposed)?;
        let arrays = [x.data, span, gradient];
        self.convolutions
            .backward_weights(&self.ctx, plan, arrays)?;
        let back = self.ctx.build::<f32>(&shape[..], |out| {
            let arrays = [span.into(), out.into()];
            if is_folded(&conv) {
                self.fold("unfold_weights", &conv, arrays)
            } else {
                self.transpose_weights("unpack_weights", &conv, arrays)
            }
        });
        self.ctx.recycle(transposed);
        back
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

    /// `pixels` on the GPU, as the stem reads them.
    pub(super) fn stem_input_of(
        &self,
        pixels: Pixels<'_>,
        ahead: Option<PixelsAhead>,
    ) -> Result<Tensor> {
        let uploaded = self.ctx.build::<T>(&pixels.shape, |target| {
            self.ctx.fill_pixels(pixels, ahead, target)
        })?;
        self.stem_input(&uploaded)
    }

    /// Pixels `[batch, side, side, 3]` as the stem reads them: with 2 × 2 of them and four rows of these in the channels, `[batch, half, half + 3,
    /// 64]`, where `half` is the side of the stem's output.
    pub(super) fn stem_input(&self, pixels: &Tensor) -> Result<Tensor> {
        let (batch, side, _, _) = pixels.dims4()?;
        let pixels = self.activations(pixels)?;
        let half = side.div_ceil(2);
        let shape = (batch, half, half + 3, 8 * FOLDED_ROWS);
        self.ctx.build::<T>(shape, |out| {
            let sizes = [side, half, half].map(|size| Arg::Int(size as i32));
            let args = [pixels.into(), out.into(), sizes[0], sizes[1], sizes[2]];
            let grid = ((batch * half) as u32, (half + 3).div_ceil(64) as u32);
            let block = (32, FOLDED_ROWS as u32);
            self.ctx.launch("fold_pixels", grid, block, &args)
        })
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
fn rows(batch: usize, side: usize) -> (u32, u32) {
    ((batch * side) as u32, 1)
}

/// The error of a result that was not computed.
pub(super) fn missing<T>() -> Result<T> {
    candle_core::bail!("not computed")
}

/// Whether a convolution is one product of matrices.
pub(super) fn is_product(conv: &Conv) -> bool {
    conv.kernel == 1 && conv.stride == 1
}

/// Whether the forward pass of a convolution is one product of matrices after its pixels are gathered. Its weights are laid out as for cuDNN, which
/// computes the backward pass.
fn is_strided_product(conv: &Conv) -> bool {
    (conv.kernel, conv.stride, conv.pad) == (1, 2, 0)
}

/// Whether a convolution is computed on folded pixels: the stem.
fn is_folded(conv: &Conv) -> bool {
    (conv.kernel, conv.stride, conv.pad, conv.inputs) == (7, 2, 3, 3)
}

/// Channels rounded up to what cuDNN's fast kernels take.
fn padded_channels(channels: usize) -> usize {
    channels.next_multiple_of(PIXEL_CHANNELS)
}

/// How cuDNN computes `conv` on `batch` images of `side`: on padded channels or, if it is the stem, on folded pixels. `side` is the first one of
/// its array.
pub(super) fn convolution(conv: Conv, side: usize, batch: usize) -> Shape {
    if is_folded(&conv) {
        return Shape {
            batch,
            input: [side, side + 3],
            kernel: [1, 4],
            stride: 1,
            pad: 0,
            channels: [8 * FOLDED_ROWS, conv.outputs],
        };
    }
    let inputs = padded_channels(conv.inputs);
    Shape::square(Conv { inputs, ..conv }, side, batch)
}
