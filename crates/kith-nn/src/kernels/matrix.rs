//! Matrix products, by the kernels of fully connected layers.

use super::shapes::{Conv, Epilogue, Images, InputGradient};
use super::weights::Packed;

/// A fully connected layer.
fn connected(inputs: usize, outputs: usize) -> Conv {
    Conv {
        inputs,
        outputs,
        kernel: 1,
        stride: 1,
        pad: 0,
    }
}

/// The product `a · b` (`[m, n]`) of row-major matrices `a` (`[m, inner]`) and `b` (`[inner, n]`), on the caller's rayon pool.
///
/// The order of the sums depends on the shapes alone.
pub fn product(a: &[f32], b: &[f32], inner: usize) -> Vec<f32> {
    let (rows, columns) = (a.len() / inner.max(1), b.len() / inner.max(1));
    let mut out = vec![0.0; rows * columns];
    if !out.is_empty() {
        let conv = connected(inner, columns);
        let packed = Packed::Temporary(conv.pack_direct(b));
        let epilogue = Epilogue {
            bias: &vec![0.0; columns],
            residual: None,
            relu: false,
        };
        let images = Images { data: a, side: 1 };
        conv.forward_direct(images, packed.panels(), epilogue, &mut out);
    }
    out
}

/// The product `a · bᵀ` (`[m, n]`) of row-major matrices `a` (`[m, inner]`) and `b` (`[n, inner]`); otherwise as [`product`].
pub fn product_with_transposed(a: &[f32], b: &[f32], inner: usize) -> Vec<f32> {
    let (rows, columns) = (a.len() / inner.max(1), b.len() / inner.max(1));
    let mut out = vec![0.0; rows * columns];
    if !out.is_empty() {
        let conv = connected(columns, inner);
        let input = InputGradient {
            pack: &|| Packed::Temporary(conv.pack_direct_transposed(b)),
            data: &mut out,
            accumulate: false,
        };
        conv.input_gradient(a, 1, input);
    }
    out
}

/// The product `aᵀ · b` (`[m, n]`) of row-major matrices `a` (`[outer, m]`) and `b` (`[outer, n]`); otherwise as [`product`].
pub fn transposed_product(a: &[f32], b: &[f32], outer: usize) -> Vec<f32> {
    let (rows, columns) = (a.len() / outer.max(1), b.len() / outer.max(1));
    let mut out = vec![0.0; rows * columns];
    if !out.is_empty() {
        let images = Images { data: a, side: 1 };
        connected(rows, columns).weight_gradient(images, b, &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, factor: usize) -> Vec<f32> {
        let value = |i: usize| ((i * factor) % 31) as f32 / 15.5 - 1.0;
        (0..count).map(value).collect()
    }

    #[test]
    fn products_are_sums_over_the_inner_dimension() {
        for (m, inner, n) in [(1, 1, 1), (5, 3, 7), (33, 40, 130), (100, 17, 9)] {
            let (a, b) = (values(m * inner, 7), values(inner * n, 11));
            let transpose = |from: &[f32], columns: usize| -> Vec<f32> {
                let rows = from.len() / columns;
                (0..from.len())
                    .map(|i| from[i % rows * columns + i / rows])
                    .collect()
            };
            let sum = |i: usize, j: usize| -> f32 {
                (0..inner).map(|k| a[i * inner + k] * b[k * n + j]).sum()
            };
            let wanted: Vec<f32> = (0..m * n).map(|i| sum(i / n, i % n)).collect();
            let all = [
                product(&a, &b, inner),
                product_with_transposed(&a, &transpose(&b, n), inner),
                transposed_product(&transpose(&a, inner), &b, inner),
            ];
            for found in all {
                let pairs = found.iter().zip(&wanted);
                // At most 40 products of at most 1, added in another order.
                assert!(
                    found.len() == wanted.len() && pairs.clone().all(|(x, y)| (x - y).abs() < 1e-5)
                );
            }
        }
    }

    #[test]
    fn a_product_of_nothing_is_nothing() {
        for product in [product, product_with_transposed, transposed_product] {
            assert!(product(&[], &[1.0, 2.0], 2).is_empty());
            assert!(product(&[], &[], 0).is_empty());
        }
    }
}
