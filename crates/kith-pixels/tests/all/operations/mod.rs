//! Each operation of augmentation on an image that was made for it, and what an operation that is off must not change.

mod colours;
mod shapes;

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
