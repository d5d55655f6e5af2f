//! Arrays of a safetensors file, read by candle.

use std::collections::BTreeMap;

use candle_core::{DType, Device, safetensors::BufferedSafetensors};

use super::{WeightsError, source::Source};

/// Most bytes of the header. ResNet-18's has ten thousand.
const MAX_HEADER: u64 = 1 << 22;

/// A safetensors file in memory.
pub(super) struct SafetensorsFile(BufferedSafetensors);

impl SafetensorsFile {
    /// Reads the header. The format's own rules (arrays in order, without gaps or overlaps) are checked here.
    pub(super) fn new(bytes: Vec<u8>) -> Result<Self, WeightsError> {
        let length = bytes
            .first_chunk()
            .map(|length| u64::from_le_bytes(*length));
        match length {
            Some(length) if length <= MAX_HEADER && length + 8 <= bytes.len() as u64 => {}
            Some(_) => {
                return Err(WeightsError::malformed(
                    "its first eight bytes are no length of a header in it",
                ));
            }
            None => return Err(WeightsError::malformed("it has fewer than eight bytes")),
        }
        let file = BufferedSafetensors::new(bytes).map_err(WeightsError::malformed)?;
        Ok(Self(file))
    }
}

impl Source for SafetensorsFile {
    fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let arrays = self.0.tensors().into_iter();
        arrays
            .map(|(name, view)| (name, view.shape().to_vec()))
            .collect()
    }

    fn read(&mut self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let read = || {
            self.0
                .load(name, &Device::Cpu)?
                .to_dtype(DType::F32)?
                .flatten_all()?
                .to_vec1()
        };
        read().map_err(|error: candle_core::Error| {
            WeightsError::malformed(format!("{name}: {error}"))
        })
    }
}
