//! Odd kinds of image files, made by `tests/golden/pixels/make.py`, and files that are not whole.

use std::io::Cursor;

use image::{GrayImage, ImageFormat};
use kith_pixels::{Limits, PixelError, decode, inspect};

const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_pixels: 1 << 20,
    decode_memory_mb: 1024,
};
const RED: [u8; 3] = [200, 40, 30];

macro_rules! golden {
    ($name:literal) => {
        include_bytes!(concat!("../golden/pixels/", $name))
    };
}

fn pixel(rgb: &[u8], x: usize, y: usize) -> [u8; 3] {
    let at = 3 * (16 * y + x);
    [rgb[at], rgb[at + 1], rgb[at + 2]]
}

#[test]
fn a_four_colour_jpeg_becomes_what_its_inks_print() {
    let image = decode(golden!("cmyk.jpg"), &LIMITS).unwrap();
    // (0.9, 0.2, 0.4) · 0.8 · 255; the JPEG rounds each ink, and inks multiply: 3 of 255.
    for (value, expected) in pixel(&image.rgb, 5, 5).into_iter().zip([184, 41, 82]) {
        assert!(value.abs_diff(expected) <= 3, "{value} is not {expected}");
    }
}

#[test]
fn a_palette_is_looked_up_and_its_transparent_entry_shows_white() {
    let image = decode(golden!("palette.png"), &LIMITS).unwrap();
    assert_eq!(pixel(&image.rgb, 0, 0), RED);
    assert_eq!(pixel(&image.rgb, 15, 15), [255; 3]);
    let bits = decode(golden!("one_bit.png"), &LIMITS).unwrap();
    assert_eq!(pixel(&bits.rgb, 0, 0), [0; 3]);
    assert_eq!(pixel(&bits.rgb, 15, 15), [255; 3]);
}

#[test]
fn of_an_animation_the_first_frame_counts() {
    for (name, bytes) in [
        ("gif", &golden!("animated.gif")[..]),
        ("webp", &golden!("animated.webp")[..]),
    ] {
        assert_eq!(inspect(bytes, &LIMITS).unwrap().format, name);
        let image = decode(bytes, &LIMITS).unwrap();
        assert_eq!((image.width, image.height), (16, 16), "{name}");
        assert_eq!(pixel(&image.rgb, 8, 8), RED, "{name}");
    }
}

#[test]
fn a_jpeg_that_is_cut_off_anywhere_in_its_pixels_is_undecodable() {
    let mut plain = Cursor::new(Vec::new());
    let photo = image::load_from_memory(golden!("progressive.jpg")).unwrap();
    photo.write_to(&mut plain, ImageFormat::Jpeg).unwrap();
    for whole in [golden!("progressive.jpg").to_vec(), plain.into_inner()] {
        let image = decode(&whole, &LIMITS).unwrap();
        // Without the end marker all pixels are still there; without more bytes they are only where those held padding.
        for length in (0..whole.len()).step_by(7).chain([whole.len() - 3]) {
            match decode(&whole[..length], &LIMITS) {
                Err(PixelError::Undecodable(_)) => {}
                Err(error) => panic!("{length} of {} bytes: {error}", whole.len()),
                Ok(found) => assert!(found == image && length + 3 >= whole.len()),
            }
        }
    }
}

#[test]
fn a_jpeg_may_carry_a_thumbnail_before_and_anything_behind_its_end() {
    let whole = golden!("progressive.jpg");
    // An application segment that holds a whole JPEG of its own, its end marker included, as cameras write it.
    let mut with_thumbnail = whole[..2].to_vec();
    with_thumbnail.extend([0xFF, 0xE2]);
    with_thumbnail.extend(((whole.len() + 2) as u16).to_be_bytes());
    with_thumbnail.extend_from_slice(whole);
    with_thumbnail.extend_from_slice(&whole[2..]);
    let trailed = [&with_thumbnail[..], b"appended by a camera"].concat();
    let image = decode(whole, &LIMITS).unwrap();
    assert_eq!(decode(&trailed, &LIMITS).unwrap(), image);
    // The thumbnail's end marker does not stand for the image's.
    let cut = with_thumbnail.len() - 100;
    assert!(decode(&with_thumbnail[..cut], &LIMITS).is_err());
}

/// CRC-32 as PNG's chunks carry it.
fn crc(bytes: &[u8]) -> u32 {
    let byte = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(u32::MAX, byte)
}

#[test]
fn a_valid_header_that_claims_too_many_pixels_is_refused_with_both_figures() {
    let mut png = Cursor::new(Vec::new());
    GrayImage::new(4, 4)
        .write_to(&mut png, ImageFormat::Png)
        .unwrap();
    let mut bytes = png.into_inner();
    bytes[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    bytes[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    let checksum = crc(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&checksum.to_be_bytes());
    for refused in [
        inspect(&bytes, &LIMITS).map(drop),
        decode(&bytes, &LIMITS).map(drop),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.code(), "image_too_large");
        let text = error.to_string();
        assert!(
            text.contains("3600000000") && text.contains("1048576"),
            "{text}"
        );
    }
}
