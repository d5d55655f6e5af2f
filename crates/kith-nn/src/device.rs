//! Opening the device that the encoder runs on.
//! Must never know: networks.

use std::{fmt, sync::Arc};

use super::backend::Backend;
use super::cpu::Cpu;
use super::{CudaConfig, NnError};

/// Where the encoder runs: `cpu`, or `cuda:N` in a build with the `cuda` feature. Clones share a queue of work.
///
/// Whoever holds tensors holds one, in a field before them: dropped first, it prepares the thread for dropping them.
#[derive(Clone)]
pub struct Device {
    name: Arc<str>,
    pub(super) backend: Arc<dyn Backend>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.backend.enter();
    }
}

/// What a device is opened for: each has a queue of work of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Goes first where both want a GPU.
    Serving,
    /// Takes what serving leaves.
    Training,
}

/// Makes this a thread of the background: it shares no lock with threads that serve. For threads of low priority, when they start.
pub fn compute_in_background() {
    super::kernels::scratch::use_background_buffers();
}

impl Device {
    /// The processor.
    pub fn cpu() -> Self {
        Self {
            name: "cpu".into(),
            backend: Arc::new(Cpu),
        }
    }

    /// Opens `cpu` or `cuda:N`; a device that is not there is a clear error. `config` is for GPUs.
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

    /// Whether it is the CPU.
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
