//! For benchmarks: single layers of the network, and the processor's peak.

use std::array::from_fn;
use std::hint::black_box;

use candle_core::Tensor;
use pulp::{Arch, Simd, WithSimd};

use super::architecture::{LayerSpec, STEM, layers};
use super::backend::{GradientTarget, Pixels};
use super::layer::Layer;
use super::{Device, EncoderConfig, NnError, init};

/// The shape of a layer, with the number of layers of this shape.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerShape {
    /// Number of layers of this shape.
    pub times: usize,
    place: usize,
    spec: LayerSpec,
}

/// The layers of the network, each shape once, in the order of their first occurrence.
pub fn layer_shapes(config: &EncoderConfig) -> Vec<LayerShape> {
    let mut shapes: Vec<LayerShape> = Vec::new();
    for (place, spec) in layers(config).into_iter().enumerate() {
        let same =
            |shape: &&mut LayerShape| (shape.spec.conv, shape.spec.side) == (spec.conv, spec.side);
        match shapes.iter_mut().find(same) {
            Some(shape) => shape.times += 1,
            None => shapes.push(LayerShape {
                times: 1,
                place,
                spec,
            }),
        }
    }
    shapes
}

impl LayerShape {
    /// torchvision's name of the first layer of this shape.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Multiply-adds of the forward pass of one image by the layer's definition. A faster method needs fewer.
    pub fn forward_multiply_adds(&self) -> usize {
        let out_side = self.spec.conv.output_side(self.spec.side);
        self.spec.conv.weights() * out_side * out_side
    }

    /// Multiply-adds of the gradients of one image by the layer's definition: that of the weights and, but for the stem, that of the input.
    pub fn backward_multiply_adds(&self) -> usize {
        let gradients = if self.place == STEM { 1 } else { 2 };
        gradients * self.forward_multiply_adds()
    }
}

/// One layer with initial weights, an input and a gradient of its output, to be run repeatedly. The stem includes its ReLU and max-pool.
pub struct LayerProbe {
    device: Device,
    layer: Layer,
    /// `[batch, side, side, inputs]`.
    x: Tensor,
    gradient: Tensor,
    /// The argmax indices of the stem's pool.
    argmax: Option<Tensor>,
}

impl LayerProbe {
    /// A layer of `shape` with inputs of `batch` images.
    ///
    /// # Errors
    /// The device failed.
    pub fn new(shape: &LayerShape, batch: usize, device: &Device) -> Result<Self, NnError> {
        let LayerShape { place, spec, .. } = shape;
        let (conv, side) = (spec.conv, spec.side);
        let weight = init::weights(1, *place, spec);
        let backend = &device.backend;
        let weight = backend.upload(weight.into(), &spec.inner_shape())?;
        let bias = backend.upload(values(&[conv.outputs]).into(), &[conv.outputs])?;
        let layer = Layer::new(spec.clone(), weight, bias);
        let shape = [batch, side, side, conv.inputs];
        let (x, output, argmax) = if *place == STEM {
            let parts = &[&values(&shape)[..]];
            let x = backend.upload_pixels(Pixels { parts, shape })?;
            let (output, argmax) = backend.stem(&layer, &x, true)?;
            (x, output, argmax)
        } else {
            let x = backend.upload_activations(&values(&shape), &shape)?;
            let output = backend.conv(&layer, &x, None, true)?;
            (x, output, None)
        };
        Ok(Self {
            gradient: backend.upload_activations(&values(output.dims()), output.dims())?,
            device: device.clone(),
            layer,
            x,
            argmax,
        })
    }

    /// Runs the layer's forward pass.
    ///
    /// # Errors
    /// The device failed.
    pub fn forward(&self) -> Result<(), NnError> {
        let backend = &self.device.backend;
        match self.argmax {
            Some(_) => black_box(backend.stem(&self.layer, &self.x, false)?.0),
            None => black_box(backend.conv(&self.layer, &self.x, None, true)?),
        };
        Ok(())
    }

    /// Computes the gradients of its weights and, but for the stem, its input.
    ///
    /// # Errors
    /// The device failed.
    pub fn backward(&self) -> Result<(), NnError> {
        let Self {
            layer,
            x,
            gradient: output_gradient,
            ..
        } = self;
        let backend = &self.device.backend;
        let gradient = match &self.argmax {
            Some(argmax) => backend.stem_gradient(layer, x, argmax, output_gradient)?,
            None => {
                backend
                    .conv_gradient(layer, x, output_gradient, GradientTarget::New)?
                    .1
            }
        };
        black_box(gradient.weight);
        Ok(())
    }
}

/// Values in [−1, 1) without a pattern that could make a layer faster.
fn values(shape: &[usize]) -> Vec<f32> {
    (0..shape.iter().product::<usize>())
        .map(|i| ((i * 7919) % 1013) as f32 / 506.5 - 1.0)
        .collect()
}

/// Multiply-adds on registers, on one thread, with the widest vectors that the kernels use: the peak of this processor.
pub struct PeakFlops {
    rounds: usize,
}

impl PeakFlops {
    /// Rounds of a run, which takes a few milliseconds.
    const ROUNDS: usize = 1 << 20;
    /// Independent sums, as many as a register tile has: enough to hide the latency of each.
    const SUMS: usize = 12;

    /// Does [`PeakFlops::multiply_adds`] multiply-adds.
    pub fn run() {
        let rounds = Self::ROUNDS;
        Arch::new().dispatch(Self { rounds });
    }

    /// Number of multiply-adds of one run on this processor.
    pub fn multiply_adds() -> usize {
        Self::ROUNDS * Arch::new().dispatch(Self { rounds: 1 })
    }
}

impl WithSimd for PeakFlops {
    /// Multiply-adds done.
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        // Sums approach 1/2, so that none becomes infinite or denormal.
        let (factor, term) = black_box((0.5, 0.25));
        let (factor, term) = (simd.splat_f32s(factor), simd.splat_f32s(term));
        let mut sums: [S::f32s; Self::SUMS] = from_fn(|i| simd.splat_f32s(i as f32));
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, term);
            }
        }
        black_box(sums.map(|sum| simd.reduce_sum_f32s(sum)));
        self.rounds * Self::SUMS * S::F32_LANES
    }
}
