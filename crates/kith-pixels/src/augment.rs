//! Augmented views for training: SimCLR's recipe (Chen et al. 2020, appendix A). One seed determines every random choice.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{
    DecodedImage, blur, jitter,
    resize::{Crop, normalise_unit, scale},
};

/// Probabilities and ranges of the training augmentation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentConfig {
    /// Smallest share of the image's area that a random crop keeps (largest is 1).
    pub crop_min_area: f32,
    /// Probability of a horizontal flip.
    pub flip: f32,
    /// Probability of colour jitter.
    pub jitter: f32,
    /// Ranges of colour jitter: brightness, contrast, saturation, hue (the last at most 0.5).
    pub jitter_strength: [f32; 4],
    /// Probability of dropping colour.
    pub greyscale: f32,
    /// Probability of a Gaussian blur (σ uniform in 0.1–2 pixels, kernel 10 % of the side).
    pub blur: f32,
}

/// One augmented view of an image: f32 `[side, side, 3]`, normalised as for ImageNet, fully determined by `seed`.
///
/// Crop, flip, colour jitter, greyscale and blur follow each other as in SimCLR (Chen et al. 2020, appendix A).
pub fn augment(image: &DecodedImage, side: usize, config: &AugmentConfig, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let crop = random_crop(image, config.crop_min_area, &mut random);
    let mut pixels: Vec<[f32; 3]> = scale(image, crop, side)
        .chunks_exact(3)
        .map(|rgb| [rgb[0], rgb[1], rgb[2]].map(|byte| f32::from(byte) / 255.0))
        .collect();
    if chance(config.flip, &mut random) {
        pixels.chunks_exact_mut(side).for_each(<[_]>::reverse);
    }
    if chance(config.jitter, &mut random) {
        jitter::jitter(&mut pixels, config.jitter_strength, &mut random);
    }
    if chance(config.greyscale, &mut random) {
        jitter::drop_colour(&mut pixels);
    }
    if chance(config.blur, &mut random) {
        let deviation = random.random_range(0.1..2.0);
        blur::blur(&mut pixels, side, deviation);
    }
    normalise_unit(&mut pixels);
    pixels.into_flattened()
}

fn chance(probability: f32, random: &mut ChaCha8Rng) -> bool {
    random.random::<f32>() < probability
}

/// A random rectangle inside the image: its area is uniform in [`min_area`, 1] of the image's, its aspect ratio log-uniform in 3/4–4/3.
/// After ten rectangles that do not fit (a very long image) it is the largest centred square.
fn random_crop(image: &DecodedImage, min_area: f32, random: &mut ChaCha8Rng) -> Crop {
    let (width, height) = (f64::from(image.width), f64::from(image.height));
    let largest_ratio = (4.0_f64 / 3.0).ln();
    for _ in 0..10 {
        let area = width
            * height
            * (f64::from(min_area) + (1.0 - f64::from(min_area)) * random.random::<f64>());
        let ratio = (largest_ratio * (2.0 * random.random::<f64>() - 1.0)).exp();
        let (wide, high) = ((area * ratio).sqrt(), (area / ratio).sqrt());
        if wide <= width && high <= height {
            return Crop {
                left: (width - wide) * random.random::<f64>(),
                top: (height - high) * random.random::<f64>(),
                width: wide,
                height: high,
            };
        }
    }
    let edge = width.min(height);
    Crop::centred(image, edge, edge)
}
