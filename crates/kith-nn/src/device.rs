//! The device that the encoder runs on.

use std::{fmt, sync::Arc};

use super::backend::Backend;
use super::config::{CudaConfig, Purpose};
use super::cpu::Cpu;
use super::error::NnError;

/// Where the encoder runs: `cpu`, or `cuda:N` in a build with the feature `cuda`. Clones share one queue of work.
#[derive(Clone)]
pub struct Device {
    name: Arc<str>,
    pub(super) backend: Arc<dyn Backend>,
}

// A struct with tensors holds a `Device` in a field before them. It is dropped first and prepares the thread for dropping the tensors.
impl Drop for Device {
    fn drop(&mut self) {
        self.backend.bind_thread();
    }
}

impl Device {
    /// The CPU.
    pub fn cpu() -> Self {
        Self {
            name: "cpu".into(),
            backend: Arc::new(Cpu),
        }
    }

    /// Opens `cpu` or `cuda:N`. `config` is used for GPUs only.
    ///
    /// # Errors
    /// [`NnError::Device`] if the name is unknown or the device cannot be used. The text says what to do.
    pub fn open(name: &str, purpose: Purpose, config: &CudaConfig) -> Result<Self, NnError> {
        if name == "cpu" {
            return Ok(Self::cpu());
        }
        let ordinal = name
            .strip_prefix("cuda:")
            .and_then(|ordinal| ordinal.parse().ok());
        let ordinal = ordinal.ok_or_else(|| {
            NnError::Device(format!(
                "device `{name}` is not known: use `cpu`, or `cuda:0` for the first NVIDIA GPU"
            ))
        })?;
        let backend = cuda(ordinal, purpose, config).map_err(|problem| {
            NnError::Device(format!(
                "device `{name}` cannot be opened: {problem}; `cpu` always works"
            ))
        })?;
        Ok(Self {
            name: name.into(),
            backend,
        })
    }

    /// Whether this is the CPU.
    pub fn is_cpu(&self) -> bool {
        &*self.name == "cpu"
    }
}

#[cfg(feature = "cuda")]
fn cuda(ordinal: usize, purpose: Purpose, config: &CudaConfig) -> Result<Arc<dyn Backend>, String> {
    super::cuda::open(ordinal, purpose, config)
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize, _: Purpose, _: &CudaConfig) -> Result<Arc<dyn Backend>, String> {
    Err("this program was built without GPUs, `--features cuda` builds one with them".to_owned())
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
