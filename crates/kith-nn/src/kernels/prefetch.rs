//! Asking for memory before it is read.
//! Must never know: what is there.
#![allow(unsafe_code)]

/// Bytes in a line of the cache.
pub(super) const LINE: usize = 64;

/// Has the line with `values[index]` brought to the second-level cache. `index` may lie behind the end: then nothing comes of it.
///
/// Not to the first: what it waits for is fewer than memory could deliver, and panels are larger than it is.
#[inline(always)]
pub(super) fn prefetch<T>(values: &[T], index: usize) {
    let place = values.as_ptr().wrapping_add(index);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing, and no address makes it fail.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(place.cast());
    }
    // Elsewhere the processor finds the stream by itself.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
