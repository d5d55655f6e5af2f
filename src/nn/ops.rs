//! The operations the network is made of, each with its gradient, on any device: kernels on the CPU, compositions of
//! candle's operations elsewhere.
//! Must never know: the network's shape.
//!
//! Gradients are taken by hand, not by candle's graph: the network is fixed, and so nothing is stored, zeroed or
//! added that it does not need. Activations are `[batch, side, side, channels]`.

use candle_core::{Device, Result, Shape, Tensor, bail};

pub(super) use super::cpu::recycle;
use super::cpu::{View, build, write};
use super::kernels::{self, Finish, Images, Stem, Target};
use super::layer::Layer;
use super::portable;
use super::update::Rule;

/// The gradients of a layer's weights.
pub(super) struct LayerGradient {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
}

/// Which gradient with respect to a layer's input is wanted.
pub(super) enum Input {
    /// None.
    Skip,
    /// In a new tensor.
    New,
    /// Added to this one.
    AddTo(Tensor),
}

fn on_cpu(tensor: &Tensor) -> bool {
    matches!(tensor.device(), Device::Cpu)
}

fn side_and_channels(images: &Tensor) -> Result<(usize, usize, usize)> {
    let (batch, side, _, channels) = images.dims4()?;
    Ok((batch, side, channels))
}

/// `values` on `device`.
pub(super) fn upload(values: &[f32], shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
    match device {
        Device::Cpu => build(shape, |out| out.copy_from_slice(values)),
        _ => Tensor::from_slice(values, shape, device),
    }
}

/// `conv(x) + bias (+ residual)`, then ReLU if `relu`.
pub(super) fn conv(
    layer: &Layer,
    x: &Tensor,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    if !on_cpu(x) {
        return portable::conv(layer, x, residual, relu);
    }
    let (batch, side, _) = side_and_channels(x)?;
    let conv = layer.spec.conv;
    let out_side = conv.output_side(side);
    let (data, bias) = (View::of(x)?, View::of(&layer.bias)?);
    let residual = residual.map(View::of).transpose()?;
    let lent = layer.packed_forward()?;
    build((batch, out_side, out_side, conv.outputs), |out| {
        let finish = Finish {
            bias: &bias,
            residual: residual.as_deref(),
            relu,
        };
        conv.forward(Images { data: &data, side }, lent.panels(), finish, out);
    })
}

/// The gradients of [`conv`] (before its ReLU) from its input and the gradient of its output.
pub(super) fn conv_gradient(
    layer: &Layer,
    x: &Tensor,
    gradient: &Tensor,
    input: Input,
) -> Result<(Option<Tensor>, LayerGradient)> {
    if !on_cpu(x) {
        return portable::conv_gradient(layer, x, gradient, input);
    }
    let (_, side, _) = side_and_channels(x)?;
    let conv = layer.spec.conv;
    let (data, gradient) = (View::of(x)?, View::of(gradient)?);
    let images = Images { data: &data, side };
    let bias = build(conv.outputs, |out| kernels::sum_rows(&gradient, out))?;
    let mut input_gradient = None;
    let weight = build(layer.spec.inner_shape().to_vec(), |weights| {
        let mut both = |target: Option<Target>| conv.gradients(images, &gradient, weights, target);
        input_gradient = Some(match input {
            Input::Skip => {
                both(None);
                Ok(None)
            }
            Input::New => layer.packed_backward().and_then(|packed| {
                build(x.shape(), |data| {
                    both(Some(Target {
                        packed: packed.panels(),
                        data,
                        add: false,
                    }))
                })
                .map(Some)
            }),
            Input::AddTo(target) => layer.packed_backward().and_then(|packed| {
                write(&target, |data| {
                    both(Some(Target {
                        packed: packed.panels(),
                        data,
                        add: true,
                    }))
                })?;
                Ok(Some(target))
            }),
        });
    })?;
    let input = input_gradient.transpose()?.flatten();
    Ok((input, LayerGradient { weight, bias }))
}

/// The stem: convolution, ReLU and max-pool 3×3/2. With `keep`, also which place of each window was the largest.
pub(super) fn stem(layer: &Layer, pixels: &Tensor, keep: bool) -> Result<(Tensor, Option<Tensor>)> {
    if !on_cpu(pixels) {
        let maps = portable::conv(layer, pixels, None, true)?;
        return portable::max_pool(&maps).map(|(out, picks)| (out, Some(picks)));
    }
    let (batch, stem) = whole_stem(layer, pixels)?;
    let pooled = stem.pooled_side();
    let shape = (batch, pooled, pooled, stem.conv.outputs);
    let (data, bias) = (View::of(pixels)?, View::of(&layer.bias)?);
    let lent = layer.packed_forward()?;
    let weights = (lent.panels(), &*bias);
    if !keep {
        let out = build(shape, |out| stem.forward(&data, weights, out, None))?;
        return Ok((out, None));
    }
    let mut out = None;
    let picks = build(shape, |picks| {
        out = Some(build(shape, |out| {
            stem.forward(&data, weights, out, Some(picks))
        }));
    })?;
    let out = out.transpose()?;
    out.map_or_else(|| bail!("not computed"), |out| Ok((out, Some(picks))))
}

fn whole_stem(layer: &Layer, pixels: &Tensor) -> Result<(usize, Stem)> {
    let (batch, side, _) = side_and_channels(pixels)?;
    let conv = layer.spec.conv;
    Ok((batch, Stem { conv, side }))
}

/// The gradients of [`stem`]'s weights, from the gradient of its output with the ReLU's mask applied (a pooled value is
/// positive where its place before the pool is).
pub(super) fn stem_gradient(
    layer: &Layer,
    pixels: &Tensor,
    picks: &Tensor,
    gradient: &Tensor,
) -> Result<LayerGradient> {
    let (_, stem) = whole_stem(layer, pixels)?;
    if !on_cpu(pixels) {
        let side = stem.conv.output_side(stem.side);
        let maps = portable::max_pool_gradient(gradient, picks, side)?;
        return Ok(portable::conv_gradient(layer, pixels, &maps, Input::Skip)?.1);
    }
    let (data, gradient, picks) = (View::of(pixels)?, View::of(gradient)?, View::of(picks)?);
    let weight = build(layer.spec.inner_shape().to_vec(), |out| {
        stem.weight_gradient(&data, &gradient, &picks, out);
    })?;
    // Each pooled value comes from one place, so the sums over places and over pooled values are the same.
    let bias = build(stem.conv.outputs, |out| kernels::sum_rows(&gradient, out))?;
    Ok(LayerGradient { weight, bias })
}

/// ReLU's gradient: `gradient` where `output` is positive, else 0.
pub(super) fn mask(gradient: Tensor, output: &Tensor) -> Result<Tensor> {
    if !on_cpu(&gradient) {
        return portable::mask(&gradient, output);
    }
    let output = View::of(output)?;
    write(&gradient, |gradient| kernels::mask(gradient, &output))?;
    Ok(gradient)
}

/// The mean over pixels: `[batch, 1, 1, channels]`.
pub(super) fn mean(images: &Tensor) -> Result<Tensor> {
    if !on_cpu(images) {
        return images.mean_keepdim((1, 2));
    }
    let (batch, side, channels) = side_and_channels(images)?;
    let data = View::of(images)?;
    build((batch, 1, 1, channels), |out| {
        kernels::mean(&data, side * side, channels, out)
    })
}

/// The gradient of [`mean`] with respect to images of `side`.
pub(super) fn mean_gradient(gradient: &Tensor, side: usize) -> Result<Tensor> {
    let (batch, _, channels) = side_and_channels(gradient)?;
    if !on_cpu(gradient) {
        return (gradient / (side * side) as f64)?
            .broadcast_as((batch, side, side, channels))?
            .contiguous();
    }
    let gradient = View::of(gradient)?;
    build((batch, side, side, channels), |out| {
        kernels::mean_gradient(&gradient, side * side, channels, out)
    })
}

/// Rows scaled to unit length (`[batch, 1, 1, dim]`), and their lengths (`[batch, 1, 1, 1]`).
pub(super) fn normalize(rows: Tensor) -> Result<(Tensor, Tensor)> {
    if !on_cpu(&rows) {
        return portable::normalize(&rows, kernels::EPSILON.into());
    }
    let (batch, _, dim) = side_and_channels(&rows)?;
    let lengths = write(&rows, |rows| kernels::normalize(rows, dim))?;
    Ok((
        rows,
        Tensor::from_vec(lengths, (batch, 1, 1, 1), &Device::Cpu)?,
    ))
}

/// The gradient of [`normalize`] with respect to its rows, from its results.
pub(super) fn normalize_gradient(
    gradient: Tensor,
    unit: &Tensor,
    lengths: &Tensor,
) -> Result<Tensor> {
    if !on_cpu(&gradient) {
        return portable::normalize_gradient(&gradient, unit, lengths);
    }
    let dim = unit.dim(3)?;
    let (unit, lengths) = (View::of(unit)?, View::of(lengths)?);
    write(&gradient, |gradient| {
        kernels::normalize_gradient(gradient, &unit, &lengths, dim)
    })?;
    Ok(gradient)
}

/// One optimiser step on a weight and its two moments.
pub(super) fn update(
    rule: &Rule,
    decay: f32,
    state: [&mut Tensor; 3],
    gradient: &Tensor,
) -> Result<()> {
    let [weight, first, second] = state;
    if !on_cpu(weight) {
        [*weight, *first, *second] =
            portable::update(rule, decay, [weight, first, second], gradient)?;
        return Ok(());
    }
    let gradient = View::of(gradient)?;
    write(weight, |weight| {
        write(first, |first| {
            write(second, |second| {
                rule.apply(decay, [weight, first, second], &gradient)
            })
        })
    })??
}

/// Adds `values` to `target`.
pub(super) fn add(target: &mut Tensor, values: &Tensor) -> Result<()> {
    if on_cpu(target) {
        let values = View::of(values)?;
        write(target, |target| kernels::add(target, &values))
    } else {
        *target = (&*target + values)?;
        Ok(())
    }
}

/// Σ value².
pub(super) fn sum_squares(tensor: &Tensor) -> Result<f64> {
    if on_cpu(tensor) {
        Ok(kernels::sum_squares(&View::of(tensor)?))
    } else {
        tensor.sqr()?.sum_all()?.to_scalar::<f32>().map(f64::from)
    }
}
