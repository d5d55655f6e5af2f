//! Weights in the order that kernels read them, in 32 bits each or, for serving, in 16.
//! Must never know: which layer they belong to.

use pulp::Simd;

use super::pages::Pages;
use super::scratch::put;
use super::tile::panel_width;
use crate::Precision;

/// Packed weights.
pub(crate) enum Packed {
    /// As they are, for one use.
    Once(Vec<f32>),
    /// As they are, for many.
    Full(Pages<f32>),
    /// As bf16, two in a word: the lanes of the second vector of a panel's row below those of the first.
    Half(Pages<u32>),
}

impl Drop for Packed {
    fn drop(&mut self) {
        if let Self::Once(values) = self {
            put(std::mem::take(values));
        }
    }
}

/// [`Packed`] weights from some place on.
#[derive(Clone, Copy)]
pub(crate) enum Panels<'a> {
    Full(&'a [f32]),
    Half(&'a [u32]),
}

impl Packed {
    /// `values` for many uses, read in `precision`.
    pub(crate) fn lasting(values: Vec<f32>, precision: Precision) -> Self {
        let packed = match precision {
            Precision::F32 => Self::Full(Pages::of(&values)),
            Precision::Bf16 => Self::half(&values),
        };
        put(values);
        packed
    }

    /// `values` in half the memory.
    fn half(values: &[f32]) -> Self {
        let words = values.chunks_exact(panel_width()).flat_map(|row| {
            let (first, second) = row.split_at(panel_width() / 2);
            let both = first.iter().zip(second);
            both.map(|(first, second)| bf16(*first) << 16 | bf16(*second))
        });
        Self::Half(Pages::of(&words.collect::<Vec<_>>()))
    }

    /// To be read by kernels.
    pub(crate) fn panels(&self) -> Panels<'_> {
        match self {
            Self::Once(values) => Panels::Full(values),
            Self::Full(values) => Panels::Full(values),
            Self::Half(words) => Panels::Half(words),
        }
    }
}

/// The nearest of the numbers that have the upper 16 bits only, the even one of two; what is not finite stays so.
fn bf16(value: f32) -> u32 {
    let bits = value.to_bits();
    if value.is_nan() {
        return bits >> 16 | 1;
    }
    let tie_to_even = bits >> 16 & 1;
    bits.wrapping_add(0x7fff + tie_to_even) >> 16
}

impl Panels<'_> {
    /// From a place on that many weights further, which must be whole rows of a panel.
    pub(super) fn skip(self, weights: usize) -> Self {
        match self {
            Self::Full(values) => Self::Full(&values[weights..]),
            Self::Half(words) => Self::Half(&words[weights / 2..]),
        }
    }
}

/// How a row of a panel, two vectors, lies in memory.
pub(super) trait Words {
    type Value;
    /// Vectors of memory in a row.
    const VECTORS: usize;
    type Vector<S: Simd>: Copy;
    fn vectors<S: Simd>(values: &[Self::Value]) -> &[Self::Vector<S>];
    /// A row from its vectors of memory.
    fn row<S: Simd>(simd: S, vectors: &[Self::Vector<S>]) -> [S::f32s; 2];
}

/// One weight in a word.
pub(super) struct Full;
/// Two weights in a word.
pub(super) struct Half;

impl Words for Full {
    type Value = f32;
    const VECTORS: usize = 2;
    type Vector<S: Simd> = S::f32s;

    #[inline(always)]
    fn vectors<S: Simd>(values: &[f32]) -> &[S::f32s] {
        S::as_simd_f32s(values).0
    }

    #[inline(always)]
    fn row<S: Simd>(_: S, vectors: &[S::f32s]) -> [S::f32s; 2] {
        [vectors[0], vectors[1]]
    }
}

impl Words for Half {
    type Value = u32;
    const VECTORS: usize = 1;
    type Vector<S: Simd> = S::u32s;

    #[inline(always)]
    fn vectors<S: Simd>(words: &[u32]) -> &[S::u32s] {
        S::as_simd_u32s(words).0
    }

    #[inline(always)]
    fn row<S: Simd>(simd: S, vectors: &[S::u32s]) -> [S::f32s; 2] {
        let upper = simd.and_u32s(vectors[0], simd.splat_u32s(0xffff_0000));
        let lower = simd.wrapping_dyn_shl_u32s(vectors[0], simd.splat_u32s(16));
        [upper, lower].map(|bits| simd.transmute_f32s_u32s(bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_the_nearest_numbers_and_keep_what_is_not_finite() {
        let back = |value: f32| f32::from_bits(bf16(value) << 16);
        for value in [0.0, -0.0, 1.0, -2.5, 2.0_f32.powi(-100), f32::INFINITY] {
            assert_eq!(back(value).to_bits(), value.to_bits());
        }
        assert!(back(f32::NAN).is_nan());
        // 1 + 2⁻⁸ lies between 1 and 1 + 2⁻⁷, whose last bit is odd.
        assert_eq!(back(1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(back(1.0 + 3.0 / 256.0), 1.0 + 2.0 / 128.0);
        assert_eq!(back(1.0 + 1.1 / 256.0), 1.0 + 1.0 / 128.0);
    }
}
