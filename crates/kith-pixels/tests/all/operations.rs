//! Each operation of augmentation on an image that was made for it, and what an operation that is off must not change.

use std::collections::HashSet;

use image::{ImageFormat, Rgba, RgbaImage};
use kith_pixels::{
    AugmentConfig, DecodedImage, Limits, augment, decode, decode_keeping_alpha, fit,
};

const SIDE: usize = 32;
const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_pixels: 1 << 20,
    decode_memory_mb: 1024,
};
const RED: [u8; 3] = [200, 30, 40];

/// A red square on nothing: the middle half of the image, across and down.
fn square_on_nothing() -> Vec<u8> {
    let middle = |at: u32| (16..48).contains(&at);
    let image = RgbaImage::from_fn(64, 64, |x, y| {
        let alpha = if middle(x) && middle(y) { 255 } else { 0 };
        Rgba([RED[0], RED[1], RED[2], alpha])
    });
    png(&image)
}

fn png(image: &RgbaImage) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    image.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

fn cut_out() -> DecodedImage {
    decode_keeping_alpha(&square_on_nothing(), &LIMITS).unwrap()
}

/// Smooth and colourful.
fn photo() -> DecodedImage {
    let pixel = |place: u32| {
        let (x, y) = (place % 64, place / 64);
        [x * 4, y * 4, 255 - 2 * (x + y)].map(|value| value as u8)
    };
    DecodedImage::opaque(64, 64, (0..64 * 64).flat_map(pixel).collect())
}

/// The view's colours in 0–1.
fn view(image: &DecodedImage, config: &AugmentConfig, seed: u64) -> Vec<[f32; 3]> {
    let (mean, deviation) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let pixels = augment(image, SIDE, config, seed);
    let colour = |rgb: &[f32]| {
        std::array::from_fn(|channel| rgb[channel] * deviation[channel] + mean[channel])
    };
    pixels.chunks_exact(3).map(colour).collect()
}

fn close(a: &[f32; 3], b: &[f32; 3]) -> bool {
    // Rounding of the normalisation and back.
    a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

fn red() -> [f32; 3] {
    RED.map(|byte| f32::from(byte) / 255.0)
}

/// Whether a place is well inside the square, well outside of it, or neither (near its edge, where a pixel has both).
fn inside(place: usize) -> Option<bool> {
    let near = |low: usize, high: usize| {
        let within = |at: usize| (low..high).contains(&at);
        within(place % SIDE) && within(place / SIDE)
    };
    match (near(9, 23), near(7, 25)) {
        (true, _) => Some(true),
        (_, false) => Some(false),
        _ => None,
    }
}

/// One operation alone, always.
fn only(change: impl Fn(&mut AugmentConfig)) -> AugmentConfig {
    let mut config = AugmentConfig::none();
    change(&mut config);
    config
}

/// The operations beyond SimCLR's, with ranges that show.
fn operations() -> [(&'static str, AugmentConfig); 6] {
    [
        ("background", only(|config| config.background = 1.0)),
        (
            "affine",
            only(|config| {
                config.affine = 1.0;
                config.affine_degrees = 20.0;
                config.affine_scale = [0.7, 1.3];
                config.affine_shift = 0.2;
                config.affine_shear = 10.0;
            }),
        ),
        ("palette", only(|config| config.palette = 1.0)),
        ("posterise", only(|config| config.posterise = 1.0)),
        ("outline", only(|config| config.outline = 1.0)),
        ("jpeg", only(|config| config.jpeg = 1.0)),
    ]
}

#[test]
fn an_operation_changes_views_is_decided_by_the_seed_and_does_nothing_at_probability_0() {
    let image = cut_out();
    let plain = augment(&image, SIDE, &AugmentConfig::none(), 0);
    for (name, config) in operations() {
        let views: HashSet<Vec<u32>> = (0..20)
            .map(|seed| {
                let view = augment(&image, SIDE, &config, seed);
                assert_eq!(view, augment(&image, SIDE, &config, seed), "{name}");
                assert!(view.iter().all(|value| value.is_finite()), "{name}");
                view.into_iter().map(f32::to_bits).collect()
            })
            .collect();
        assert!(views.len() > 5, "{name}: {} views of 20 seeds", views.len());
        let mut off = config;
        for probability in [
            &mut off.background,
            &mut off.affine,
            &mut off.palette,
            &mut off.posterise,
            &mut off.outline,
            &mut off.jpeg,
        ] {
            *probability = 0.0;
        }
        assert_eq!(augment(&image, SIDE, &off, 3), plain, "{name}");
    }
}

#[test]
fn an_operation_that_is_off_leaves_the_choices_of_the_others_as_they_were() {
    let image = photo();
    let simclr = AugmentConfig {
        crop_min_area: 0.3,
        flip: 0.5,
        jitter: 0.8,
        jitter_strength: [0.4, 0.4, 0.4, 0.1],
        greyscale: 0.2,
        blur: 0.5,
        ..AugmentConfig::none()
    };
    let ranges = AugmentConfig {
        affine_degrees: 30.0,
        palette_strength: 0.1,
        posterise_levels: [2, 3],
        outline_width: 0.1,
        jpeg_quality: [1, 2],
        ..simclr.clone()
    };
    for seed in 0..50 {
        let expected = augment(&image, SIDE, &simclr, seed);
        assert_eq!(augment(&image, SIDE, &ranges, seed), expected, "{seed}");
    }
}

#[test]
fn alpha_is_kept_where_it_is_asked_for_and_something_is_transparent_and_costs_nothing_elsewhere() {
    let bytes = square_on_nothing();
    let (kept, served) = (cut_out(), decode(&bytes, &LIMITS).unwrap());
    assert_eq!(kept.rgb, served.rgb, "over white in both");
    assert_eq!(served.alpha, None);
    let alpha = kept.alpha.as_ref().unwrap();
    assert_eq!(
        (alpha.len(), alpha[0], alpha[32 * 64 + 32]),
        (64 * 64, 0, 255)
    );
    assert_eq!(kept.bytes(), 4 * 64 * 64);
    assert_eq!(fit(&kept, SIDE), fit(&served, SIDE));
    // Four channels, but nothing to see through.
    let whole = png(&RgbaImage::from_pixel(8, 8, Rgba([1, 2, 3, 255])));
    let whole = decode_keeping_alpha(&whole, &LIMITS).unwrap();
    assert_eq!((whole.alpha.as_ref(), whole.bytes()), (None, 3 * 64));
    // Turned with its colours.
    let simclr_only = augment(&kept, SIDE, &AugmentConfig::none(), 1);
    assert_eq!(
        simclr_only,
        augment(&served, SIDE, &AugmentConfig::none(), 1)
    );
}

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

#[test]
fn every_operation_at_once_stands_the_smallest_images() {
    let everything = AugmentConfig {
        crop_min_area: 0.08,
        flip: 0.5,
        jitter: 1.0,
        jitter_strength: [0.8, 0.8, 0.8, 0.2],
        greyscale: 0.2,
        blur: 1.0,
        background: 1.0,
        affine: 1.0,
        affine_degrees: 180.0,
        affine_scale: [0.25, 4.0],
        affine_shift: 0.5,
        affine_shear: 45.0,
        palette: 1.0,
        posterise: 1.0,
        outline: 1.0,
        outline_width: 0.2,
        jpeg: 1.0,
        jpeg_quality: [1, 100],
        ..AugmentConfig::none()
    };
    for (width, height) in [(1, 1), (1, 300), (300, 1), (2, 3)] {
        let pixels = (width * height) as usize;
        let mut image = DecodedImage::opaque(width, height, vec![90; 3 * pixels]);
        for alpha in [None, Some((0..pixels).map(|i| (i % 256) as u8).collect())] {
            image.alpha = alpha;
            for seed in 0..30 {
                let view = augment(&image, SIDE, &everything, seed);
                assert!(view.iter().all(|value| value.is_finite()));
            }
        }
    }
}
