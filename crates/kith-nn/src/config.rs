//! The shape of the network and the use of a device, as settings.

use serde::{Deserialize, Serialize};

use super::error::NnError;

/// The shape of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Channels of the first stage; 64 is ResNet-18. The hidden features have 8 × width values.
    pub width: usize,
    /// Side of the square input in pixels: a multiple of 32 from 32 to 224.
    pub side: usize,
    /// Values in an embedding.
    pub dim: usize,
    /// Number of encoders: 1 for both sides of pairs, or 2, one for each side.
    #[serde(default = "one_tower")]
    pub towers: usize,
}

/// Whether the network takes images of `side` pixels across.
pub(super) fn is_side(side: usize) -> bool {
    (32..=224).contains(&side) && side.is_multiple_of(32)
}

/// Checkpoints from before there could be two towers have one.
fn one_tower() -> usize {
    1
}

impl EncoderConfig {
    /// The settings that are out of range, each with what it must be.
    pub fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let Self {
            width,
            side,
            dim,
            towers,
        } = *self;
        let width = (8..=512).contains(&width) && width.is_multiple_of(8);
        let side = is_side(side);
        let dim = (8..=8192).contains(&dim);
        let towers = (1..=2).contains(&towers);
        let rules = [
            (
                width,
                ("width", "a multiple of 8 from 8 to 512 (64 is ResNet-18)"),
            ),
            (side, ("side", "a multiple of 32 from 32 to 224")),
            (dim, ("dim", "from 8 to 8192")),
            (towers, ("towers", "1 or 2")),
        ];
        let broken = rules.into_iter().filter(|(holds, _)| !holds);
        broken.map(|(_, problem)| problem).collect()
    }

    /// An error that names the first setting of [`EncoderConfig::problems`] with its value.
    pub fn validate(&self) -> Result<(), NnError> {
        let Some((key, must_be)) = self.problems().into_iter().next() else {
            return Ok(());
        };
        let value = match key {
            "width" => self.width,
            "side" => self.side,
            "towers" => self.towers,
            _ => self.dim,
        };
        let message = format!("{key} {value} must be {must_be}");
        Err(NnError::Config(message))
    }
}

/// How many bits the weights have that the CPU kernels read. Sums are always taken in 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits (bfloat16): half the memory to read, which counts in small batches.
    Bf16,
}

/// What a device is opened for. Each purpose has its own queue of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Has priority on a GPU.
    Serving,
    /// Runs when serving leaves the GPU idle.
    Training,
}

/// How a GPU is used. The CPU ignores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudaConfig {
    /// The type of activations and products.
    pub compute: Compute,
    /// Maximum MiB of the GPU's memory for arrays of this process, serving and training together; 0: no limit. A batch that needs more fails.
    /// The libraries' own few hundred MiB come on top.
    pub memory_mb: usize,
    /// Maximum MiB of working memory of a convolution while it runs. It is never more than half of `memory_mb`, so that an algorithm that is faster
    /// with more memory does not exhaust it.
    pub workspace_mb: usize,
}

#[cfg(any(test, feature = "cuda"))]
impl CudaConfig {
    /// Maximum bytes of working memory.
    pub(super) fn workspace_bytes(&self) -> usize {
        let mb = match self.memory_mb {
            0 => self.workspace_mb,
            memory => self.workspace_mb.min(memory / 2),
        };
        mb << 20
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

/// The type in which a GPU computes activations and products. Master weights, moments, gradients of weights, embeddings and all sums have 32
/// bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compute {
    /// `bf16` where the GPU has units for it (compute capability 8.0 and above), else `f32`.
    #[default]
    Auto,
    /// Activations and weights of 16 bits.
    Bf16,
    /// Activations of 32 bits; the factors of products are rounded to 19.
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
