//! The loss as a weighted sum of cosines, and its gradient with respect to the embeddings, in closed form.
//! Must never know: where weights come from, what a row shows.

use rayon::prelude::*;

/// Σ coefficient · (row a)·(row b): every contrastive loss here has this form once the weights are given.
#[derive(Debug, Default)]
pub(super) struct Cosines {
    pub(super) terms: Vec<Cosine>,
}

/// One term.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cosine {
    pub(super) rows: [usize; 2],
    pub(super) coefficient: f32,
}

impl Cosines {
    pub(super) fn push(&mut self, a: usize, b: usize, coefficient: f32) {
        self.terms.push(Cosine {
            rows: [a, b],
            coefficient,
        });
    }

    /// The sum, for rows of `dim` values.
    pub(super) fn value(&self, dim: usize, embedding: &[f32]) -> f32 {
        let row = |row: usize| &embedding[row * dim..(row + 1) * dim];
        let term = |term: &Cosine| {
            f64::from(term.coefficient) * f64::from(dot(row(term.rows[0]), row(term.rows[1])))
        };
        self.terms.iter().map(term).sum::<f64>() as f32
    }

    /// Its gradient `[rows, dim]`: each term pulls both of its rows. Runs in rayon's current pool; each row is summed in the order of the
    /// terms, so the result does not depend on the number of threads.
    pub(super) fn gradient(&self, dim: usize, embedding: &[f32]) -> Vec<f32> {
        let mut pulls = vec![Vec::new(); embedding.len() / dim.max(1)];
        for &Cosine {
            rows: [a, b],
            coefficient,
        } in &self.terms
        {
            pulls[a].push((b, coefficient));
            pulls[b].push((a, coefficient));
        }
        let mut gradient = vec![0.0; embedding.len()];
        gradient
            .par_chunks_exact_mut(dim.max(1))
            .zip(&pulls)
            .for_each(|(row, pulls)| {
                for &(other, coefficient) in pulls {
                    let other = &embedding[other * dim..(other + 1) * dim];
                    row.iter_mut()
                        .zip(other)
                        .for_each(|(sum, x)| *sum += coefficient * x);
                }
            });
        gradient
    }
}

/// β (row i)·(row j) of the first `rows` rows, `[rows, rows]`. Runs in rayon's current pool.
pub(super) fn scores(beta: f32, dim: usize, embedding: &[f32], rows: usize) -> Vec<f32> {
    let batch = &embedding[..rows * dim];
    let mut scores = vec![0.0; rows * rows];
    scores
        .par_chunks_exact_mut(rows.max(1))
        .zip(batch.par_chunks_exact(dim.max(1)))
        .for_each(|(line, anchor)| {
            line.iter_mut()
                .zip(batch.chunks_exact(dim))
                .for_each(|(score, row)| *score = beta * dot(anchor, row));
        });
    scores
}

/// Eight partial sums: an order of addition that is fixed and that the compiler can vectorise.
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
        let mut loss = Cosines::default();
        // A row may meet itself (one image twice in a batch) and a pair may stand twice.
        [
            (0, 1, -2.0),
            (1, 0, 0.7),
            (0, 3, 1.5),
            (2, 2, 0.3),
            (4, 3, -0.1),
            (0, 1, 0.25),
        ]
        .iter()
        .for_each(|&(a, b, coefficient)| loss.push(a, b, coefficient));
        let gradient = loss.gradient(dim, &embedding);
        for k in 0..embedding.len() {
            let at = |shift: f32| {
                let mut moved = embedding.clone();
                moved[k] += shift;
                loss.value(dim, &moved)
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
