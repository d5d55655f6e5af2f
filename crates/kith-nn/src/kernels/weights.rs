//! Weights packed in the order in which the kernels read them, with 32 bits each or, for serving, 16.

use pulp::Simd;

use super::huge_pages::HugePages;
use super::scratch::put;
use super::simd::panel_width;
use crate::Precision;

/// Packed weights.
pub(crate) enum Packed {
    /// In 32 bits, for one use.
    Temporary(Vec<f32>),
    /// In 32 bits, for many uses.
    F32(HugePages<f32>),
    /// In bf16, two in a word: the upper half holds a lane of the first vector of a panel's row, the lower half that of the second.
    Bf16(HugePages<u32>),
}

impl Drop for Packed {
    fn drop(&mut self) {
        if let Self::Temporary(values) = self {
            put(std::mem::take(values));
        }
    }
}

/// A view of [`Packed`] weights, from the start of some row on.
#[derive(Clone, Copy)]
pub(crate) enum Panels<'a> {
    F32(&'a [f32]),
    Bf16(&'a [u32]),
}

impl Packed {
    /// Packed `values` for many uses, rounded to `precision`. The buffer is not kept for others: packing is rare, and the largest has 17 MB.
    pub(crate) fn with_precision(values: &[f32], precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32(HugePages::from_slice(values)),
            Precision::Bf16 => Self::bf16(values),
        }
    }

    /// `values` rounded to bf16.
    fn bf16(values: &[f32]) -> Self {
        let words = values.chunks_exact(panel_width()).flat_map(|row| {
            let (first, second) = row.split_at(panel_width() / 2);
            let both = first.iter().zip(second);
            both.map(|(first, second)| bf16(*first) << 16 | bf16(*second))
        });
        Self::Bf16(HugePages::from_slice(&words.collect::<Vec<_>>()))
    }

    /// All weights, as the kernels read them.
    pub(crate) fn panels(&self) -> Panels<'_> {
        match self {
            Self::Temporary(values) => Panels::F32(values),
            Self::F32(values) => Panels::F32(values),
            Self::Bf16(words) => Panels::Bf16(words),
        }
    }
}

/// The bits of the nearest bf16, ties to even. What is not finite stays so.
fn bf16(value: f32) -> u32 {
    let bits = value.to_bits();
    if value.is_nan() {
        return bits >> 16 | 1;
    }
    let tie_to_even = bits >> 16 & 1;
    bits.wrapping_add(0x7fff + tie_to_even) >> 16
}

impl Panels<'_> {
    /// The view without its first `weights`, which must be whole rows of a panel.
    pub(super) fn skip(self, weights: usize) -> Self {
        match self {
            Self::F32(values) => Self::F32(&values[weights..]),
            Self::Bf16(words) => Self::Bf16(&words[weights / 2..]),
        }
    }
}

/// How a row of a panel, two vectors of weights, is stored.
pub(super) trait PanelFormat {
    type Value;
    /// Stored vectors in a row.
    const VECTORS: usize;
    type Vector<S: Simd>: Copy;
    fn vectors<S: Simd>(values: &[Self::Value]) -> &[Self::Vector<S>];
    /// A row from its stored vectors.
    fn row<S: Simd>(simd: S, vectors: &[Self::Vector<S>]) -> [S::f32s; 2];
}

/// One weight in a word.
pub(super) struct F32Format;
/// Two weights in a word.
pub(super) struct Bf16Format;

impl PanelFormat for F32Format {
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

impl PanelFormat for Bf16Format {
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
    fn bf16_is_the_nearest_number_and_keeps_what_is_not_finite() {
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
