//! The backend of the CPU: it calls the kernels on the slices of tensors.

use std::borrow::Cow;

use candle_core::{D, Device, Result, Tensor, bail};

use super::Precision;
use super::backend::{
    Backend, BackwardPass, GradientTarget, GraphCache, GraphLease, InferencePass, LayerGradient,
    Outputs, Parameter, Pixels, PixelsAhead, SMALLEST_FILTER, SavedActivations, TrainingForward,
    TrainingPass, collect_outputs,
};
use super::kernels::{self, Epilogue, Images, InputGradient, Stem};
use super::layer::Layer;
use super::slices::{self, View, build, build_to_keep, write};
use super::update::Rule;

/// The CPU, on the caller's rayon pool.
pub(super) struct Cpu;

/// The batch size of `pixels`, and the stem for their side.
fn whole_stem(layer: &Layer, pixels: &Tensor) -> Result<(usize, Stem)> {
    let (batch, side, _, _) = pixels.dims4()?;
    let conv = layer.spec.conv;
    Ok((batch, Stem { conv, side }))
}

impl Backend for Cpu {
    fn bind_thread(&self) {}

    fn upload(&self, values: Cow<'_, [f32]>, shape: &[usize]) -> Result<Tensor> {
        match values {
            Cow::Owned(values) => Tensor::from_vec(values, shape, &Device::Cpu),
            Cow::Borrowed(values) => build(shape, |out| out.copy_from_slice(values)),
        }
    }

    fn download(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        View::new(tensor).map(|values| values.to_vec())
    }

    fn upload_activations(&self, values: &[f32], shape: &[usize]) -> Result<Tensor> {
        self.upload(values.into(), shape)
    }

    fn upload_pixels(&self, Pixels { parts, shape }: Pixels<'_>) -> Result<Tensor> {
        build(&shape[..], |mut out| {
            for part in parts {
                let (here, rest) = out.split_at_mut(part.len());
                here.copy_from_slice(part);
                out = rest;
            }
            out.fill(0.0);
        })
    }

    fn infer(
        &self,
        _: &GraphCache,
        pixels: Pixels<'_>,
        pass: InferencePass<'_>,
    ) -> Result<Outputs<Vec<f32>>> {
        let outputs = pass(self, self.upload_pixels(pixels)?)?;
        collect_outputs(outputs.map(|output| self.download(&output)))
    }

    fn training_rows(&self, batch: usize) -> usize {
        batch
    }

    fn uploads_ahead(&self) -> bool {
        false
    }

    fn upload_ahead(&self, _: Pixels<'_>) -> Option<PixelsAhead> {
        None
    }

    fn forward_train(
        &self,
        _: &GraphCache,
        (pixels, _): (Pixels<'_>, Option<PixelsAhead>),
        pass: TrainingPass<'_>,
    ) -> Result<TrainingForward> {
        let (saved, embedding) = pass(self, self.upload_pixels(pixels)?)?;
        Ok(TrainingForward {
            saved,
            embedding: self.download(&embedding)?,
            lease: None,
        })
    }

    fn backward(
        &self,
        (saved, _): (SavedActivations, Option<GraphLease>),
        (gradient, shape): (&[f32], &[usize]),
        pass: BackwardPass<'_>,
    ) -> Result<(Vec<LayerGradient>, Option<GraphLease>)> {
        let gradient = self.upload(gradient.into(), shape)?;
        Ok((pass(self, gradient, saved)?, None))
    }

    fn captured_graphs(&self, _: &GraphCache) -> usize {
        0
    }

    fn only_encoding(&self, layer: Layer, precision: Precision) -> Result<Layer> {
        layer.only_packed(precision)
    }

    fn conv(
        &self,
        layer: &Layer,
        x: &Tensor,
        residual: Option<&Tensor>,
        relu: bool,
    ) -> Result<Tensor> {
        let (batch, side, _, _) = x.dims4()?;
        let conv = layer.spec.conv;
        let out_side = conv.output_side(side);
        let (data, bias) = (View::new(x)?, View::new(&layer.bias)?);
        let residual = residual.map(View::new).transpose()?;
        let packed = layer.packed_forward(side)?;
        build((batch, out_side, out_side, conv.outputs), |out| {
            let epilogue = Epilogue {
                bias: &bias,
                residual: residual.as_deref(),
                relu,
            };
            conv.forward(Images { data: &data, side }, packed.panels(), epilogue, out);
        })
    }

    fn conv_gradient(
        &self,
        layer: &Layer,
        x: &Tensor,
        gradient: &Tensor,
        target: GradientTarget,
    ) -> Result<(Tensor, LayerGradient)> {
        let (_, side, _, _) = x.dims4()?;
        let conv = layer.spec.conv;
        let (data, gradient) = (View::new(x)?, View::new(gradient)?);
        let images = Images { data: &data, side };
        let bias = build(conv.outputs, |out| kernels::sum_rows(&gradient, out))?;
        let pack = layer.pack_backward(side)?;
        let mut input_gradient = None;
        let weight = build_to_keep(layer.spec.inner_shape().to_vec(), |weights| {
            let mut both = |data: &mut [f32], accumulate| {
                let pack = &pack;
                let input = InputGradient {
                    pack,
                    data,
                    accumulate,
                };
                conv.gradients(images, &gradient, weights, input);
            };
            input_gradient = Some(match target {
                GradientTarget::New => build(x.shape(), |data| both(data, false)),
                GradientTarget::AddTo(target) => {
                    write(&target, |data| both(data, true)).map(|()| target)
                }
            });
        })?;
        let input = input_gradient.transpose()?;
        input.map_or_else(
            || bail!("not computed"),
            |input| Ok((input, LayerGradient { weight, bias })),
        )
    }

    fn stem(&self, layer: &Layer, pixels: &Tensor, save: bool) -> Result<(Tensor, Option<Tensor>)> {
        let (batch, stem) = whole_stem(layer, pixels)?;
        let pooled = stem.pooled_side();
        let shape = (batch, pooled, pooled, stem.conv.outputs);
        let (data, bias) = (View::new(pixels)?, View::new(&layer.bias)?);
        let packed = layer.packed_forward(stem.side)?;
        let weights = (packed.panels(), &*bias);
        if !save {
            let out = build(shape, |out| stem.forward(&data, weights, out, None))?;
            return Ok((out, None));
        }
        let mut out = None;
        let argmax = build(shape, |argmax| {
            out = Some(build(shape, |out| {
                stem.forward(&data, weights, out, Some(argmax))
            }));
        })?;
        let out = out.transpose()?;
        out.map_or_else(|| bail!("not computed"), |out| Ok((out, Some(argmax))))
    }

    fn stem_gradient(
        &self,
        layer: &Layer,
        pixels: &Tensor,
        argmax: &Tensor,
        gradient: &Tensor,
    ) -> Result<LayerGradient> {
        let (_, stem) = whole_stem(layer, pixels)?;
        let (data, gradient, argmax) =
            (View::new(pixels)?, View::new(gradient)?, View::new(argmax)?);
        let weight = build_to_keep(layer.spec.inner_shape().to_vec(), |out| {
            stem.weight_gradient(&data, &gradient, &argmax, out);
        })?;
        // Each pooled value comes from one place, so the sums over places and over pooled values are the same.
        let bias = build(stem.conv.outputs, |out| kernels::sum_rows(&gradient, out))?;
        Ok(LayerGradient { weight, bias })
    }

    fn mask(&self, gradient: Tensor, output: &Tensor) -> Result<Tensor> {
        let output = View::new(output)?;
        write(&gradient, |gradient| kernels::mask(gradient, &output))?;
        Ok(gradient)
    }

    fn mean(&self, images: &Tensor) -> Result<Tensor> {
        let (batch, height, width, channels) = images.dims4()?;
        let data = View::new(images)?;
        build((batch, 1, 1, channels), |out| {
            kernels::mean(&data, height * width, channels, out)
        })
    }

    fn mean_gradient(&self, gradient: &Tensor, [height, width]: [usize; 2]) -> Result<Tensor> {
        let (batch, _, _, channels) = gradient.dims4()?;
        let gradient = View::new(gradient)?;
        build((batch, height, width, channels), |out| {
            kernels::mean_gradient(&gradient, height * width, channels, out)
        })
    }

    fn normalize(&self, rows: Tensor) -> Result<(Tensor, Tensor)> {
        let (batch, _, _, dim) = rows.dims4()?;
        let lengths = write(&rows, |rows| kernels::normalize(rows, dim))?;
        Ok((
            rows,
            Tensor::from_vec(lengths, (batch, 1, 1, 1), &Device::Cpu)?,
        ))
    }

    fn normalize_gradient(
        &self,
        gradient: Tensor,
        unit: &Tensor,
        lengths: &Tensor,
    ) -> Result<Tensor> {
        let dim = unit.dim(3)?;
        let (unit, lengths) = (View::new(unit)?, View::new(lengths)?);
        write(&gradient, |gradient| {
            kernels::normalize_gradient(gradient, &unit, &lengths, dim)
        })?;
        Ok(gradient)
    }

    fn update(&self, rule: &Rule, parameters: Vec<Parameter<'_>>) -> Result<()> {
        // All tensors are opened before any is written.
        let gradients = parameters
            .iter()
            .map(|parameter| View::new(parameter.gradient));
        let gradients = gradients.collect::<Result<Vec<_>>>()?;
        for state in parameters.iter().flat_map(|parameter| &parameter.state) {
            View::new(state)?;
        }
        for (parameter, gradient) in parameters.into_iter().zip(gradients) {
            let [weight, first, second] = parameter.state;
            write(weight, |weight| {
                write(first, |first| {
                    write(second, |second| {
                        rule.apply(parameter.decay, [weight, first, second], &gradient)
                    })
                })
            })???;
        }
        Ok(())
    }

    fn clip_filters(&self, gradient: &Tensor, weight: &Tensor, share: f32) -> Result<()> {
        let filters = weight.dim(D::Minus1)?;
        let squares = kernels::column_squares(&View::new(weight)?, filters);
        let limits = squares
            .iter()
            .map(|s| share * s.sqrt().max(SMALLEST_FILTER));
        let limits: Vec<f32> = limits.collect();
        write(gradient, |gradient| {
            kernels::clip_columns(gradient, &limits)
        })
    }

    fn blend(&self, target: &Tensor, values: &Tensor, share: f32) -> Result<()> {
        let values = View::new(values)?;
        write(target, |target| kernels::blend(target, &values, share))
    }

    fn add(&self, target: &Tensor, values: &Tensor) -> Result<()> {
        let values = View::new(values)?;
        write(target, |target| kernels::add(target, &values))
    }

    fn norm(&self, tensors: &[&Tensor]) -> Result<f32> {
        let mut sum = 0.0;
        for tensor in tensors {
            sum += kernels::sum_squares(&View::new(tensor)?);
        }
        Ok(sum.sqrt() as f32)
    }

    fn recycle(&self, tensor: Tensor) -> Result<()> {
        slices::recycle(tensor)
    }
}
