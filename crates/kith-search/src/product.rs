//! Inner products, with the widest vectors that this processor has.

use pulp::{Arch, Simd, WithSimd};

/// Inner products on this processor; cheap to copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product(Arch);

impl Default for Product {
    fn default() -> Self {
        Self(Arch::new())
    }
}

impl Product {
    /// The inner product of two vectors of equal length.
    pub(crate) fn of(self, a: &[f32], b: &[f32]) -> f32 {
        self.0.dispatch(One { a, b })
    }

    /// The inner products of `query` with each row of `rows: [n, query.len()]`, passed to `each` in order.
    pub(crate) fn with_rows(self, query: &[f32], rows: &[f32], each: impl FnMut(usize, f32)) {
        self.0.dispatch(Rows { query, rows, each });
    }
}

struct One<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl WithSimd for One<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        product(simd, self.a, self.b)
    }
}

struct Rows<'a, F> {
    query: &'a [f32],
    rows: &'a [f32],
    each: F,
}

impl<F: FnMut(usize, f32)> WithSimd for Rows<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let rows = self.rows.chunks_exact(self.query.len());
        for (at, row) in rows.enumerate() {
            (self.each)(at, product(simd, self.query, row));
        }
    }
}

#[inline(always)]
fn product<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = S::as_simd_f32s(a);
    let (b, b_rest) = S::as_simd_f32s(b);
    // Independent sums keep the units busy: one product takes several cycles.
    let mut sums = [simd.splat_f32s(0.0); 4];
    let (a_fours, a_ones) = a.as_chunks::<4>();
    let (b_fours, b_ones) = b.as_chunks::<4>();
    for (a, b) in a_fours.iter().zip(b_fours) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum = simd.mul_add_f32s(*a, *b, *sum);
        }
    }
    for (a, b) in a_ones.iter().zip(b_ones) {
        sums[0] = simd.mul_add_f32s(*a, *b, sums[0]);
    }
    let (left, right) = (
        simd.add_f32s(sums[0], sums[1]),
        simd.add_f32s(sums[2], sums[3]),
    );
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    simd.reduce_sum_f32s(simd.add_f32s(left, right)) + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_every_length_are_those_of_a_plain_sum() {
        let value = |at: usize| ((at * 37 + 11) % 29) as f32 / 29.0 - 0.5;
        for length in (1..40).chain([64, 127, 128, 129, 512]) {
            let a: Vec<f32> = (0..length).map(value).collect();
            let rows: Vec<f32> = (0..3 * length).map(|at| value(at + 5)).collect();
            let plain = |row: &[f32]| -> f64 {
                let products = a
                    .iter()
                    .zip(row)
                    .map(|(a, b)| f64::from(*a) * f64::from(*b));
                products.sum()
            };
            let product = Product::default();
            let mut seen = Vec::new();
            product.with_rows(&a, &rows, |at, score| seen.push((at, score)));
            assert_eq!(seen.len(), 3);
            for ((at, score), row) in seen.into_iter().zip(rows.chunks_exact(length)) {
                let off = (f64::from(score) - plain(row)).abs();
                assert!(off < 1e-5, "{length} {at}: {off}");
                assert_eq!(score, product.of(&a, row), "{length} {at}");
            }
        }
    }
}
