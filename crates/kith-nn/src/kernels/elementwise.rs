//! Operations that read each value once: ReLU's gradient, sums, means, unit length.

use rayon::prelude::*;

use super::yield_point;

/// Values in a task: 64 KiB.
const TASK: usize = 1 << 14;
/// Rows in a partial sum.
const SUM_ROWS: usize = 512;
/// Added to the squared length before the root, so that a zero vector has a finite gradient.
pub(crate) const EPSILON: f32 = 1e-12;

/// `out += values`, on the calling thread and with the vectors of the caller.
#[inline(always)]
pub(super) fn accumulate(out: &mut [f32], values: &[f32]) {
    out.iter_mut()
        .zip(values)
        .for_each(|(out, value)| *out += value);
}

/// `out += values²`, as [`accumulate`].
#[inline(always)]
fn accumulate_squares(out: &mut [f32], values: &[f32]) {
    out.iter_mut()
        .zip(values)
        .for_each(|(out, value)| *out += value * value);
}

/// The dot product, summed from the first to the last value.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// ReLU's gradient: zeroes `gradient` where `output` is not positive.
pub(crate) fn mask(gradient: &mut [f32], output: &[f32]) {
    gradient
        .par_chunks_mut(TASK)
        .zip(output.par_chunks(TASK))
        .for_each(|(gradient, output)| {
            pulp::Arch::new().dispatch(|| {
                for (gradient, &output) in gradient.iter_mut().zip(output) {
                    *gradient = if output > 0.0 { *gradient } else { 0.0 };
                }
            });
        });
}

/// The sum over all rows of `matrix` (`[rows, columns]`), each added by `add`, which runs with the vectors of the CPU.
fn sum_over_rows(matrix: &[f32], out: &mut [f32], add: impl Fn(&mut [f32], &[f32]) + Sync) {
    let columns = out.len();
    let parts: Vec<Vec<f32>> = matrix
        .par_chunks(SUM_ROWS * columns)
        .map(|rows| {
            yield_point();
            let mut sum = vec![0.0; columns];
            pulp::Arch::new().dispatch(|| {
                for row in rows.chunks_exact(columns) {
                    add(&mut sum, row);
                }
            });
            sum
        })
        .collect();
    out.fill(0.0);
    for part in parts {
        accumulate(out, &part);
    }
}

/// The sum of all rows of `matrix` (`[rows, columns]`).
pub(crate) fn sum_rows(matrix: &[f32], out: &mut [f32]) {
    sum_over_rows(matrix, out, accumulate);
}

/// Σ value² of each column of `matrix` (`[rows, columns]`).
pub(crate) fn column_squares(matrix: &[f32], columns: usize) -> Vec<f32> {
    let mut squares = vec![0.0; columns];
    sum_over_rows(matrix, &mut squares, accumulate_squares);
    squares
}

/// Scales each column of `matrix` (`[rows, limits.len()]`) down to its norm in `limits` where it is longer.
pub(crate) fn clip_columns(matrix: &mut [f32], limits: &[f32]) {
    let columns = limits.len();
    let squares = column_squares(matrix, columns);
    // A column of zeros stays: its limit over 0 is infinite.
    let factors = limits.iter().zip(squares);
    let factors = factors.map(|(limit, square)| (limit / square.sqrt()).min(1.0));
    let factors: Vec<f32> = factors.collect();
    if factors.iter().all(|&factor| factor == 1.0) {
        return;
    }
    matrix.par_chunks_mut(SUM_ROWS * columns).for_each(|rows| {
        yield_point();
        pulp::Arch::new().dispatch(|| {
            for row in rows.chunks_exact_mut(columns) {
                let each = row.iter_mut().zip(&factors);
                each.for_each(|(value, factor)| *value *= factor);
            }
        });
    });
}

/// `target += values`.
pub(crate) fn add(target: &mut [f32], values: &[f32]) {
    target
        .par_chunks_mut(TASK)
        .zip(values.par_chunks(TASK))
        .for_each(|(target, values)| {
            pulp::Arch::new().dispatch(|| accumulate(target, values));
        });
}

/// `target += share · (values − target)`.
pub(crate) fn blend(target: &mut [f32], values: &[f32], share: f32) {
    let parts = target.par_chunks_mut(TASK).zip(values.par_chunks(TASK));
    parts.for_each(|(target, values)| {
        yield_point();
        pulp::Arch::new().dispatch(|| {
            for (target, value) in target.iter_mut().zip(values) {
                *target += share * (value - *target);
            }
        });
    });
}

/// Σ value², in double precision.
pub(crate) fn sum_squares(values: &[f32]) -> f64 {
    let parts: Vec<f64> = values
        .par_chunks(TASK)
        .map(|part| {
            pulp::Arch::new().dispatch(|| {
                let mut lanes = [0.0_f64; 16];
                for chunk in part.chunks(16) {
                    lanes
                        .iter_mut()
                        .zip(chunk)
                        .for_each(|(lane, &value)| *lane += f64::from(value) * f64::from(value));
                }
                lanes.iter().sum()
            })
        })
        .collect();
    parts.iter().sum()
}

/// The mean over the pixels of each image: `[batch, pixels, channels]` to `[batch, channels]`.
pub(crate) fn mean(images: &[f32], pixels: usize, channels: usize, out: &mut [f32]) {
    out.par_chunks_mut(channels)
        .zip(images.par_chunks(pixels * channels))
        .for_each(|(out, image)| {
            out.fill(0.0);
            for pixel in image.chunks_exact(channels) {
                accumulate(out, pixel);
            }
            out.iter_mut().for_each(|out| *out /= pixels as f32);
        });
}

/// The gradient of [`mean`] with respect to the images.
pub(crate) fn mean_gradient(gradient: &[f32], pixels: usize, channels: usize, out: &mut [f32]) {
    out.par_chunks_mut(pixels * channels)
        .zip(gradient.par_chunks(channels))
        .for_each(|(out, gradient)| {
            for pixel in out.chunks_exact_mut(channels) {
                pixel
                    .iter_mut()
                    .zip(gradient)
                    .for_each(|(out, value)| *out = value / pixels as f32);
            }
        });
}

/// Scales each row of `rows` to unit length and returns the lengths before.
pub(crate) fn normalize(rows: &mut [f32], dim: usize) -> Vec<f32> {
    let scale = |row: &mut [f32]| {
        let length = (dot(row, row) + EPSILON).sqrt();
        row.iter_mut().for_each(|value| *value /= length);
        length
    };
    rows.par_chunks_mut(dim).map(scale).collect()
}

/// The gradient of [`normalize`] from its result `unit` and `lengths`: `(g − u (u · g)) / length`, in place.
pub(crate) fn normalize_gradient(gradient: &mut [f32], unit: &[f32], lengths: &[f32], dim: usize) {
    let rows = gradient
        .par_chunks_mut(dim)
        .zip(unit.par_chunks(dim))
        .zip(lengths);
    rows.for_each(|((gradient, unit), length)| {
        let along = dot(gradient, unit);
        gradient
            .iter_mut()
            .zip(unit)
            .for_each(|(gradient, unit)| *gradient = (*gradient - unit * along) / length);
    });
}
