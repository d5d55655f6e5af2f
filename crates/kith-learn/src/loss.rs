//! The loss as a weighted sum of cosines, and its gradient with respect to the embeddings, in closed form.

use rayon::prelude::*;

use kith_nn::{product, product_with_transposed, transposed_product};

/// Σ coefficient · (row a)·(row b). Every contrastive loss here has this form once the weights of the negatives are given.
#[derive(Debug)]
pub(super) struct Cosines {
    /// `[anchors, rows]`; the anchors are the first rows.
    coefficients: Vec<f32>,
    rows: usize,
}

impl Cosines {
    /// A sum whose coefficients `fill` sets: it receives an anchor and its `[rows]` coefficients, which start at 0.
    pub(super) fn new(
        anchors: usize,
        rows: usize,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        let mut coefficients = vec![0.0; anchors * rows];
        let lines = coefficients.par_chunks_exact_mut(rows.max(1)).enumerate();
        lines.for_each(|(anchor, line)| fill(anchor, line));
        Self { coefficients, rows }
    }

    /// The sum over `embedding`, `[rows, dim]`, and its gradient of the same shape. Runs in rayon's current pool; the results do not depend
    /// on the number of threads.
    pub(super) fn value_and_grad(&self, dim: usize, embedding: &[f32]) -> (f32, Vec<f32>) {
        let anchors = self.coefficients.len() / self.rows.max(1);
        let leading = &embedding[..anchors * dim];
        let mixed = product(&self.coefficients, embedding, self.rows);
        let products = leading
            .iter()
            .zip(&mixed)
            .map(|(a, b)| f64::from(*a) * f64::from(*b));
        let value = products.sum::<f64>() as f32;
        let mut gradient = transposed_product(&self.coefficients, leading, anchors);
        let both = gradient.iter_mut().zip(&mixed);
        both.for_each(|(sum, mixed)| *sum += mixed);
        (value, gradient)
    }
}

/// β (row i)·(row j) of the first `rows` rows of `embedding`, as `[rows, rows]`. Runs in rayon's current pool.
pub(super) fn scores(beta: f32, dim: usize, embedding: &[f32], rows: usize) -> Vec<f32> {
    let batch = &embedding[..rows * dim];
    let mut scores = product_with_transposed(batch, batch, dim);
    scores.iter_mut().for_each(|score| *score *= beta);
    scores
}

/// The dot product, by eight partial sums: the order of additions is fixed, and the compiler can vectorise it.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_lanes, b_lanes) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a_lanes
        .remainder()
        .iter()
        .zip(b_lanes.remainder())
        .map(|(a, b)| a * b)
        .sum();
    let mut sums = [0.0_f32; 8];
    for (a, b) in a_lanes.zip(b_lanes) {
        sums.iter_mut()
            .zip(a.iter().zip(b))
            .for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closed_form_gradient_equals_finite_differences() {
        let (dim, rows) = (11, 5);
        let embedding: Vec<f32> = (0..rows * dim)
            .map(|k| ((k * 37 % 23) as f32 - 11.0) / 23.0)
            .collect();
        // A row may meet itself (one image twice in a batch) and a pair may stand twice.
        let terms = [
            (0, 1, -2.0),
            (1, 0, 0.7),
            (0, 3, 1.5),
            (2, 2, 0.3),
            (4, 3, -0.1),
            (0, 1, 0.25),
        ];
        let loss = Cosines::new(rows, rows, |anchor, line| {
            let own = terms.iter().filter(|(a, ..)| *a == anchor);
            own.for_each(|(_, b, coefficient)| line[*b] += coefficient);
        });
        let (value, gradient) = loss.value_and_grad(dim, &embedding);
        let row = |row: usize| &embedding[row * dim..(row + 1) * dim];
        let sum: f32 = (terms.iter())
            .map(|(a, b, coefficient)| coefficient * dot(row(*a), row(*b)))
            .sum();
        assert!((value - sum).abs() < 1e-5, "{value} {sum}");
        for k in 0..embedding.len() {
            let at = |shift: f32| {
                let mut moved = embedding.clone();
                moved[k] += shift;
                loss.value_and_grad(dim, &moved).0
            };
            // The loss is quadratic: a central difference is exact but for the rounding of f32 sums, 10⁻⁷ / 0.1.
            let difference = (at(0.05) - at(-0.05)) / 0.1;
            assert!(
                (gradient[k] - difference).abs() < 1e-5,
                "{k}: {} {difference}",
                gradient[k]
            );
        }
    }

    #[test]
    fn scores_are_scaled_cosines_of_the_leading_rows() {
        let embedding: Vec<f32> = (0..33).map(|k| k as f32 / 10.0).collect();
        let scores = scores(2.0, 11, &embedding, 2);
        let exact = |i: usize, j: usize| {
            2.0 * (0..11)
                .map(|d| embedding[i * 11 + d] * embedding[j * 11 + d])
                .sum::<f32>()
        };
        let expected = [exact(0, 0), exact(0, 1), exact(1, 0), exact(1, 1)];
        // Another order of addition.
        scores
            .iter()
            .zip(expected)
            .for_each(|(score, expected)| assert!((score / expected - 1.0).abs() < 1e-6));
    }
}
