//! Operations that move the image, lay something below it, or draw around it.

use std::collections::HashSet;

use image::{Rgba, RgbaImage};
use kith_pixels::{AugmentConfig, DecodedImage, augment, decode_keeping_alpha};

use super::{LIMITS, SIDE, close, cut_out, inside, only, photo, png, red, view};

#[test]
fn a_background_lies_where_the_image_is_transparent_and_nowhere_else() {
    let image = cut_out();
    for texture in [0.0, 1.0] {
        let config = only(|config| {
            config.background = 1.0;
            config.background_texture = texture;
        });
        let mut colours = HashSet::new();
        for seed in 0..30 {
            let pixels = view(&image, &config, seed);
            let outside = |place: &usize| inside(*place) == Some(false);
            let ground: Vec<usize> = (0..pixels.len()).filter(outside).collect();
            for (place, pixel) in pixels.iter().enumerate() {
                if inside(place) == Some(true) {
                    assert!(close(pixel, &red()), "{place} {pixel:?}");
                }
            }
            let first = pixels[ground[0]];
            let same = ground.iter().all(|place| close(&pixels[*place], &first));
            assert_eq!(same, texture == 0.0, "seed {seed}");
            assert!(!ground.iter().all(|place| close(&pixels[*place], &[1.0; 3])));
            colours.insert(first.map(|value| (value * 255.0).round() as u8));
        }
        assert!(colours.len() > 20, "{colours:?}");
        // Nothing to lay under, so nothing changes.
        let plain = augment(&photo(), SIDE, &AugmentConfig::none(), 0);
        assert_eq!(augment(&photo(), SIDE, &config, 0), plain);
    }
}

#[test]
fn half_transparent_pixels_show_half_of_the_background() {
    let glass = png(&RgbaImage::from_pixel(32, 32, Rgba([255, 0, 0, 128])));
    let glass = decode_keeping_alpha(&glass, &LIMITS).unwrap();
    let plain = only(|config| {
        config.background = 1.0;
        config.background_texture = 0.0;
    });
    for seed in 0..20 {
        let [red, green, blue] = view(&glass, &plain, seed)[0];
        let half = 128.0 / 255.0;
        // Half of red, and at most the other half of what lies below; bytes round.
        assert!((half - 0.01..=1.0).contains(&red), "{red}");
        assert!(
            green <= 1.0 - half + 0.01 && blue <= 1.0 - half + 0.01,
            "{green} {blue}"
        );
    }
}

#[test]
fn an_affine_change_shrinks_the_image_and_what_is_outside_is_background() {
    let black = DecodedImage::opaque(64, 64, vec![0; 3 * 64 * 64]);
    let shrunk = only(|config| {
        config.affine = 1.0;
        config.affine_scale = [0.5, 0.5];
    });
    let on_white = view(&black, &shrunk, 1);
    let with_ground = AugmentConfig {
        background: 1.0,
        background_texture: 0.0,
        ..shrunk
    };
    let on_colour = view(&black, &with_ground, 1);
    for place in 0..SIDE * SIDE {
        match inside(place) {
            Some(true) => {
                assert!(close(&on_white[place], &[0.0; 3]) && close(&on_colour[place], &[0.0; 3]));
            }
            Some(false) => {
                assert!(close(&on_white[place], &[1.0; 3]));
                assert!(
                    close(&on_colour[place], &on_colour[0]) && !close(&on_colour[0], &[0.0; 3])
                );
            }
            None => {}
        }
    }
}

#[test]
fn an_outline_is_a_ring_of_one_colour_around_a_cut_out() {
    let config = only(|config| {
        config.outline = 1.0;
        config.outline_width = 0.1;
    });
    let image = cut_out();
    let (mut white, mut seen) = (0, HashSet::new());
    for seed in 0..40 {
        let pixels = view(&image, &config, seed);
        // The square whole, up to its edge at 8, at the corner nothing; one pixel beyond the edge the outline.
        for (place, pixel) in pixels.iter().enumerate() {
            assert!(
                inside(place) != Some(true) || close(pixel, &red()),
                "{place}"
            );
        }
        assert!(close(&pixels[0], &[1.0; 3]));
        let ring = pixels[16 * SIDE + 7];
        white += usize::from(close(&ring, &[1.0; 3]));
        seen.insert(ring.map(|value| (value * 255.0).round() as u8));
        for place in [7 * SIDE + 16, 24 * SIDE + 16, 16 * SIDE + 24] {
            assert!(
                close(&pixels[place], &ring),
                "{seed}: {:?} {ring:?}",
                pixels[place]
            );
        }
    }
    assert!(white < 20 && seen.len() > 10, "{white} {}", seen.len());
}

#[test]
fn an_outline_of_an_opaque_image_follows_its_edges() {
    let half = |place: u32| if place % 64 < 32 { [30; 3] } else { [220; 3] };
    let halves = DecodedImage::opaque(64, 64, (0..64 * 64).flat_map(half).collect());
    let config = only(|config| config.outline = 1.0);
    let plain = view(&halves, &AugmentConfig::none(), 0);
    let mut changed = 0;
    for seed in 0..20 {
        let pixels = view(&halves, &config, seed);
        for (place, pixel) in pixels.iter().enumerate() {
            if (place % SIDE).abs_diff(16) > 3 {
                assert!(close(pixel, &plain[place]), "{place}");
            }
        }
        changed += usize::from(!close(&pixels[16 * SIDE + 15], &plain[16 * SIDE + 15]));
    }
    assert!(changed > 15, "{changed}");
}
