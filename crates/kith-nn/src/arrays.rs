//! Weights, gradients and moments as named arrays in torchvision's layout.

use std::collections::HashMap;

use candle_core::Tensor;

use super::architecture::LayerSpec;
use super::backend::Backend;
use super::{NamedArray, NnError};

/// One trainable array of a layer.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    spec: &'a LayerSpec,
    pub(super) is_bias: bool,
}

/// All arrays in their fixed order: each layer's weight, then its bias.
pub(super) fn slots(layers: &[LayerSpec]) -> impl Iterator<Item = Slot<'_>> {
    let both = |spec| [false, true].map(|is_bias| Slot { spec, is_bias });
    layers.iter().flat_map(both)
}

impl Slot<'_> {
    /// torchvision's key.
    pub(super) fn name(self) -> String {
        if self.is_bias {
            self.spec.bias_name()
        } else {
            self.spec.weight_name()
        }
    }

    fn outer_shape(self) -> Vec<usize> {
        if self.is_bias {
            vec![self.spec.conv.outputs]
        } else {
            self.spec.outer_shape()
        }
    }

    /// The array's shape on the device.
    pub(super) fn inner_shape(self) -> Vec<usize> {
        if self.is_bias {
            vec![self.spec.conv.outputs]
        } else {
            self.spec.inner_shape().to_vec()
        }
    }

    /// A copy of `tensor`, which is on the device of `backend`, under this array's name and `suffix`.
    pub(super) fn export(
        self,
        suffix: &str,
        tensor: &Tensor,
        backend: &dyn Backend,
    ) -> Result<NamedArray, NnError> {
        let inner = backend.download(tensor)?;
        let data = if self.is_bias {
            inner
        } else {
            self.spec.to_outer(&inner)
        };
        Ok(NamedArray {
            name: self.name() + suffix,
            shape: self.outer_shape(),
            data,
        })
    }

    /// Uploads the array with this one's name and `suffix` to the device of `backend`.
    pub(super) fn import(
        self,
        suffix: &str,
        arrays: &mut Import,
        backend: &dyn Backend,
    ) -> Result<Tensor, NnError> {
        let name = self.name() + suffix;
        if self.spec.is_optional() && !arrays.has(&name) {
            let shape = self.inner_shape();
            let zeros = vec![0.0; shape.iter().product()];
            return Ok(backend.upload(zeros.into(), &shape)?);
        }
        let data = arrays.take(&name, &self.outer_shape())?;
        let inner = if self.is_bias {
            data.to_vec()
        } else {
            self.spec.to_inner(data)
        };
        Ok(backend.upload(inner.into(), &self.inner_shape())?)
    }
}

/// Named arrays of which each is to be read exactly once.
pub(super) struct Import<'a> {
    arrays: HashMap<&'a str, &'a NamedArray>,
}

impl<'a> Import<'a> {
    /// An error if a name appears twice.
    pub(super) fn new(arrays: &'a [NamedArray]) -> Result<Self, NnError> {
        let mut by_name = HashMap::with_capacity(arrays.len());
        for array in arrays {
            if by_name.insert(array.name.as_str(), array).is_some() {
                return Err(NnError::Weights(format!(
                    "array `{}` is there twice",
                    array.name
                )));
            }
        }
        Ok(Self { arrays: by_name })
    }

    /// Whether the array `name` is there and has not been read.
    fn has(&self, name: &str) -> bool {
        self.arrays.contains_key(name)
    }

    /// The values of the array `name`, which must have `shape`.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<&'a [f32], NnError> {
        let array = self.arrays.remove(name);
        let array = array.ok_or_else(|| NnError::Weights(format!("array `{name}` is missing")))?;
        if array.shape != shape || array.data.len() != shape.iter().product::<usize>() {
            let (found, values) = (&array.shape, array.data.len());
            let message = format!(
                "array `{name}` has shape {found:?} and {values} values, the network needs {shape:?}"
            );
            return Err(NnError::Weights(message));
        }
        Ok(&array.data)
    }

    /// An error if an array has not been taken.
    pub(super) fn finish(self) -> Result<(), NnError> {
        match self.arrays.keys().min() {
            Some(name) => Err(NnError::Weights(format!(
                "array `{name}` is not part of the network"
            ))),
            None => Ok(()),
        }
    }
}
