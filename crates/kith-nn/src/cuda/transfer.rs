//! Copies between the host's memory and the GPU's.
#![allow(unsafe_code)]

use std::sync::{Arc, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaStream, DeviceRepr, PinnedHostSlice, ValidAsZeroBits, result,
};
use candle_core::{Result, Tensor};

use super::arrays::{Span, UploadType};
use super::staging::PinnedStaging;
use super::stream_context::CudaStreamContext;

impl CudaStreamContext {
    /// Copies `values` to a new tensor. Returns before the copy ends.
    pub(super) fn upload(&self, values: &[f32], shape: &[usize]) -> Result<Tensor> {
        self.build::<f32>(shape, |target| self.upload_to(&[values], target))
    }

    /// Copies the concatenation of `parts` to `target`, whose rest becomes zero. Returns before the copy ends.
    pub(super) fn upload_to<T: UploadType>(
        &self,
        parts: &[&[f32]],
        target: Span<'_, T>,
    ) -> Result<()> {
        self.upload_on(&self.stream, parts, target)
    }

    /// [`CudaStreamContext::upload_to`] while this stream computes. Operations that are queued afterwards wait for it.
    ///
    /// No operation that is already queued may use `target`.
    pub(super) fn upload_concurrently<T: UploadType>(
        &self,
        parts: &[&[f32]],
        target: Span<'_, T>,
    ) -> Result<()> {
        let result = self.upload_on(&self.upload_stream, parts, target);
        // After an error too: the next operation may free the target.
        self.stream.join(&self.upload_stream).w()?;
        result
    }

    pub(super) fn upload_on<T: UploadType>(
        &self,
        stream: &Arc<CudaStream>,
        parts: &[&[f32]],
        target: Span<'_, T>,
    ) -> Result<()> {
        let lock = || self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        // Not locked while the rayon pool copies: a thread that waits there takes up other work, which may be an upload.
        let taken = lock().pop();
        let mut staging = match taken {
            Some(staging) => staging,
            None => PinnedStaging::new(stream).w()?,
        };
        staging.upload(stream, parts, target)?;
        lock().push(staging);
        Ok(())
    }

    /// Pinned memory for `len` values that the GPU writes and the CPU reads.
    pub(super) fn pinned(&self, len: usize) -> Result<PinnedHostSlice<f32>> {
        let context = self.stream.context();
        // SAFETY: only read where the GPU has written.
        unsafe { context.alloc_pinned_with_flags(len, 0) }.w()
    }

    /// Queues a copy of `span` to `output`, which must not be read before the copy ends.
    pub(super) fn fetch(
        &self,
        span: Span<'_, f32>,
        output: &mut PinnedHostSlice<f32>,
    ) -> Result<()> {
        let output = &mut output.as_mut_slice().w()?[..span.len];
        // SAFETY: as many values on both sides; the caller keeps `output`.
        unsafe { result::memcpy_dtoh_async(output, span.at, self.stream.cu_stream()) }.w()
    }

    /// Copies a short table of numbers to the GPU.
    pub(super) fn table(&self, numbers: &[u64]) -> Result<CudaSlice<u64>> {
        let mut table = self.take(numbers.len())?;
        self.stream.memcpy_htod(numbers, &mut table).w()?;
        Ok(table)
    }

    /// Waits for the values and copies them.
    pub(super) fn download<T: DeviceRepr + ValidAsZeroBits>(
        &self,
        span: Span<'_, T>,
    ) -> Result<Vec<T>> {
        let values = self.stream.clone_dtoh(&span).w()?;
        self.stream.synchronize().w()?;
        Ok(values)
    }
}
