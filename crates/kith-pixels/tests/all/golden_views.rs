//! Views of the preset `photo`, against those that kith made before there were presets: a run that goes on sees what it would have seen.

use kith_pixels::{AugmentConfig, DecodedImage, augment};
use sha2::{Digest, Sha256};

/// The first 16 digits of the SHA-256 of 40 views' bytes (f32, little-endian), by the side. From commit d0342d6, by this test.
const GOLDEN: [(usize, &str); 2] = [(64, "702544168498d9d2"), (96, "0553343c7b8fa16f")];

fn photo() -> AugmentConfig {
    AugmentConfig {
        crop_min_area: 0.5,
        flip: 0.5,
        jitter: 0.8,
        jitter_strength: [0.4, 0.4, 0.4, 0.1],
        greyscale: 0.2,
        blur: 0.1,
        ..AugmentConfig::none()
    }
}

fn image(width: u32, height: u32) -> DecodedImage {
    // Smooth waves with a little noise.
    let byte = |i: u32| ((i / 3 * (1 + i % 3) / 2 + i * 7919 % 31) % 256) as u8;
    DecodedImage::opaque(width, height, (0..width * height * 3).map(byte).collect())
}

#[test]
fn views_of_photo_are_those_of_before_presets_bit_for_bit() {
    let sizes = [(50, 40), (96, 96), (200, 130), (64, 300)];
    for (side, golden) in GOLDEN {
        let mut digest = Sha256::new();
        for (width, height) in sizes {
            let image = image(width, height);
            for seed in 0..10 {
                for value in augment(&image, side, &photo(), seed) {
                    digest.update(value.to_le_bytes());
                }
            }
        }
        let found: String = digest.finalize()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(found, golden, "side {side}");
    }
}
