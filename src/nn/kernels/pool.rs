//! Max-pooling over 3×3 windows at stride 2 with a pad of 1, and its gradient.
//! Must never know: layers.

use rayon::prelude::*;

use super::conv::Images;

/// Side of the pooled image.
pub(in crate::nn) fn pooled_side(side: usize) -> usize {
    (side - 1) / 2 + 1
}

/// Pools `images` into `out` (`[batch, side', side', channels]`); `picks` gets each maximum's place in its window
/// (0–8, row by row). Among equal values the first wins, as in PyTorch.
pub(in crate::nn) fn max_pool(images: Images, channels: usize, out: &mut [f32], picks: &mut [u8]) {
    let side = images.side;
    let pooled = pooled_side(side) * pooled_side(side) * channels;
    out.par_chunks_mut(pooled)
        .zip(picks.par_chunks_mut(pooled))
        .zip(images.data.par_chunks(side * side * channels))
        .for_each(|((out, picks), image)| {
            let pixels = out
                .chunks_exact_mut(channels)
                .zip(picks.chunks_exact_mut(channels));
            for (i, (out, picks)) in pixels.enumerate() {
                out.fill(f32::NEG_INFINITY);
                for (place, at) in window(side, i) {
                    let values = &image[at * channels..(at + 1) * channels];
                    pulp::Arch::new().dispatch(|| keep_larger(values, place, out, picks));
                }
            }
        });
}

#[inline(always)]
fn keep_larger(values: &[f32], place: u8, out: &mut [f32], picks: &mut [u8]) {
    for ((&value, out), pick) in values.iter().zip(out).zip(picks) {
        // NaN must win, or a broken network would look healthy from here on.
        let larger = value > *out || value.is_nan();
        *out = if larger { value } else { *out };
        *pick = if larger { place } else { *pick };
    }
}

/// The gradient with respect to the images: each value of `gradient` goes to the place that was picked.
/// Writes all of `out` (`[batch, side, side, channels]`).
pub(in crate::nn) fn max_pool_gradient(
    gradient: &[f32],
    picks: &[u8],
    side: usize,
    channels: usize,
    out: &mut [f32],
) {
    let pooled = pooled_side(side) * pooled_side(side) * channels;
    out.par_chunks_mut(side * side * channels)
        .zip(gradient.par_chunks(pooled).zip(picks.par_chunks(pooled)))
        .for_each(|(out, (gradient, picks))| {
            out.fill(0.0);
            let pixels = gradient
                .chunks_exact(channels)
                .zip(picks.chunks_exact(channels));
            for (i, (gradient, picks)) in pixels.enumerate() {
                for (place, at) in window(side, i) {
                    let out = &mut out[at * channels..(at + 1) * channels];
                    pulp::Arch::new().dispatch(|| add_picked(gradient, picks, place, out));
                }
            }
        });
}

#[inline(always)]
fn add_picked(gradient: &[f32], picks: &[u8], place: u8, out: &mut [f32]) {
    for ((&gradient, &pick), out) in gradient.iter().zip(picks).zip(out) {
        *out += if pick == place { gradient } else { 0.0 };
    }
}

/// (place in the window, pixel) of the pixels that the window of output pixel `i` covers.
fn window(side: usize, i: usize) -> impl Iterator<Item = (u8, usize)> {
    let (top, left) = (2 * (i / pooled_side(side)), 2 * (i % pooled_side(side)));
    (0..9u8).filter_map(move |place| {
        let (y, x) = (top + usize::from(place / 3), left + usize::from(place % 3));
        let inside = (1..=side).contains(&y) && (1..=side).contains(&x);
        inside.then(|| (place, (y - 1) * side + x - 1))
    })
}
