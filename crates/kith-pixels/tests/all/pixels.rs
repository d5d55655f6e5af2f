//! Image files of every kind in, pixels or a reason out.

use std::io::Cursor;

use image::{
    DynamicImage, GrayAlphaImage, GrayImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage, Rgba,
    RgbaImage,
};
use kith_pixels::{AugmentConfig, DecodedImage, Limits, PixelError, augment, decode, fit, inspect};

const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_pixels: 1 << 20,
    decode_memory_mb: 1024,
};

fn gradient(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, 128])
    })
}

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    encode(&image.into(), ImageFormat::Png)
}

#[test]
fn every_format_is_known_by_its_content_and_decodes_to_the_same_image() {
    let image = DynamicImage::from(gradient(40, 24));
    for (format, name) in [
        (ImageFormat::Png, "png"),
        (ImageFormat::Bmp, "bmp"),
        (ImageFormat::Jpeg, "jpeg"),
        (ImageFormat::WebP, "webp"),
        (ImageFormat::Gif, "gif"),
    ] {
        let image = if format == ImageFormat::Gif {
            image.to_rgba8().into()
        } else {
            image.clone()
        };
        let bytes = encode(&image, format);
        let header = inspect(&bytes, &LIMITS).unwrap();
        assert_eq!((header.format, header.width, header.height), (name, 40, 24));
        let decoded = decode(&bytes, &LIMITS).unwrap();
        assert_eq!((decoded.width, decoded.height), (40, 24));
        // JPEG is lossy and GIF has 256 colours for these 960: a mean error of 8 of 255 is theirs.
        let wrong: i32 = decoded
            .rgb
            .iter()
            .zip(image.to_rgb8().as_raw())
            .map(|(a, b)| (i32::from(*a) - i32::from(*b)).abs())
            .sum();
        assert!(wrong < 8 * decoded.rgb.len() as i32, "{name}: {wrong}");
    }
}

#[test]
fn grey_deep_and_transparent_pixels_become_rgb_over_white() {
    let grey = decode(&png(GrayImage::from_pixel(2, 2, Luma([77]))), &LIMITS).unwrap();
    assert_eq!(grey.rgb, [77; 12]);
    let deep: ImageBuffer<Rgb<u16>, Vec<u16>> =
        ImageBuffer::from_pixel(1, 1, Rgb([65535, 32896, 0]));
    assert_eq!(decode(&png(deep), &LIMITS).unwrap().rgb, [255, 128, 0]);
    let mut clear = RgbaImage::from_pixel(2, 1, Rgba([10, 20, 30, 0]));
    clear.put_pixel(1, 0, Rgba([10, 20, 30, 255]));
    let clear = decode(&png(clear), &LIMITS).unwrap();
    assert_eq!(clear.rgb, [255, 255, 255, 10, 20, 30]);
    let half = GrayAlphaImage::from_pixel(1, 1, image::LumaA([0, 128]));
    assert_eq!(decode(&png(half), &LIMITS).unwrap().rgb, [127; 3]);
}

/// A JPEG with an EXIF block that says `orientation`.
fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let mut bytes = jpeg[..2].to_vec();
    bytes.extend([0xff, 0xe1]);
    bytes.extend(((exif.len() + 2) as u16).to_be_bytes());
    bytes.extend(exif);
    bytes.extend(&jpeg[2..]);
    bytes
}

#[test]
fn a_turned_photo_is_the_same_image_as_its_turned_pixels() {
    let jpeg = encode(&gradient(48, 32).into(), ImageFormat::Jpeg);
    let upright = image::load_from_memory(&jpeg).unwrap();
    let turned = decode(&with_orientation(&jpeg, 6), &LIMITS).unwrap();
    assert_eq!((turned.width, turned.height), (32, 48));
    assert_eq!(turned.rgb, upright.rotate90().to_rgb8().into_raw());
    assert_eq!(
        decode(&with_orientation(&jpeg, 1), &LIMITS).unwrap().rgb,
        upright.to_rgb8().into_raw()
    );
}

#[test]
fn a_decompression_bomb_is_refused_from_its_header() {
    let mut bytes = png(gradient(4, 4));
    bytes[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    bytes[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    // The header's checksum no longer fits; a decoder may refuse for that alone, but never as a success.
    assert!(decode(&bytes, &LIMITS).is_err());

    let large = png(GrayImage::new(2000, 2000));
    let refused = decode(&large, &LIMITS).unwrap_err();
    assert_eq!(refused.code(), "image_too_large");
    assert!(refused.to_string().contains("2000x2000"), "{refused}");
    let heavy = inspect(&vec![0; LIMITS.max_bytes + 1], &LIMITS).unwrap_err();
    assert!(matches!(heavy, PixelError::TooLarge(_)));
}

#[test]
fn broken_and_foreign_bytes_are_undecodable() {
    let jpeg = encode(&gradient(64, 64).into(), ImageFormat::Jpeg);
    let whole = png(gradient(64, 64));
    for bytes in [
        &b""[..],
        b"hello, I am a text file",
        b"<svg xmlns='x'/>",
        &jpeg[..20],
        &whole[..whole.len() / 2],
    ] {
        let error = decode(bytes, &LIMITS).unwrap_err();
        assert_eq!(error.code(), "image_undecodable", "{error}");
    }
}

#[test]
fn fit_crops_the_centre_of_a_long_image() {
    let thirds = RgbImage::from_fn(96, 32, |x, _| {
        Rgb(if (32..64).contains(&x) {
            [255; 3]
        } else {
            [0; 3]
        })
    });
    let pixels = fit(&DecodedImage::opaque(96, 32, thirds.into_raw()), 32);
    assert_eq!(pixels.len(), 32 * 32 * 3);
    // White, normalised with ImageNet's mean and deviation of red.
    let white = (1.0 - 0.485) / 0.229;
    assert!(
        pixels
            .chunks(3)
            .all(|pixel| (pixel[0] - white).abs() < 1e-6)
    );
}

#[test]
fn a_single_pixel_fits_and_augments() {
    let image = DecodedImage::opaque(1, 1, vec![9, 99, 199]);
    let strong = AugmentConfig {
        crop_min_area: 0.08,
        flip: 1.0,
        jitter: 1.0,
        jitter_strength: [0.8, 0.8, 0.8, 0.2],
        greyscale: 0.0,
        blur: 1.0,
        ..AugmentConfig::none()
    };
    assert!(fit(&image, 64).iter().all(|value| value.is_finite()));
    assert!((0..50).all(|seed| {
        augment(&image, 32, &strong, seed)
            .iter()
            .all(|value| value.is_finite())
    }));
}

#[test]
fn augmentation_is_decided_by_its_seed() {
    let image = DecodedImage::opaque(50, 40, gradient(50, 40).into_raw());
    let config = AugmentConfig {
        crop_min_area: 0.3,
        flip: 0.5,
        jitter: 0.8,
        jitter_strength: [0.4, 0.4, 0.4, 0.1],
        greyscale: 0.2,
        blur: 0.5,
        ..AugmentConfig::none()
    };
    assert_eq!(
        augment(&image, 32, &config, 7),
        augment(&image, 32, &config, 7)
    );
    assert_ne!(
        augment(&image, 32, &config, 7),
        augment(&image, 32, &config, 8)
    );
}

#[test]
fn without_any_strength_a_square_view_is_what_serving_sees() {
    let image = DecodedImage::opaque(32, 32, gradient(32, 32).into_raw());
    // A full-area crop of ratio other than 1 does not fit a square, so the centre is taken after ten tries.
    let view = augment(&image, 32, &AugmentConfig::none(), 1);
    let served = fit(&image, 32);
    // Both normalise the same bytes, in a different order of f32 operations.
    assert!(view.iter().zip(&served).all(|(a, b)| (a - b).abs() < 1e-5));
}

#[test]
fn half_of_the_views_are_flipped() {
    let image = DecodedImage::opaque(32, 32, gradient(32, 32).into_raw());
    let config = AugmentConfig {
        flip: 0.5,
        ..AugmentConfig::none()
    };
    let straight = augment(&image, 32, &AugmentConfig::none(), 0);
    let flipped = (0..400)
        .filter(|seed| augment(&image, 32, &config, *seed)[0] > straight[0] + 1.0)
        .count();
    // Binomial(400, ½) has a deviation of 10: five of them.
    assert!((150..=250).contains(&flipped), "{flipped} of 400");
}
