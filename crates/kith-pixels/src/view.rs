//! A view in the making: its pixels over white, and how much of each pixel the image covers.

use super::{
    DecodedImage,
    resize::{Crop, scale, scale_alpha},
};

/// A square image while it is augmented.
pub(super) struct View {
    /// Pixels across and down.
    pub(super) side: usize,
    /// `side · side` colours over white, in 0–1.
    pub(super) pixels: Vec<[f32; 3]>,
    /// How much of each pixel the image covers, 0–1; `None` where it covers all, or where nothing asks for it.
    pub(super) coverage: Option<Vec<f32>>,
}

impl View {
    /// The crop scaled to `side`, with its coverage if `alpha`.
    pub(super) fn cropped(image: &DecodedImage, crop: Crop, side: usize, alpha: bool) -> Self {
        let pixels = scale(image, crop, side).chunks_exact(3).map(unit).collect();
        let alpha = image.alpha.as_ref().filter(|_| alpha);
        let coverage = alpha.map(|alpha| {
            let scaled = scale_alpha(image, alpha, crop, (side, side));
            scaled
                .into_iter()
                .map(|byte| f32::from(byte) / 255.0)
                .collect()
        });
        Self {
            side,
            pixels,
            coverage,
        }
    }

    /// Puts `under` in the place of the white below. What is over white is c·α + (1 − α), so (u − 1)(1 − α) more is over u.
    pub(super) fn lay_over(&mut self, under: impl Fn(usize) -> [f32; 3]) {
        let Some(coverage) = &self.coverage else {
            return;
        };
        for (place, (pixel, covered)) in self.pixels.iter_mut().zip(coverage).enumerate() {
            let open = 1.0 - covered;
            if open > 0.0 {
                let colour = under(place);
                (0..3).for_each(|channel| {
                    let value = pixel[channel] + (colour[channel] - 1.0) * open;
                    pixel[channel] = value.clamp(0.0, 1.0);
                });
            }
        }
    }
}

/// An RGB pixel as values in 0–1.
fn unit(rgb: &[u8]) -> [f32; 3] {
    [rgb[0], rgb[1], rgb[2]].map(|byte| f32::from(byte) / 255.0)
}
