//! A round trip through JPEG, whose blocks and fringes a posted image often has.

use std::io::Cursor;

use image::{ExtendedColorType, ImageFormat, codecs::jpeg::JpegEncoder};

/// Encodes `[side, side]` pixels as a JPEG of `quality` (1 to 100) and decodes them again, in place.
pub(super) fn recompress(pixels: &mut [[f32; 3]], side: usize, quality: u8) {
    let byte = |value: &f32| (value.clamp(0.0, 1.0) * 255.0).round() as u8;
    let rgb: Vec<u8> = pixels.iter().flatten().map(byte).collect();
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, quality)
        .encode(&rgb, side as u32, side as u32, ExtendedColorType::Rgb8)
        .expect("memory takes any small RGB image as a JPEG");
    let decoded = image::load(Cursor::new(file), ImageFormat::Jpeg)
        .expect("what the encoder has written is a JPEG")
        .into_rgb8();
    for (pixel, rgb) in pixels.iter_mut().zip(decoded.pixels()) {
        *pixel = rgb.0.map(|byte| f32::from(byte) / 255.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean change of a value by a JPEG of `quality`.
    fn change(quality: u8) -> f32 {
        let side = 48;
        let before: Vec<[f32; 3]> = (0..side * side)
            .map(|i| [0, 1, 2].map(|shift| ((i * 37 + shift * 91) % 256) as f32 / 255.0))
            .collect();
        let mut after = before.clone();
        recompress(&mut after, side, quality);
        let pairs = before.iter().flatten().zip(after.iter().flatten());
        pairs.map(|(a, b)| (a - b).abs()).sum::<f32>() / (3 * side * side) as f32
    }

    #[test]
    fn a_low_quality_changes_more_than_a_high_one() {
        let (low, high) = (change(10), change(95));
        assert!(0.0 < high && high < low, "{high} {low}");
    }
}
