//! Pixels of the next training pass, uploaded while this one computes.
#![allow(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Result;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::result;

use super::ahead_memory::{AheadBuffer, AheadMemory};
use super::arrays::{Span, UploadType};
use super::stream_context::CudaStreamContext;
use crate::backend::{Pixels, PixelsAhead};

/// Pixels in a buffer, which returns to its home after use.
struct Uploaded {
    buffer: Option<AheadBuffer>,
    home: Arc<Mutex<AheadMemory>>,
}

impl Drop for Uploaded {
    fn drop(&mut self) {
        let state = self
            .buffer
            .take()
            .map_or_else(AheadMemory::default, AheadMemory::Free);
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

impl CudaStreamContext {
    /// Uploads `pixels` in the type `T` while this stream computes. `None` if other pixels are waiting for their pass, or there is no memory.
    pub(super) fn upload_ahead<T: UploadType>(&self, pixels: Pixels<'_>) -> Option<PixelsAhead> {
        let state = {
            let mut home = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *home, AheadMemory::Taken)
        };
        let mut uploaded = match state {
            AheadMemory::Taken => return None,
            AheadMemory::Unallocated => None,
            AheadMemory::Free(buffer) => Some(buffer),
        };
        let mut handle = Uploaded {
            buffer: None,
            home: self.ahead.clone(),
        };
        match self.fill_ahead::<T>(&mut uploaded, pixels) {
            Ok(()) => {
                handle.buffer = uploaded;
                Some(Box::new(handle))
            }
            Err(error) => {
                tracing::debug!(%error, "pixels cannot be uploaded ahead");
                None
            }
        }
    }

    fn fill_ahead<T: UploadType>(
        &self,
        buffer: &mut Option<AheadBuffer>,
        Pixels { parts, shape }: Pixels<'_>,
    ) -> Result<()> {
        let values = shape.iter().product();
        if buffer
            .as_ref()
            .is_none_or(|buffer| buffer.pixels.elem_count() < values)
        {
            *buffer = None;
            // Carried negatives change the number of images from step to step.
            let pixels = self.scratch::<T>(values + values / 4)?;
            // New memory is there for other streams only when this one has come to its allocation.
            self.upload_stream.join(&self.stream).w()?;
            *buffer = Some(AheadBuffer {
                pixels,
                uploaded: self.upload_stream.record_event(None).w()?,
                copied: None,
            });
        }
        let Some(AheadBuffer {
            pixels,
            uploaded,
            copied,
        }) = buffer
        else {
            candle_core::bail!("no memory for pixels ahead")
        };
        if let Some(copied) = copied.take() {
            self.upload_stream.wait(&copied).w()?;
        }
        let target = self.span::<T>(pixels)?.first(values);
        let result = self.upload_on(&self.upload_stream, parts, target);
        *uploaded = self.upload_stream.record_event(None).w()?;
        result
    }

    /// Fills `target` with `pixels`, from the GPU's memory if they were uploaded `ahead`.
    pub(super) fn fill_pixels<T: UploadType>(
        &self,
        pixels: Pixels<'_>,
        ahead: Option<PixelsAhead>,
        target: Span<'_, T>,
    ) -> Result<()> {
        let ahead = ahead.and_then(|ahead| ahead.downcast::<Uploaded>().ok());
        let Some(mut ahead) = ahead else {
            return self.upload_to(pixels.parts, target);
        };
        let buffer = ahead.buffer.as_mut();
        let Some(buffer) = buffer.filter(|buffer| buffer.pixels.elem_count() >= target.len) else {
            return self.upload_to(pixels.parts, target);
        };
        let from = self.span::<T>(&buffer.pixels)?.first(target.len);
        self.stream.wait(&buffer.uploaded).w()?;
        let bytes = from.len * size_of::<T>();
        self.stream.context().bind_to_thread().w()?;
        // SAFETY: both hold as many values; the next upload to the buffer waits for `copied`.
        unsafe { result::memcpy_dtod_async(target.at, from.at, bytes, self.stream.cu_stream()) }
            .w()?;
        buffer.copied = Some(self.stream.record_event(None).w()?);
        Ok(())
    }
}
