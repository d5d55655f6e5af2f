//! Opening the device that the encoder runs on.
//! Must never know: networks.

use std::fmt;

use super::NnError;

/// Where the encoder runs: `cpu`, or `cuda:N` in a build with the `cuda` feature.
#[derive(Clone)]
pub struct Device(pub(crate) candle_core::Device);

impl Device {
    /// Opens `cpu` or `cuda:N`; a device that is not there is a clear error.
    pub fn open(name: &str) -> Result<Self, NnError> {
        if name == "cpu" {
            return Ok(Self(candle_core::Device::Cpu));
        }
        let ordinal = name
            .strip_prefix("cuda:")
            .and_then(|ordinal| ordinal.parse().ok());
        let ordinal = ordinal.ok_or_else(|| {
            NnError::Device(format!(
                "device `{name}` is not known: use `cpu`, or `cuda:0` for the first NVIDIA GPU"
            ))
        })?;
        if !cfg!(feature = "cuda") {
            return Err(NnError::Device(format!(
                "device `{name}` needs a program built with `--features cuda`; this one only has `cpu`"
            )));
        }
        let device = candle_core::Device::new_cuda(ordinal)
            .map_err(|error| NnError::Device(format!("device `{name}` cannot be opened: {error}. `nvidia-smi` lists the GPUs that are there; `cpu` always works")))?;
        Ok(Self(device))
    }

    /// Whether it is the CPU.
    pub fn is_cpu(&self) -> bool {
        self.0.is_cpu()
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.location())
    }
}
