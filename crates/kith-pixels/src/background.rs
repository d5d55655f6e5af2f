//! A random background under the transparent parts of a view: one colour, or a simple texture of two.

use std::f32::consts::TAU;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{jitter::luma, view::View};

/// Least distance of a colour's luma from the image's mean: a black glyph on black would be no view of it.
const MIN_CONTRAST: f32 = 0.25;
/// How far a colour that is too close moves towards white or black, whichever is farther from the image.
const PUSH: f32 = 0.75;
/// Cells of the noise, across and down.
const CELLS: usize = 5;

/// Lays a random background under the view; `texture`: the probability that it is not one colour.
pub(super) fn lay(view: &mut View, texture: f32, random: &mut ChaCha8Rng) {
    let Some(figure) = mean_luma(view) else {
        return;
    };
    let colours = [random_colour(figure, random), random_colour(figure, random)];
    let side = view.side;
    if random.random::<f32>() >= texture {
        return view.lay_over(|_| colours[0]);
    }
    let texture = Texture::random(random);
    view.lay_over(|place| {
        let share = |step: usize| (step as f32 + 0.5) / side as f32;
        let second = texture.share_at(share(place % side), share(place / side));
        std::array::from_fn(|channel| {
            colours[0][channel] * (1.0 - second) + colours[1][channel] * second
        })
    });
}

/// The mean luma of what is not transparent, in 0–1. `None` where nothing is transparent: no background would be seen.
fn mean_luma(view: &View) -> Option<f32> {
    let coverage = view.coverage.as_ref()?;
    if coverage.iter().all(|covered| *covered >= 1.0) {
        return None;
    }
    let (mut lumas, mut covered) = (0.0, 0.0);
    for (pixel, alpha) in view.pixels.iter().zip(coverage) {
        // Without its share of the white.
        lumas += luma(pixel) - (1.0 - alpha);
        covered += alpha;
    }
    Some(if covered > 0.0 { lumas / covered } else { 0.5 })
}

/// A uniform colour, moved away from an image whose mean luma is `figure`.
fn random_colour(figure: f32, random: &mut ChaCha8Rng) -> [f32; 3] {
    let colour: [f32; 3] = std::array::from_fn(|_| random.random());
    if (luma(&colour) - figure).abs() >= MIN_CONTRAST {
        return colour;
    }
    let end = if figure < 0.5 { 1.0 } else { 0.0 };
    colour.map(|value| value * (1.0 - PUSH) + end * PUSH)
}

/// Where which share of the second colour is.
enum Texture {
    /// From one side to the other, in a direction.
    Gradient { direction: [f32; 2] },
    /// Waves with flat tops along one direction, or crossed by those of another.
    Bands {
        direction: [f32; 2],
        bands: f32,
        phase: f32,
        crossed: bool,
    },
    /// Random shares at the corners of cells, bilinear between them.
    Noise(Vec<f32>),
}

impl Texture {
    fn random(random: &mut ChaCha8Rng) -> Self {
        let kind = random.random_range(0..4);
        if kind == 3 {
            let corners = (CELLS + 1) * (CELLS + 1);
            return Self::Noise((0..corners).map(|_| random.random()).collect());
        }
        let angle = TAU * random.random::<f32>();
        let direction = [angle.cos(), angle.sin()];
        if kind == 0 {
            return Self::Gradient { direction };
        }
        Self::Bands {
            direction,
            bands: random.random_range(2.0..8.0),
            phase: TAU * random.random::<f32>(),
            crossed: kind == 2,
        }
    }

    /// The share of the second colour, 0–1, at a place given in shares of the side.
    fn share_at(&self, x: f32, y: f32) -> f32 {
        match self {
            Self::Gradient { direction } => {
                // The square's corners are at most √½ from its middle.
                let along = (x - 0.5) * direction[0] + (y - 0.5) * direction[1];
                (0.5 + along / std::f32::consts::SQRT_2).clamp(0.0, 1.0)
            }
            Self::Bands {
                direction,
                bands,
                phase,
                crossed,
            } => {
                let wave = |along: f32| (TAU * bands * along + phase).sin();
                let first = wave(x * direction[0] + y * direction[1]);
                let both = if *crossed {
                    first * wave(y * direction[0] - x * direction[1])
                } else {
                    first
                };
                // Steep, so that bands have edges, but not so steep that edges are jagged.
                (0.5 + 3.0 * both).clamp(0.0, 1.0)
            }
            Self::Noise(corners) => {
                let (x, y) = (x * CELLS as f32, y * CELLS as f32);
                let (left, top) = (x as usize, y as usize);
                let corner = |right: usize, down: usize| {
                    let column = (left + right).min(CELLS);
                    corners[(top + down).min(CELLS) * (CELLS + 1) + column]
                };
                let (right, down) = (x.fract(), y.fract());
                let above = corner(0, 0) * (1.0 - right) + corner(1, 0) * right;
                let below = corner(0, 1) * (1.0 - right) + corner(1, 1) * right;
                above * (1.0 - down) + below * down
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_background_keeps_its_distance_from_the_image_in_brightness() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for figure in [0.0, 0.2, 0.45, 0.5, 0.55, 0.9, 1.0] {
            for _ in 0..200 {
                let colour = luma(&random_colour(figure, &mut random));
                assert!((colour - figure).abs() >= MIN_CONTRAST, "{figure} {colour}");
            }
        }
    }

    #[test]
    fn every_texture_has_both_colours_and_stays_between_them() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let mut kinds = [0; 3];
        for _ in 0..100 {
            let texture = Texture::random(&mut random);
            kinds[match texture {
                Texture::Gradient { .. } => 0,
                Texture::Bands { .. } => 1,
                Texture::Noise(_) => 2,
            }] += 1;
            let shares: Vec<f32> = (0..32 * 32)
                .map(|i| texture.share_at((i % 32) as f32 / 32.0, (i / 32) as f32 / 32.0))
                .collect();
            assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
            let largest = shares.iter().copied().fold(0.0, f32::max);
            let smallest = shares.iter().copied().fold(1.0, f32::min);
            assert!(largest - smallest > 0.3, "{smallest} to {largest}");
        }
        assert!(kinds.iter().all(|count| *count > 0), "{kinds:?}");
    }
}
