//! An outline in one colour: around what is not transparent, or along the edges of brightness of an opaque image.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{jitter::luma, view::View};

/// Differences of luma across two pixels at which an edge begins to be drawn, and from which it is drawn fully.
const FAINT: f32 = 0.15;
const CLEAR: f32 = 0.4;

/// Draws an outline of a random width, 1 pixel to `max_width` of the side, in a random colour. `cut_out`: whether the image has transparent
/// parts of its own, whose edge is then the outline's inner side.
pub(super) fn draw(view: &mut View, cut_out: bool, max_width: f32, random: &mut ChaCha8Rng) {
    let widest = (max_width * view.side as f32).max(1.0);
    let width = random.random_range(1.0..=widest).round() as usize;
    let colour = random_colour(random);
    match view.coverage.take() {
        Some(coverage) if cut_out => around(view, coverage, width, colour),
        coverage => {
            along_edges(view, width, colour);
            view.coverage = coverage;
        }
    }
}

/// Black or white half of the time, as most outlines are; else any colour.
fn random_colour(random: &mut ChaCha8Rng) -> [f32; 3] {
    let kind: f32 = random.random();
    let any = std::array::from_fn(|_| random.random());
    match kind {
        ..0.25 => [0.0; 3],
        0.25..0.5 => [1.0; 3],
        _ => any,
    }
}

/// Puts the colour below the image, as far as its coverage reaches when it is dilated by `width`.
fn around(view: &mut View, coverage: Vec<f32>, width: usize, colour: [f32; 3]) {
    let wider = dilate(&coverage, view.side, width);
    for ((pixel, inner), outer) in view.pixels.iter_mut().zip(&coverage).zip(&wider) {
        let ring = outer - inner;
        // In the ring the colour takes the place of the white below.
        (0..3).for_each(|channel| pixel[channel] += ring * (colour[channel] - 1.0));
        *pixel = pixel.map(|value| value.clamp(0.0, 1.0));
    }
    view.coverage = Some(wider);
}

/// Draws over the places whose luma differs from one side to the other.
fn along_edges(view: &mut View, width: usize, colour: [f32; 3]) {
    let side = view.side;
    let lumas: Vec<f32> = view.pixels.iter().map(luma).collect();
    let at = |x: usize, y: usize| lumas[y.min(side - 1) * side + x.min(side - 1)];
    let edges: Vec<f32> = (0..side * side)
        .map(|place| {
            let (x, y) = (place % side, place / side);
            let across = at(x + 1, y) - at(x.saturating_sub(1), y);
            let down = at(x, y + 1) - at(x, y.saturating_sub(1));
            (((across * across + down * down).sqrt() - FAINT) / (CLEAR - FAINT)).clamp(0.0, 1.0)
        })
        .collect();
    // An edge is two pixels wide as it is found.
    let drawn = dilate(&edges, side, width / 2);
    for (pixel, share) in view.pixels.iter_mut().zip(&drawn) {
        *pixel =
            std::array::from_fn(|channel| pixel[channel] * (1.0 - share) + colour[channel] * share);
    }
}

/// The largest value within `reach` pixels across and down, of `[side, side]` values.
fn dilate(values: &[f32], side: usize, reach: usize) -> Vec<f32> {
    if reach == 0 {
        return values.to_vec();
    }
    let mut rows = vec![0.0; values.len()];
    for (from, to) in values.chunks_exact(side).zip(rows.chunks_exact_mut(side)) {
        for (x, largest) in to.iter_mut().enumerate() {
            let near = &from[x.saturating_sub(reach)..(x + reach + 1).min(side)];
            *largest = near.iter().copied().fold(0.0, f32::max);
        }
    }
    let mut dilated = vec![0.0_f32; values.len()];
    for (y, to) in dilated.chunks_exact_mut(side).enumerate() {
        for near in y.saturating_sub(reach)..(y + reach + 1).min(side) {
            let row = &rows[near * side..][..side];
            to.iter_mut()
                .zip(row)
                .for_each(|(largest, value)| *largest = largest.max(*value));
        }
    }
    dilated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dilation_makes_a_point_a_square_and_ends_at_the_sides() {
        let side = 7;
        let mut point = vec![0.0; side * side];
        point[3 * side + 1] = 0.8;
        let square = dilate(&point, side, 2);
        for (place, value) in square.iter().enumerate() {
            let (x, y) = (place % side, place / side);
            let inside = x <= 3 && (1..=5).contains(&y);
            assert_eq!(*value, if inside { 0.8 } else { 0.0 }, "{x} {y}");
        }
    }
}
