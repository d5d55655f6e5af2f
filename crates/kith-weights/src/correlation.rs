//! Projections of two encoders' features, fitted to pairs in closed form.

use faer::{
    Accum, Mat, MatRef, Side,
    linalg::{
        matmul::triangular::{BlockStructure, matmul},
        solvers::Llt,
        triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place},
    },
};

use super::{
    Projection, ProjectionKind,
    linear::{dot, leading_eigenvectors},
    moments::{
        ALONE, BLOCK, Count, Part, add_products, add_ridge, covariance, is_usable, is_weight,
        transpose,
    },
};

/// Correlation below which a direction of the one side has none of the other that belongs to it. They are roots of eigenvalues, whose rounding is 1e-16.
const NONE: f64 = 1e-6;

/// Share of the squared mean that the variance has at least where features differ at all: sums of squares are right to some 1e-16 times the number of
/// pairs, and features have 24 bits.
const ROUNDING: f64 = 1e-12;

/// Sums over pairs whose sides have an encoder each, from which the two projections follow that agree most within pairs: canonical correlations
/// (Hotelling 1936). Features of the two sides need not mean the same.
///
/// Each side is whitened, and the directions are kept in which the sides correlate most. A direction of correlation ρ counts by 1/√(1 − ρ): then what
/// differs within pairs is alike in all of them, as [`PairWhitening`](super::PairWhitening) has it for one encoder. As there, as much as `features / 2`
/// pairs that say nothing are added to each side's covariance.
#[derive(Clone, Debug)]
pub struct PairCorrelation {
    features: usize,
    count: Count,
    /// Of the anchors and of the positives.
    sums: [Vec<f64>; 2],
    /// Features of the last pairs, which are not in the products yet, times the root of their weight.
    waiting: [Vec<f64>; 2],
    /// Lower halves of Σ w a aᵀ and Σ w p pᵀ.
    own: [Mat<f64>; 2],
    /// Σ w a pᵀ.
    cross: Mat<f64>,
}

impl PairCorrelation {
    /// No pairs yet. `features`: values of an image's features, as many on each side.
    pub fn new(features: usize) -> Self {
        let zeros = || Mat::zeros(features, features);
        Self {
            features,
            count: Count::default(),
            sums: [(); 2].map(|()| vec![0.0; features]),
            waiting: Default::default(),
            own: [zeros(), zeros()],
            cross: zeros(),
        }
    }

    /// Adds a pair from the features of its images, each of its side's encoder, which counts by `weight` beside the others; `false`: they are not finite,
    /// or not of this size, or the weight is not above 0, and nothing was added.
    pub fn add(&mut self, anchor: &[f32], positive: &[f32], weight: f64) -> bool {
        let usable = |features| is_usable(features, self.features);
        if !usable(anchor) || !usable(positive) || !is_weight(weight) {
            return false;
        }
        let root = weight.sqrt();
        for (place, image) in [anchor, positive].into_iter().enumerate() {
            let values = || image.iter().map(|value| f64::from(*value));
            self.waiting[place].extend(values().map(|value| root * value));
            let sums = self.sums[place].iter_mut().zip(values());
            sums.for_each(|(sum, value)| *sum += weight * value);
        }
        self.count.add(weight);
        if self.waiting[0].len() >= BLOCK * self.features {
            self.sum_up();
        }
        true
    }

    /// Brings what is waiting into the products.
    fn sum_up(&mut self) {
        for (own, rows) in self.own.iter_mut().zip(&self.waiting) {
            add_products(own, Part::Lower, rows, rows);
        }
        let [anchors, positives] = &self.waiting;
        add_products(&mut self.cross, Part::Whole, anchors, positives);
        self.waiting.iter_mut().for_each(Vec::clear);
    }

    /// Number of pairs so far.
    pub fn pairs(&self) -> usize {
        self.count.pairs
    }

    /// The projections of the anchor's features and of the positive's to `dim` values, the most telling ones first. They centre the features;
    /// embeddings have a length of about 1.
    ///
    /// `None`: there are fewer pairs than values, or more values than features, or all images of a side are the same.
    pub fn projections(mut self, dim: usize) -> Option<[Projection; 2]> {
        if self.count.pairs < dim || dim > self.features {
            return None;
        }
        self.sum_up();
        let weight = self.count.weight;
        let means = self.sums.map(|sum| sum.into_iter().map(|sum| sum / weight));
        let means: [Vec<f64>; 2] = means.map(Iterator::collect);
        // A matrix of two and a half thousand features takes 52 MB: each is dropped after its last use.
        let [anchors, positives] = self.own;
        let left = factored(anchors, &self.count, &means[0])?;
        let right = factored(positives, &self.count, &means[1])?;
        // What becomes Kᵀ, with K = L⁻¹ C R⁻ᵀ.
        let mut whitened = self.cross;
        for column in 0..self.features {
            for row in 0..self.features {
                let value = &mut whitened[(row, column)];
                *value = *value / weight - means[0][row] * means[1][column];
            }
        }
        solve_lower_triangular_in_place(left.L(), whitened.as_mut(), ALONE);
        transpose(&mut whitened);
        solve_lower_triangular_in_place(right.L(), whitened.as_mut(), ALONE);
        let directions = leading_eigenvectors(square(&whitened).as_ref(), dim)?;
        let (mut weights, mut opposite) = (Vec::new(), Vec::new());
        for direction in &directions {
            let (correlation, other) = counterpart(&whitened, direction);
            weights.push(1.0 / (1.0 - correlation).max(f64::EPSILON).sqrt());
            opposite.push(other);
        }
        let length = dot(&weights, &weights).sqrt();
        weights.iter_mut().for_each(|weight| *weight /= length);
        let kind = ProjectionKind::Correlated {
            pairs: self.count.pairs,
        };
        let project = |side: &Llt<f64>, directions: &[Vec<f64>], mean: &[f64]| {
            let mut columns = Mat::from_fn(self.features, dim, |row, column| {
                directions[column][row] * weights[column]
            });
            solve_upper_triangular_in_place(side.L().transpose(), columns.as_mut(), ALONE);
            Projection::centred(kind, &columns, mean)
        };
        Some([
            project(&left, &directions, &means[0])?,
            project(&right, &opposite, &means[1])?,
        ])
    }
}

/// The Cholesky factor of a side's covariance, with what is added for few pairs.
fn factored(products: Mat<f64>, count: &Count, mean: &[f64]) -> Option<Llt<f64>> {
    let mut covariance = covariance(products, count.weight, mean);
    let variance: f64 = covariance.diagonal().column_vector().iter().sum();
    // Of a side that is always the same, rounding is left.
    if variance <= ROUNDING * dot(mean, mean) {
        return None;
    }
    add_ridge(&mut covariance, count);
    covariance.llt(Side::Lower).ok()
}

/// Lower half of K Kᵀ, from Kᵀ.
fn square(transposed: &Mat<f64>) -> Mat<f64> {
    let size = transposed.nrows();
    let mut square = Mat::zeros(size, size);
    let whole = BlockStructure::Rectangular;
    matmul(
        square.as_mut(),
        BlockStructure::TriangularLower,
        Accum::Replace,
        transposed.transpose(),
        whole,
        transposed.as_ref(),
        whole,
        1.0,
        ALONE,
    );
    square
}

/// The correlation of a unit `direction` of the whitened anchors with the direction of the positives that belongs to it, and that direction.
fn counterpart(transposed: &Mat<f64>, direction: &[f64]) -> (f64, Vec<f64>) {
    let column = MatRef::from_column_major_slice(direction, direction.len(), 1);
    let product = transposed * column;
    let mut other: Vec<f64> = product.col(0).iter().copied().collect();
    let correlation = dot(&other, &other).sqrt();
    let scale = if correlation > NONE {
        1.0 / correlation
    } else {
        0.0
    };
    other.iter_mut().for_each(|value| *value *= scale);
    (correlation, other)
}

#[cfg(test)]
mod tests {
    use super::super::{
        PairWhitening,
        whitening::tests::{
            DIM, FEATURES, assert_counts_by_weight, embedding, other_pairs, pairs, recall,
        },
    };
    use super::*;

    /// Pairs whose positives have their features in another order and with another sign, as two encoders might.
    fn sides(count: usize) -> Vec<[Vec<f32>; 2]> {
        let turned = |features: &[f32]| -> Vec<f32> {
            let at = (0..FEATURES).map(|at| (5 * at + 3) % FEATURES);
            at.map(|at| -features[at]).collect()
        };
        let all = pairs(count).into_iter();
        all.map(|[anchor, positive]| [anchor, turned(&positive)])
            .collect()
    }

    fn fitted(pairs: &[[Vec<f32>; 2]]) -> [Projection; 2] {
        let mut correlation = PairCorrelation::new(FEATURES);
        for [anchor, positive] in pairs {
            assert!(correlation.add(anchor, positive, 1.0));
        }
        assert_eq!(correlation.pairs(), pairs.len());
        correlation.projections(DIM).unwrap()
    }

    fn embedded(projections: &[Projection; 2], pairs: &[[Vec<f32>; 2]]) -> [Vec<Vec<f64>>; 2] {
        [0, 1].map(|side| {
            let images = pairs.iter().map(|pair| &pair[side]);
            images
                .map(|image| embedding(&projections[side], image))
                .collect()
        })
    }

    #[test]
    fn sides_whose_features_mean_different_things_find_each_other() {
        let all = sides(400);
        let (fit, asked) = all.split_at(300);
        let mut one = PairWhitening::new(FEATURES);
        for [anchor, positive] in fit {
            assert!(one.add(anchor, positive, 1.0));
        }
        let one = one.projection(DIM).unwrap();
        let found = [[one.clone(), one], fitted(fit)].map(|projections| {
            let [anchors, positives] = embedded(&projections, asked);
            recall(&anchors, &positives)
        });
        // Of 100, by chance 0.01. One projection for both sides cannot turn the one into the other.
        assert!(found[0] < 0.2 && found[1] > 0.7, "{found:?}");
    }

    #[test]
    fn values_are_centred_agree_with_their_own_alone_and_come_in_order() {
        let all = sides(4000);
        let [anchors, positives] = embedded(&fitted(&all), &all);
        let mean = |value: &dyn Fn(usize) -> f64| {
            (0..all.len()).map(value).sum::<f64>() / all.len() as f64
        };
        let mut last = f64::INFINITY;
        let mut lengths = 0.0;
        for a in 0..DIM {
            for side in [&anchors, &positives] {
                let centre = mean(&|row| side[row][a]);
                // Weights are kept in 32 bits, and features are up to a hundred times what is left of them.
                assert!(centre.abs() < 1e-5, "{a}: {centre}");
                lengths += mean(&|row| side[row][a] * side[row][a]);
            }
            for b in 0..DIM {
                let both = mean(&|row| anchors[row][a] * positives[row][b]);
                let own = mean(&|row| anchors[row][a] * positives[row][a]);
                if a == b {
                    assert!(own > 0.0 && own < last * 1.001, "{own} after {last}");
                    last = own;
                } else {
                    assert!(both.abs() < 1e-3 * own, "{a} {b}: {both} beside {own}");
                }
            }
        }
        // What is added for few pairs takes little of so many.
        assert!((1.9..2.0).contains(&lengths), "{lengths}");
    }

    #[test]
    fn pairs_count_by_their_weight_and_equal_weights_change_nothing() {
        let (good, others) = (pairs(400), other_pairs(300));
        let (fit, asked) = good.split_at(300);
        let found = |weights: [f64; 2]| {
            let mut correlation = PairCorrelation::new(FEATURES);
            for (pairs, weight) in [fit, &others].into_iter().zip(weights) {
                for [anchor, positive] in pairs {
                    assert!(correlation.add(anchor, positive, weight) == (weight > 0.0));
                }
            }
            let [anchors, positives] = embedded(&correlation.projections(DIM).unwrap(), asked);
            recall(&anchors, &positives)
        };
        assert_counts_by_weight(found);
    }

    #[test]
    fn too_few_pairs_or_features_and_a_side_that_is_always_the_same_give_none() {
        let all = sides(DIM);
        let mut correlation = PairCorrelation::new(FEATURES);
        for [anchor, positive] in &all[1..] {
            assert!(correlation.add(anchor, positive, 1.0));
        }
        let found = |correlation: &PairCorrelation, dim| correlation.clone().projections(dim);
        assert_eq!(found(&correlation, DIM), None, "fewer pairs than values");
        let [anchor, positive] = &all[0];
        assert!(!correlation.add(&[f32::NAN; FEATURES], positive, 1.0));
        assert!(!correlation.add(anchor, &positive[1..], 1.0));
        assert_eq!(correlation.pairs(), DIM - 1);
        assert!(correlation.add(anchor, positive, 1.0));
        assert!(found(&correlation, DIM).is_some());
        assert_eq!(found(&correlation, FEATURES + 1), None, "too many values");
        let mut same = PairCorrelation::new(FEATURES);
        let constant = [0.3; FEATURES];
        for [anchor, _] in sides(200) {
            assert!(same.add(&anchor, &constant, 1.0));
        }
        assert_eq!(same.projections(DIM), None, "no differences");
    }
}
