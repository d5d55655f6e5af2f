//! A projection fitted to pairs in closed form.

use faer::{
    Mat, Side,
    linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place},
};

use super::{
    Projection, ProjectionKind,
    linear::leading_eigenvectors,
    moments::{
        ALONE, BLOCK, Count, Part, add_products, add_ridge, covariance, is_usable, is_weight,
        transpose,
    },
};

/// Sums over pairs of images, from which the projection follows in which the images of a pair differ least and those of different pairs most: Fisher's
/// linear discriminants with a pair as a class, known in image retrieval as learned whitening (Mikolajczyk & Matas 2007; Radenović, Tolias & Chum 2018,
/// "Fine-tuning CNN image retrieval with no human annotation", §3.3).
///
/// With W the covariance of the differences within pairs and T that of all images, it whitens W and keeps the directions in which T is then largest.
/// Few pairs say little about W, so as much as `features / 2` pairs whose images differ alike in every direction are added to them. Pairs of unequal
/// weight say as little as fewer of equal weight.
#[derive(Clone, Debug)]
pub struct PairWhitening {
    features: usize,
    count: Count,
    sum: Vec<f64>,
    /// Of the last pairs, which are not in the sums yet: their differences, then their images, one after the other, times the root of their weight.
    waiting: [Vec<f64>; 2],
    /// Lower halves of Σ w (a − p)(a − p)ᵀ over pairs, and of Σ w f fᵀ over the images of pairs.
    sums: [Mat<f64>; 2],
}

impl PairWhitening {
    /// No pairs yet. `features`: values of an image's features.
    pub fn new(features: usize) -> Self {
        Self {
            features,
            count: Count::default(),
            sum: vec![0.0; features],
            waiting: Default::default(),
            sums: [(); 2].map(|()| Mat::zeros(features, features)),
        }
    }

    /// Adds a pair from the features of its images, which counts by `weight` beside the others; `false`: they are not finite, or not of this size, or the
    /// weight is not above 0, and nothing was added.
    pub fn add(&mut self, anchor: &[f32], positive: &[f32], weight: f64) -> bool {
        let usable = |features| is_usable(features, self.features);
        if !usable(anchor) || !usable(positive) || !is_weight(weight) {
            return false;
        }
        let root = weight.sqrt();
        let [differences, images] = &mut self.waiting;
        let both = anchor.iter().zip(positive);
        differences.extend(both.map(|(a, p)| root * (f64::from(*a) - f64::from(*p))));
        for image in [anchor, positive] {
            images.extend(image.iter().map(|value| root * f64::from(*value)));
            let sums = self.sum.iter_mut().zip(image);
            sums.for_each(|(sum, value)| *sum += weight * f64::from(*value));
        }
        self.count.add(weight);
        if differences.len() >= BLOCK * self.features {
            self.sum_up();
        }
        true
    }

    /// Brings what is waiting into the sums.
    fn sum_up(&mut self) {
        for (sums, rows) in self.sums.iter_mut().zip(&mut self.waiting) {
            add_products(sums, Part::Lower, rows, rows);
            rows.clear();
        }
    }

    /// Number of pairs so far.
    pub fn pairs(&self) -> usize {
        self.count.pairs
    }

    /// The projection to `dim` values, the most telling ones first. It centres the features; embeddings have a length of about 1.
    ///
    /// `None`: there are fewer pairs than values, or more values than features, or the images of all pairs are the same.
    pub fn projection(mut self, dim: usize) -> Option<Projection> {
        if self.count.pairs < dim || dim > self.features {
            return None;
        }
        self.sum_up();
        let (features, count) = (self.features, self.count);
        let images = 2.0 * count.weight;
        let mean: Vec<f64> = self.sum.iter().map(|sum| sum / images).collect();
        // A matrix of two thousand features takes 32 MB: each is dropped after its last use.
        let [differences, products] = self.sums;
        let factored = within(differences, &count).llt(Side::Lower).ok()?;
        let mut total = covariance(products, images, &mean);
        // L⁻¹ T L⁻ᵀ: T is symmetric, so it is its own transpose.
        for _ in 0..2 {
            solve_lower_triangular_in_place(factored.L(), total.as_mut(), ALONE);
            transpose(&mut total);
        }
        let variance: f64 = total.diagonal().column_vector().iter().sum();
        let leading = leading_eigenvectors(total.as_ref(), dim)?;
        let mut columns = Mat::from_fn(features, dim, |row, column| leading[column][row]);
        let upper = factored.L().transpose();
        solve_upper_triangular_in_place(upper, columns.as_mut(), ALONE);
        let scale = 1.0 / variance.sqrt();
        columns *= faer::Scale(scale);
        let kind = ProjectionKind::Whitened { pairs: count.pairs };
        Projection::centred(kind, &columns, &mean)
    }
}

/// Lower half of the covariance within pairs, with what is added for few pairs, from Σ w (a − p)(a − p)ᵀ.
fn within(differences: Mat<f64>, count: &Count) -> Mat<f64> {
    let mut within = differences;
    within *= faer::Scale(0.5 / count.weight);
    add_ridge(&mut within, count);
    within
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::linear::dot;
    use rand_chacha::{
        ChaCha8Rng,
        rand_core::{Rng, SeedableRng},
    };

    pub(crate) const FEATURES: usize = 12;
    pub(crate) const DIM: usize = 4;

    /// Pairs that agree in the first four features, by which things differ, and disagree widely in the others.
    pub(crate) fn pairs(count: usize) -> Vec<[Vec<f32>; 2]> {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut uniform = || random.next_u32() as f32 / u32::MAX as f32 - 0.5;
        let mut pair = || {
            let thing: Vec<f32> = (0..DIM).map(|_| uniform()).collect();
            let mut image = || {
                let own = thing.iter().map(|value| 2.0 + value + 0.1 * uniform());
                let own: Vec<f32> = own.collect();
                let rest = (DIM..FEATURES).map(|_| 7.0 + 5.0 * uniform());
                [own, rest.collect()].concat()
            };
            [image(), image()]
        };
        (0..count).map(|_| pair()).collect()
    }

    fn wide(row: &[f32]) -> Vec<f64> {
        row.iter().map(|value| f64::from(*value)).collect()
    }

    fn fitted(pairs: &[[Vec<f32>; 2]]) -> Projection {
        let mut whitening = PairWhitening::new(FEATURES);
        for [anchor, positive] in pairs {
            assert!(whitening.add(anchor, positive, 1.0));
        }
        whitening.projection(DIM).unwrap()
    }

    pub(crate) fn embedding(projection: &Projection, features: &[f32]) -> Vec<f64> {
        let rows = projection.weight.chunks_exact(FEATURES);
        rows.zip(&projection.bias)
            .map(|(row, bias)| dot(&wide(row), &wide(features)) + f64::from(*bias))
            .collect()
    }

    /// Share of anchors whose own positive has the largest cosine.
    pub(crate) fn recall(anchors: &[Vec<f64>], positives: &[Vec<f64>]) -> f64 {
        let cosine = |a: &[f64], b: &[f64]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        let nearest = |anchor: &Vec<f64>| {
            let cosines = positives.iter().map(|positive| cosine(anchor, positive));
            cosines.enumerate().max_by(|a, b| a.1.total_cmp(&b.1))
        };
        let found = anchors.iter().enumerate();
        let found =
            found.filter(|(at, anchor)| nearest(anchor).is_some_and(|(best, _)| best == *at));
        found.count() as f64 / anchors.len() as f64
    }

    #[test]
    fn it_keeps_what_pairs_share_and_drops_what_they_do_not() {
        let all = pairs(400);
        let (fit, asked) = all.split_at(300);
        let projection = fitted(fit);
        let [bare, fitted] = [None, Some(&projection)].map(|projection| {
            let side = |side: usize| -> Vec<Vec<f64>> {
                let features = asked.iter().map(|pair| &pair[side]);
                features
                    .map(|row| projection.map_or_else(|| wide(row), |fit| embedding(fit, row)))
                    .collect()
            };
            recall(&side(0), &side(1))
        });
        // Of 100, by chance 0.01. Four values that agree within a tenth of their spread tell most of 100 apart.
        assert!(bare < 0.2 && fitted > 0.7, "{bare} {fitted}");
    }

    #[test]
    fn differences_are_white_images_are_not_and_embeddings_are_centred() {
        let all = pairs(300);
        let projection = fitted(&all);
        let sides = |side: usize| {
            let rows = all.iter().map(move |pair| &pair[side]);
            rows.map(|row| embedding(&projection, row))
                .collect::<Vec<_>>()
        };
        let (anchors, positives) = (sides(0), sides(1));
        let second_moment = |rows: &[Vec<f64>], a: usize, b: usize| {
            rows.iter().map(|row| row[a] * row[b]).sum::<f64>() / rows.len() as f64
        };
        let differences: Vec<Vec<f64>> = anchors
            .iter()
            .zip(&positives)
            .map(|(a, p)| a.iter().zip(p).map(|(a, p)| a - p).collect())
            .collect();
        let images = [anchors, positives].concat();
        // What is added for few pairs: as if the images of six more of them differed as much as these do, alike in all directions.
        let bare = all.iter().flat_map(|[a, p]| a.iter().zip(p));
        let squares: f64 = bare.map(|(a, p)| f64::from(a - p).powi(2)).sum();
        let added = squares / (all.len() * FEATURES) as f64 * 6.0 / all.len() as f64;
        let rows: Vec<Vec<f64>> = projection.weight.chunks_exact(FEATURES).map(wide).collect();
        let within = |a: usize, b: usize| {
            second_moment(&differences, a, b) + added * dot(&rows[a], &rows[b])
        };
        let mut last = f64::INFINITY;
        let mut length = 0.0;
        for a in 0..DIM {
            for b in 0..DIM {
                let expected = if a == b { within(0, 0) } else { 0.0 };
                let found = within(a, b);
                // Weights are kept in 32 bits, and features are up to a hundred times what is left of them.
                assert!(
                    (found - expected).abs() < 1e-3 * within(0, 0),
                    "{a} {b}: {found} {expected}"
                );
            }
            let mean = images.iter().map(|row| row[a]).sum::<f64>() / images.len() as f64;
            assert!(mean.abs() < 1e-5, "{a}: {mean}");
            let variance = second_moment(&images, a, a);
            assert!(variance < last * 1.001, "{a}: {variance} after {last}");
            last = variance;
            length += variance;
        }
        // Half of all variance is in 4 of 12 directions at least, and all of it is 1.
        assert!((0.5..1.0).contains(&length), "{length}");
    }

    /// Pairs that agree in other features than those of [`pairs`].
    pub(crate) fn other_pairs(count: usize) -> Vec<[Vec<f32>; 2]> {
        let mut all = pairs(count);
        let images = all.iter_mut().flatten();
        images.for_each(|features| features.rotate_right(DIM));
        all
    }

    /// `found`: the recall of a fit to two kinds of pairs that contradict each other, of these weights, among further pairs of the first kind.
    pub(crate) fn assert_counts_by_weight(found: impl Fn([f64; 2]) -> f64) {
        let alone = found([1.0, 0.0]);
        assert!(alone > 0.8, "{alone}");
        // Of 100: one that rounding moves.
        let like_alone = |weights| (found(weights) - alone).abs() < 0.015;
        assert!(like_alone([7.0, 0.0]) && like_alone([0.001, 0.0]));
        assert!(like_alone([1000.0, 0.001]));
        // Beside lighter ones, of the same weight and heavier ones.
        let beside = [0.01, 1.0, 100.0].map(|weight| found([1.0, weight]));
        assert!(
            beside[0] > 0.7 && beside[1..].iter().all(|share| *share < 0.1),
            "{beside:?}"
        );
    }

    #[test]
    fn pairs_count_by_their_weight_and_equal_weights_change_nothing() {
        let (good, others) = (pairs(400), other_pairs(300));
        let (fit, asked) = good.split_at(300);
        let found = |weights: [f64; 2]| {
            let mut whitening = PairWhitening::new(FEATURES);
            for (pairs, weight) in [fit, &others].into_iter().zip(weights) {
                for [anchor, positive] in pairs {
                    assert!(whitening.add(anchor, positive, weight) == (weight > 0.0));
                }
            }
            let projection = whitening.projection(DIM).unwrap();
            let side = |side: usize| {
                let images = asked.iter().map(|pair| embedding(&projection, &pair[side]));
                images.collect::<Vec<_>>()
            };
            recall(&side(0), &side(1))
        };
        assert_counts_by_weight(found);
    }

    #[test]
    fn too_few_pairs_or_features_and_images_that_are_all_the_same_give_none() {
        let all = pairs(DIM);
        let mut whitening = PairWhitening::new(FEATURES);
        for [anchor, positive] in &all[1..] {
            whitening.add(anchor, positive, 1.0);
        }
        let found = |whitening: &PairWhitening, dim| whitening.clone().projection(dim);
        assert_eq!(found(&whitening, DIM), None, "fewer pairs than values");
        let [anchor, positive] = &all[0];
        assert!(!whitening.add(&[f32::NAN; FEATURES], positive, 1.0));
        assert!(!whitening.add(anchor, &positive[1..], 1.0));
        assert_eq!(whitening.pairs(), DIM - 1);
        whitening.add(anchor, positive, 1.0);
        assert!(found(&whitening, DIM).is_some());
        assert_eq!(found(&whitening, FEATURES + 1), None, "too many values");
        let mut same = PairWhitening::new(FEATURES);
        (0..20).for_each(|_| assert!(same.add(anchor, anchor, 1.0)));
        assert_eq!(same.projection(DIM), None, "no differences");
    }
}
