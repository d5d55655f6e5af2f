//! Thumbnails keep the shape and the colours of their image.

use kith_pixels::{DecodedImage, Limits, decode, thumbnail};

const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_pixels: 1 << 20,
    decode_memory_mb: 256,
};

/// Red on the left, blue on the right.
fn halves(width: u32, height: u32) -> DecodedImage {
    let pixels = (0..width * height).flat_map(|at| {
        if at % width < width / 2 {
            [200, 30, 30]
        } else {
            [30, 30, 200]
        }
    });
    DecodedImage::opaque(width, height, pixels.collect())
}

#[test]
fn the_longer_edge_is_bounded_and_small_images_keep_their_size() {
    for (size, expected) in [
        ((400, 200), (160, 80)),
        ((90, 900), (16, 160)),
        ((1000, 1), (160, 1)),
        ((40, 30), (40, 30)),
    ] {
        let small = decode(&thumbnail(&halves(size.0, size.1), 160), &LIMITS).unwrap();
        assert_eq!((small.width, small.height), expected);
    }
}

#[test]
fn the_colours_stay_where_they_were() {
    let small = decode(&thumbnail(&halves(400, 200), 160), &LIMITS).unwrap();
    for (at, red) in [(0, true), (60, true), (100, false), (159, false)] {
        let pixel = &small.rgb[3 * at..3 * at + 3];
        assert_eq!(pixel[0] > 150, red, "{at}: {pixel:?}");
        assert_eq!(pixel[2] > 150, !red, "{at}: {pixel:?}");
    }
}
