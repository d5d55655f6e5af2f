//! A layer on a GPU: its weights as cuDNN and cuBLAS read them, its convolution with the epilogue, the gradient of its weights.

use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm};
use candle_core::{Result, Tensor};

use super::arrays::{ActivationType, Span};
use super::convolution::Epilogue;
use super::gpu::{Gpu, ImageBatch, ROW_BLOCK, rows};
use super::launch::Arg;
use super::shape::{
    FOLDED_WEIGHTS, Shape, is_folded, is_product, is_strided_product, padded_channels,
};
use crate::kernels::Conv;
use crate::layer::Layer;

impl<T: ActivationType> Gpu<T>
where
    CudaBlas: Gemm<T>,
{
    /// A layer's weights and bias as cuDNN and cuBLAS read them, made when first needed after an update.
    pub(super) fn cast(&self, layer: &Layer) -> Result<[Tensor; 2]> {
        layer.cast(|| {
            let conv = layer.spec.conv;
            let weight = self.floats(layer.weight()?)?;
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
        let plan = Shape::new(conv, x.side, x.batch);
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
            let residual = residual.map_or(Arg::At(0), Arg::from);
            if !conv.outputs.is_multiple_of(8) {
                // The projection, which has no ReLU.
                debug_assert!(!relu);
                let (channels, count) = (Arg::Int(conv.outputs as i32), Arg::Size(out.len as u64));
                let args = [out.into(), bias.into(), residual, channels, count];
                return self.ctx.each("add_bias", out.len, &args);
            }
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
        let plan = Shape::new(conv, x.side, x.batch);
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
}
