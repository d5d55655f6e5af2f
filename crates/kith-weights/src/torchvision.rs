//! An encoder's weights in torchvision's layout: the network as `torchvision.models.resnet18()` loads it, and the head beside it.

use kith_nn::{EncoderConfig, NamedArray, PLACES, arrays_to_bytes};

use super::{
    WeightsError,
    fold::EPSILON,
    network::{convolutions, features},
};

/// Classes of torchvision's `fc`, which a strict load wants to find.
const CLASSES: usize = 1000;

/// Two safetensors files.
#[derive(Clone, Debug)]
pub struct TorchvisionFiles {
    /// Loads into `resnet18()` with `strict=True`. Its BatchNorms only add the convolutions' biases, and its `fc` is zero: put `Identity()` there.
    pub network: Vec<u8>,
    /// `fc` and `projection`, with a ReLU between them: from the pooled features to the embedding. [`PLACES`], convolutions over the means of a stage's
    /// activations over a grid of places, are added to it.
    pub head: Vec<u8>,
}

impl TorchvisionFiles {
    /// The files of an encoder with `arrays`, as `Encoder::to_arrays` gives them.
    ///
    /// # Errors
    /// [`WeightsError::NotAnEncoder`] if an array is missing or a shape does not fit its data.
    pub fn new(config: &EncoderConfig, arrays: &[NamedArray]) -> Result<Self, WeightsError> {
        let mut network = Vec::new();
        for conv in convolutions(config.width) {
            network.push(array(arrays, &format!("{}.weight", conv.name))?.clone());
            let bias = array(arrays, &format!("{}.bias", conv.name))?;
            let fill = |value| vec![value; conv.outputs()];
            let parts = [
                ("weight", fill(1.0)),
                ("bias", bias.data.clone()),
                ("running_mean", fill(0.0)),
                // The root of variance and epsilon is 1.
                ("running_var", fill((1.0 - EPSILON) as f32)),
            ];
            network.extend(parts.map(|(part, data)| NamedArray {
                name: format!("{}.{part}", conv.norm),
                shape: vec![conv.outputs()],
                data,
            }));
        }
        let zeros = |name: &str, shape: Vec<usize>| NamedArray {
            name: name.to_owned(),
            data: vec![0.0; shape.iter().product()],
            shape,
        };
        network.push(zeros("fc.weight", vec![CLASSES, features(config.width)]));
        network.push(zeros("fc.bias", vec![CLASSES]));
        let names = ["fc", "projection"]
            .into_iter()
            .chain(PLACES.map(|part| part.name));
        let names = names.flat_map(|name| [format!("{name}.weight"), format!("{name}.bias")]);
        let head = names.map(|name| array(arrays, &name).cloned());
        let head = head.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            network: bytes(&network)?,
            head: bytes(&head)?,
        })
    }
}

fn bytes(arrays: &[NamedArray]) -> Result<Vec<u8>, WeightsError> {
    arrays_to_bytes(arrays).map_err(|error| WeightsError::NotAnEncoder(error.to_string()))
}

/// The array of that name.
pub(super) fn array<'a>(
    arrays: &'a [NamedArray],
    name: &str,
) -> Result<&'a NamedArray, WeightsError> {
    let found = arrays.iter().find(|array| array.name == name);
    found.ok_or_else(|| WeightsError::NotAnEncoder(format!("{name} is missing")))
}
