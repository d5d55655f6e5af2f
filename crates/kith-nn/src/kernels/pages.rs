//! Memory on large pages, for what is read from end to end again and again: with small ones every 4 KiB waits for the
//! processor to look up where they lie.
//! Must never know: what it holds.

use std::marker::PhantomData;
use std::ops::Deref;

use memmap2::MmapMut;
use pulp::bytemuck::{Pod, cast_slice, cast_slice_mut};

/// Bytes of a large page (x86-64, and most others).
const LARGE: usize = 2 << 20;

/// A fixed slice in pages of its own.
pub(crate) struct Pages<T> {
    map: MmapMut,
    /// Bytes of the values.
    len: usize,
    values: PhantomData<T>,
}

impl<T: Pod> Pages<T> {
    /// A copy of `values`, of which there is at least one.
    pub(super) fn of(values: &[T]) -> Self {
        let bytes = size_of_val(values);
        // Only where it takes whole large pages does a mapping start where one can start.
        let whole = if bytes < LARGE {
            bytes
        } else {
            bytes.next_multiple_of(LARGE)
        };
        let mut map = MmapMut::map_anon(whole).expect("memory for packed weights");
        // A system without large pages refuses, and small ones serve as well.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        cast_slice_mut(&mut map[..bytes]).copy_from_slice(values);
        Self {
            map,
            len: bytes,
            values: PhantomData,
        }
    }
}

impl<T: Pod> Deref for Pages<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        cast_slice(&self.map[..self.len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_back_whatever_its_length() {
        for len in [1, 1_000, 1_000_000] {
            // None is 0, which a fresh mapping holds already.
            let values: Vec<f32> = (1..=len).map(|i| i as f32).collect();
            assert_eq!(*Pages::of(&values), *values);
        }
    }
}
