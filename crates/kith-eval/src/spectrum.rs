//! Eigenvalues of a symmetric matrix: Householder's reduction to tridiagonal form, then bisection on Sturm counts (Golub & Van Loan,
//! Matrix Computations, §8.3–8.4). O(n³), and it cannot fail to converge.

/// The n eigenvalues of a symmetric row-major n × n matrix, ascending, each to about 10⁻¹⁵ of the largest magnitude.
pub(super) fn eigenvalues(matrix: &[f64]) -> Vec<f64> {
    let tridiagonal = Tridiagonal::new(matrix);
    (0..tridiagonal.diagonal.len())
        .map(|index| tridiagonal.eigenvalue(index))
        .collect()
}

struct Tridiagonal {
    diagonal: Vec<f64>,
    /// Squares of the values beside the diagonal; the first is 0, belonging to no row.
    beside_squared: Vec<f64>,
}

impl Tridiagonal {
    /// The tridiagonal matrix that Householder reflections make of `matrix`, which has the same eigenvalues.
    fn new(matrix: &[f64]) -> Self {
        let n = matrix.len().isqrt();
        let mut a = matrix.to_vec();
        let mut beside_squared = vec![0.0; n];
        for k in 0..n.saturating_sub(1) {
            let column: Vec<f64> = (k + 1..n).map(|row| a[row * n + k]).collect();
            beside_squared[k + 1] = dot(&column, &column);
            if let Some(normal) = reflector(column) {
                reflect(&mut a, n, k + 1, &normal);
            }
        }
        Self {
            diagonal: (0..n).map(|k| a[k * n + k]).collect(),
            beside_squared,
        }
    }

    /// The eigenvalue with `index` others below it.
    fn eigenvalue(&self, index: usize) -> f64 {
        let bound = self.bound();
        let (mut low, mut high) = (-bound, bound);
        // Each round halves an interval of 2 · bound: 54 leave less than f64 can tell apart.
        for _ in 0..54 {
            let middle = 0.5 * (low + high);
            if self.below(middle) > index {
                high = middle
            } else {
                low = middle
            }
        }
        0.5 * (low + high)
    }

    /// No eigenvalue is larger in magnitude (Gershgorin).
    fn bound(&self) -> f64 {
        let beside = |row: usize| {
            self.beside_squared
                .get(row)
                .map_or(0.0, |value| value.sqrt())
        };
        let reach = |row: usize| self.diagonal[row].abs() + beside(row) + beside(row + 1);
        (0..self.diagonal.len()).map(reach).fold(0.0, f64::max)
    }

    /// Number of eigenvalues below `x`: the negative pivots of T − x·1.
    fn below(&self, x: f64) -> usize {
        let mut pivot = 1.0;
        let negative = |(diagonal, beside_squared): &(&f64, &f64)| {
            pivot = *diagonal - x - *beside_squared / pivot;
            if pivot == 0.0 {
                pivot = f64::MIN_POSITIVE;
            }
            pivot < 0.0
        };
        self.diagonal
            .iter()
            .zip(&self.beside_squared)
            .filter(negative)
            .count()
    }
}

/// The unit normal of the mirror that takes `column` to a multiple of the first axis; `None` if it already is one.
fn reflector(mut column: Vec<f64>) -> Option<Vec<f64>> {
    if column[1..].iter().all(|value| *value == 0.0) {
        return None;
    }
    // The sign that adds up: no cancellation.
    column[0] += dot(&column, &column).sqrt().copysign(column[0]);
    let length = dot(&column, &column).sqrt();
    column.iter_mut().for_each(|value| *value /= length);
    Some(column)
}

/// A ← H A H for the lower right block that starts at `from`, H the mirror with the unit normal `v`:
/// A − 2 (v wᵀ + w vᵀ) with w = A v − (vᵀ A v) v.
fn reflect(a: &mut [f64], n: usize, from: usize, v: &[f64]) {
    let mut w: Vec<f64> = (from..n)
        .map(|row| dot(&a[row * n + from..(row + 1) * n], v))
        .collect();
    let quadratic = dot(&w, v);
    w.iter_mut().zip(v).for_each(|(w, v)| *w -= quadratic * v);
    for row in from..n {
        let (v_row, w_row) = (v[row - from], w[row - from]);
        let line = &mut a[row * n + from..(row + 1) * n];
        line.iter_mut()
            .zip(v.iter().zip(&w))
            .for_each(|(a, (v, w))| *a -= 2.0 * (v_row * w + w_row * v));
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::eigenvalues;

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        // Rounding of a small matrix with values around 1.
        found.iter().zip(expected).for_each(|(found, expected)| {
            assert!(
                (found - expected).abs() < 1e-12,
                "{found} is not {expected}"
            )
        });
    }

    #[test]
    fn small_matrices_have_the_eigenvalues_of_the_textbook() {
        assert_close(&eigenvalues(&[]), &[]);
        assert_close(&eigenvalues(&[-3.0]), &[-3.0]);
        assert_close(&eigenvalues(&[0.0; 9]), &[0.0; 3]);
        assert_close(&eigenvalues(&[2.0, 1.0, 1.0, 2.0]), &[1.0, 3.0]);
        assert_close(
            &eigenvalues(&[0.0, 0.0, 1.0, 0.0, 5.0, 0.0, 1.0, 0.0, 0.0]),
            &[-1.0, 1.0, 5.0],
        );
    }

    #[test]
    fn the_second_difference_matrix_has_its_known_spectrum() {
        // 2 on the diagonal, −1 beside it: 2 − 2 cos(π k / (n + 1)). The rows and columns are permuted so that it is dense in form.
        let n = 24;
        let place = |k: usize| (k * 7 + 3) % n;
        let mut matrix = vec![0.0; n * n];
        for k in 0..n {
            matrix[place(k) * n + place(k)] = 2.0;
            if k + 1 < n {
                matrix[place(k) * n + place(k + 1)] = -1.0;
                matrix[place(k + 1) * n + place(k)] = -1.0;
            }
        }
        let expected: Vec<f64> = (1..=n)
            .map(|k| 2.0 - 2.0 * (std::f64::consts::PI * k as f64 / (n + 1) as f64).cos())
            .collect();
        assert_close(&eigenvalues(&matrix), &expected);
    }
}
