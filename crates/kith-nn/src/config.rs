//! The shape of the network as a setting.
//! Must never know: weights, devices.

use serde::{Deserialize, Serialize};

use super::NnError;

/// The shape of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Channels of the first stage; 64 is ResNet-18. The hidden features have 8 × width values.
    pub width: usize,
    /// Side of the square input in pixels: a multiple of 32 from 32 to 224.
    pub side: usize,
    /// Values in an embedding.
    pub dim: usize,
}

impl EncoderConfig {
    /// Says which setting cannot be used, and which values can.
    pub fn validate(&self) -> Result<(), NnError> {
        let Self { width, side, dim } = *self;
        if width == 0 || !width.is_multiple_of(8) || width > 512 {
            return Err(NnError::Config(format!(
                "width {width} must be a multiple of 8 from 8 to 512"
            )));
        }
        if side == 0 || !side.is_multiple_of(32) || side > 224 {
            return Err(NnError::Config(format!(
                "side {side} must be a multiple of 32 from 32 to 224"
            )));
        }
        if dim == 0 || dim > 8192 {
            return Err(NnError::Config(format!("dim {dim} must be from 1 to 8192")));
        }
        Ok(())
    }
}

/// How many bits the weights have that the kernels read; sums are always taken in 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32: exact within rounding.
    #[default]
    F32,
    /// 16, of which 8 exponent: half the memory to read, which counts in small batches.
    Bf16,
}

/// How a GPU is used; the CPU takes no notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudaConfig {
    /// What maps and products are computed in.
    pub compute: Compute,
    /// Most MiB of the GPU's memory that this process takes for arrays, serving and training together; 0: all that is there. What is
    /// beyond it fails the one batch that asked. The libraries' own few hundred MiB come on top.
    pub memory_mb: usize,
    /// Most MiB of working memory that a convolution may use while it runs; never more than half of `memory_mb`, so that one which is
    /// faster with more memory does not fail for want of it.
    pub workspace_mb: usize,
}

#[cfg(any(test, feature = "cuda"))]
impl CudaConfig {
    /// Most bytes of working memory.
    pub(super) fn workspace_bytes(&self) -> usize {
        let most = match self.memory_mb {
            0 => self.workspace_mb,
            memory => self.workspace_mb.min(memory / 2),
        };
        most << 20
    }
}

impl Default for CudaConfig {
    fn default() -> Self {
        Self {
            compute: Compute::Auto,
            memory_mb: 0,
            workspace_mb: 1024,
        }
    }
}

/// What a GPU computes maps and products in. Master weights, moments, gradients of weights, embeddings and all sums have 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compute {
    /// `bf16` where the GPU has units for it (compute capability 8.0 and above), else `f32`.
    #[default]
    Auto,
    /// Maps and weights of 16 bits.
    Bf16,
    /// Maps of 32 bits, the factors of products rounded to 19.
    Tf32,
    /// 32 bits throughout.
    F32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_memory_is_at_most_half_of_bounded_memory() {
        let bytes = |memory_mb, workspace_mb| {
            let config = CudaConfig {
                memory_mb,
                workspace_mb,
                ..CudaConfig::default()
            };
            config.workspace_bytes() >> 20
        };
        assert_eq!(bytes(0, 1024), 1024);
        assert_eq!(bytes(512, 1024), 256);
        assert_eq!(bytes(512, 100), 100);
    }
}
