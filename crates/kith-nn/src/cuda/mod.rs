//! The backend of NVIDIA GPUs: convolutions by cuDNN, products by cuBLAS, the rest by the kernels of `kernels.cu`.
//!
//! Activations are `T`, which is bf16 or `f32`. Weights, moments, gradients of weights, embeddings and their gradients are `f32`.

mod ahead;
mod ahead_memory;
mod arrays;
mod buffer_pool;
mod capture;
mod captured;
mod convolution;
mod gpu;
mod graph_table;
mod inference_graphs;
mod launch;
mod layer;
mod memory;
mod product;
mod shape;
mod staging;
mod stem;
mod stream_context;
mod training_graphs;
mod transfer;

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm};
use candle_core::{D, Result, Tensor};
use half::bf16;

use arrays::{ActivationType, Span};
use gpu::{Gpu, missing};
use launch::{Arg, RuleArg};
use shape::{Shape, is_product};
use stream_context::CudaStreamContext;

use super::Precision;
use super::backend::{
    Backend, BackwardPass, GradientTarget, GraphCache, GraphLease, InferencePass, LayerGradient,
    Outputs, Parameter, Pixels, PixelsAhead, SMALLEST_FILTER, SavedActivations, TrainingForward,
    TrainingPass, collect_outputs,
};
use super::kernels::EPSILON;
use super::layer::Layer;
use super::update::Rule;
use crate::{Compute, CudaConfig, Purpose};

/// Blocks for each array in kernels that process many arrays.
const BLOCKS: u32 = 128;

/// Opens GPU `ordinal`; the error says what is missing.
pub(super) fn open(
    ordinal: usize,
    purpose: Purpose,
    config: &CudaConfig,
) -> std::result::Result<Arc<dyn Backend>, String> {
    let ctx = CudaStreamContext::open(ordinal, purpose, config)?;
    let half = match config.compute {
        Compute::Auto => ctx.has_bf16(),
        Compute::Bf16 if ctx.has_bf16() => true,
        Compute::Bf16 => {
            return Err(
                "it does not compute in bf16: set cuda.compute to auto, tf32 or f32".to_owned(),
            );
        }
        Compute::Tf32 | Compute::F32 => false,
    };
    Ok(if half {
        Arc::new(Gpu::<bf16>::new(ctx, config)?)
    } else {
        Arc::new(Gpu::<f32>::new(ctx, config)?)
    })
}

impl<T: ActivationType> Backend for Gpu<T>
where
    CudaBlas: Gemm<T>,
{
    fn bind_thread(&self) {
        self.ctx.bind_thread();
    }

    fn upload(&self, values: Cow<'_, [f32]>, shape: &[usize]) -> Result<Tensor> {
        self.ctx.upload(&values, shape)
    }

    fn download(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        let wide = self.widened(tensor)?;
        self.ctx.download(self.floats(&wide)?)
    }

    fn upload_activations(&self, values: &[f32], shape: &[usize]) -> Result<Tensor> {
        self.ctx
            .build::<T>(shape, |target| self.ctx.upload_to(&[values], target))
    }

    fn upload_pixels(&self, pixels: Pixels<'_>) -> Result<Tensor> {
        self.stem_input_of(pixels, None)
    }

    fn infer(
        &self,
        graphs: &GraphCache,
        pixels: Pixels<'_>,
        pass: InferencePass<'_>,
    ) -> Result<Outputs<Vec<f32>>> {
        let [batch, side, ..] = pixels.shape;
        if let Some(images) = inference_graphs::images_of_part(batch, side) {
            let one = |pixels: Pixels<'_>| self.infer(graphs, pixels, pass);
            return self.infer_parts(graphs, (pixels, images), pass, one);
        }
        if let Some(outputs) = self.launch_inference(graphs, pixels, pass) {
            return Ok(outputs);
        }
        let outputs = pass(self, self.upload_pixels(pixels)?)?;
        let outputs = collect_outputs(outputs.map(|output| self.download(&output)))?;
        inference_graphs::note_seen(graphs, (batch, side));
        Ok(outputs)
    }

    fn training_rows(&self, batch: usize) -> usize {
        training_graphs::rows(batch)
    }

    fn uploads_ahead(&self) -> bool {
        true
    }

    fn upload_ahead(&self, pixels: Pixels<'_>) -> Option<PixelsAhead> {
        self.ctx.upload_ahead::<T>(pixels)
    }

    fn forward_train(
        &self,
        graphs: &GraphCache,
        (pixels, mut ahead): (Pixels<'_>, Option<PixelsAhead>),
        pass: TrainingPass<'_>,
    ) -> Result<TrainingForward> {
        if let Some(forward) = self.launch_forward(graphs, (pixels, &mut ahead), pass) {
            return Ok(forward);
        }
        let (saved, embedding) = pass(self, self.stem_input_of(pixels, ahead)?)?;
        let embedding = self.download(&embedding)?;
        training_graphs::note_seen(graphs, pixels.shape[0], pixels.shape[1]);
        Ok(TrainingForward {
            saved,
            embedding,
            lease: None,
        })
    }

    fn backward(
        &self,
        (saved, lease): (SavedActivations, Option<GraphLease>),
        (gradient, shape): (&[f32], &[usize]),
        pass: BackwardPass<'_>,
    ) -> Result<(Vec<LayerGradient>, Option<GraphLease>)> {
        if let Some(lease) = &lease
            && let Some(gradients) = self.launch_backward(lease, gradient, pass)
        {
            return Ok((gradients?, Some(lease.clone())));
        }
        let upload = |to: Span<'_, f32>| self.ctx.upload_to(&[gradient], to);
        let gradient = self.ctx.build::<f32>(shape, upload)?;
        Ok((pass(self, gradient, saved)?, lease))
    }

    fn captured_graphs(&self, graphs: &GraphCache) -> usize {
        inference_graphs::captured(graphs)
    }

    fn only_encoding(&self, layer: Layer, _: Precision) -> Result<Layer> {
        Ok(layer)
    }

    fn conv(
        &self,
        layer: &Layer,
        x: &Tensor,
        residual: Option<&Tensor>,
        relu: bool,
    ) -> Result<Tensor> {
        let residual = residual
            .map(|residual| self.activations(residual))
            .transpose()?;
        self.convolve(layer, self.images(x)?, residual, relu)
    }

    fn conv_gradient(
        &self,
        layer: &Layer,
        x: &Tensor,
        gradient: &Tensor,
        target: GradientTarget,
    ) -> Result<(Tensor, LayerGradient)> {
        let (conv, shape) = (layer.spec.conv, x.shape().clone());
        let (x, g) = (self.images(x)?, self.activations(gradient)?);
        let layer_gradient = LayerGradient {
            weight: self.weight_gradient(conv, x, g)?,
            bias: self.sum_rows(g, conv.outputs)?,
        };
        let [weight, _] = self.cast(layer)?;
        let weight = self.activations(&weight)?;
        let input_gradient = |to: Span<'_, T>, add: bool| -> Result<()> {
            let arrays = [to, weight, g];
            if is_product(&conv) {
                return self.products.input(&conv, x.pixels(), arrays, add);
            }
            let shape = Shape::new(conv, x.side, x.batch);
            self.convolutions
                .backward_data(&self.ctx, shape, arrays, add)
        };
        let input = match target {
            GradientTarget::New => self.ctx.build::<T>(shape, |to| input_gradient(to, false))?,
            GradientTarget::AddTo(target) => {
                input_gradient(self.activations(&target)?, true)?;
                target
            }
        };
        Ok((input, layer_gradient))
    }

    fn stem(&self, layer: &Layer, pixels: &Tensor, save: bool) -> Result<(Tensor, Option<Tensor>)> {
        let activations = self.convolve(layer, self.images(pixels)?, None, true)?;
        let pooled = self.max_pool(&activations, save)?;
        self.ctx.recycle(activations);
        Ok(pooled)
    }

    fn stem_gradient(
        &self,
        layer: &Layer,
        pixels: &Tensor,
        argmax: &Tensor,
        gradient: &Tensor,
    ) -> Result<LayerGradient> {
        let conv = layer.spec.conv;
        let x = self.images(pixels)?;
        let [side, _] = Shape::new(conv, x.side, x.batch).output();
        let conv_gradient = self.max_pool_gradient(gradient, argmax, side)?;
        Ok(LayerGradient {
            weight: self.weight_gradient(conv, x, self.activations(&conv_gradient)?)?,
            // Each pooled value comes from one place, so the sums over places and over pooled values are the same.
            bias: self.sum_rows(self.activations(gradient)?, conv.outputs)?,
        })
    }

    fn mask(&self, gradient: Tensor, output: &Tensor) -> Result<Tensor> {
        let (g, y) = (self.activations(&gradient)?, self.activations(output)?);
        let eights = g.len / 8;
        let args = [g.into(), y.into(), Arg::Size(eights as u64)];
        self.ctx.each("mask", eights, &args)?;
        Ok(gradient)
    }

    fn mean(&self, images: &Tensor) -> Result<Tensor> {
        let (batch, height, width, channels) = images.dims4()?;
        let images = self.activations(images)?;
        self.ctx.build::<T>((batch, 1, 1, channels), |out| {
            let sizes = [height * width, channels].map(|size| Arg::Int(size as i32));
            let [pixels, channels] = sizes;
            let count = Arg::Size(out.len as u64);
            let args = [images.into(), out.into(), pixels, channels, count];
            self.ctx.each("mean", out.len, &args)
        })
    }

    fn mean_gradient(&self, gradient: &Tensor, [height, width]: [usize; 2]) -> Result<Tensor> {
        let (batch, _, _, channels) = gradient.dims4()?;
        let gradient = self.activations(gradient)?;
        self.ctx
            .build::<T>((batch, height, width, channels), |out| {
                let sizes = [height * width, channels].map(|size| Arg::Int(size as i32));
                let [pixels, channels] = sizes;
                let count = Arg::Size(out.len as u64);
                let args = [gradient.into(), out.into(), pixels, channels, count];
                self.ctx.each("mean_gradient", out.len, &args)
            })
    }

    fn normalize(&self, rows: Tensor) -> Result<(Tensor, Tensor)> {
        let (batch, _, _, dim) = rows.dims4()?;
        let rows = self.activations(&rows)?;
        let mut unit = None;
        let lengths = self.ctx.build::<f32>((batch, 1, 1, 1), |lengths| {
            unit = Some(self.ctx.build::<f32>((batch, 1, 1, dim), |unit| {
                let (dim, epsilon) = (Arg::Int(dim as i32), Arg::Float(EPSILON));
                let args = [rows.into(), unit.into(), lengths.into(), dim, epsilon];
                self.ctx
                    .launch("normalize", (batch as u32, 1), (256, 1), &args)
            })?);
            Ok(())
        })?;
        unit.map_or_else(missing, |unit| Ok((unit, lengths)))
    }

    fn normalize_gradient(
        &self,
        gradient: Tensor,
        unit: &Tensor,
        lengths: &Tensor,
    ) -> Result<Tensor> {
        let (batch, _, _, dim) = unit.dims4()?;
        let [g, unit, lengths] = [&gradient, unit, lengths].map(|tensor| self.floats(tensor));
        let (g, unit, lengths) = (g?, unit?, lengths?);
        self.ctx.build::<T>((batch, 1, 1, dim), |out| {
            let width = Arg::Int(dim as i32);
            let args = [g.into(), unit.into(), lengths.into(), out.into(), width];
            self.ctx
                .launch("normalize_gradient", (batch as u32, 1), (256, 1), &args)
        })
    }

    fn update(&self, rule: &Rule, parameters: Vec<Parameter<'_>>) -> Result<()> {
        let mut table = Vec::with_capacity(6 * parameters.len());
        for Parameter {
            decay,
            state,
            gradient,
        } in &parameters
        {
            let [weight, first, second] = state;
            for tensor in [&**weight, &**first, &**second, *gradient] {
                table.push(self.floats(tensor)?.at);
            }
            table.extend([gradient.elem_count() as u64, u64::from(decay.to_bits())]);
        }
        let table = self.ctx.table(&table)?;
        let table = Span::from_slice(&table, &self.ctx.stream);
        let rule = Arg::Rule(RuleArg {
            flags: [rule.adaptive, rule.decoupled].map(i32::from),
            constants: [
                rule.scale,
                rule.rate,
                rule.beta1,
                rule.beta2,
                rule.epsilon,
                rule.first_step,
                rule.second_root,
            ],
        });
        let grid = (BLOCKS, parameters.len() as u32);
        self.ctx
            .launch("update", grid, (256, 1), &[table.into(), rule])
    }

    fn clip_filters(&self, gradient: &Tensor, weight: &Tensor, share: f32) -> Result<()> {
        let arrays = [self.floats(gradient)?, self.floats(weight)?];
        let filters = weight.dim(D::Minus1)?;
        self.clip_columns(arrays, filters, [share, SMALLEST_FILTER])
    }

    fn add(&self, target: &Tensor, values: &Tensor) -> Result<()> {
        let (target, values) = (self.floats(target)?, self.floats(values)?);
        let args = [target.into(), values.into(), Arg::Size(values.len as u64)];
        self.ctx.each("add", values.len, &args)
    }

    fn blend(&self, target: &Tensor, values: &Tensor, share: f32) -> Result<()> {
        let (target, values) = (self.floats(target)?, self.floats(values)?);
        let count = Arg::Size(values.len as u64);
        let args = [target.into(), values.into(), Arg::Float(share), count];
        self.ctx.each("blend", values.len, &args)
    }

    fn norm(&self, tensors: &[&Tensor]) -> Result<f32> {
        let mut table = Vec::with_capacity(2 * tensors.len());
        for tensor in tensors {
            let span = self.floats(tensor)?;
            table.extend([span.at, span.len as u64]);
        }
        let table = self.ctx.table(&table)?;
        let table = Span::from_slice(&table, &self.ctx.stream);
        let count = BLOCKS as usize * tensors.len();
        let parts = self.ctx.scratch::<f32>(count)?;
        let parts = self.floats(&parts)?;
        let grid = (BLOCKS, tensors.len() as u32);
        let args = [table.into(), parts.into()];
        self.ctx.launch("sum_squares", grid, (256, 1), &args)?;
        let norm = self.ctx.build::<f32>(1, |out| {
            let args = [parts.into(), out.into(), Arg::Int(count as i32)];
            self.ctx.launch("root_of_sum", (1, 1), (256, 1), &args)
        })?;
        let norm = self.ctx.download(self.floats(&norm)?)?;
        norm.first().copied().map_or_else(missing, Ok)
    }

    fn recycle(&self, tensor: Tensor) -> Result<()> {
        self.ctx.recycle(tensor);
        Ok(())
    }
}
