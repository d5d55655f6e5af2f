//! What a layer is made of on a GPU: weights as cuDNN reads them, convolutions and products with what follows, the max-pool, sums.
//! Must never know: the order of layers.

use std::sync::Mutex;

use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm};
use candle_core::{Result, Tensor};

use super::arrays::{Span, Value};
use super::convolution::{Convolutions, Fused, Shape};
use super::lane::{Arg, Lane};
use super::product::Products;
use crate::kernels::Conv;
use crate::layer::Layer;
use crate::{Compute, CudaConfig};

/// Channels of uploaded pixels once they are maps.
const PIXEL_CHANNELS: usize = 8;
/// Least rows that a block sums, and most blocks that share a column.
const SUM_ROWS: usize = 256;
const SUM_BLOCKS: usize = 128;

/// A GPU that computes in `T`.
pub(super) struct Gpu<T> {
    pub(super) lane: Lane,
    pub(super) convolutions: Convolutions<T>,
    pub(super) products: Products,
    config: CudaConfig,
    /// Where passes are recorded; made when first needed.
    pub(super) recorder: Mutex<Option<Box<Self>>>,
}

impl<T: Value> Gpu<T>
where
    CudaBlas: Gemm<T>,
{
    pub(super) fn new(mut lane: Lane, config: &CudaConfig) -> std::result::Result<Self, String> {
        lane.load_kernels(T::HALF)?;
        Self::on(lane, config)
    }

    /// The same on another queue.
    pub(super) fn beside(&self) -> std::result::Result<Self, String> {
        Self::on(self.lane.beside()?, &self.config)
    }

    fn on(lane: Lane, config: &CudaConfig) -> std::result::Result<Self, String> {
        let exact = config.compute != Compute::Tf32;
        Ok(Self {
            convolutions: Convolutions::new(lane.stream.clone(), config.workspace_bytes(), exact)?,
            products: Products::new(lane.stream.clone())?,
            lane,
            config: config.clone(),
            recorder: Mutex::default(),
        })
    }

    pub(super) fn map<'a>(&'a self, tensor: &'a Tensor) -> Result<Span<'a, T>> {
        self.lane.span(tensor)
    }

    pub(super) fn floats<'a>(&'a self, tensor: &'a Tensor) -> Result<Span<'a, f32>> {
        self.lane.span(tensor)
    }

    /// A layer's weights and bias as the products read them: made when first needed after an update.
    pub(super) fn cast(&self, layer: &Layer) -> Result<[Tensor; 2]> {
        layer.cast(|| {
            let conv = layer.spec.conv;
            let weight = self.floats(&layer.weight)?;
            let weight = match is_product(&conv) {
                true => self.narrowed(weight)?,
                false => {
                    let count =
                        conv.outputs * conv.kernel * conv.kernel * padded_channels(conv.inputs);
                    self.lane.build::<T>(count, |out| {
                        self.turn("pack_weights", &conv, [weight.into(), out.into()])
                    })?
                }
            };
            Ok([weight, self.narrowed(self.floats(&layer.bias)?)?])
        })
    }

    fn narrowed(&self, values: Span<'_, f32>) -> Result<Tensor> {
        self.lane.build::<T>(values.len, |out| {
            let count = Arg::Size(values.len as u64);
            let args = [values.into(), out.into(), count];
            self.lane.each("narrow_all", values.len, &args)
        })
    }

    /// Weights from our layout to cuDNN's or back.
    fn turn(&self, kernel: &str, conv: &Conv, [from, to]: [Arg; 2]) -> Result<()> {
        let (taps, inputs) = (conv.kernel * conv.kernel, padded_channels(conv.inputs));
        let rows = taps * inputs;
        let sizes = [taps, conv.inputs, inputs, conv.outputs].map(|size| Arg::Int(size as i32));
        let [taps, inputs, padded, outputs] = sizes;
        let grid = (conv.outputs.div_ceil(32) as u32, rows.div_ceil(32) as u32);
        let args = [from, to, taps, inputs, padded, outputs];
        self.lane.launch(kernel, grid, (32, 8), &args)
    }

    /// `conv(x) + bias (+ residual)` and ReLU of maps whose channels are padded.
    pub(super) fn convolve(
        &self,
        layer: &Layer,
        (x, batch, side): (Span<'_, T>, usize, usize),
        residual: Option<Span<'_, T>>,
        relu: bool,
    ) -> Result<Tensor> {
        let conv = layer.spec.conv;
        let [weight, bias] = self.cast(layer)?;
        let (weight, bias) = (self.map(&weight)?, self.map(&bias)?);
        let out_side = conv.output_side(side);
        let shape = (batch, out_side, out_side, conv.outputs);
        self.lane.build::<T>(shape, |out| {
            let fused = if is_product(&conv) {
                let rows = batch * side * side;
                self.products.forward(&conv, rows, [x, weight, out])?;
                false
            } else {
                let shape = convolution(conv, side, batch);
                let wanted = relu.then_some(Fused { bias, residual });
                let arrays = [x, weight, out];
                self.convolutions
                    .forward(&self.lane, shape, arrays, wanted)?
            };
            if fused {
                return Ok(());
            }
            let residual = residual.map_or(Arg::At(0), Arg::from);
            let args = [
                out.into(),
                bias.into(),
                residual,
                Arg::Int(conv.outputs as i32),
                Arg::Int(i32::from(relu)),
                Arg::Size(out.len as u64),
            ];
            self.lane.each("finish", out.len, &args)
        })
    }

    /// The gradient of the weights, from padded maps.
    pub(super) fn weight_gradient(
        &self,
        conv: Conv,
        (x, batch, side): (Span<'_, T>, usize, usize),
        gradient: Span<'_, T>,
    ) -> Result<Tensor> {
        let shape = [conv.kernel, conv.kernel, conv.inputs, conv.outputs];
        if is_product(&conv) {
            let product = self.lane.scratch::<T>(conv.weights())?;
            let span = self.map(&product)?;
            let rows = batch * side * side;
            self.products.weights(&conv, rows, [x, gradient, span])?;
            let wide = self.lane.build::<f32>(&shape[..], |out| {
                let args = [span.into(), out.into(), Arg::Size(out.len as u64)];
                self.lane.each("widen_all", out.len, &args)
            });
            self.lane.recycle(product);
            return wide;
        }
        let count = conv.kernel * conv.kernel * padded_channels(conv.inputs) * conv.outputs;
        let turned = self.lane.scratch::<T>(count)?;
        let span = self.map(&turned)?;
        let arrays = [x, span, gradient];
        let lane = &self.lane;
        self.convolutions
            .backward_weights(lane, convolution(conv, side, batch), arrays)?;
        let back = self.lane.build::<f32>(&shape[..], |out| {
            self.turn("unpack_weights", &conv, [span.into(), out.into()])
        });
        self.lane.recycle(turned);
        back
    }

    /// The sums of a matrix's rows.
    pub(super) fn sum_rows(&self, matrix: Span<'_, T>, columns: usize) -> Result<Tensor> {
        let rows = matrix.len / columns;
        let chunk = SUM_ROWS.max(rows.div_ceil(SUM_BLOCKS));
        let parts = rows.div_ceil(chunk);
        let held = self.lane.scratch::<f32>(parts * columns)?;
        let sums = self.floats(&held)?;
        let (width, chunk) = (Arg::Int(columns as i32), Arg::Int(chunk as i32));
        let rows = Arg::Size(rows as u64);
        let args = [matrix.into(), sums.into(), width, rows, chunk];
        let grid = (columns.div_ceil(32) as u32, parts as u32);
        self.lane.launch("sum_rows", grid, (32, 8), &args)?;
        let total = self.lane.build::<f32>(columns, |out| {
            let args = [sums.into(), out.into(), width, Arg::Int(parts as i32)];
            self.lane.launch("sum_parts", (grid.0, 1), (32, 8), &args)
        });
        self.lane.recycle(held);
        total
    }

    /// `[batch, side, side, 3]` with channels added up to [`PIXEL_CHANNELS`].
    pub(super) fn padded(&self, pixels: &Tensor) -> Result<Tensor> {
        let (batch, side, _, _) = pixels.dims4()?;
        let (count, pixels) = (batch * side * side, self.map(pixels)?);
        let shape = (batch, side, side, PIXEL_CHANNELS);
        self.lane.build::<T>(shape, |out| {
            let args = [pixels.into(), out.into(), Arg::Size(count as u64)];
            self.lane.each("pad_pixels", count, &args)
        })
    }

    /// A map's values as floats; floats themselves are given back.
    pub(super) fn widened(&self, tensor: &Tensor) -> Result<Tensor> {
        if self.floats(tensor).is_ok() {
            return Ok(tensor.clone());
        }
        let map = self.map(tensor)?;
        self.lane.build::<f32>(map.len, |out| {
            let args = [map.into(), out.into(), Arg::Size(map.len as u64)];
            self.lane.each("widen_all", map.len, &args)
        })
    }

    pub(super) fn max_pool(&self, maps: &Tensor) -> Result<(Tensor, Tensor)> {
        let (batch, side, _, channels) = maps.dims4()?;
        let (maps, pooled) = (self.map(maps)?, (side - 1) / 2 + 1);
        let shape = (batch, pooled, pooled, channels);
        let count = batch * pooled * pooled * channels / 8;
        let mut out = None;
        let picks = self.lane.build::<u8>(shape, |picks| {
            out = Some(self.lane.build::<T>(shape, |out| {
                let sizes = [side, pooled, channels / 8].map(|size| Arg::Int(size as i32));
                let [side, pooled, eights] = sizes;
                let args = [
                    maps.into(),
                    out.into(),
                    picks.into(),
                    side,
                    pooled,
                    eights,
                    Arg::Size(count as u64),
                ];
                self.lane.each("max_pool", count, &args)
            })?);
            Ok(())
        })?;
        out.map_or_else(missing, |out| Ok((out, picks)))
    }

    pub(super) fn max_pool_gradient(
        &self,
        gradient: &Tensor,
        picks: &Tensor,
        side: usize,
    ) -> Result<Tensor> {
        let (batch, pooled, _, channels) = gradient.dims4()?;
        let picks = self.lane.span::<u8>(picks)?;
        let gradient = self.map(gradient)?;
        let count = batch * side * side * channels / 8;
        self.lane.build::<T>((batch, side, side, channels), |out| {
            let sizes = [side, pooled, channels / 8].map(|size| Arg::Int(size as i32));
            let [side, pooled, eights] = sizes;
            let args = [
                gradient.into(),
                picks.into(),
                out.into(),
                side,
                pooled,
                eights,
                Arg::Size(count as u64),
            ];
            self.lane.each("max_pool_gradient", count, &args)
        })
    }
}

pub(super) fn missing<T>() -> Result<T> {
    candle_core::bail!("not computed")
}

/// Whether a convolution is one product of matrices.
pub(super) fn is_product(conv: &Conv) -> bool {
    conv.kernel == 1 && conv.stride == 1
}

/// Channels rounded up to what cuDNN's fast kernels take.
fn padded_channels(channels: usize) -> usize {
    channels.next_multiple_of(PIXEL_CHANNELS)
}

pub(super) fn convolution(conv: Conv, side: usize, batch: usize) -> Shape {
    let inputs = padded_channels(conv.inputs);
    Shape {
        conv: Conv { inputs, ..conv },
        side,
        batch,
    }
}
