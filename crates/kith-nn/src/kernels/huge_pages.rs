//! Memory on huge pages, for arrays that are read from end to end again and again: with small pages the processor looks up an address
//! every 4 KiB.

use std::marker::PhantomData;
use std::ops::Deref;

use memmap2::MmapMut;
use pulp::bytemuck::{Pod, cast_slice, cast_slice_mut};

/// Bytes of a huge page (x86-64 and most others).
const HUGE_PAGE: usize = 2 << 20;

/// A slice of fixed length in pages of its own.
pub(crate) struct HugePages<T> {
    map: MmapMut,
    /// Bytes of the values.
    len: usize,
    values: PhantomData<T>,
}

impl<T: Pod> HugePages<T> {
    /// A copy of `values`, which must not be empty.
    pub(super) fn from_slice(values: &[T]) -> Self {
        let bytes = size_of_val(values);
        // The system aligns a mapping to huge pages only if its length is a multiple of theirs.
        let whole = if bytes < HUGE_PAGE {
            bytes
        } else {
            bytes.next_multiple_of(HUGE_PAGE)
        };
        let mut map = MmapMut::map_anon(whole).expect("memory for packed weights");
        // A system without huge pages refuses; small ones work as well.
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

impl<T: Pod> Deref for HugePages<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        cast_slice(&self.map[..self.len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_any_length_equals_its_source() {
        for len in [1, 1_000, 1_000_000] {
            // None is 0, which a new mapping holds already.
            let values: Vec<f32> = (1..=len).map(|i| i as f32).collect();
            assert_eq!(*HugePages::from_slice(&values), *values);
        }
    }
}
