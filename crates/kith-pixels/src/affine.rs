//! Turns, scales, shifts and shears a crop while it is scaled to a view. What lies outside of the image is transparent.
//!
//! The crop is first scaled down, with antialiasing, to √2 times the view's resolution (never up), and then read bilinearly. Both triangle
//! filters together have the variance of the one that a plain crop is scaled with, so that a view is as sharp as one that is not turned.

use std::f64::consts::SQRT_2;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{
    AugmentConfig, DecodedImage,
    resize::{Crop, scale_alpha, scale_to},
    view::View,
};

/// From a place in the view to one in the crop, both in −½–½ of their extent: `place = matrix · place + shift`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Affine {
    pub(super) matrix: [[f64; 2]; 2],
    pub(super) shift: [f64; 2],
}

impl Affine {
    /// A random one within the ranges of `config`.
    pub(super) fn random(config: &AugmentConfig, random: &mut ChaCha8Rng) -> Self {
        let mut within = |range: f32| f64::from(range) * (2.0 * random.random::<f64>() - 1.0);
        let turn = within(config.affine_degrees).to_radians();
        let shear = within(config.affine_shear).to_radians().tan();
        let shift = [within(config.affine_shift), within(config.affine_shift)];
        let [smallest, largest] = config.affine_scale.map(|scale| f64::from(scale).ln());
        let scale = (smallest + (largest - smallest) * random.random::<f64>()).exp();
        Self::new(turn, scale, shear, shift)
    }

    /// The image is sheared by `shear` (across, for each pixel down), turned by `turn` radians to the right, scaled and then moved by `moved`
    /// shares of the side. This is the way back.
    pub(super) fn new(turn: f64, scale: f64, shear: f64, moved: [f64; 2]) -> Self {
        let (sin, cos) = (turn.sin() / scale, turn.cos() / scale);
        // (1 −shear; 0 1) · (cos sin; −sin cos), the inverses of shear and turn.
        let matrix = [[cos + shear * sin, sin - shear * cos], [-sin, cos]];
        let back = |row: [f64; 2]| -(row[0] * moved[0] + row[1] * moved[1]);
        Self {
            matrix,
            shift: matrix.map(back),
        }
    }

    fn apply(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        std::array::from_fn(|axis| {
            self.matrix[axis][0] * x + self.matrix[axis][1] * y + self.shift[axis]
        })
    }

    /// The view of `crop` under this change, with its coverage if `alpha`. Outside of the image the view is white, and its coverage 0.
    pub(super) fn view(&self, image: &DecodedImage, crop: Crop, side: usize, alpha: bool) -> View {
        let place = |x: f64, y: f64| {
            let [x, y] = self.apply([x / side as f64 - 0.5, y / side as f64 - 0.5]);
            [
                crop.left + (x + 0.5) * crop.width,
                crop.top + (y + 0.5) * crop.height,
            ]
        };
        let end = side as f64;
        let corners = [[0.0, 0.0], [end, 0.0], [0.0, end], [end, end]].map(|[x, y]| place(x, y));
        let source = Source::new(image, corners, side, alpha);
        let [start, right, below] = [[0.5, 0.5], [1.5, 0.5], [0.5, 1.5]]
            .map(|[x, y]| source.place(place(x, y)))
            .map(|place| place.map(|pixels| pixels as f32));
        let (across, down) = (minus(right, start), minus(below, start));
        let mut pixels = Vec::with_capacity(side * side);
        let mut coverage = Vec::with_capacity(if alpha { side * side } else { 0 });
        for row in 0..side {
            for column in 0..side {
                let (column, row) = (column as f32, row as f32);
                let [x, y] =
                    [0, 1].map(|axis| start[axis] + column * across[axis] + row * down[axis]);
                let [red, green, blue, covered] = source.read(x, y);
                pixels.push([red, green, blue]);
                if alpha {
                    coverage.push(covered);
                }
            }
        }
        View {
            side,
            pixels,
            coverage: alpha.then_some(coverage),
        }
    }
}

fn minus(a: [f32; 2], b: [f32; 2]) -> [f32; 2] {
    [a[0] - b[0], a[1] - b[1]]
}

/// The part of an image that a view reads from, scaled down to about √2 times the view's resolution.
struct Source {
    /// The part, in pixels of the image.
    part: Crop,
    width: usize,
    height: usize,
    /// Red, green, blue over white and the coverage of each pixel.
    pixels: Vec<[u8; 4]>,
}

impl Source {
    /// `corners`: where the view's corners lie in the image: top left, top right, bottom left, bottom right.
    fn new(image: &DecodedImage, corners: [[f64; 2]; 4], side: usize, alpha: bool) -> Self {
        let sizes = [image.width, image.height].map(f64::from);
        let ranges = [0, 1].map(|axis| {
            let along = |corner: usize| corners[corner][axis];
            let (right, below) = (along(1) - along(0), along(2) - along(0));
            // Pixels of the image from one of the view to the next.
            let step = right.hypot(below) / side as f64;
            let factor = (SQRT_2 / step).min(1.0);
            // What the bilinear filter reads beyond the view.
            let margin = 2.0 / factor;
            let places = corners.map(|corner| corner[axis]);
            let first = places.into_iter().fold(f64::INFINITY, f64::min) - margin;
            let last = places.into_iter().fold(f64::NEG_INFINITY, f64::max) + margin;
            // Whole pixels, so that nothing is resampled where the factor is 1.
            let first = first.floor().clamp(0.0, sizes[axis] - 1.0);
            let last = last.ceil().clamp(first + 1.0, sizes[axis]);
            let length = last - first;
            (first, length, ((length * factor).round() as usize).max(1))
        });
        let [(left, width, wide), (top, height, high)] = ranges;
        let part = Crop {
            left,
            top,
            width,
            height,
        };
        let rgb = scale_to(image, part, (wide, high));
        let mut pixels: Vec<[u8; 4]> = rgb
            .chunks_exact(3)
            .map(|rgb| [rgb[0], rgb[1], rgb[2], 255])
            .collect();
        if let Some(alpha) = image.alpha.as_ref().filter(|_| alpha) {
            let covered = scale_alpha(image, alpha, part, (wide, high));
            for (pixel, covered) in pixels.iter_mut().zip(covered) {
                pixel[3] = covered;
            }
        }
        Self {
            part,
            width: wide,
            height: high,
            pixels,
        }
    }

    /// A place in the image as one in the scaled part.
    fn place(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        [
            (x - self.part.left) * self.width as f64 / self.part.width,
            (y - self.part.top) * self.height as f64 / self.part.height,
        ]
    }

    /// Red, green, blue over white and the coverage at a place, in 0–1, bilinear between the centres of the four nearest pixels.
    fn read(&self, x: f32, y: f32) -> [f32; 4] {
        let (x, y) = (x - 0.5, y - 0.5);
        let (left, top) = (x.floor(), y.floor());
        let (right, down) = (x - left, y - top);
        let taps = self.taps(left as i64, top as i64);
        let across = |[a, b]: [[u8; 4]; 2], channel: usize| {
            f32::from(a[channel]) * (1.0 - right) + f32::from(b[channel]) * right
        };
        std::array::from_fn(|channel| {
            let [above, below] = taps.map(|row| across(row, channel));
            (above * (1.0 - down) + below * down) / 255.0
        })
    }

    /// The pixel at a place, those right of it and below it; outside of the image white that nothing covers.
    fn taps(&self, left: i64, top: i64) -> [[[u8; 4]; 2]; 2] {
        let within = |at: i64, length: usize| at >= 0 && at + 1 < length as i64;
        if within(left, self.width) && within(top, self.height) {
            let first = top as usize * self.width + left as usize;
            return [first, first + self.width].map(|at| [self.pixels[at], self.pixels[at + 1]]);
        }
        let inside = |at: i64, length: usize| usize::try_from(at).ok().filter(|at| *at < length);
        [top, top + 1].map(|row| {
            [left, left + 1].map(|column| {
                let place = inside(column, self.width).zip(inside(row, self.height));
                place.map_or([255, 255, 255, 0], |(column, row)| {
                    self.pixels[row * self.width + column]
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resize::scale;

    /// Smooth, and unlike its mirror images.
    fn image(width: u32, height: u32) -> DecodedImage {
        let pixel = |place: u32| {
            let (x, y) = ((place % width) as f32, (place / width) as f32);
            let (x, y) = (x / width as f32, y / height as f32);
            let wave = |turns: f32| (127.5 + 127.5 * (6.0 * turns).sin()) as u8;
            [wave(x), wave(y), wave(x * x + y)]
        };
        DecodedImage::opaque(width, height, (0..width * height).flat_map(pixel).collect())
    }

    fn whole(image: &DecodedImage) -> Crop {
        Crop::centred(image, image.width.into(), image.height.into())
    }

    /// The mean difference of a change's view from values in 0–255, in 0–1; `margin` pixels at the sides are left out.
    fn difference(view: &View, expected: impl Fn(usize, usize) -> [u8; 3], margin: usize) -> f32 {
        let side = view.side;
        let (mut sum, mut count) = (0.0, 0);
        for y in margin..side - margin {
            for x in margin..side - margin {
                let values = view.pixels[y * side + x].into_iter().zip(expected(x, y));
                for (value, byte) in values {
                    sum += (value - f32::from(byte) / 255.0).abs();
                    count += 1;
                }
            }
        }
        sum / count as f32
    }

    fn pixel(rgb: &[u8], side: usize, x: usize, y: usize) -> [u8; 3] {
        let at = 3 * (y * side + x);
        [rgb[at], rgb[at + 1], rgb[at + 2]]
    }

    #[test]
    fn no_change_is_the_plain_crop_up_and_down_in_scale() {
        for (width, height) in [(400, 300), (96, 96), (40, 30)] {
            let image = image(width, height);
            let plain = scale(&image, whole(&image), 64);
            let none = Affine::new(0.0, 1.0, 0.0, [0.0; 2]);
            let view = none.view(&image, whole(&image), 64, false);
            // The filters' shapes differ, their width does not.
            let wrong = difference(&view, |x, y| pixel(&plain, 64, x, y), 2);
            assert!(wrong < 0.004, "{width} × {height}: {wrong}");
        }
    }

    #[test]
    fn a_quarter_turn_goes_to_the_right() {
        let image = image(128, 128);
        let plain = scale(&image, whole(&image), 64);
        let turned = Affine::new(std::f64::consts::FRAC_PI_2, 1.0, 0.0, [0.0; 2]);
        let view = turned.view(&image, whole(&image), 64, false);
        // What was on the left is at the top, and what was at the top is on the right.
        let wrong = difference(&view, |x, y| pixel(&plain, 64, y, 63 - x), 2);
        assert!(wrong < 0.004, "{wrong}");
    }

    #[test]
    fn a_shift_moves_the_image_and_what_comes_in_is_not_covered() {
        let image = image(64, 64);
        let moved = Affine::new(0.0, 1.0, 0.0, [0.25, -0.125]);
        let view = moved.view(&image, whole(&image), 64, true);
        let wrong = difference(
            &view,
            |x, y| {
                if x < 16 || y >= 56 {
                    [255; 3]
                } else {
                    pixel(&image.rgb, 64, x - 16, y + 8)
                }
            },
            0,
        );
        assert!(wrong < 0.001, "{wrong}");
        let coverage = view.coverage.expect("it was asked for");
        for (place, covered) in coverage.iter().enumerate() {
            let inside = place % 64 >= 16 && place / 64 < 56;
            assert_eq!(*covered, if inside { 1.0 } else { 0.0 }, "{place}");
        }
    }

    #[test]
    fn a_half_scale_leaves_a_quarter_of_the_view_and_a_shear_leans() {
        let image = image(300, 300);
        let covered = |affine: &Affine| {
            let view = affine.view(&image, whole(&image), 64, true);
            view.coverage.expect("it was asked for")
        };
        let half = covered(&Affine::new(0.4, 0.5, 0.0, [0.0; 2]));
        let area = half.iter().sum::<f32>() / (64.0 * 64.0);
        // Soft edges count by half.
        assert!((area - 0.25).abs() < 0.005, "{area}");
        let leaning = covered(&Affine::new(0.0, 0.5, 0.5, [0.0; 2]));
        let first = |row: usize| leaning[row * 64..][..64].iter().position(|c| *c > 0.5);
        // 28 rows apart, half a pixel for each.
        let (upper, lower) = (first(18).expect("image"), first(46).expect("image"));
        assert!((13..=15).contains(&(lower - upper)), "{upper} {lower}");
    }
}
