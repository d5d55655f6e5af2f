//! Products of matrices, by the kernels of fully connected layers. Must never know: what the rows are.

use super::conv::{Conv, Finish, Images};
use super::direct::Target;
use super::weights::{Packed, Panels};

fn connected(inputs: usize, outputs: usize) -> Conv {
    Conv {
        inputs,
        outputs,
        kernel: 1,
        stride: 1,
        pad: 0,
    }
}

/// `a · b`: `[m, n]`, of `a` `[m, inner]` and `b` `[inner, n]`.
pub fn product(a: &[f32], b: &[f32], inner: usize) -> Vec<f32> {
    let (rows, columns) = (a.len() / inner.max(1), b.len() / inner.max(1));
    let mut out = vec![0.0; rows * columns];
    if !out.is_empty() {
        let conv = connected(inner, columns);
        let packed = Packed::Once(conv.pack_direct(b));
        let finish = Finish {
            bias: &vec![0.0; columns],
            residual: None,
            relu: false,
        };
        let panels: Panels = packed.panels();
        conv.forward_direct(Images { data: a, side: 1 }, panels, finish, &mut out);
    }
    out
}

/// `a · bᵀ`: `[m, n]`, of `a` `[m, inner]` and `b` `[n, inner]`.
pub fn product_with_transposed(a: &[f32], b: &[f32], inner: usize) -> Vec<f32> {
    let (rows, columns) = (a.len() / inner.max(1), b.len() / inner.max(1));
    let mut out = vec![0.0; rows * columns];
    if !out.is_empty() {
        let conv = connected(columns, inner);
        let target = Target {
            pack: &|| Packed::Once(conv.pack_direct_transposed(b)),
            data: &mut out,
            add: false,
        };
        conv.input_gradient(a, 1, target);
    }
    out
}

/// `aᵀ · b`: `[m, n]`, of `a` `[outer, m]` and `b` `[outer, n]`.
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
    fn products_are_sums_over_what_is_common() {
        for (m, inner, n) in [(1, 1, 1), (5, 3, 7), (33, 40, 130), (100, 17, 9)] {
            let (a, b) = (values(m * inner, 7), values(inner * n, 11));
            let turn = |from: &[f32], columns: usize| -> Vec<f32> {
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
                product_with_transposed(&a, &turn(&b, n), inner),
                transposed_product(&turn(&a, inner), &b, inner),
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
