//! Pinned pages of the host's memory, through which values travel to the GPU. Must never know: what they are.
#![allow(unsafe_code)]

use std::sync::Arc;

use candle_core::Result;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaStream, DriverError, PinnedHostSlice, result,
};
use rayon::prelude::*;

use super::arrays::{Span, Wire};

/// Floats in a page: 2 MiB, some 40 microseconds on the bus.
const PAGE: usize = 1 << 19;
/// Values that a thread copies at once.
const PIECE: usize = 1 << 15;

/// Pages, one filled while the others leave.
pub(super) struct Pages([Page; 3]);

struct Page {
    memory: PinnedHostSlice<f32>,
    /// Passed when the last copy has left it.
    left: Option<CudaEvent>,
}

impl Pages {
    pub(super) fn new(stream: &CudaStream) -> std::result::Result<Self, DriverError> {
        let page = || {
            // Cached: whether it is makes no difference to how fast it is filled and leaves.
            // SAFETY: only ever read where it has been written before.
            let memory = unsafe { stream.context().alloc_pinned_with_flags(PAGE, 0) }?;
            Ok(Page { memory, left: None })
        };
        Ok(Self([page()?, page()?, page()?]))
    }

    /// Copies `parts`, one after the other, to `target`, whose type they take on the way; the rest of it becomes zero. Returns before the
    /// last has left.
    pub(super) fn upload<T: Wire>(
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
            let Page { memory, left } = &mut self.0[number % 3];
            if let Some(left) = left.take() {
                left.synchronize().w()?;
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
            // SAFETY: the target holds as many values, and the page is not written before `left` has passed.
            unsafe { result::memcpy_htod_async(to, &values[..count], stream.cu_stream()) }.w()?;
            *left = Some(stream.record_event(None).w()?);
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
