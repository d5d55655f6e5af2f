//! Named arrays as the bytes of a safetensors file, and back.

use std::borrow::Cow;

use safetensors::{Dtype, SafeTensorError, SafeTensors, View, tensor::TensorView};

use super::NamedArray;

/// An array as the writer of the file takes it. Its bytes are made when they are written, so that a model is in memory at most twice: as arrays
/// and as the file.
struct FileArray<'a>(&'a NamedArray);

impl View for FileArray<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.0.data.iter();
        values.flat_map(|value| value.to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        4 * self.0.data.len()
    }
}

/// Why arrays cannot be written as a file, or read from one.
#[derive(Debug, thiserror::Error)]
pub enum ArraysFileError {
    /// It is no safetensors file, or a shape does not fit its data.
    #[error(transparent)]
    Safetensors(#[from] SafeTensorError),
    /// An array is not of `f32`.
    #[error("{name} is of type {found:?}, not F32")]
    NotF32 {
        /// The array.
        name: String,
        /// The type that it has.
        found: Dtype,
    },
}

/// The bytes of a safetensors file with `arrays` as f32.
///
/// # Errors
/// [`ArraysFileError::Safetensors`] if a shape does not fit its data.
pub fn arrays_to_bytes(arrays: &[NamedArray]) -> Result<Vec<u8>, ArraysFileError> {
    let views = arrays.iter().map(|array| (&array.name, FileArray(array)));
    Ok(safetensors::serialize(views, None)?)
}

/// The arrays of a safetensors file, sorted by name.
///
/// # Errors
/// The bytes are not a safetensors file, or an array is not of `f32`.
pub fn arrays_from_bytes(bytes: &[u8]) -> Result<Vec<NamedArray>, ArraysFileError> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut arrays = file
        .iter()
        .map(|(name, view)| {
            Ok(NamedArray {
                name: name.to_owned(),
                shape: view.shape().to_vec(),
                data: floats(name, &view)?,
            })
        })
        .collect::<Result<Vec<_>, ArraysFileError>>()?;
    arrays.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(arrays)
}

fn floats(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>, ArraysFileError> {
    let found = view.dtype();
    if found != Dtype::F32 {
        let name = name.to_owned();
        return Err(ArraysFileError::NotF32 { name, found });
    }
    let (words, _) = view.data().as_chunks::<4>();
    Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_come_back_bit_for_bit_and_sorted_by_name() {
        let array = |name: &str, shape: &[usize], data: &[f32]| NamedArray {
            name: name.to_owned(),
            shape: shape.to_vec(),
            data: data.to_vec(),
        };
        let arrays = [
            array(
                "fc.weight",
                &[2, 2],
                &[1.0, -0.0, f32::MIN_POSITIVE / 2.0, 3.4e38],
            ),
            array("conv1.weight", &[3], &[0.1, 0.2, 0.3]),
        ];
        let back = arrays_from_bytes(&arrays_to_bytes(&arrays).unwrap()).unwrap();
        assert_eq!(back[0], arrays[1]);
        let bits = |array: &NamedArray| array.data.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back[1]), bits(&arrays[0]));
    }
}
