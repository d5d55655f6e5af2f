//! The operations on their own: kernels against compositions of candle's operations, against PyTorch, and against
//! finite differences.

#[path = "../tests/golden/formula.rs"]
mod formula;
mod layers;
mod naive;
mod optimizer;
mod reference;

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;

use formula::{hash, values};

use super::architecture::{LayerSpec, layer};
use super::backend::{Backend, GradientTarget, Parameter};
use super::cpu::Cpu;
use super::kernels::{Conv, WindowRows, outputs_of_tile, pool_row, pool_row_gradient, pooled_side};
use super::layer::Layer;
use super::update::Rule;
use super::{NnError, OptimizerConfig, OptimizerKind};

/// The values of a stored array.
fn stored(file: &SafeTensors, name: &str) -> Vec<f32> {
    let bytes = file.tensor(name).unwrap().data();
    let floats = bytes.as_chunks().0.iter();
    floats.map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn tensor(stream: u32, shape: &[usize]) -> Tensor {
    Tensor::from_vec(values(stream, shape.iter().product()), shape, &Device::Cpu).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Values agree but for the order of sums.
fn assert_close(a: &Tensor, b: &Tensor, what: &str) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let (a, b) = (numbers(a), numbers(b));
    let largest = b
        .iter()
        .fold(1e-3_f32, |largest, value| largest.max(value.abs()));
    for (a, b) in a.iter().zip(&b) {
        // Winograd's constants cost a factor of about ten over the rounding of f32.
        assert!((a - b).abs() <= 2e-5 * largest, "{what}: {a} {b}");
    }
}

fn random_layer(conv: Conv, side: usize) -> Layer {
    let spec: LayerSpec = layer("any".to_owned(), conv, side);
    let weight = tensor(1, &spec.inner_shape());
    Layer::new(spec, weight, tensor(2, &[conv.outputs]))
}

/// Shapes of the network's convolutions on small maps, odd batches and maps, partial tiles, each method.
fn shapes() -> Vec<(Conv, usize, usize)> {
    let conv = |inputs, outputs, kernel, stride, pad| Conv {
        inputs,
        outputs,
        kernel,
        stride,
        pad,
    };
    let three = conv(16, 24, 3, 1, 1);
    let mut shapes: Vec<_> = [1, 2, 3, 4, 5, 6, 7, 9]
        .map(|side| (three, side, 3))
        .to_vec();
    shapes.extend([
        (conv(3, 8, 7, 2, 3), 12, 5),
        (conv(16, 8, 3, 2, 1), 2, 7),
        (conv(8, 24, 3, 2, 1), 6, 3),
        (conv(8, 20, 1, 2, 0), 4, 3),
        (conv(40, 5, 1, 1, 0), 1, 33),
        (conv(5, 7, 3, 1, 1), 4, 2),
    ]);
    shapes
}

#[test]
fn kernels_agree_with_compositions_of_plain_operations() {
    for (conv, side, batch) in shapes() {
        let what = format!("{conv:?} side {side}");
        let layer = random_layer(conv, side);
        let x = tensor(3, &[batch, side, side, conv.inputs]);
        let out_side = conv.output_side(side);
        let residual = tensor(4, &[batch, out_side, out_side, conv.outputs]);
        for (residual, relu) in [(None, false), (Some(&residual), true)] {
            let fast = Cpu.conv(&layer, &x, residual, relu).unwrap();
            assert_close(
                &fast,
                &reference::conv(&layer, &x, residual, relu).unwrap(),
                &what,
            );
        }
        let (fast, own) = Cpu
            .conv_gradient(&layer, &x, &residual, GradientTarget::New)
            .unwrap();
        let (plain, plain_own) =
            reference::conv_gradient(&layer, &x, &residual, GradientTarget::New).unwrap();
        assert_close(&fast, &plain, &what);
        assert_close(&own.weight, &plain_own.weight, &what);
        assert_close(&own.bias, &plain_own.bias, &what);
        let base = || GradientTarget::AddTo(tensor(5, x.dims()));
        let (fast, _) = Cpu.conv_gradient(&layer, &x, &residual, base()).unwrap();
        let (plain, _) = reference::conv_gradient(&layer, &x, &residual, base()).unwrap();
        assert_close(&fast, &plain, &what);
    }
}

#[test]
fn the_smallest_maps_take_no_tiles_and_small_ones_small_tiles() {
    let conv = Conv {
        inputs: 16,
        outputs: 16,
        kernel: 3,
        stride: 1,
        pad: 1,
    };
    let chosen: Vec<_> = [1, 2, 3, 4, 6, 8, 16]
        .iter()
        .map(|&side| outputs_of_tile(&conv, side))
        .collect();
    assert_eq!(
        chosen,
        [None, None, None, Some(4), Some(2), Some(4), Some(4)]
    );
    assert_eq!(outputs_of_tile(&Conv { stride: 2, ..conv }, 8), None);
}

/// ⟨c, conv(x, w)⟩ is linear in x and in w, so a difference of any size is exact but for rounding.
#[test]
fn gradients_are_the_slopes_of_the_output() {
    for (conv, side, batch) in shapes() {
        let layer = random_layer(conv, side);
        let x = tensor(3, &[batch, side, side, conv.inputs]);
        let out_side = conv.output_side(side);
        let c = tensor(4, &[batch, out_side, out_side, conv.outputs]);
        let dot = |a: &Tensor, b: &Tensor| -> f64 {
            numbers(a)
                .iter()
                .zip(numbers(b))
                .map(|(a, b)| f64::from(*a) * f64::from(b))
                .sum()
        };
        let value = |layer: &Layer, x: &Tensor| dot(&Cpu.conv(layer, x, None, false).unwrap(), &c);
        let (input, own) = Cpu
            .conv_gradient(&layer, &x, &c, GradientTarget::New)
            .unwrap();
        let (dx, dw) = (
            tensor(6, x.dims()),
            tensor(7, layer.weight().unwrap().dims()),
        );
        let moved = Layer::new(
            layer.spec.clone(),
            (layer.weight().unwrap() + &dw).unwrap(),
            layer.bias.clone(),
        );
        let base = value(&layer, &x);
        let slopes = [
            (value(&layer, &(&x + &dx).unwrap()) - base, dot(&input, &dx)),
            (value(&moved, &x) - base, dot(&own.weight, &dw)),
        ];
        for (found, wanted) in slopes {
            assert!(
                (found - wanted).abs() < 1e-3 * (1.0 + base.abs()),
                "{conv:?} {side}: {found} {wanted}"
            );
        }
    }
}

/// Rows of maps under row `row` of the pool's output.
fn under(row: usize, side: usize) -> std::ops::Range<usize> {
    usize::from(row == 0)..3.min(side + 1 - 2 * row)
}

/// Pools whole images; with the argmax.
fn max_pool(maps: &[f32], side: usize, channels: usize) -> (Vec<f32>, Vec<f32>) {
    let pooled = pooled_side(side);
    let len = maps.len() / (side * side) * pooled * pooled;
    let (mut out, mut argmax) = (vec![f32::NAN; len], vec![f32::NAN; len]);
    let rows = out
        .chunks_exact_mut(pooled * channels)
        .zip(argmax.chunks_exact_mut(pooled * channels));
    for (i, (out, argmax)) in rows.enumerate() {
        let inside = under(i % pooled, side);
        let top = i / pooled * side + (2 * (i % pooled)).saturating_sub(1);
        let maps = &maps[top * side * channels..][..inside.len() * side * channels];
        let rows = || WindowRows {
            activations: maps,
            inside: inside.clone(),
            channels,
        };
        pool_row(rows(), out, Some(argmax));
        let mut alone = vec![f32::NAN; out.len()];
        pool_row(rows(), &mut alone, None);
        // As text, where a NaN equals itself.
        assert_eq!(
            format!("{alone:?}"),
            format!("{out:?}"),
            "with and without argmax"
        );
    }
    (out, argmax)
}

fn max_pool_gradient(gradient: &[f32], argmax: &[f32], side: usize, channels: usize) -> Vec<f32> {
    let pooled = pooled_side(side);
    let row = pooled * channels;
    let mut maps = vec![0.0; gradient.len() / (pooled * pooled) * side * side];
    for (i, (gradient, argmax)) in gradient
        .chunks_exact(row)
        .zip(argmax.chunks_exact(row))
        .enumerate()
    {
        let inside = under(i % pooled, side);
        let top = i / pooled * side + (2 * (i % pooled)).saturating_sub(1);
        let maps = &mut maps[top * side * channels..][..inside.len() * side * channels];
        let rows = WindowRows {
            activations: maps,
            inside,
            channels,
        };
        pool_row_gradient(rows, gradient, argmax);
    }
    maps
}

#[test]
fn the_max_pool_and_its_gradient_agree_with_pytorch_on_ties_and_odd_sides() {
    let file = include_bytes!("../tests/golden/resnet.safetensors");
    let tensors = SafeTensors::deserialize(file).unwrap();
    let stored = |name| stored(&tensors, name);
    let data: Vec<f32> = values(1002, 2 * 5 * 5 * 3)
        .iter()
        .map(|value| (value * 2.0).floor())
        .collect();
    let (out, argmax) = max_pool(&data, 5, 3);
    assert_eq!(out, stored("pool.output"));
    let gradient = max_pool_gradient(&values(1003, out.len()), &argmax, 5, 3);
    let largest = gradient
        .iter()
        .zip(stored("pool.gradient"))
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    // Up to four windows share a pixel; only the order of their sum differs.
    assert!(largest < 1e-6, "{largest}");
}

#[test]
fn the_max_pool_hides_no_value_that_is_not_finite() {
    for broken in [f32::NAN, f32::INFINITY] {
        // Pixels that the first window covers.
        for place in [0, 1, 3, 4] {
            let mut maps = vec![1.0; 3 * 3 * 2];
            maps[2 * place] = broken;
            let (out, _) = max_pool(&maps, 3, 2);
            assert!(out[0].is_nan(), "{broken} at {place}: {out:?}");
            assert_eq!(out[1], 1.0);
        }
    }
}

#[test]
fn the_max_pool_agrees_with_a_composition_of_plain_operations() {
    // Whole numbers from few, none negative, as after a ReLU: many ties.
    let maps: Vec<f32> = values(8, 2 * 6 * 6 * 8)
        .iter()
        .map(|value| (value * 3.0).floor().max(0.0))
        .collect();
    let (out, argmax) = max_pool(&maps, 6, 8);
    let maps = Tensor::from_vec(maps, (2, 6, 6, 8), &Device::Cpu).unwrap();
    let (plain, plain_argmax) = reference::max_pool(&maps).unwrap();
    assert_eq!(numbers(&plain), out);
    assert_eq!(numbers(&plain_argmax), argmax);
    let gradient = tensor(9, &[2, 3, 3, 8]);
    let fast = max_pool_gradient(&numbers(&gradient), &argmax, 6, 8);
    let plain = reference::max_pool_gradient(&gradient, &plain_argmax, 6).unwrap();
    assert_close(
        &Tensor::from_vec(fast, (2, 6, 6, 8), &Device::Cpu).unwrap(),
        &plain,
        "pool",
    );
}

#[test]
fn masks_lengths_and_updates_agree_with_compositions_of_plain_operations() {
    let (g, y) = (
        tensor(1, &[4, 1, 1, 16]),
        tensor(2, &[4, 1, 1, 16]).relu().unwrap(),
    );
    let plain = reference::mask(&g, &y).unwrap();
    assert_eq!(
        numbers(&plain),
        numbers(&Cpu.mask(g.copy().unwrap(), &y).unwrap())
    );
    let (unit, lengths) = Cpu.normalize(y.copy().unwrap()).unwrap();
    let (plain_unit, plain_lengths) =
        reference::normalize(&y, super::kernels::EPSILON.into()).unwrap();
    assert_close(&unit, &plain_unit, "unit");
    assert_close(&lengths, &plain_lengths, "lengths");
    let plain = reference::normalize_gradient(&g, &unit, &lengths).unwrap();
    assert_close(
        &Cpu.normalize_gradient(g.copy().unwrap(), &unit, &lengths)
            .unwrap(),
        &plain,
        "unit gradient",
    );
    for kind in [
        OptimizerKind::Adamw,
        OptimizerKind::Adam,
        OptimizerKind::Sgd,
    ] {
        let (beta2, epsilon, clip_norm) = (0.9, 1e-6, 0.5);
        let config = OptimizerConfig {
            kind,
            weight_decay: 0.1,
            momentum: 0.8,
            beta2,
            epsilon,
            clip_norm,
            adaptive_clip: 0.0,
        };
        let rule = Rule::new(&config, 3, 2.0, 0.01);
        let mut state = [
            tensor(3, &[50]),
            tensor(4, &[50]),
            tensor(5, &[50]).abs().unwrap(),
        ];
        let gradient = tensor(6, &[50]);
        let plain =
            reference::update(&rule, 0.1, [&state[0], &state[1], &state[2]], &gradient).unwrap();
        let parameter = Parameter {
            decay: 0.1,
            state: state.each_mut(),
            gradient: &gradient,
        };
        Cpu.update(&rule, vec![parameter]).unwrap();
        for (fast, plain) in state.iter().zip(&plain) {
            assert_close(fast, plain, &format!("{kind:?}"));
        }
    }
}

#[test]
fn memory_that_is_used_up_is_told_from_other_failures() {
    let used_up = super::error::OutOfMemory("no room".to_owned());
    let error = NnError::from(candle_core::Error::Cuda(Box::new(used_up)));
    assert!(matches!(&error, NnError::Memory(why) if why == "no room"));
    let other = candle_core::Error::Cuda("a fault".into());
    assert!(matches!(NnError::from(other), NnError::Tensor(_)));
}
