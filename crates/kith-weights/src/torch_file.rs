//! Tensors of a `.pth` that PyTorch 1.6 or later saved: a zip archive of a pickle and one file a storage, none of them compressed.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
};

use candle_core::{DType, Device, Tensor as CandleTensor};
use zip::{CompressionMethod, ZipArchive};

use super::{
    WeightsError,
    source::Source,
    torch_pickle::{self, Tensor},
};

/// Most files of the archive.
const MAX_FILES: usize = 10_000;

/// An open `.pth`.
pub(super) struct TorchFile {
    archive: ZipArchive<BufReader<File>>,
    /// Bytes of the whole file: no part of it has more.
    length: u64,
    /// The archive's one folder.
    folder: String,
    tensors: BTreeMap<String, Tensor>,
}

impl TorchFile {
    /// Reads the archive's table and its pickle.
    pub(super) fn open(file: File, length: u64) -> Result<Self, WeightsError> {
        let archive = ZipArchive::new(BufReader::new(file)).map_err(WeightsError::malformed)?;
        if archive.len() > MAX_FILES {
            return Err(WeightsError::malformed("it has too many parts"));
        }
        let names: Vec<String> = archive
            .file_names()
            .filter_map(|name| Some(name.ok()?.into_owned()))
            .collect();
        let mut folders = names
            .iter()
            .filter_map(|name| name.strip_suffix("/data.pkl"));
        let (Some(folder), None) = (folders.next(), folders.next()) else {
            return Err(WeightsError::malformed(
                "it is a zip archive without one data.pkl, so PyTorch did not save it",
            ));
        };
        let mut this = Self {
            archive,
            length,
            folder: folder.to_owned(),
            tensors: BTreeMap::new(),
        };
        if names.contains(&format!("{folder}/byteorder"))
            && this.part("byteorder", 16)?.trim_ascii() == b"big"
        {
            return Err(WeightsError::malformed("its numbers are big-endian"));
        }
        let pickle = this.part("data.pkl", torch_pickle::MAX_BYTES)?;
        this.tensors = torch_pickle::tensors(&pickle)?;
        Ok(this)
    }

    /// The bytes of one part, which has at most `max`.
    fn part(&mut self, name: &str, max: u64) -> Result<Vec<u8>, WeightsError> {
        let path = format!("{}/{name}", self.folder);
        let part = self.archive.by_name(&path);
        let part = part.map_err(|error| WeightsError::malformed(format!("{name}: {error}")))?;
        let size = part.size();
        // A compressed part could unfold to any size; PyTorch compresses none.
        if part.compression() != CompressionMethod::Stored || size > max.min(self.length) {
            return Err(WeightsError::malformed(format!(
                "its part {name} is compressed or too large"
            )));
        }
        let mut bytes = Vec::new();
        part.take(size).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl Source for TorchFile {
    fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let tensors = self.tensors.iter();
        tensors
            .map(|(name, tensor)| (name.clone(), tensor.shape.clone()))
            .collect()
    }

    fn read(&mut self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let tensor = self.tensors.get(name).cloned();
        let tensor = tensor.ok_or_else(|| WeightsError::malformed(format!("no tensor {name}")))?;
        let bytes = self.part(&format!("data/{}", tensor.storage), self.length)?;
        let size = tensor.dtype.size_in_bytes();
        let count = bytes.len() / size;
        let values = CandleTensor::from_raw_buffer(
            &bytes[..count * size],
            tensor.dtype,
            &[count],
            &Device::Cpu,
        );
        let values = values.and_then(|values| values.to_dtype(DType::F32)?.to_vec1());
        let values: Vec<f32> =
            values.map_err(|error| WeightsError::malformed(format!("{name}: {error}")))?;
        gathered(values, &tensor)
            .ok_or_else(|| WeightsError::malformed(format!("{name} lies outside its storage")))
    }
}

/// The values of a tensor in row-major order. `None`: it reaches beyond its storage.
fn gathered(mut storage: Vec<f32>, tensor: &Tensor) -> Option<Vec<f32>> {
    let mut sizes = tensor.shape.iter().copied();
    let count = sizes.try_fold(1, usize::checked_mul)?;
    if count == 0 {
        return Some(Vec::new());
    }
    let mut last = tensor.offset;
    for (size, stride) in tensor.shape.iter().zip(&tensor.strides) {
        last = last.checked_add(stride.checked_mul(size - 1)?)?;
    }
    if last >= storage.len() {
        return None;
    }
    if tensor.is_row_major() {
        storage.truncate(last + 1);
        storage.drain(..tensor.offset);
        storage.shrink_to_fit();
        return Some(storage);
    }
    let place = |index: usize| {
        let dimensions = tensor.shape.iter().zip(&tensor.strides).rev();
        let add = |(rest, place): (usize, usize), (size, stride): (&usize, &usize)| {
            (rest / size, place + rest % size * stride)
        };
        dimensions.fold((index, tensor.offset), add).1
    };
    Some((0..count).map(|index| storage[place(index)]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize], strides: &[usize], offset: usize) -> Tensor {
        Tensor {
            storage: "0".to_owned(),
            dtype: DType::F32,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            offset,
        }
    }

    #[test]
    fn values_come_in_row_major_order_whatever_the_strides_are() {
        let storage: Vec<f32> = (0..8u8).map(f32::from).collect();
        let found = |shape: &[usize], strides: &[usize], offset| {
            gathered(storage.clone(), &tensor(shape, strides, offset))
        };
        assert_eq!(
            found(&[2, 3], &[3, 1], 1).unwrap(),
            [1., 2., 3., 4., 5., 6.]
        );
        assert_eq!(
            found(&[2, 3], &[1, 2], 0).unwrap(),
            [0., 2., 4., 1., 3., 5.]
        );
        assert_eq!(found(&[2, 2], &[0, 1], 6).unwrap(), [6., 7., 6., 7.]);
        assert_eq!(found(&[], &[], 7).unwrap(), [7.]);
        assert_eq!(found(&[3, 0], &[1, 1], 9).unwrap(), [0.0; 0]);
        for (shape, strides, offset) in [
            ([2, 3], [3, 1], 3),
            ([2, 2], [7, 1], 0),
            ([2, 2], [usize::MAX, 1], 0),
            ([2, 2], [usize::MAX, usize::MAX], 1),
        ] {
            assert_eq!(found(&shape, &strides, offset), None);
        }
    }
}
