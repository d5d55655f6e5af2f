//! Pinned pages of the host's memory, through which values are uploaded.
#![allow(unsafe_code)]

use std::sync::Arc;

use candle_core::Result;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaStream, DriverError, PinnedHostSlice, result,
};
use rayon::prelude::*;

use super::arrays::{Span, UploadType};

/// Floats in a page: 2 MiB, which take some 40 µs on the bus.
const PAGE: usize = 1 << 19;
/// Values that a thread copies at once.
const PIECE: usize = 1 << 15;

/// Three pages, one filled while the others are copied.
pub(super) struct PinnedStaging([Page; 3]);

struct Page {
    memory: PinnedHostSlice<f32>,
    /// The end of the last copy from this page.
    copied: Option<CudaEvent>,
}

impl PinnedStaging {
    pub(super) fn new(stream: &CudaStream) -> std::result::Result<Self, DriverError> {
        let page = || {
            // Cached memory: write-combined memory is neither filled nor copied faster.
            // SAFETY: only read where it has been written before.
            let memory = unsafe { stream.context().alloc_pinned_with_flags(PAGE, 0) }?;
            Ok(Page {
                memory,
                copied: None,
            })
        };
        Ok(Self([page()?, page()?, page()?]))
    }

    /// Copies the concatenation of `parts` to `target` in its type. The rest of `target` becomes zero. Returns before the copy ends.
    pub(super) fn upload<T: UploadType>(
        &mut self,
        stream: &Arc<CudaStream>,
        parts: &[&[f32]],
        target: Span<'_, T>,
    ) -> Result<()> {
        let values: usize = parts.iter().map(|part| part.len()).sum();
        debug_assert!(values <= target.len);
        let mut pieces = parts.iter().flat_map(|part| part.chunks(PIECE)).peekable();
        let (mut done, mut number) = (0, 0);
        while pieces.peek().is_some() {
            let Page { memory, copied } = &mut self.0[number % 3];
            if let Some(copied) = copied.take() {
                copied.synchronize().w()?;
            }
            // SAFETY: as many bytes at least, aligned for floats, and any bits are a `T`.
            let values = unsafe {
                let start = memory.as_mut_ptr().w()?.cast::<T>();
                std::slice::from_raw_parts_mut(start, PAGE * size_of::<f32>() / size_of::<T>())
            };
            let (mut rest, mut copies) = (&mut *values, Vec::new());
            while let Some(piece) = pieces.next_if(|piece| piece.len() <= rest.len()) {
                let (to, after) = rest.split_at_mut(piece.len());
                copies.push((piece, to));
                rest = after;
            }
            let count: usize = copies.iter().map(|(piece, _)| piece.len()).sum();
            match &mut copies[..] {
                [(piece, to)] => T::copy(piece, to),
                // One thread copies more slowly than the bus.
                _ => copies
                    .into_par_iter()
                    .for_each(|(piece, to)| T::copy(piece, to)),
            }
            let to = target.at + (done * size_of::<T>()) as u64;
            stream.context().bind_to_thread().w()?;
            // SAFETY: the target holds as many values, and the page is not written before `copied` has passed.
            unsafe { result::memcpy_htod_async(to, &values[..count], stream.cu_stream()) }.w()?;
            *copied = Some(stream.record_event(None).w()?);
            (done, number) = (done + count, number + 1);
        }
        if values < target.len {
            let (at, bytes) = (
                target.at + (values * size_of::<T>()) as u64,
                (target.len - values) * size_of::<T>(),
            );
            stream.context().bind_to_thread().w()?;
            // SAFETY: it is the rest of the target; zero bytes are zeros of each type.
            unsafe { result::memset_d8_async(at, 0, bytes, stream.cu_stream()) }.w()?;
        }
        Ok(())
    }
}
