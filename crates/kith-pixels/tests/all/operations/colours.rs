//! Operations that change colours and leave everything where it is.

use std::collections::HashSet;

use kith_pixels::AugmentConfig;

use super::{SIDE, close, cut_out, inside, only, photo, view};

#[test]
fn a_palette_shift_keeps_shapes_and_changes_colours() {
    let image = cut_out();
    let config = only(|config| {
        config.palette = 1.0;
        config.palette_strength = 1.0;
    });
    let mut colours = HashSet::new();
    for seed in 0..20 {
        let pixels = view(&image, &config, seed);
        let colour = pixels[16 * SIDE + 16];
        for (place, pixel) in pixels.iter().enumerate() {
            match inside(place) {
                Some(true) => assert!(close(pixel, &colour)),
                Some(false) => assert!(close(pixel, &[1.0; 3])),
                None => {}
            }
        }
        colours.insert(colour.map(|value| (value * 255.0).round() as u8));
    }
    assert!(colours.len() > 15, "{colours:?}");
}

#[test]
fn posterising_leaves_as_many_levels_as_are_allowed() {
    let config = only(|config| {
        config.posterise = 1.0;
        config.posterise_levels = [3, 5];
    });
    let mut counts = HashSet::new();
    for seed in 0..20 {
        let pixels = view(&photo(), &config, seed);
        let levels: HashSet<u32> = pixels
            .iter()
            .map(|pixel| (pixel[0] * 1000.0).round() as u32)
            .collect();
        counts.insert(levels.len());
    }
    assert_eq!(counts, HashSet::from([3, 4, 5]));
}

#[test]
fn jpeg_changes_little_at_a_high_quality_and_more_at_a_low_one() {
    let image = cut_out();
    let plain = view(&image, &AugmentConfig::none(), 0);
    let change = |quality: u8| {
        let config = only(|config| {
            config.jpeg = 1.0;
            config.jpeg_quality = [quality; 2];
        });
        let pixels = view(&image, &config, 0);
        let values = pixels.iter().flatten().zip(plain.iter().flatten());
        values.map(|(a, b)| (a - b).abs()).sum::<f32>() / (3 * plain.len()) as f32
    };
    let (high, low) = (change(98), change(5));
    assert!(0.0 < high && high < 0.03 && high < low, "{high} {low}");
}
