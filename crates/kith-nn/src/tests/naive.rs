//! Any convolution a ResNet may have, against sums written as they are defined.

use proptest::prelude::*;

use super::{numbers, random_layer, tensor};
use crate::backend::{Backend, GradientTarget};
use crate::cpu::Cpu;
use crate::kernels::Conv;

/// A convolution's four results in f64: output, gradients of input, weight and bias.
struct Naive {
    output: Vec<f64>,
    input: Vec<f64>,
    weight: Vec<f64>,
    bias: Vec<f64>,
}

impl Naive {
    /// `[x, weight, bias, gradient]` as the layer has them.
    fn new(conv: &Conv, side: usize, batch: usize, given: [&[f32]; 4]) -> Self {
        let [x, weight, bias, gradient] = given;
        let out_side = conv.output_side(side);
        let mut naive = Self {
            output: vec![0.0; gradient.len()],
            input: vec![0.0; x.len()],
            weight: vec![0.0; weight.len()],
            bias: vec![0.0; bias.len()],
        };
        let pixels = (0..batch * out_side * out_side).map(|at| {
            (
                at / out_side / out_side,
                at / out_side % out_side,
                at % out_side,
            )
        });
        for (pixel, (image, row, column)) in pixels.enumerate() {
            for (output, start) in bias.iter().enumerate() {
                let out = pixel * conv.outputs + output;
                let slope = f64::from(gradient[out]);
                naive.output[out] += f64::from(*start);
                naive.bias[output] += slope;
                for tap in 0..conv.kernel * conv.kernel {
                    let y = (row * conv.stride + tap / conv.kernel).wrapping_sub(conv.pad);
                    let x_ = (column * conv.stride + tap % conv.kernel).wrapping_sub(conv.pad);
                    if y >= side || x_ >= side {
                        continue;
                    }
                    for input in 0..conv.inputs {
                        let from = ((image * side + y) * side + x_) * conv.inputs + input;
                        let with = (tap * conv.inputs + input) * conv.outputs + output;
                        let (value, factor) = (f64::from(x[from]), f64::from(weight[with]));
                        naive.output[out] += value * factor;
                        naive.input[from] += slope * factor;
                        naive.weight[with] += slope * value;
                    }
                }
            }
        }
        naive
    }
}

fn largest_difference(found: &[f32], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let largest = wanted
        .iter()
        .fold(1.0_f64, |largest, value| largest.max(value.abs()));
    let apart = found
        .iter()
        .zip(wanted)
        .map(|(a, b)| (f64::from(*a) - b).abs());
    apart.fold(0.0, f64::max) / largest
}

/// Kernels as ResNets have them, padded so that a stride of one keeps the side; channels in and out of the vectors' size.
fn convolutions() -> impl Strategy<Value = (Conv, usize, usize)> {
    let channels = || prop_oneof![1..20_usize, Just(16), Just(24), Just(32)];
    let shape = (channels(), channels(), 0..4_usize, 1..3_usize);
    (shape, 1..7_usize, 1..10_usize).prop_map(|((inputs, outputs, pad, stride), side, batch)| {
        let kernel = 2 * pad + 1;
        let conv = Conv {
            inputs,
            outputs,
            kernel,
            stride,
            pad,
        };
        // The network halves even sides only.
        (conv, side * stride, batch)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_convolution_and_its_gradients_are_the_sums_that_define_them((conv, side, batch) in convolutions()) {
        let layer = random_layer(conv, side);
        let x = tensor(3, &[batch, side, side, conv.inputs]);
        let output = Cpu.conv(&layer, &x, None, false).unwrap();
        let gradient = tensor(4, output.dims());
        let (input, own) = Cpu.conv_gradient(&layer, &x, &gradient, GradientTarget::New).unwrap();
        let given = [&x, layer.weight().unwrap(), &layer.bias, &gradient].map(numbers);
        let wanted = Naive::new(&conv, side, batch, given.each_ref().map(|array| array.as_slice()));
        for (found, wanted) in [
            (&output, &wanted.output),
            (&input, &wanted.input),
            (&own.weight, &wanted.weight),
            (&own.bias, &wanted.bias),
        ] {
            // Winograd's constants cost a factor of about ten over the rounding of f32.
            prop_assert!(largest_difference(&numbers(found), wanted) < 2e-5);
        }
    }
}
