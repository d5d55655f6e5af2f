//! The convolutions of ResNet-18 under torchvision's names, with the BatchNorm that follows each there.

use kith_nn::NamedArray;

/// A convolution and its BatchNorm.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Convolution {
    /// Its prefix, such as `layer1.0.conv1`.
    pub(super) name: String,
    /// The prefix of its BatchNorm, such as `layer1.0.bn1`.
    pub(super) norm: String,
    /// `[outputs, inputs, kernel, kernel]`.
    pub(super) shape: [usize; 4],
    pub(super) stride: usize,
}

impl Convolution {
    fn new(name: String, norm: String, (inputs, outputs): (usize, usize), kernel: usize) -> Self {
        Self {
            name,
            norm,
            shape: [outputs, inputs, kernel, kernel],
            stride: 1,
        }
    }

    fn with_stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    pub(super) fn outputs(&self) -> usize {
        self.shape[0]
    }
}

/// All convolutions in order (He et al. 2016, table 1). `width`: channels of the first stage; 64 is ResNet-18.
pub(super) fn convolutions(width: usize) -> Vec<Convolution> {
    let stem = Convolution::new("conv1".into(), "bn1".into(), (3, width), 7).with_stride(2);
    let mut all = vec![stem];
    for (stage, block) in (0..4).flat_map(|stage| [(stage, 0), (stage, 1)]) {
        let outputs = width << stage;
        let halves = stage > 0 && block == 0;
        let (inputs, stride) = if halves {
            (outputs / 2, 2)
        } else {
            (outputs, 1)
        };
        let at = |part: &str| format!("layer{}.{block}.{part}", stage + 1);
        let first = Convolution::new(at("conv1"), at("bn1"), (inputs, outputs), 3);
        all.push(first.with_stride(stride));
        all.push(Convolution::new(
            at("conv2"),
            at("bn2"),
            (outputs, outputs),
            3,
        ));
        if halves {
            let (name, norm) = (at("downsample.0"), at("downsample.1"));
            let shortcut = Convolution::new(name, norm, (inputs, outputs), 1);
            all.push(shortcut.with_stride(stride));
        }
    }
    all
}

/// Values of the pooled features: the channels of the last stage.
pub(super) fn features(width: usize) -> usize {
    8 * width
}

/// The arrays of a layer of the head.
pub(super) fn layer(
    name: &str,
    shape: Vec<usize>,
    weight: Vec<f32>,
    bias: Vec<f32>,
) -> [NamedArray; 2] {
    [
        NamedArray {
            name: format!("{name}.weight"),
            shape,
            data: weight,
        },
        NamedArray {
            name: format!("{name}.bias"),
            shape: vec![bias.len()],
            data: bias,
        },
    ]
}
