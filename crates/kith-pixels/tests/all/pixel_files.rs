//! Whole files as cameras and programs write them: orientation in every container, blank alpha, missing ends and tables, and hostile ones.
//! `tests/golden/pixels/make.py` makes them.

use image::{DynamicImage, ImageFormat, Rgb32FImage, RgbImage};
use kith_pixels::{DecodedImage, Limits, PixelError, decode, inspect};

const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_pixels: 1 << 20,
    decode_memory_mb: 1024,
};

macro_rules! golden {
    ($name:literal) => {
        &include_bytes!(concat!("../golden/pixels/", $name))[..]
    };
}

fn decoded(bytes: &[u8]) -> DecodedImage {
    decode(bytes, &LIMITS).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn an_orientation_turns_the_image_whatever_container_carries_it() {
    let upright = decoded(golden!("upright.png"));
    for (name, bytes) in [
        ("png", golden!("orientation-6.png")),
        ("tiff", golden!("orientation-6.tif")),
        ("webp", golden!("orientation-6.webp")),
        ("webp", golden!("webp-orientation-6.webp")),
        ("webp", golden!("webp-orientation-6-with-exif-prefix.webp")),
        ("jpeg", golden!("orientation-6.jpg")),
    ] {
        assert_eq!(inspect(bytes, &LIMITS).unwrap().format, name);
        let turned = decoded(bytes);
        assert_eq!(
            (turned.width, turned.height),
            (upright.width, upright.height),
            "{name}"
        );
        let far: u64 = turned
            .rgb
            .iter()
            .zip(&upright.rgb)
            .map(|(a, b)| u64::from(a.abs_diff(*b)))
            .sum();
        // Only JPEG loses something: at quality 95 a mean of 4 of 255 at most, where any other orientation is off by far more.
        let most = if name == "jpeg" {
            4 * turned.rgb.len() as u64
        } else {
            0
        };
        assert!(far <= most, "{name}: {far}");
    }
}

#[test]
fn a_bmp_whose_alpha_is_blank_shows_its_colours() {
    let same = decoded(golden!("bmp-same-picture.bmp"));
    assert_eq!(decoded(golden!("bmp-all-zero-alpha.bmp")), same);
}

#[test]
fn an_image_that_shows_nothing_at_all_is_refused() {
    for bytes in [golden!("transparent.png"), golden!("transparent.webp")] {
        let error = decode(bytes, &LIMITS).unwrap_err();
        assert_eq!(error.code(), "image_undecodable");
        assert!(error.to_string().contains("fully transparent"), "{error}");
    }
}

#[test]
fn tiff_and_qoi_decode_to_the_same_image_as_png() {
    let upright = decoded(golden!("upright.png"));
    assert_eq!(decoded(golden!("plain.qoi")), upright);
    assert_eq!(decoded(golden!("deflate.tif")), upright);
    let inks = decoded(golden!("cmyk.tif"));
    // Inks and back: each product is rounded once.
    let far = inks
        .rgb
        .iter()
        .zip(&upright.rgb)
        .map(|(a, b)| a.abs_diff(*b));
    assert!(far.max().unwrap() <= 2);
}

#[test]
fn a_jpeg_without_its_end_marker_is_taken_and_one_without_its_last_pixels_is_not() {
    let whole = golden!("jpeg-without-end-marker.jpg");
    let ended = [whole, &[0xFF, 0xD9]].concat();
    assert_eq!(decoded(whole), decoded(&ended));
    assert_eq!(decoded(&[whole, &[0xFF]].concat()), decoded(&ended));
    for missing in [8, 40, whole.len() / 2] {
        let cut = decode(&whole[..whole.len() - missing], &LIMITS);
        assert!(matches!(cut, Err(PixelError::Undecodable(_))), "{missing}");
    }
}

#[test]
fn a_progressive_jpeg_without_its_end_marker_needs_all_its_scans() {
    let whole = golden!("progressive.jpg");
    let all = decoded(whole);
    assert_eq!(decoded(&whole[..whole.len() - 2]), all);
    let scans: Vec<usize> = (0..whole.len() - 1)
        .filter(|at| whole[*at..*at + 2] == [0xFF, 0xDA])
        .collect();
    assert!(scans.len() > 3);
    for start in &scans[1..] {
        assert!(decode(&whole[..*start], &LIMITS).is_err(), "cut at {start}");
    }
}

#[test]
fn a_motion_jpegs_frame_is_decoded_with_the_standards_tables() {
    let frame = golden!("mjpeg-frame.jpg");
    assert!(!frame.windows(2).any(|pair| pair == [0xFF, 0xC4]));
    assert_eq!(decoded(frame), decoded(golden!("with-tables.jpg")));
    assert_eq!(inspect(frame, &LIMITS).unwrap().width, 64);
}

/// A generator of places and bytes, the same on every run.
struct Mutations(u64);

impl Mutations {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }

    fn mutate(&mut self, whole: &[u8]) -> Vec<u8> {
        let mut bytes = whole.to_vec();
        for _ in 0..=self.next(6) {
            let (at, value) = (self.next(bytes.len()), self.next(256));
            match self.next(4) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes.insert(at, value as u8),
                2 => bytes[at] ^= 1 << (value % 8),
                _ => bytes[at] = value as u8,
            }
        }
        bytes
    }
}

#[test]
fn mutated_files_end_in_an_image_or_in_a_plain_and_short_refusal() {
    let files = [
        golden!("orientation-6.png"),
        golden!("orientation-6.tif"),
        golden!("deflate.tif"),
        golden!("cmyk.tif"),
        golden!("plain.qoi"),
        golden!("orientation-6.webp"),
        golden!("mjpeg-frame.jpg"),
        golden!("progressive.jpg"),
        golden!("animated.gif"),
        golden!("bmp-all-zero-alpha.bmp"),
    ];
    let mut mutations = Mutations(0x5eed);
    for whole in files {
        for _ in 0..300 {
            let bytes = mutations.mutate(whole);
            match decode(&bytes, &LIMITS) {
                Ok(image) => {
                    let pixels = image.width as usize * image.height as usize;
                    assert_eq!(image.rgb.len(), 3 * pixels);
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.len() <= 300, "{text}");
                    for inside in [
                        "::", "Error", "chunk", "IDAT", "expected", "Rgb", "u16", "{",
                    ] {
                        assert!(!text.contains(inside), "{text}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_header_of_a_tiff_or_qoi_that_claims_too_much_is_refused_before_anything_is_allocated() {
    let mut qoi = golden!("plain.qoi").to_vec();
    // The format itself ends at 400 million pixels.
    qoi[4..8].copy_from_slice(&10_000_u32.to_be_bytes());
    qoi[8..12].copy_from_slice(&10_000_u32.to_be_bytes());
    let mut tiff = Vec::new();
    image::DynamicImage::from(RgbImage::new(3, 5))
        .write_to(&mut std::io::Cursor::new(&mut tiff), ImageFormat::Tiff)
        .unwrap();
    // The entries of width (256) and height (257), little-endian, each with one value.
    for tag in [256_u16, 257] {
        let tag = tag.to_le_bytes();
        let entry = (8..tiff.len() - 12)
            .find(|at| tiff[*at..*at + 2] == tag && tiff[*at + 4..*at + 8] == 1_u32.to_le_bytes());
        let entry = entry.unwrap();
        tiff[entry + 2..entry + 4].copy_from_slice(&4_u16.to_le_bytes());
        tiff[entry + 8..entry + 12].copy_from_slice(&60_000_u32.to_le_bytes());
    }
    for bytes in [qoi, tiff] {
        let error = decode(&bytes, &LIMITS).unwrap_err();
        assert_eq!(error.code(), "image_too_large", "{error}");
    }
}

#[test]
fn a_refusal_for_size_names_the_settings() {
    let small = Limits {
        max_pixels: 100,
        ..LIMITS
    };
    let error = decode(golden!("upright.png"), &small)
        .unwrap_err()
        .to_string();
    assert!(error.contains("limits.max_pixels"), "{error}");
    let error = inspect(&vec![0; LIMITS.max_bytes + 1], &LIMITS).unwrap_err();
    assert!(error.to_string().contains("limits.max_bytes"), "{error}");
}

#[test]
fn a_photo_of_48_megapixels_decodes_in_any_memory() {
    let limits = Limits {
        max_bytes: 32 << 20,
        max_pixels: 8064 * 6048,
        ..LIMITS
    };
    let photo = kith_pixels::sample(kith_pixels::SampleFormat::Jpeg, 8064, 6048);
    let header = inspect(&photo, &limits).unwrap();
    assert_eq!((header.width, header.height), (8064, 6048));
    // With the least memory it still decodes, alone.
    let tight = Limits {
        decode_memory_mb: 1,
        ..limits
    };
    assert_eq!(decode(&photo, &tight).unwrap().rgb.len(), 3 * 8064 * 6048);
}

#[test]
fn pixels_of_floating_point_in_a_tiff_decode() {
    let floats = Rgb32FImage::from_pixel(4, 4, image::Rgb([1.0, 0.5, 0.0]));
    let mut tiff = Vec::new();
    DynamicImage::from(floats)
        .write_to(&mut std::io::Cursor::new(&mut tiff), ImageFormat::Tiff)
        .unwrap();
    let decoded = decoded(&tiff);
    assert_eq!((decoded.rgb[0], decoded.rgb[2]), (255, 0));
    assert!(decoded.rgb[1].abs_diff(128) <= 1);
}
