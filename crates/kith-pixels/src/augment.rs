//! Augmented views for training: SimCLR's recipe (Chen et al. 2020, appendix A), and what happens to images that users post. One seed
//! determines every random choice.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    AugmentConfig, DecodedImage,
    affine::Affine,
    background, blur, jitter, outline, palette, recompress,
    resize::{Crop, normalise_unit},
    view::View,
};

/// One augmented view of an image: f32 `[side, side, 3]`, normalised as for ImageNet, fully determined by `seed`.
///
/// The operations follow each other in the order crop, affine change, outline, background, flip, palette shift, colour jitter, greyscale,
/// posterising, blur, JPEG. Crop, flip, jitter, greyscale and blur are SimCLR's (Chen et al. 2020, appendix A). The image's alpha is read if
/// [`AugmentConfig::uses_alpha`]; without, what is transparent is white.
///
/// # Panics
/// If `image` does not have as many bytes as its size asks for.
pub fn augment(image: &DecodedImage, side: usize, config: &AugmentConfig, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut view = placed(image, side, config, &mut random);
    if sometimes(config.outline, &mut random) {
        let cut_out = image.alpha.is_some();
        outline::draw(&mut view, cut_out, config.outline_width, &mut random);
    }
    if sometimes(config.background, &mut random) {
        background::lay(&mut view, config.background_texture, &mut random);
    }
    let mut pixels = view.pixels;
    if chance(config.flip, &mut random) {
        pixels.chunks_exact_mut(side).for_each(<[_]>::reverse);
    }
    recolour(&mut pixels, config, &mut random);
    if chance(config.blur, &mut random) {
        let deviation = random.random_range(0.1..2.0);
        blur::blur(&mut pixels, side, deviation);
    }
    if sometimes(config.jpeg, &mut random) {
        let [lowest, highest] = config.jpeg_quality;
        recompress::recompress(&mut pixels, side, random.random_range(lowest..=highest));
    }
    normalise_unit(&mut pixels);
    pixels.into_flattened()
}

/// Crops, and turns, scales, shifts and shears the crop.
fn placed(
    image: &DecodedImage,
    side: usize,
    config: &AugmentConfig,
    random: &mut ChaCha8Rng,
) -> View {
    let crop = random_crop(image, config.crop_min_area, random);
    if sometimes(config.affine, random) {
        Affine::random(config, random).view(image, crop, side, config.uses_alpha())
    } else {
        View::cropped(image, crop, side, config.uses_alpha())
    }
}

/// Changes colours: palette, jitter, greyscale, levels.
fn recolour(pixels: &mut [[f32; 3]], config: &AugmentConfig, random: &mut ChaCha8Rng) {
    if sometimes(config.palette, random) {
        palette::shift(pixels, config.palette_strength, random);
    }
    if chance(config.jitter, random) {
        jitter::jitter(pixels, config.jitter_strength, random);
    }
    if chance(config.greyscale, random) {
        jitter::drop_colour(pixels);
    }
    if sometimes(config.posterise, random) {
        let [fewest, most] = config.posterise_levels;
        palette::posterise(pixels, random.random_range(fewest..=most));
    }
}

fn chance(probability: f32, random: &mut ChaCha8Rng) -> bool {
    random.random::<f32>() < probability
}

/// As [`chance`], but takes no random number at 0: a setting that is off leaves the choices of the others as they were without it.
fn sometimes(probability: f32, random: &mut ChaCha8Rng) -> bool {
    probability > 0.0 && chance(probability, random)
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
