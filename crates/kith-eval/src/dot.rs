//! The dot product of two rows.

/// Σ a · b, summed from left to right in `f32`.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
