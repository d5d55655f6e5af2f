//! The operations on an NVIDIA GPU: convolutions by cuDNN, products by cuBLAS, the rest by kernels of our own.
//! Must never know: the network's shape.
//!
//! Maps are `T`, which is bf16 or `f32`; weights, moments, gradients of weights, embeddings and their gradients are `f32`.

mod arrays;
mod convolution;
mod gpu;
mod lane;
mod memory;
mod pages;
mod product;
mod recording;
mod training;

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, Gemm};
use candle_core::{Result, Tensor};
use half::bf16;

use arrays::{Span, Value};
use gpu::{Gpu, convolution, is_product, missing};
use lane::{Arg, Lane, RuleArg};

use super::backend::{
    Backend, BackwardPass, Input, Kept, LayerGradient, Lease, Memo, Parameter, Pass, Pixels,
    TapePass, Taped,
};
use super::kernels::EPSILON;
use super::layer::Layer;
use super::update::Rule;
use super::{Compute, CudaConfig, Purpose};

/// Blocks that share an array in kernels that go through many arrays.
const BLOCKS: u32 = 128;

/// Opens GPU `ordinal`; the error says what is missing.
pub(super) fn open(
    ordinal: usize,
    purpose: Purpose,
    config: &CudaConfig,
) -> std::result::Result<Arc<dyn Backend>, String> {
    let lane = Lane::open(ordinal, purpose, config)?;
    let half = match config.compute {
        Compute::Auto => lane.has_bf16(),
        Compute::Bf16 if lane.has_bf16() => true,
        Compute::Bf16 => {
            return Err(
                "it does not compute in bf16: set cuda.compute to auto, tf32 or f32".to_owned(),
            );
        }
        Compute::Tf32 | Compute::F32 => false,
    };
    Ok(match half {
        true => Arc::new(Gpu::<bf16>::new(lane, config)?),
        false => Arc::new(Gpu::<f32>::new(lane, config)?),
    })
}

impl<T: Value> Backend for Gpu<T>
where
    CudaBlas: Gemm<T>,
{
    fn enter(&self) {
        self.lane.enter();
    }

    fn upload(&self, values: Cow<'_, [f32]>, shape: &[usize]) -> Result<Tensor> {
        self.lane.upload(&values, shape)
    }

    fn download(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        let wide = self.widened(tensor)?;
        self.lane.download(self.floats(&wide)?)
    }

    fn maps(&self, values: &[f32], shape: &[usize]) -> Result<Tensor> {
        self.lane
            .build::<T>(shape, |maps| self.lane.upload_to(&[values], maps))
    }

    fn pixels(&self, Pixels { parts, shape }: Pixels<'_>) -> Result<Tensor> {
        let uploaded = self
            .lane
            .build::<T>(&shape, |pixels| self.lane.upload_to(parts, pixels))?;
        self.padded(&uploaded)
    }

    fn infer(&self, memo: &Memo, pixels: Pixels<'_>, pass: Pass<'_>) -> Result<[Vec<f32>; 2]> {
        let [batch, side, ..] = pixels.shape;
        if let Some(images) = recording::part_of(batch, side) {
            let one = |pixels: Pixels<'_>| self.infer(memo, pixels, pass);
            return self.infer_parts(memo, (pixels, images), pass, one);
        }
        if let Some(outputs) = self.repeat(memo, pixels, pass) {
            return Ok(outputs);
        }
        let [embedding, hidden] = pass(self, self.pixels(pixels)?)?;
        let outputs = [self.download(&embedding)?, self.download(&hidden)?];
        recording::saw(memo, batch);
        Ok(outputs)
    }

    fn training_rows(&self, batch: usize) -> usize {
        training::rows(batch)
    }

    fn tape(&self, memo: &Memo, pixels: Pixels<'_>, pass: TapePass<'_>) -> Result<Taped> {
        if let Some(taped) = self.repeat_tape(memo, pixels, pass) {
            return Ok(taped);
        }
        let (kept, embedding) = pass(self, self.pixels(pixels)?)?;
        let embedding = self.download(&embedding)?;
        training::saw(memo, pixels.shape[0], pixels.shape[1]);
        Ok(Taped {
            kept,
            embedding,
            lease: None,
        })
    }

    fn backward(
        &self,
        (kept, lease): (Kept, Option<Lease>),
        (gradient, shape): (&[f32], &[usize]),
        pass: BackwardPass<'_>,
    ) -> Result<(Vec<LayerGradient>, Option<Lease>)> {
        if let Some(lease) = &lease
            && let Some(gradients) = self.repeat_backward(lease, gradient, pass)
        {
            return Ok((gradients?, Some(lease.clone())));
        }
        let upload = |to: Span<'_, f32>| self.lane.upload_to(&[gradient], to);
        let gradient = self.lane.build::<f32>(shape, upload)?;
        Ok((pass(self, gradient, kept)?, lease))
    }

    fn recorded(&self, memo: &Memo) -> usize {
        recording::recorded(memo)
    }

    fn conv(
        &self,
        layer: &Layer,
        x: &Tensor,
        residual: Option<&Tensor>,
        relu: bool,
    ) -> Result<Tensor> {
        let (batch, side, _, _) = x.dims4()?;
        let residual = residual.map(|maps| self.map(maps)).transpose()?;
        self.convolve(layer, (self.map(x)?, batch, side), residual, relu)
    }

    fn conv_gradient(
        &self,
        layer: &Layer,
        x: &Tensor,
        gradient: &Tensor,
        input: Input,
    ) -> Result<(Tensor, LayerGradient)> {
        let (batch, side, _, _) = x.dims4()?;
        let (conv, shape) = (layer.spec.conv, x.shape().clone());
        let (x, g) = (self.map(x)?, self.map(gradient)?);
        let own = LayerGradient {
            weight: self.weight_gradient(conv, (x, batch, side), g)?,
            bias: self.sum_rows(g, conv.outputs)?,
        };
        let [weight, _] = self.cast(layer)?;
        let weight = self.map(&weight)?;
        let back = |to: Span<'_, T>, add: bool| -> Result<()> {
            let arrays = [to, weight, g];
            if is_product(&conv) {
                return self.products.input(&conv, batch * side * side, arrays, add);
            }
            let shape = convolution(conv, side, batch);
            self.convolutions
                .backward_data(&self.lane, shape, arrays, add)
        };
        let input = match input {
            Input::New => self.lane.build::<T>(shape, |to| back(to, false))?,
            Input::AddTo(target) => {
                back(self.map(&target)?, true)?;
                target
            }
        };
        Ok((input, own))
    }

    fn stem(&self, layer: &Layer, pixels: &Tensor, keep: bool) -> Result<(Tensor, Option<Tensor>)> {
        let (batch, side, _, _) = pixels.dims4()?;
        let maps = self.convolve(layer, (self.map(pixels)?, batch, side), None, true)?;
        let (out, picks) = self.max_pool(&maps)?;
        Ok((out, keep.then_some(picks)))
    }

    fn stem_gradient(
        &self,
        layer: &Layer,
        pixels: &Tensor,
        picks: &Tensor,
        gradient: &Tensor,
    ) -> Result<LayerGradient> {
        let (batch, side, _, _) = pixels.dims4()?;
        let conv = layer.spec.conv;
        let maps = self.max_pool_gradient(gradient, picks, conv.output_side(side))?;
        let x = (self.map(pixels)?, batch, side);
        Ok(LayerGradient {
            weight: self.weight_gradient(conv, x, self.map(&maps)?)?,
            // Each pooled value comes from one place, so the sums over places and over pooled values are the same.
            bias: self.sum_rows(self.map(gradient)?, conv.outputs)?,
        })
    }

    fn mask(&self, gradient: Tensor, output: &Tensor) -> Result<Tensor> {
        let (g, y) = (self.map(&gradient)?, self.map(output)?);
        let eights = g.len / 8;
        let args = [g.into(), y.into(), Arg::Size(eights as u64)];
        self.lane.each("mask", eights, &args)?;
        Ok(gradient)
    }

    fn mean(&self, images: &Tensor) -> Result<Tensor> {
        let (batch, side, _, channels) = images.dims4()?;
        let images = self.map(images)?;
        self.lane.build::<T>((batch, 1, 1, channels), |out| {
            let sizes = [side * side, channels].map(|size| Arg::Int(size as i32));
            let [pixels, channels] = sizes;
            let count = Arg::Size(out.len as u64);
            let args = [images.into(), out.into(), pixels, channels, count];
            self.lane.each("mean", out.len, &args)
        })
    }

    fn mean_gradient(&self, gradient: &Tensor, side: usize) -> Result<Tensor> {
        let (batch, _, _, channels) = gradient.dims4()?;
        let gradient = self.map(gradient)?;
        self.lane.build::<T>((batch, side, side, channels), |out| {
            let sizes = [side * side, channels].map(|size| Arg::Int(size as i32));
            let [pixels, channels] = sizes;
            let count = Arg::Size(out.len as u64);
            let args = [gradient.into(), out.into(), pixels, channels, count];
            self.lane.each("mean_gradient", out.len, &args)
        })
    }

    fn normalize(&self, rows: Tensor) -> Result<(Tensor, Tensor)> {
        let (batch, _, _, dim) = rows.dims4()?;
        let rows = self.map(&rows)?;
        let mut unit = None;
        let lengths = self.lane.build::<f32>((batch, 1, 1, 1), |lengths| {
            unit = Some(self.lane.build::<f32>((batch, 1, 1, dim), |unit| {
                let (dim, epsilon) = (Arg::Int(dim as i32), Arg::Float(EPSILON));
                let args = [rows.into(), unit.into(), lengths.into(), dim, epsilon];
                self.lane
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
        self.lane.build::<T>((batch, 1, 1, dim), |out| {
            let width = Arg::Int(dim as i32);
            let args = [g.into(), unit.into(), lengths.into(), out.into(), width];
            self.lane
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
        let table = self.lane.table(&table)?;
        let table = Span::new(&table, &self.lane.stream);
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
        self.lane
            .launch("update", grid, (256, 1), &[table.into(), rule])
    }

    fn add(&self, target: &Tensor, values: &Tensor) -> Result<()> {
        let (target, values) = (self.floats(target)?, self.floats(values)?);
        let args = [target.into(), values.into(), Arg::Size(values.len as u64)];
        self.lane.each("add", values.len, &args)
    }

    fn norm(&self, tensors: &[&Tensor]) -> Result<f32> {
        let mut table = Vec::with_capacity(2 * tensors.len());
        for tensor in tensors {
            let span = self.floats(tensor)?;
            table.extend([span.at, span.len as u64]);
        }
        let table = self.lane.table(&table)?;
        let table = Span::new(&table, &self.lane.stream);
        let count = BLOCKS as usize * tensors.len();
        let parts = self.lane.scratch::<f32>(count)?;
        let parts = self.floats(&parts)?;
        let grid = (BLOCKS, tensors.len() as u32);
        let args = [table.into(), parts.into()];
        self.lane.launch("sum_squares", grid, (256, 1), &args)?;
        let norm = self.lane.build::<f32>(1, |out| {
            let args = [parts.into(), out.into(), Arg::Int(count as i32)];
            self.lane.launch("root_of_sum", (1, 1), (256, 1), &args)
        })?;
        let norm = self.lane.download(self.floats(&norm)?)?;
        norm.first().copied().map_or_else(missing, Ok)
    }

    fn recycle(&self, tensor: Tensor) -> Result<()> {
        self.lane.recycle(tensor);
        Ok(())
    }
}
