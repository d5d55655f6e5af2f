//! Separable Gaussian blur of a square image; edges are mirrored.

/// Blurs `[side, side]` pixels in place with standard deviation `deviation`. The kernel spans about a tenth of the side, 3 pixels at least.
pub(super) fn blur(pixels: &mut [[f32; 3]], side: usize, deviation: f32) {
    let kernel = kernel((side / 20).max(1), deviation);
    let mut rows = pixels.to_vec();
    pass(
        pixels,
        &mut rows,
        &kernel,
        |line, offset| line * side + offset,
        side,
    );
    pass(
        &rows,
        pixels,
        &kernel,
        |line, offset| offset * side + line,
        side,
    );
}

/// exp(−i² / 2σ²) for i in −reach..=reach, summing to 1.
fn kernel(reach: usize, deviation: f32) -> Vec<f32> {
    let reach = reach as i32;
    let weights: Vec<f32> = (-reach..=reach)
        .map(|i| (-((i * i) as f32) / (2.0 * deviation * deviation)).exp())
        .collect();
    let sum: f32 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Convolves every line with the kernel; `at(line, offset)` is the index of a pixel.
fn pass(
    from: &[[f32; 3]],
    to: &mut [[f32; 3]],
    kernel: &[f32],
    at: impl Fn(usize, usize) -> usize,
    side: usize,
) {
    let reach = kernel.len() / 2;
    for line in 0..side {
        for offset in 0..side {
            let mut sum = [0.0; 3];
            for (i, weight) in kernel.iter().enumerate() {
                let pixel = from[at(line, mirrored(offset + i, reach, side))];
                (0..3).for_each(|channel| sum[channel] += weight * pixel[channel]);
            }
            to[at(line, offset)] = sum;
        }
    }
}

/// `offset − reach`, mirrored into the image at its edges (the edge pixel itself is not repeated).
fn mirrored(offset: usize, reach: usize, side: usize) -> usize {
    let inside = offset.abs_diff(reach);
    if inside < side {
        inside
    } else {
        2 * (side - 1) - inside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_image_stays_flat_and_a_point_spreads_evenly() {
        let mut flat = vec![[0.3, 0.5, 0.7]; 32 * 32];
        blur(&mut flat, 32, 1.5);
        // Weights sum to 1 within f32 rounding.
        assert!(flat.iter().all(|pixel| (pixel[1] - 0.5).abs() < 1e-5));

        let mut point = vec![[0.0; 3]; 32 * 32];
        point[16 * 32 + 16] = [1.0; 3];
        blur(&mut point, 32, 1.0);
        assert!(point[16 * 32 + 16][0] < 0.5);
        assert_eq!(point[16 * 32 + 15], point[16 * 32 + 17]);
        assert_eq!(point[15 * 32 + 16], point[17 * 32 + 16]);
    }
}
