//! Initial weights that train without BatchNorm.
//!
//! Layers before a ReLU follow He et al. 2015. The last convolution of each block starts at zero, so that a block begins as its shortcut and
//! activations keep their size at any depth (Zhang, Dauphin & Ma 2019). The projection, which has no ReLU, follows Glorot & Bengio 2010; its
//! parts that read places start at zero. `whitening_stem.rs` has another stem.

use std::f64::consts::TAU;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::architecture::{BLOCKS, FIRST_PLACES, LayerSpec, PROJECTION};
use kith_seed::mix;

/// Initial weights of layer number `place`: `[kernel, kernel, inputs, outputs]`. Biases start at zero.
pub(super) fn weights(seed: u64, place: usize, spec: &LayerSpec) -> Vec<f32> {
    let count = spec.conv.weights();
    if place >= FIRST_PLACES || BLOCKS.iter().any(|block| block.second == place) {
        return vec![0.0; count];
    }
    let inputs = count / spec.conv.outputs;
    let variance = if place == PROJECTION {
        2.0 / (inputs + spec.conv.outputs) as f64
    } else {
        2.0 / inputs as f64
    };
    let mut random = ChaCha8Rng::seed_from_u64(mix(&[seed, place as u64]));
    (0..count)
        .map(|_| (variance.sqrt() * normal(&mut random)) as f32)
        .collect()
}

/// A sample of N(0, 1) by the Box–Muller transform.
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let mut uniform = || (random.next_u32() as f64 + 0.5) / (1u64 << 32) as f64;
    (-2.0 * uniform().ln()).sqrt() * (TAU * uniform()).cos()
}
