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
    form: Form,
}

/// How a layer's weight is laid out in files.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// `[outputs, inputs, kernel, kernel]`.
    Convolution,
    /// `[outputs, inputs]`.
    Linear,
    /// `[outputs, inputs / grid², grid, grid]`: a convolution over a grid of places, which reads all of them as one pixel's channels.
    Places { grid: usize },
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
/// A part of the projection that reads the means of a stage's activations over the places of a grid. Zero weights leave it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacesPart {
    /// Prefix of its arrays' names.
    pub name: &'static str,
    /// The stage whose activations it reads, counted from 1.
    pub stage: usize,
    /// Places along one direction. The side of the stage's activations is always a multiple of it.
    pub grid: usize,
}

/// The parts of the projection that read places. The parts that the third stage finds tell things of a kind apart where the fourth tells kinds
/// apart, and the edges and colours of the first stage say how a picture is laid out (docs/learning.md).
pub const PLACES: [PlacesPart; 2] = [
    PlacesPart {
        name: "places",
        stage: 3,
        grid: 2,
    },
    PlacesPart {
        name: "fine_places",
        stage: 1,
        grid: 4,
    },
];
/// The first of [`PLACES`], by place in [`layers`]. The others follow it.
pub(super) const FIRST_PLACES: usize = 22;

impl PlacesPart {
    /// Values that it reads of an image by a network of `width`.
    pub fn values(self, width: usize) -> usize {
        self.grid * self.grid * self.channels(width)
    }

    /// Channels of its stage in a network of `width`.
    pub fn channels(self, width: usize) -> usize {
        width << (self.stage - 1)
    }

    /// The shape of its weight in files.
    pub fn shape(self, width: usize, dim: usize) -> [usize; 4] {
        [dim, self.channels(width), self.grid, self.grid]
    }

    /// The block, counted from 0, whose activations it reads: the last one of its stage.
    pub(super) fn block(self) -> usize {
        2 * self.stage - 1
    }
}
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
    layers.extend(PLACES.map(|part| LayerSpec {
        form: Form::Places { grid: part.grid },
        ..linear(part.name, part.values(width), dim)
    }));
    layers
}

/// A convolution that reads activations of `side`.
pub(super) fn layer(name: String, conv: Conv, side: usize) -> LayerSpec {
    LayerSpec {
        name,
        conv,
        side,
        form: Form::Convolution,
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
        form: Form::Linear,
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
        let [outputs, inputs, kernel] = self.file_layout();
        if self.form == Form::Linear {
            vec![outputs, inputs]
        } else {
            vec![outputs, inputs, kernel, kernel]
        }
    }

    /// Outputs, inputs and kernel of the convolution as which files have it.
    fn file_layout(&self) -> [usize; 3] {
        let Conv {
            inputs,
            outputs,
            kernel,
            ..
        } = self.conv;
        match self.form {
            Form::Places { grid } => [outputs, inputs / (grid * grid), grid],
            Form::Convolution | Form::Linear => [outputs, inputs, kernel],
        }
    }

    /// Whether files from before it was part of the network are read as if its arrays were zero.
    pub(super) fn is_optional(&self) -> bool {
        matches!(self.form, Form::Places { .. })
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
        let [outputs, inputs, kernel] = self.file_layout();
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
