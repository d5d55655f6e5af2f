//! Image files, as the server decodes and prepares them.

use kith_pixels::{Limits, PixelError, decode_cost, fit, inspect};

/// The server's limits, with fewer pixels, so that an input takes milliseconds.
const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_pixels: 1 << 18,
    decode_memory_mb: 64,
};
/// Side of the square that an encoder reads.
const SIDE: usize = 32;

/// A file is refused, or it has as many pixels as its header says and fits an encoder.
pub fn decode(bytes: &[u8]) -> bool {
    let header = inspect(bytes, &LIMITS);
    let decoded = kith_pixels::decode(bytes, &LIMITS);
    match (header, decoded) {
        (Err(refused), Ok(_)) => panic!("decoded although its header is refused: {refused}"),
        (_, Err(PixelError::TooLarge(why) | PixelError::Undecodable(why))) => {
            assert!(!why.is_empty());
            false
        }
        (Ok(header), Ok(image)) => {
            let (width, height) = (image.width, image.height);
            let stored = [header.width, header.height];
            assert!(stored == [width, height] || stored == [height, width]);
            let pixels = u64::from(width) * u64::from(height);
            assert!((1..=LIMITS.max_pixels).contains(&pixels));
            assert_eq!(image.rgb.len() as u64, 3 * pixels);
            assert!(decode_cost(bytes, &LIMITS).is_ok_and(|cost| cost >= 3 * pixels));
            let input = fit(&image, SIDE);
            assert_eq!(input.len(), SIDE * SIDE * 3);
            assert!(input.iter().all(|value| value.is_finite()));
            true
        }
    }
}
