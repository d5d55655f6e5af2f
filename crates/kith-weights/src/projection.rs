//! The projection that is put on imported features, `[dim, features]`: it leaves them as they are, as far as `dim` allows.

use std::fmt;

use faer::Mat;
use kith_nn::{NamedArray, PLACES};

use super::{
    linear::{dot, leading_eigenvectors, orthonormalize, random_rows},
    network::{features, layer},
};

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
    /// Fitted to pairs ([`PairWhitening`](super::PairWhitening)).
    Whitened {
        /// Number of pairs.
        pairs: usize,
    },
    /// Of one side of pairs, fitted with the other side's ([`PairCorrelation`](super::PairCorrelation)).
    Correlated {
        /// Number of pairs.
        pairs: usize,
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
            ProjectionKind::Correlated { pairs } => write!(
                f,
                "{} directions of the features of each side that agree most within {pairs} pairs",
                self.dim
            ),
            ProjectionKind::Whitened { pairs } => write!(
                f,
                "{} directions of the features in which the images of {pairs} pairs differ least from each other and most from others",
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

    /// The largest magnitude of a value in the embedding of an image with these features, at unit length.
    pub fn largest_value(&self, features: &[f32]) -> f32 {
        let rows = self.weight.chunks_exact(features.len().max(1));
        let values = rows.zip(&self.bias).map(|(row, bias)| {
            let products = row.iter().zip(features);
            products.map(|(weight, value)| weight * value).sum::<f32>() + bias
        });
        let (largest, squares) = values.fold((0.0f32, 0.0f32), |(largest, squares), value| {
            (largest.max(value.abs()), squares + value * value)
        });
        if squares > 0.0 {
            largest / squares.sqrt()
        } else {
            0.0
        }
    }

    /// The arrays of an encoder's head, for a projection of images' hidden features and the means over places after them, as
    /// [`kith_nn::Features`] has them. `width`: channels of the network's first stage.
    pub fn into_head(self, width: usize) -> Vec<NamedArray> {
        let (dim, hidden) = (self.dim, features(width));
        let size = self.weight.len() / dim;
        let rows = || self.weight.chunks_exact(size);
        let by_hidden = rows().flat_map(|row| &row[..hidden]).copied().collect();
        let mut head = layer("projection", vec![dim, hidden], by_hidden, self.bias).to_vec();
        let mut first = hidden;
        for part in PLACES {
            let (places, channels) = (part.grid * part.grid, part.channels(width));
            // Features go from place to place, files from channel to channel.
            let at = (0..channels)
                .flat_map(|channel| (0..places).map(move |place| place * channels + channel));
            let weight = rows().flat_map(|row| at.clone().map(|at| row[first + at]));
            let shape = part.shape(width, dim).to_vec();
            head.extend(layer(part.name, shape, weight.collect(), vec![0.0; dim]));
            first += part.values(width);
        }
        head
    }

    /// A projection whose rows are the `columns`, of features less their `mean`. `None`: a value is not finite.
    pub(super) fn centred(kind: ProjectionKind, columns: &Mat<f64>, mean: &[f64]) -> Option<Self> {
        let rows: Vec<Vec<f64>> = columns
            .col_iter()
            .map(|column| column.iter().copied().collect())
            .collect();
        let mut projection = Self::from_rows(kind, mean.len(), rows.len(), &rows);
        let centre = |row: &Vec<f64>| -dot(row, mean) as f32;
        projection.bias = rows.iter().map(centre).collect();
        let mut values = projection.weight.iter().chain(&projection.bias);
        values.all(|value| value.is_finite()).then_some(projection)
    }

    pub(super) fn from_rows(
        kind: ProjectionKind,
        features: usize,
        dim: usize,
        rows: &[Vec<f64>],
    ) -> Self {
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
    products: Vec<Vec<f64>>,
}

impl PrincipalComponents {
    /// No images yet. `features`: values of an image's features.
    pub fn new(features: usize) -> Self {
        Self {
            features,
            images: 0,
            products: vec![vec![0.0; features]; features],
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
            for (sums, left) in self.products.iter_mut().zip(&row) {
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

    /// The first `dim` principal components. `None`: there are fewer
    /// images than components, or as many components as features.
    pub fn projection(&self, dim: usize) -> Option<Projection> {
        if self.images < dim || dim >= self.features {
            return None;
        }
        let products = &self.products;
        let products = Mat::from_fn(self.features, self.features, |row, at| products[row][at]);
        let rows = leading_eigenvectors(products.as_ref(), dim)?;
        let kind = ProjectionKind::Principal {
            images: self.images,
        };
        Some(Projection::from_rows(kind, self.features, dim, &rows))
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

#[cfg(test)]
mod tests {
    use super::*;
    use kith_nn::{Device, Encoder, EncoderConfig};
    use rand_chacha::{
        ChaCha8Rng,
        rand_core::{Rng, SeedableRng},
    };

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
    fn a_head_reads_the_features_as_the_encoder_gives_them() {
        let config = EncoderConfig {
            width: 8,
            side: 32,
            dim: 8,
            towers: 1,
        };
        let device = Device::cpu();
        let pixels: Vec<f32> = (0..2 * 32 * 32 * 3)
            .map(|at| (at % 71) as f32 / 35.0)
            .collect();
        let mut arrays = Encoder::fresh(&config, 3, &device)
            .unwrap()
            .to_arrays()
            .unwrap();
        let features = {
            let encoder = Encoder::from_arrays(&config, &arrays, &device).unwrap();
            encoder.forward(&pixels).unwrap()
        };
        let (hidden, [places, fine]) = (&features.hidden, &features.places);
        let size = hidden.dim + places.dim + fine.dim;
        let rows = random_rows(size, 8);
        let projection = Projection::from_rows(ProjectionKind::Own, size, 8, &rows);
        arrays.retain(|array| {
            !["projection", "places", "fine_places"]
                .contains(&array.name.split('.').next().unwrap())
        });
        arrays.extend(projection.into_head(config.width));
        let encoder = Encoder::from_arrays(&config, &arrays, &device).unwrap();
        let found = encoder.forward(&pixels).unwrap().embedding.data;
        let images = hidden
            .data
            .chunks(hidden.dim)
            .zip(places.data.chunks(places.dim))
            .zip(fine.data.chunks(fine.dim));
        for (((hidden, places), fine), found) in images.zip(found.chunks(8)) {
            let all = [hidden, places, fine].concat();
            let all: Vec<f64> = all.iter().map(|value| f64::from(*value)).collect();
            let sums: Vec<f64> = rows.iter().map(|row| dot(row, &all)).collect();
            let length = dot(&sums, &sums).sqrt();
            for (found, sum) in found.iter().zip(sums) {
                // 32-bit sums of some three hundred products.
                assert!((f64::from(*found) - sum / length).abs() < 1e-5);
            }
        }
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
