//! The projection that is put on imported features, `[dim, features]`: it leaves them as they are, as far as `dim` allows.

use std::{f64::consts::TAU, fmt};

use kith_seed::mix;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// Seed of the fixed orthogonal matrix. Another would make embeddings of the same file differ between versions of kith.
const SEED: u64 = 0x6b69_7468;
/// Rounds of orthogonal iteration. Neighbouring components may still be mixed then; what they span together is what counts.
const ROUNDS: usize = 40;

/// Where a projection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectionKind {
    /// The file's own.
    Own,
    /// One value a feature, and zeros where the embedding has more values.
    Identity,
    /// A fixed orthogonal matrix.
    Orthogonal,
    /// The directions in which so many images' features are largest.
    Principal {
        /// Number of images.
        images: usize,
    },
}

/// A linear map from features to embeddings.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// Where it comes from.
    pub kind: ProjectionKind,
    /// Values in an embedding.
    pub dim: usize,
    /// `[dim, features]`, row-major.
    pub weight: Vec<f32>,
    /// `[dim]`.
    pub bias: Vec<f32>,
}

impl fmt::Display for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ProjectionKind::Own => f.write_str("the file's own projection"),
            ProjectionKind::Identity => f.write_str("the features themselves"),
            ProjectionKind::Orthogonal => {
                write!(
                    f,
                    "a fixed orthogonal projection of the features to {} values",
                    self.dim
                )
            }
            ProjectionKind::Principal { images } => write!(
                f,
                "the {} principal components of the features of {images} stored images",
                self.dim
            ),
        }
    }
}

impl Projection {
    /// The features themselves where `dim` is large enough, else a fixed orthogonal projection: lengths and angles change little.
    pub(super) fn plain(features: usize, dim: usize) -> Self {
        let (kind, rows) = if dim >= features {
            (ProjectionKind::Identity, unit_rows(features))
        } else {
            let mut rows = random_rows(features, dim);
            orthonormalize(&mut rows);
            (ProjectionKind::Orthogonal, rows)
        };
        Self::from_rows(kind, features, dim, &rows)
    }

    fn from_rows(kind: ProjectionKind, features: usize, dim: usize, rows: &[Vec<f64>]) -> Self {
        let mut weight: Vec<f32> = rows.iter().flatten().map(|value| *value as f32).collect();
        weight.resize(dim * features, 0.0);
        Self {
            kind,
            dim,
            weight,
            bias: vec![0.0; dim],
        }
    }
}

/// Sums over images' features, from which their principal components are found.
///
/// The features are not centred: a cosine of bare features does not centre them either, and of all projections to `dim` values this one changes their
/// inner products least.
#[derive(Clone, Debug)]
pub struct PrincipalComponents {
    features: usize,
    images: usize,
    /// Σ f fᵀ, `[features, features]`.
    products: Vec<f64>,
}

impl PrincipalComponents {
    /// No images yet. `features`: values of an image's features.
    pub fn new(features: usize) -> Self {
        Self {
            features,
            images: 0,
            products: vec![0.0; features * features],
        }
    }

    /// Adds images. `rows`: `[images, features]`; rows are scaled to unit length, so that each image counts alike. A row of zeros or with a value that
    /// is not finite is left out.
    pub fn add(&mut self, rows: &[f32]) {
        for row in rows.chunks_exact(self.features) {
            let row: Vec<f64> = row.iter().map(|value| f64::from(*value)).collect();
            let length = dot(&row, &row);
            if length == 0.0 || !length.is_finite() {
                continue;
            }
            self.images += 1;
            for (sums, left) in self.products.chunks_exact_mut(self.features).zip(&row) {
                let left = left / length;
                if left != 0.0 {
                    sums.iter_mut()
                        .zip(&row)
                        .for_each(|(sum, right)| *sum += left * right);
                }
            }
        }
    }

    /// Number of images so far.
    pub fn images(&self) -> usize {
        self.images
    }

    /// The first `dim` principal components, by orthogonal iteration (Golub & Van Loan, Matrix Computations, §8.2.4). `None`: there are fewer
    /// images than components, or as many components as features.
    pub fn projection(&self, dim: usize) -> Option<Projection> {
        if self.images < dim || dim >= self.features {
            return None;
        }
        let mut rows = random_rows(self.features, dim);
        orthonormalize(&mut rows);
        for _ in 0..ROUNDS {
            rows = rows.iter().map(|row| self.times(row)).collect();
            orthonormalize(&mut rows);
        }
        let kind = ProjectionKind::Principal {
            images: self.images,
        };
        Some(Projection::from_rows(kind, self.features, dim, &rows))
    }

    fn times(&self, row: &[f64]) -> Vec<f64> {
        let lines = self.products.chunks_exact(self.features);
        lines.map(|line| dot(line, row)).collect()
    }
}

fn unit_rows(size: usize) -> Vec<Vec<f64>> {
    let row = |place: usize| {
        (0..size)
            .map(|at| f64::from(u8::from(at == place)))
            .collect()
    };
    (0..size).map(row).collect()
}

/// `count` rows of samples of N(0, 1), always the same.
fn random_rows(size: usize, count: usize) -> Vec<Vec<f64>> {
    let mut random = ChaCha8Rng::seed_from_u64(mix(&[SEED, size as u64]));
    let mut uniform = || (f64::from(random.next_u32()) + 0.5) / (1u64 << 32) as f64;
    let mut normal = || (-2.0 * uniform().ln()).sqrt() * (TAU * uniform()).cos();
    (0..count)
        .map(|_| (0..size).map(|_| normal()).collect())
        .collect()
}

/// Gram and Schmidt's method, each row twice, which is as good as Householder's (Giraud et al. 2005). A row that depends on those before is
/// replaced by a unit vector that does not.
fn orthonormalize(rows: &mut [Vec<f64>]) {
    for place in 0..rows.len() {
        let (before, rest) = rows.split_at_mut(place);
        let row = &mut rest[0];
        let mut replacement = 0;
        while !orthogonalize(row, before) {
            row.fill(0.0);
            row[replacement] = 1.0;
            replacement += 1;
        }
    }
}

/// Makes `row` orthogonal to `others` and of unit length; `false`: nothing of it is left, or it is not finite.
fn orthogonalize(row: &mut [f64], others: &[Vec<f64>]) -> bool {
    let length = dot(row, row).sqrt();
    for _ in 0..2 {
        for other in others {
            let along = dot(row, other);
            row.iter_mut()
                .zip(other)
                .for_each(|(value, part)| *value -= along * part);
        }
    }
    let left = dot(row, row).sqrt();
    // A length that is not a number is no larger than anything.
    let remains = left.is_finite() && left > 1e-10 * length;
    if !remains {
        return false;
    }
    row.iter_mut().for_each(|value| *value /= left);
    true
}

/// A sum in four parts, which the compiler turns into vector instructions.
fn dot(left: &[f64], right: &[f64]) -> f64 {
    let (left, left_rest) = left.as_chunks::<4>();
    let (right, right_rest) = right.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for (a, b) in left.iter().zip(right) {
        for lane in 0..4 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = left_rest.iter().zip(right_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(projection: &Projection) -> Vec<Vec<f64>> {
        let size = projection.weight.len() / projection.dim;
        let rows = projection.weight.chunks_exact(size);
        rows.map(|row| row.iter().map(|value| f64::from(*value)).collect())
            .collect()
    }

    #[test]
    fn a_smaller_embedding_is_an_orthogonal_projection_and_a_larger_one_the_features() {
        let small = Projection::plain(64, 16);
        assert_eq!(small.kind, ProjectionKind::Orthogonal);
        let found = rows(&small);
        for (a, left) in found.iter().enumerate() {
            for (b, right) in found.iter().enumerate() {
                let expected = f64::from(u8::from(a == b));
                assert!((dot(left, right) - expected).abs() < 1e-6, "{a} {b}");
            }
        }
        assert_eq!(small, Projection::plain(64, 16), "it is always the same");
        let large = Projection::plain(4, 6);
        assert_eq!(large.kind, ProjectionKind::Identity);
        let mut expected = vec![0.0; 24];
        (0..4).for_each(|place| expected[place * 5] = 1.0);
        assert_eq!(large.weight, expected);
    }

    #[test]
    fn what_is_not_finite_is_neither_a_direction_nor_an_image() {
        for bad in [f64::NAN, f64::INFINITY, 1e200] {
            let mut rows = vec![vec![0.0, 1.0, 0.0], vec![bad, 1.0, 0.0]];
            orthonormalize(&mut rows);
            assert_eq!(rows, [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]);
        }
        let mut components = PrincipalComponents::new(3);
        components.add(&[f32::NAN, 0.0, 1.0, 1.0, f32::INFINITY, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(components.images(), 0);
        components.add(&[0.0, 3.0, 0.0]);
        let found = components.projection(1).unwrap();
        assert_eq!(found.weight[1].abs(), 1.0);
    }

    #[test]
    fn principal_components_span_where_the_features_lie() {
        // Features within three directions of 24: three components keep them whole.
        let directions = random_rows(24, 3);
        let mut components = PrincipalComponents::new(24);
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let mut images = Vec::new();
        for _ in 0..40 {
            let mut image = vec![0.0f32; 24];
            for direction in &directions {
                let amount = f64::from(random.next_u32()) / f64::from(u32::MAX);
                image
                    .iter_mut()
                    .zip(direction)
                    .for_each(|(x, d)| *x += (amount * d) as f32);
            }
            components.add(&image);
            images.push(image);
        }
        let found = components.projection(3).unwrap();
        assert_eq!(found.kind, ProjectionKind::Principal { images: 40 });
        for image in images {
            let image: Vec<f64> = image.iter().map(|value| f64::from(*value)).collect();
            let kept: f64 = rows(&found)
                .iter()
                .map(|row| dot(row, &image).powi(2))
                .sum();
            assert!((kept / dot(&image, &image) - 1.0).abs() < 1e-5);
        }
        assert_eq!(
            components.projection(41),
            None,
            "more components than images"
        );
        assert_eq!(components.projection(24), None, "as many as features");
    }
}
