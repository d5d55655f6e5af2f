//! The numbers that the scripts of this folder and the tests both compute: `golden.py` has the same formula.

/// Uniform in [−1, 1), from the hash of (stream, index).
pub(crate) fn values(stream: u32, count: usize) -> Vec<f32> {
    let value = |index| (f64::from(hash(stream, index) >> 8) / f64::from(1 << 23) - 1.0) as f32;
    (0..count as u32).map(value).collect()
}

/// The hash of (stream, index).
pub(crate) fn hash(stream: u32, index: u32) -> u32 {
    let mut z = index.wrapping_add(stream.wrapping_mul(0x9e37_79b9));
    z = (z ^ (z >> 16)).wrapping_mul(0x7feb_352d);
    z = (z ^ (z >> 15)).wrapping_mul(0x846c_a68b);
    z ^ (z >> 16)
}
