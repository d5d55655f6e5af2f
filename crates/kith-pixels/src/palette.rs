//! Changes of the palette beyond jitter: other hues, exchanged channels, few levels.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::jitter::turn_hue;

/// The orders of the channels that leave none or only one in its place.
const ORDERS: [[usize; 3]; 5] = [[0, 2, 1], [1, 0, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]];

/// Turns the hue by up to `strength` of half the colour circle, or mixes in up to `strength` of the image with its channels in another order.
pub(super) fn shift(pixels: &mut [[f32; 3]], strength: f32, random: &mut ChaCha8Rng) {
    if random.random::<bool>() {
        let turns = 0.5 * strength * (2.0 * random.random::<f32>() - 1.0);
        return turn_hue(pixels, turns);
    }
    let order = ORDERS[random.random_range(0..ORDERS.len())];
    let share = strength * random.random::<f32>();
    for pixel in pixels {
        *pixel = std::array::from_fn(|channel| {
            pixel[channel] * (1.0 - share) + pixel[order[channel]] * share
        });
    }
}

/// Rounds every channel to one of `levels` values (2 at least) from 0 to 1.
pub(super) fn posterise(pixels: &mut [[f32; 3]], levels: u8) {
    let steps = f32::from(levels - 1);
    for pixel in pixels {
        *pixel = pixel.map(|value| (value * steps).round() / steps);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_palette_shift_of_no_strength_changes_nothing_and_grey_stays_grey() {
        for seed in 0..20 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let before = [[0.2, 0.7, 0.4], [0.5; 3]];
            let mut pixels = before;
            shift(&mut pixels, 0.0, &mut random);
            // Rounding of the conversion to a hue and back.
            let close =
                |a: &[f32; 3], b: &[f32; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(close(&pixels[0], &before[0]), "{pixels:?}");
            shift(&mut pixels, 1.0, &mut random);
            assert!(close(&pixels[1], &before[1]), "{pixels:?}");
            assert!(!close(&pixels[0], &before[0]), "{pixels:?}");
        }
    }

    #[test]
    fn a_posterised_channel_has_the_levels_that_were_asked_for() {
        let mut pixels: Vec<[f32; 3]> = (0..=255).map(|value| [value as f32 / 255.0; 3]).collect();
        posterise(&mut pixels, 5);
        let mut values: Vec<f32> = pixels.iter().map(|pixel| pixel[0]).collect();
        values.dedup();
        assert_eq!(values, [0.0, 0.25, 0.5, 0.75, 1.0]);
    }
}
