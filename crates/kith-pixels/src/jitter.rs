//! Colour jitter and greyscale as torchvision defines them, on values in 0–1.

use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Weights of red, green and blue in luma (ITU-R BT.601).
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// Changes brightness, contrast, saturation and hue in random order, each by a factor (hue: by a shift) that is uniform in its range.
pub(super) fn jitter(pixels: &mut [[f32; 3]], strength: [f32; 4], random: &mut ChaCha8Rng) {
    let mut order = [0, 1, 2, 3];
    order.shuffle(random);
    for which in order {
        let change = strength[which] * (2.0 * random.random::<f32>() - 1.0);
        if change == 0.0 {
            continue;
        }
        let factor = (1.0 + change).max(0.0);
        match which {
            0 => each(pixels, |pixel| pixel.map(|value| value * factor)),
            1 => {
                let mean = pixels.iter().map(luma).sum::<f32>() / pixels.len() as f32;
                each(pixels, |pixel| blend(pixel, mean, factor));
            }
            2 => each(pixels, |pixel| blend(pixel, luma(&pixel), factor)),
            _ => turn_hue(pixels, change),
        }
    }
}

/// Sets every channel to the luma.
pub(super) fn drop_colour(pixels: &mut [[f32; 3]]) {
    each(pixels, |pixel| [luma(&pixel); 3]);
}

/// Turns every hue by `turns` of the colour circle; value and saturation stay (HSV).
pub(super) fn turn_hue(pixels: &mut [[f32; 3]], turns: f32) {
    let sixths = sixths(turns);
    each(pixels, |pixel| shift_hue(pixel, sixths));
}

fn each(pixels: &mut [[f32; 3]], change: impl Fn([f32; 3]) -> [f32; 3]) {
    for pixel in pixels {
        *pixel = change(*pixel).map(|value| value.clamp(0.0, 1.0));
    }
}

/// The brightness of a colour, in 0–1.
pub(super) fn luma(pixel: &[f32; 3]) -> f32 {
    pixel
        .iter()
        .zip(LUMA)
        .map(|(value, weight)| value * weight)
        .sum()
}

/// `pixel` · factor + `other` · (1 − factor).
fn blend(pixel: [f32; 3], other: f32, factor: f32) -> [f32; 3] {
    pixel.map(|value| value * factor + other * (1.0 - factor))
}

/// `turns` of the colour circle as sixths of it, in 0–6.
fn sixths(turns: f32) -> f32 {
    6.0 * turns.rem_euclid(1.0)
}

/// `sixths` modulo 6 for values below 12: the general remainder takes longer than the rest of the conversion.
fn around(sixths: f32) -> f32 {
    if sixths >= 6.0 { sixths - 6.0 } else { sixths }
}

/// Turns the hue by `sixths` of the colour circle (0–6); value and saturation stay (HSV).
fn shift_hue(pixel: [f32; 3], sixths: f32) -> [f32; 3] {
    let [red, green, blue] = pixel;
    let largest = red.max(green).max(blue);
    let range = largest - red.min(green).min(blue);
    if range == 0.0 {
        return pixel;
    }
    let sixth = if largest == red {
        (green - blue) / range
    } else if largest == green {
        (blue - red) / range + 2.0
    } else {
        (red - green) / range + 4.0
    };
    let hue = around(around(sixth + 6.0) + sixths);
    // Each channel lies below the largest value by its distance to the hue, as a trapezium of period 6.
    let channel = |offset: f32| {
        let place = around(offset + hue);
        largest - range * place.min(4.0 - place).clamp(0.0, 1.0)
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_a_turn_makes_red_green_and_a_whole_turn_changes_nothing() {
        let close = |a: [f32; 3], b: [f32; 3]| {
            // Rounding of a handful of f32 operations on values up to 6.
            a.iter()
                .zip(b)
                .for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} is not {b}"));
        };
        close(
            shift_hue([1.0, 0.0, 0.0], sixths(1.0 / 3.0)),
            [0.0, 1.0, 0.0],
        );
        close(
            shift_hue([1.0, 0.0, 0.0], sixths(-1.0 / 3.0)),
            [0.0, 0.0, 1.0],
        );
        for pixel in [[0.2, 0.7, 0.4], [0.9, 0.1, 0.3], [0.1, 0.3, 0.8]] {
            close(shift_hue(pixel, sixths(1.0)), pixel);
            close(
                shift_hue(shift_hue(pixel, sixths(0.2)), sixths(-0.2)),
                pixel,
            );
        }
    }

    #[test]
    fn a_grey_pixel_has_no_hue_to_shift_and_its_own_luma() {
        assert_eq!(shift_hue([0.5; 3], sixths(0.3)), [0.5; 3]);
        let mut pixels = [[0.2, 0.4, 0.6]];
        drop_colour(&mut pixels);
        // 0.299 · 0.2 + 0.587 · 0.4 + 0.114 · 0.6, rounded in f32.
        assert!((pixels[0][0] - 0.363).abs() < 1e-6);
    }
}
