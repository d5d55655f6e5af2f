//! Prefetching memory into the cache.
#![allow(unsafe_code)]

/// Bytes in a line of the cache.
pub(super) const LINE: usize = 64;

/// Brings the line of `values[index]` to the second-level cache. An `index` past the end has no effect.
///
/// The first-level cache would not do: it allows fewer outstanding requests than memory can answer, and panels are larger than it is.
#[inline(always)]
pub(super) fn prefetch<T>(values: &[T], index: usize) {
    let place = values.as_ptr().wrapping_add(index);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing, and no address makes it fail.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(place.cast());
    }
    // Other processors detect the stream by themselves.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
