//! The GPU's memory for pixels that are uploaded before their training pass.

use candle_core::Tensor;
use candle_core::cuda_backend::cudarc::driver::CudaEvent;

/// The memory of uploads ahead. There is one for each encoder's stream, which bounds what they take.
#[derive(Default)]
pub(super) enum AheadMemory {
    /// Not in use, and not allocated before the first upload.
    #[default]
    Unallocated,
    Free(AheadBuffer),
    /// Pixels in it have not been used yet.
    Taken,
}

/// Room for the pixels of one pass.
pub(super) struct AheadBuffer {
    pub(super) pixels: Tensor,
    /// The end of the upload.
    pub(super) uploaded: CudaEvent,
    /// The end of the copy to where the pass reads them.
    pub(super) copied: Option<CudaEvent>,
}

impl Drop for AheadBuffer {
    fn drop(&mut self) {
        // The memory is freed on the stream that computes. It must not be freed before the upload has ended.
        if let Err(error) = self.uploaded.synchronize() {
            tracing::debug!(%error, "an upload ahead has failed");
        }
    }
}
