//! Named arrays as the bytes of a safetensors file, and back.

use std::borrow::Cow;

use safetensors::{Dtype, SafeTensors, View, tensor::TensorView};

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

/// The bytes of a safetensors file with `arrays` as f32.
///
/// # Errors
/// A shape does not fit its data. The text names the problem.
pub fn arrays_to_bytes(arrays: &[NamedArray]) -> Result<Vec<u8>, String> {
    let views = arrays.iter().map(|array| (&array.name, FileArray(array)));
    safetensors::serialize(views, None).map_err(|error| error.to_string())
}

/// The arrays of a safetensors file, sorted by name.
///
/// # Errors
/// The bytes are not a safetensors file, or an array is not f32. The text names it.
pub fn arrays_from_bytes(bytes: &[u8]) -> Result<Vec<NamedArray>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut arrays = file
        .iter()
        .map(|(name, view)| {
            Ok(NamedArray {
                name: name.to_owned(),
                shape: view.shape().to_vec(),
                data: floats(name, &view)?,
            })
        })
        .collect::<Result<Vec<_>, String>>()?;
    arrays.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(arrays)
}

fn floats(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>, String> {
    if view.dtype() != Dtype::F32 {
        return Err(format!("{name} is of type {:?}, not F32", view.dtype()));
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
