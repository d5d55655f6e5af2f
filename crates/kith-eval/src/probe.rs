//! The linear probe: multinomial logistic regression on frozen features.

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{
    labelled::{Labelled, Standardiser, share_right},
    vectors::{argmax, dot},
};

/// The training settings of a linear probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbeConfig {
    /// Learning rate of SGD.
    pub rate: f32,
    /// Momentum of SGD, as PyTorch defines it.
    pub momentum: f32,
    /// Rows of a batch; the last batch of an epoch may be smaller.
    pub batch: usize,
    /// Passes over the training rows, each in its own order.
    pub epochs: usize,
    /// Whether each column is first scaled to mean 0 and deviation 1 over the training rows. The published protocol does not; features of
    /// another scale then need another rate.
    pub standardise: bool,
    /// Seed of the order of the rows.
    pub seed: u64,
}

impl Default for ProbeConfig {
    /// The settings of Yau et al. 2024 on STL-10.
    fn default() -> Self {
        Self {
            rate: 1e-3,
            momentum: 0.9,
            batch: 1024,
            epochs: 100,
            standardise: false,
            seed: 1,
        }
    }
}

/// Fraction of `test` that a probe trained on `train` classifies correctly.
///
/// Weights start at zero: the loss is convex, so the start decides only the path. The result depends on the seed, not on the number of threads.
/// Empty sets give 0. Runs in rayon's current pool.
pub fn probe_accuracy(train: &Labelled<'_>, test: &Labelled<'_>, config: &ProbeConfig) -> f64 {
    share_right(&probe_classes(train, test, config), test.labels)
}

/// The class of each row of `test` by that probe; none where there is nothing to train it on.
pub(crate) fn probe_classes(
    train: &Labelled<'_>,
    test: &Labelled<'_>,
    config: &ProbeConfig,
) -> Vec<usize> {
    if train.labels.is_empty() {
        return Vec::new();
    }
    let (mut seen, mut unseen) = (train.rows.to_vec(), test.rows.to_vec());
    if config.standardise {
        let standardiser = Standardiser::new(train);
        (seen, unseen) = (standardiser.apply(&seen), standardiser.apply(&unseen));
    }
    let mut probe = Probe::new(train.dim, train.classes());
    let mut random = ChaCha8Rng::seed_from_u64(config.seed);
    let mut order: Vec<usize> = (0..train.labels.len()).collect();
    for _ in 0..config.epochs {
        order.shuffle(&mut random);
        for batch in order.chunks(config.batch.max(1)) {
            probe.step(&seen, train.labels, batch, config);
        }
    }
    unseen
        .par_chunks_exact(test.dim.max(1))
        .map(|row| probe.class(row))
        .collect()
}

struct Probe {
    dim: usize,
    /// For each class its weights and, last, its bias.
    weights: Vec<Vec<f32>>,
    velocity: Vec<Vec<f32>>,
}

impl Probe {
    fn new(dim: usize, classes: usize) -> Self {
        let zeros = vec![vec![0.0; dim + 1]; classes];
        Self {
            dim,
            weights: zeros.clone(),
            velocity: zeros,
        }
    }

    fn logits(&self, row: &[f32]) -> Vec<f32> {
        let logit = |weights: &Vec<f32>| dot(row, weights) + weights[self.dim];
        self.weights.iter().map(logit).collect()
    }

    fn class(&self, row: &[f32]) -> usize {
        argmax(&self.logits(row))
    }

    /// One step on the rows `batch`. Each class's gradient is summed in the order of the batch.
    fn step(&mut self, rows: &[f32], labels: &[usize], batch: &[usize], config: &ProbeConfig) {
        let row = |index: usize| &rows[index * self.dim..(index + 1) * self.dim];
        let errors: Vec<Vec<f32>> = batch
            .par_iter()
            .map(|index| {
                let mut error = softmax(self.logits(row(*index)));
                error[labels[*index]] -= 1.0;
                error
            })
            .collect();
        let gradient = |class: usize| {
            let mut sum = vec![0.0; self.dim + 1];
            for (index, error) in batch.iter().zip(&errors) {
                let values = row(*index).iter().chain(&[1.0]);
                sum.iter_mut()
                    .zip(values)
                    .for_each(|(sum, value)| *sum += error[class] * value);
            }
            sum
        };
        let gradients: Vec<Vec<f32>> = (0..self.weights.len())
            .into_par_iter()
            .map(gradient)
            .collect();
        let share = 1.0 / batch.len() as f32;
        let classes = self.weights.iter_mut().zip(&mut self.velocity);
        for ((weights, velocity), gradient) in classes.zip(&gradients) {
            for ((weight, velocity), gradient) in weights.iter_mut().zip(velocity).zip(gradient) {
                *velocity = config.momentum * *velocity + share * gradient;
                *weight -= config.rate * *velocity;
            }
        }
    }
}

fn softmax(mut logits: Vec<f32>) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits
        .iter_mut()
        .for_each(|logit| *logit = (*logit - largest).exp());
    let total: f32 = logits.iter().sum();
    logits.iter_mut().for_each(|value| *value /= total);
    logits
}
