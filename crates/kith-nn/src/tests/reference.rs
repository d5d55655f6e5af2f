//! The operations as compositions of candle's own, which the kernels must agree with.
//!
//! candle's gradients are not used: its max-pool refuses windows that overlap, and its ReLU passes the gradient at 0.

use candle_core::{D, DType, Result, Tensor};

use crate::backend::{GradientTarget, LayerGradient};
use crate::layer::Layer;
use crate::update::Rule;

/// `[batch, side, side, channels]` to `[batch, channels, side, side]`.
fn channels_first(images: &Tensor) -> Result<Tensor> {
    images.permute((0, 3, 1, 2))?.contiguous()
}

/// `[batch, channels, side, side]` to `[batch, side, side, channels]`.
fn channels_last(images: &Tensor) -> Result<Tensor> {
    images.permute((0, 2, 3, 1))?.contiguous()
}

/// As [`crate::backend::Backend::conv`].
pub(super) fn conv(
    layer: &Layer,
    x: &Tensor,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    let conv = layer.spec.conv;
    let weight = layer.weight()?.permute((3, 2, 0, 1))?.contiguous()?;
    let sums = channels_last(&channels_first(x)?.conv2d(&weight, conv.pad, conv.stride, 1, 1)?)?;
    let sums = sums.broadcast_add(&layer.bias)?;
    let sums = match residual {
        Some(residual) => (sums + residual)?,
        None => sums,
    };
    if relu { sums.relu() } else { Ok(sums) }
}

/// As [`crate::backend::Backend::conv_gradient`].
pub(super) fn conv_gradient(
    layer: &Layer,
    x: &Tensor,
    gradient: &Tensor,
    input: GradientTarget,
) -> Result<(Tensor, LayerGradient)> {
    let conv = layer.spec.conv;
    let maps = channels_first(gradient)?;
    let images = channels_first(x)?;
    // A convolution over the batch: channels become the batch, the output's gradient the kernel, the stride a dilation.
    let weight = images
        .transpose(0, 1)?
        .contiguous()?
        .conv2d(
            &maps.transpose(0, 1)?.contiguous()?,
            conv.pad,
            1,
            conv.stride,
            1,
        )?
        .narrow(2, 0, conv.kernel)?
        .narrow(3, 0, conv.kernel)?
        .permute((2, 3, 0, 1))?
        .contiguous()?;
    let bias = gradient.sum((0, 1, 2))?;
    let wanted = || -> Result<Tensor> {
        let weight = layer.weight()?.permute((3, 2, 0, 1))?.contiguous()?;
        let reached = (maps.dim(2)? - 1) * conv.stride + conv.kernel - 2 * conv.pad;
        let missed = images.dim(2)? - reached;
        channels_last(&maps.conv_transpose2d(&weight, conv.pad, missed, conv.stride, 1)?)
    };
    let input = match input {
        GradientTarget::New => wanted()?,
        GradientTarget::AddTo(target) => (target + wanted()?)?,
    };
    Ok((input, LayerGradient { weight, bias }))
}

/// As [`crate::backend::Backend::mask`].
pub(super) fn mask(gradient: &Tensor, output: &Tensor) -> Result<Tensor> {
    output
        .gt(0.0)?
        .where_cond(gradient, &gradient.zeros_like()?)
}

/// Rows or columns `place`, `place + 2`, … of images padded by one.
fn places(place: usize, pooled: usize, images: &Tensor) -> Result<Tensor> {
    let places: Vec<u32> = (0..pooled).map(|i| (2 * i + place) as u32).collect();
    Tensor::new(places, images.device())
}

/// Max-pool 3×3/2 with a pad of 1, and the place of each maximum in its window (0–8, the first of equal ones).
pub(super) fn max_pool(maps: &Tensor) -> Result<(Tensor, Tensor)> {
    let pooled = (maps.dim(1)? - 1) / 2 + 1;
    // The maps come from a ReLU: a pad of −1 never wins.
    let padded = ((maps + 1.0)?
        .pad_with_zeros(1, 1, 1)?
        .pad_with_zeros(2, 1, 1)?
        - 1.0)?;
    let tap = |place: usize| -> Result<Tensor> {
        let rows = padded.index_select(&places(place / 3, pooled, maps)?, 1)?;
        rows.index_select(&places(place % 3, pooled, maps)?, 2)
    };
    let mut best = tap(0)?;
    let mut argmax = best.zeros_like()?;
    for place in 1..9 {
        let next = tap(place)?;
        let larger = next.gt(&best)?;
        best = larger.where_cond(&next, &best)?;
        let here = Tensor::full(place as f32, argmax.shape(), argmax.device())?;
        argmax = larger.where_cond(&here, &argmax)?;
    }
    Ok((best, argmax))
}

/// The gradient of [`max_pool`] with respect to maps of `side`.
pub(super) fn max_pool_gradient(gradient: &Tensor, argmax: &Tensor, side: usize) -> Result<Tensor> {
    let (batch, pooled, _, channels) = gradient.dims4()?;
    let zeros = gradient.zeros_like()?;
    let mut padded = Tensor::zeros(
        (batch, side + 2, side + 2, channels),
        DType::F32,
        gradient.device(),
    )?;
    for place in 0..9_usize {
        let here = argmax.eq(place as f32)?.where_cond(gradient, &zeros)?;
        let columns = Tensor::zeros(
            (batch, pooled, side + 2, channels),
            DType::F32,
            gradient.device(),
        )?;
        let columns = columns.index_add(&places(place % 3, pooled, gradient)?, &here, 2)?;
        padded = padded.index_add(&places(place / 3, pooled, gradient)?, &columns, 1)?;
    }
    padded.narrow(1, 1, side)?.narrow(2, 1, side)?.contiguous()
}

/// Rows scaled to unit length, and their lengths (`[…, 1]`), with `epsilon` added to the squares.
pub(super) fn normalize(rows: &Tensor, epsilon: f64) -> Result<(Tensor, Tensor)> {
    let lengths = (rows.sqr()?.sum_keepdim(D::Minus1)? + epsilon)?.sqrt()?;
    Ok((rows.broadcast_div(&lengths)?, lengths))
}

/// As [`crate::backend::Backend::normalize_gradient`].
pub(super) fn normalize_gradient(
    gradient: &Tensor,
    unit: &Tensor,
    lengths: &Tensor,
) -> Result<Tensor> {
    let along = (gradient * unit)?.sum_keepdim(D::Minus1)?;
    (gradient - unit.broadcast_mul(&along)?)?.broadcast_div(lengths)
}

/// As [`Rule::apply`], giving the new (weights, first moment, second moment).
pub(super) fn update(
    rule: &Rule,
    decay: f32,
    state: [&Tensor; 3],
    gradient: &Tensor,
) -> Result<[Tensor; 3]> {
    let [weight, first, second] = state;
    let gradient = (gradient * f64::from(rule.scale))?;
    let coupled = if rule.decoupled {
        0.0
    } else {
        f64::from(decay)
    };
    let gradient = (gradient + (weight * coupled)?)?;
    let (beta1, beta2) = (f64::from(rule.beta1), f64::from(rule.beta2));
    if !rule.adaptive {
        let first = ((first * beta1)? + gradient)?;
        let weight = (weight - (&first * f64::from(rule.rate))?)?;
        return Ok([weight, first, second.clone()]);
    }
    let first = ((first * beta1)? + (&gradient * (1.0 - beta1))?)?;
    let second = ((second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
    let kept = if rule.decoupled {
        1.0 - f64::from(rule.rate * decay)
    } else {
        1.0
    };
    let denom = ((second.sqrt()? / f64::from(rule.second_root))? + f64::from(rule.epsilon))?;
    let weight = ((weight * kept)? - (first.div(&denom)? * f64::from(rule.first_step))?)?;
    Ok([weight, first, second])
}
