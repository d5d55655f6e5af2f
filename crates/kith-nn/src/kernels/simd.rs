//! Loads and stores of at most two vectors, and the width of a packed panel on this processor.

use pulp::{Arch, Simd, WithSimd};

/// Columns in a packed panel: two vectors of this processor.
pub(super) fn panel_width() -> usize {
    struct Width;
    impl WithSimd for Width {
        type Output = usize;
        fn with_simd<S: Simd>(self, _: S) -> usize {
            2 * S::F32_LANES
        }
    }
    Arch::new().dispatch(Width)
}

/// Loads at most one vector. Missing lanes are 0.
#[inline(always)]
pub(super) fn load<S: Simd>(simd: S, from: &[f32]) -> S::f32s {
    match S::as_simd_f32s(from).0 {
        [whole, ..] => *whole,
        [] => simd.partial_load_f32s(from),
    }
}

/// Stores at most one vector.
#[inline(always)]
pub(super) fn store<S: Simd>(simd: S, value: S::f32s, to: &mut [f32]) {
    if to.len() < S::F32_LANES {
        simd.partial_store_f32s(to, value);
    } else if let [whole, ..] = S::as_mut_simd_f32s(to).0 {
        *whole = value;
    }
}

/// Loads at most two vectors. Missing lanes are 0.
#[inline(always)]
pub(super) fn load_two<S: Simd>(simd: S, from: &[f32]) -> [S::f32s; 2] {
    if from.len() <= S::F32_LANES {
        return [load(simd, from), simd.splat_f32s(0.0)];
    }
    let (first, second) = from.split_at(S::F32_LANES);
    [load(simd, first), load(simd, second)]
}

/// Stores at most two vectors.
#[inline(always)]
pub(super) fn store_two<S: Simd>(simd: S, values: [S::f32s; 2], to: &mut [f32]) {
    if to.len() <= S::F32_LANES {
        return store(simd, values[0], to);
    }
    let (first, second) = to.split_at_mut(S::F32_LANES);
    store(simd, values[0], first);
    store(simd, values[1], second);
}
