//! Every layer shape of ResNet-18 at the sides that people use and at odd batches, forward and all gradients, against
//! fingerprints of what PyTorch computes (`tests/golden/make_layers.py`); and on any number of threads.

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;

use super::{hash, numbers, random_layer, stored, tensor, values};
use crate::EncoderConfig;
use crate::architecture::{FC, LayerSpec, STEM, layers};
use crate::backend::{Backend, GradientTarget, LayerGradient};
use crate::cpu::Cpu;
use crate::layer::Layer;

/// Sums with random signs, and values, that a fingerprint has after its norm.
const SIGNS: usize = 4;
const SAMPLES: usize = 16;
const ARRAYS: [&str; 4] = ["output", "input", "weight", "bias"];

/// What a layer computes: its output and the gradients of input, weight and bias, as [`ARRAYS`] has them.
type Results = [Vec<f32>; 4];

/// The layers of the full width at `side` with different shapes; those of the head come last.
fn shapes(side: usize) -> Vec<LayerSpec> {
    let (width, dim) = (64, 128);
    let mut shapes: Vec<LayerSpec> = Vec::new();
    for spec in layers(&EncoderConfig {
        width,
        side,
        dim,
        towers: 1,
    }) {
        let known = |other: &LayerSpec| (other.conv, other.side) == (spec.conv, spec.side);
        if !shapes.iter().any(known) {
            shapes.push(spec);
        }
    }
    shapes
}

fn head(side: usize) -> Vec<LayerSpec> {
    let (width, dim) = (64, 128);
    layers(&EncoderConfig {
        width,
        side,
        dim,
        towers: 1,
    })
    .split_off(FC)
}

fn backbone(side: usize) -> Vec<LayerSpec> {
    let heads = head(side).len();
    let mut shapes = shapes(side);
    shapes.truncate(shapes.len() - heads);
    shapes
}

fn results(output: &Tensor, input: &Tensor, own: &LayerGradient) -> Results {
    [output, input, &own.weight, &own.bias].map(numbers)
}

/// The layer alone on the inputs of the script.
fn run(spec: &LayerSpec, batch: usize) -> Results {
    let layer = random_layer(spec.conv, spec.side);
    let x = tensor(3, &[batch, spec.side, spec.side, spec.conv.inputs]);
    let output = Cpu.conv(&layer, &x, None, false).unwrap();
    let gradient = tensor(4, output.dims());
    let (input, own) = Cpu
        .conv_gradient(&layer, &x, &gradient, GradientTarget::New)
        .unwrap();
    results(&output, &input, &own)
}

/// Whole numbers from −steps to steps − 1: sums of their products are exact, so that ties are the same everywhere.
fn whole(stream: u32, steps: f32, shape: &[usize]) -> Tensor {
    let values = values(stream, shape.iter().product());
    let whole = values.iter().map(|value| (value * steps).floor());
    Tensor::from_vec(whole.collect(), shape, &Device::Cpu).unwrap()
}

/// The stem with its ReLU and max-pool, whose input has no gradient.
fn run_stem(spec: &LayerSpec, batch: usize) -> Results {
    let (weight, bias) = (
        whole(1, 2.0, &spec.inner_shape()),
        whole(2, 4.0, &[spec.conv.outputs]),
    );
    let layer = Layer::new(spec.clone(), weight, bias);
    let x = whole(3, 4.0, &[batch, spec.side, spec.side, 3]);
    let (output, argmax) = Cpu.stem(&layer, &x, true).unwrap();
    let (alone, none) = Cpu.stem(&layer, &x, false).unwrap();
    assert_eq!(numbers(&alone), numbers(&output), "with and without argmax");
    assert!(none.is_none());
    let gradient = Cpu.mask(whole(4, 4.0, output.dims()), &output).unwrap();
    let own = Cpu
        .stem_gradient(&layer, &x, &argmax.unwrap(), &gradient)
        .unwrap();
    let none = Tensor::from_vec(Vec::<f32>::new(), 0, &Device::Cpu).unwrap();
    results(&output, &none, &own)
}

/// Norm, sums with random signs, samples.
fn fingerprint(data: &[f32]) -> Vec<f64> {
    let mut sums = [0.0; 1 + SIGNS];
    for (index, value) in data.iter().enumerate() {
        let (bits, value) = (hash(10, index as u32), f64::from(*value));
        sums[0] += value * value;
        for (k, sum) in sums[1..].iter_mut().enumerate() {
            let negative = bits >> (8 + k) & 1 == 1;
            *sum += if negative { -value } else { value };
        }
    }
    sums[0] = sums[0].sqrt();
    let samples = (0..SAMPLES as u32).map(|i| f64::from(data[hash(11, i) as usize % data.len()]));
    sums.into_iter().chain(samples).collect()
}

/// Compares each array with the fingerprint stored under `name`.
fn compare(file: &SafeTensors, name: &str, results: &Results) {
    let wanted = stored(file, name);
    let wanted = wanted.chunks_exact(1 + SIGNS + SAMPLES);
    for ((data, wanted), what) in results.iter().zip(wanted).zip(ARRAYS) {
        if data.is_empty() {
            continue;
        }
        let norm = f64::from(wanted[0]);
        let typical = norm / (data.len() as f64).sqrt();
        for (place, (found, wanted)) in fingerprint(data).iter().zip(wanted).enumerate() {
            // Measured: 7e-6 for sums, 2e-5 for the largest of many single values, both from Winograd's constants, which
            // cost a factor of about ten over the rounding of f32. A sum's error is a random walk, as the norm is.
            let (scale, bound) = if place <= SIGNS {
                (norm, 2e-5)
            } else {
                (typical, 1e-4)
            };
            let apart = (found - f64::from(*wanted)).abs() / scale;
            assert!(
                apart < bound,
                "{name}, {what}, place {place}: {found} {wanted}"
            );
        }
    }
}

fn compare_backbone(side: usize, batches: &[usize]) {
    let file = include_bytes!("../../tests/golden/layers.safetensors");
    let file = SafeTensors::deserialize(file).unwrap();
    for &batch in batches {
        for spec in backbone(side) {
            let name = format!("{} {side} {batch}", spec.name);
            compare(&file, &name, &run(&spec, batch));
        }
        let stem = run_stem(&shapes(side)[STEM], batch);
        compare(&file, &format!("stem {side} {batch}"), &stem);
    }
}

#[test]
fn layers_at_32_pixels_agree_with_pytorch() {
    compare_backbone(32, &[1, 3, 9]);
}

#[test]
fn layers_at_64_pixels_agree_with_pytorch() {
    compare_backbone(64, &[1, 5, 9]);
}

#[test]
fn layers_at_96_pixels_agree_with_pytorch() {
    compare_backbone(96, &[1, 3]);
}

#[test]
fn layers_at_224_pixels_agree_with_pytorch() {
    compare_backbone(224, &[1]);
}

#[test]
fn the_head_agrees_with_pytorch() {
    let file = include_bytes!("../../tests/golden/layers.safetensors");
    let file = SafeTensors::deserialize(file).unwrap();
    for batch in [1, 5, 33] {
        for spec in head(32) {
            compare(&file, &format!("{} {batch}", spec.name), &run(&spec, batch));
        }
    }
}

/// Runs `work` on one thread twice, then on two, three and four, and compares every bit.
fn assert_same_on_any_number_of_threads(what: &str, work: impl Fn() -> Results + Sync) {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let results = pool.unwrap().install(&work);
        results.map(|data| data.iter().map(|value| value.to_bits()).collect::<Vec<_>>())
    };
    let first = on(1);
    for threads in 1..=4 {
        // Not assert_eq: it would print millions of values.
        assert!(on(threads) == first, "{what} on {threads} threads");
    }
}

#[test]
fn a_layer_is_bit_identical_from_run_to_run_and_on_any_number_of_threads() {
    for (side, batch) in [(32, 1), (32, 9), (96, 1), (96, 3), (224, 1)] {
        for spec in backbone(side) {
            let what = format!("{} at {side}, batch {batch}", spec.name);
            assert_same_on_any_number_of_threads(&what, || run(&spec, batch));
        }
        let stem = &shapes(side)[STEM];
        assert_same_on_any_number_of_threads("the stem", || run_stem(stem, batch));
    }
    for (spec, batch) in head(32).iter().zip([1, 33]) {
        assert_same_on_any_number_of_threads(&spec.name, || run(spec, batch));
    }
}

/// What is done in the same pass changes nothing but itself.
#[test]
fn residual_relu_and_accumulation_agree_with_the_plain_layer() {
    for (spec, batch) in [32, 96]
        .into_iter()
        .flat_map(backbone)
        .zip([1, 3, 9].into_iter().cycle())
    {
        let layer = random_layer(spec.conv, spec.side);
        let x = tensor(3, &[batch, spec.side, spec.side, spec.conv.inputs]);
        let plain = Cpu.conv(&layer, &x, None, false).unwrap();
        let (residual, gradient) = (tensor(5, plain.dims()), tensor(4, plain.dims()));
        let fused = Cpu.conv(&layer, &x, Some(&residual), true).unwrap();
        let apart = (&plain + &residual).unwrap().relu().unwrap();
        super::assert_close(&fused, &apart, &spec.name);
        let (new, _) = Cpu
            .conv_gradient(&layer, &x, &gradient, GradientTarget::New)
            .unwrap();
        let base = tensor(6, x.dims());
        let wanted = (new + &base).unwrap();
        let (added, _) = Cpu
            .conv_gradient(&layer, &x, &gradient, GradientTarget::AddTo(base))
            .unwrap();
        super::assert_close(&added, &wanted, &spec.name);
    }
}
