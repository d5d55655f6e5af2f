//! One layer of the network at a time, and the processor's peak, for those who measure.
//! Must never know: clocks.

use std::array::from_fn;
use std::hint::black_box;

use candle_core::Tensor;
use pulp::{Arch, Simd, WithSimd};

use super::architecture::{LayerSpec, STEM, layers};
use super::backend::{Input, Pixels};
use super::layer::Layer;
use super::{Device, EncoderConfig, NnError, init};

/// A layer's shape, and how often the network has it.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerShape {
    /// Layers of this shape.
    pub times: usize,
    place: usize,
    spec: LayerSpec,
}

/// The network's layers, each shape once, in the order of the first of each.
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

    /// Multiply-adds of a forward pass of one image, as the layer is defined: a faster method needs fewer.
    pub fn forward_multiply_adds(&self) -> usize {
        let out_side = self.spec.conv.output_side(self.spec.side);
        self.spec.conv.weights() * out_side * out_side
    }

    /// Multiply-adds of the gradients of one image: those of the weights and of the input, which the stem does without.
    pub fn backward_multiply_adds(&self) -> usize {
        let gradients = if self.place == STEM { 1 } else { 2 };
        gradients * self.forward_multiply_adds()
    }
}

/// A layer with fresh weights, an input and a gradient of its output. The stem goes with its ReLU and max-pool.
pub struct LayerProbe {
    device: Device,
    layer: Layer,
    /// `[batch, side, side, inputs]`.
    x: Tensor,
    gradient: Tensor,
    /// What the stem's pool picked.
    picks: Option<Tensor>,
}

impl LayerProbe {
    /// A layer of `shape` with inputs for `batch` images.
    pub fn new(shape: &LayerShape, batch: usize, device: &Device) -> Result<Self, NnError> {
        let LayerShape { place, spec, .. } = shape;
        let (conv, side) = (spec.conv, spec.side);
        let weight = init::weights(1, *place, spec);
        let on = &device.backend;
        let weight = on.upload(weight.into(), &spec.inner_shape())?;
        let bias = on.upload(values(&[conv.outputs]).into(), &[conv.outputs])?;
        let layer = Layer::new(spec.clone(), weight, bias);
        let shape = [batch, side, side, conv.inputs];
        let (x, output, picks) = if *place == STEM {
            let parts = &[&values(&shape)[..]];
            let x = on.pixels(Pixels { parts, shape })?;
            let (output, picks) = on.stem(&layer, &x, true)?;
            (x, output, picks)
        } else {
            let x = on.maps(&values(&shape), &shape)?;
            let output = on.conv(&layer, &x, None, true)?;
            (x, output, None)
        };
        Ok(Self {
            gradient: on.maps(&values(output.dims()), output.dims())?,
            device: device.clone(),
            layer,
            x,
            picks,
        })
    }

    /// The layer's forward pass.
    pub fn forward(&self) -> Result<(), NnError> {
        let on = &self.device.backend;
        match self.picks {
            Some(_) => black_box(on.stem(&self.layer, &self.x, false)?.0),
            None => black_box(on.conv(&self.layer, &self.x, None, true)?),
        };
        Ok(())
    }

    /// The gradients of its weights and, but for the stem, its input.
    pub fn backward(&self) -> Result<(), NnError> {
        let Self {
            layer, x, gradient, ..
        } = self;
        let on = &self.device.backend;
        let own = match &self.picks {
            Some(picks) => on.stem_gradient(layer, x, picks, gradient)?,
            None => on.conv_gradient(layer, x, gradient, Input::New)?.1,
        };
        black_box(own.weight);
        Ok(())
    }
}

/// Values in [−1, 1) without a pattern that a layer could profit from.
fn values(shape: &[usize]) -> Vec<f32> {
    (0..shape.iter().product::<usize>())
        .map(|i| ((i * 7919) % 1013) as f32 / 506.5 - 1.0)
        .collect()
}

/// Multiply-adds on registers alone, on one thread, with the widest vectors that the kernels use: no kernel does them faster.
pub struct PeakFlops {
    rounds: usize,
}

impl PeakFlops {
    /// A few milliseconds.
    const LONG: usize = 1 << 20;
    /// As many as a kernel's tile has: enough to hide the latency of each.
    const SUMS: usize = 12;

    /// Does as many as [`PeakFlops::multiply_adds`] says.
    pub fn run() {
        let rounds = Self::LONG;
        Arch::new().dispatch(Self { rounds });
    }

    /// How many a run has on this processor.
    pub fn multiply_adds() -> usize {
        Self::LONG * Arch::new().dispatch(Self { rounds: 1 })
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
