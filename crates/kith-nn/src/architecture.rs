//! The layers of ResNet-18 in their fixed order, and the layout of their weights in torchvision's files.

use super::config::EncoderConfig;
use super::kernels::Conv;

/// A convolution or fully connected layer with its name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LayerSpec {
    /// torchvision's prefix, such as `layer1.0.conv1`.
    pub(super) name: String,
    pub(super) conv: Conv,
    /// Side of the activations that it reads.
    pub(super) side: usize,
    /// Whether it is fully connected: its weight has two dimensions in files.
    linear: bool,
}

/// The layers of a basic block, by place in [`layers`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) first: usize,
    pub(super) second: usize,
    pub(super) downsample: Option<usize>,
}

/// The stem's convolution, by place in [`layers`].
pub(super) const STEM: usize = 0;
/// The fully connected layer below the projection.
pub(super) const FC: usize = 20;
/// The projection to the embedding.
pub(super) const PROJECTION: usize = 21;
/// The eight basic blocks.
pub(super) const BLOCKS: [Block; 8] = [
    Block {
        first: 1,
        second: 2,
        downsample: None,
    },
    Block {
        first: 3,
        second: 4,
        downsample: None,
    },
    Block {
        first: 5,
        second: 6,
        downsample: Some(7),
    },
    Block {
        first: 8,
        second: 9,
        downsample: None,
    },
    Block {
        first: 10,
        second: 11,
        downsample: Some(12),
    },
    Block {
        first: 13,
        second: 14,
        downsample: None,
    },
    Block {
        first: 15,
        second: 16,
        downsample: Some(17),
    },
    Block {
        first: 18,
        second: 19,
        downsample: None,
    },
];

/// All layers in order (He et al. 2016, table 1; names as torchvision's `resnet18`).
pub(super) fn layers(config: &EncoderConfig) -> Vec<LayerSpec> {
    let EncoderConfig {
        width, side, dim, ..
    } = *config;
    let stem = Conv {
        inputs: 3,
        outputs: width,
        kernel: 7,
        stride: 2,
        pad: 3,
    };
    let mut layers = vec![layer("conv1".to_owned(), stem, side)];
    for (stage, block) in (0..4).flat_map(|stage| [(stage, 0), (stage, 1)]) {
        let halves = stage > 0 && block == 0;
        let (outputs, out_side) = (width << stage, (side / 4) >> stage);
        let inputs = if halves { outputs / 2 } else { outputs };
        let stride = if halves { 2 } else { 1 };
        let prefix = format!("layer{}.{block}", stage + 1);
        let three = |inputs, stride| Conv {
            inputs,
            outputs,
            kernel: 3,
            stride,
            pad: 1,
        };
        layers.push(layer(
            format!("{prefix}.conv1"),
            three(inputs, stride),
            out_side * stride,
        ));
        layers.push(layer(
            format!("{prefix}.conv2"),
            three(outputs, 1),
            out_side,
        ));
        if halves {
            let one = Conv {
                inputs,
                outputs,
                kernel: 1,
                stride,
                pad: 0,
            };
            layers.push(layer(
                format!("{prefix}.downsample.0"),
                one,
                out_side * stride,
            ));
        }
    }
    layers.push(linear("fc", 8 * width, 8 * width));
    layers.push(linear("projection", 8 * width, dim));
    layers
}

/// A convolution that reads activations of `side`.
pub(super) fn layer(name: String, conv: Conv, side: usize) -> LayerSpec {
    LayerSpec {
        name,
        conv,
        side,
        linear: false,
    }
}

fn linear(name: &str, inputs: usize, outputs: usize) -> LayerSpec {
    let conv = Conv {
        inputs,
        outputs,
        kernel: 1,
        stride: 1,
        pad: 0,
    };
    LayerSpec {
        name: name.to_owned(),
        conv,
        side: 1,
        linear: true,
    }
}

impl LayerSpec {
    /// Name of its weight.
    pub(super) fn weight_name(&self) -> String {
        format!("{}.weight", self.name)
    }

    /// Name of its bias.
    pub(super) fn bias_name(&self) -> String {
        format!("{}.bias", self.name)
    }

    /// The weight's shape in torchvision's files.
    pub(super) fn outer_shape(&self) -> Vec<usize> {
        let Conv {
            inputs,
            outputs,
            kernel,
            ..
        } = self.conv;
        if self.linear {
            vec![outputs, inputs]
        } else {
            vec![outputs, inputs, kernel, kernel]
        }
    }

    /// The weight's shape on the device: `[kernel, kernel, inputs, outputs]`.
    pub(super) fn inner_shape(&self) -> [usize; 4] {
        let Conv {
            inputs,
            outputs,
            kernel,
            ..
        } = self.conv;
        [kernel, kernel, inputs, outputs]
    }

    /// From `[outputs, inputs, kernel, kernel]` to `[kernel, kernel, inputs, outputs]`.
    pub(super) fn to_inner(&self, outer: &[f32]) -> Vec<f32> {
        let mut inner = vec![0.0; outer.len()];
        self.places().for_each(|(from, to)| inner[to] = outer[from]);
        inner
    }

    /// From `[kernel, kernel, inputs, outputs]` to `[outputs, inputs, kernel, kernel]`.
    pub(super) fn to_outer(&self, inner: &[f32]) -> Vec<f32> {
        let mut outer = vec![0.0; inner.len()];
        self.places().for_each(|(to, from)| outer[to] = inner[from]);
        outer
    }

    /// (index in the outer layout, index in the inner layout) of every weight.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        let Conv {
            inputs,
            outputs,
            kernel,
            ..
        } = self.conv;
        let taps = kernel * kernel;
        (0..taps * inputs).flat_map(move |row| {
            let (tap, input) = (row / inputs, row % inputs);
            (0..outputs).map(move |output| {
                (
                    (output * inputs + input) * taps + tap,
                    row * outputs + output,
                )
            })
        })
    }
}
