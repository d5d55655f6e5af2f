#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

/// Mixes several words, such as (seed, step, purpose), into one 64-bit seed. Lists that differ in any word or in their length give unrelated
/// seeds. The mixer is SplitMix64's finaliser (Steele, Lea & Flood 2014).
pub fn mix(words: &[u64]) -> u64 {
    words.iter().fold(0x9e37_79b9_7f4a_7c15, |state, word| {
        let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// A number in [0, 1) from a seed, with as many bits as an `f64` holds exactly.
pub fn unit(seed: u64) -> f64 {
    (seed >> 11) as f64 / (1_u64 << 53) as f64
}
