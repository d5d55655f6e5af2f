//! Judges an encoder by how well the classes of labelled images can be read off its embeddings.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    EvalError, Labelled, ProbeConfig, Score, embedded::Embedded, neighbours::neighbour_classes,
    probe::probe_classes,
};
use kith_nn::Encoder;
use kith_pixels::Limits;

/// Images encoded at once, whatever the set's size.
const CHUNK: usize = 32;

/// Encoded image files, and the class of each.
#[derive(Clone, Debug, Default)]
pub struct LabelledImages {
    /// Encoded image files.
    pub images: Vec<Bytes>,
    /// One class for each image, counted from 0.
    pub classes: Vec<u64>,
}

/// The images that classifiers learn from, and those that they are tested on.
#[derive(Clone, Debug, Default)]
pub struct ClassificationSet {
    /// To learn from.
    pub train: LabelledImages,
    /// To be tested on.
    pub test: LabelledImages,
}

/// How classifiers learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassificationConfig {
    /// Neighbours that vote on a class.
    pub neighbours: usize,
    /// Seed of the order in which the linear probe sees its rows.
    pub seed: u64,
}

/// How well classes can be read off embeddings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Classification {
    /// Images that the classifiers learned from.
    pub train: usize,
    /// Images that they were tested on.
    pub test: usize,
    /// Classes of the images to learn from.
    pub classes: usize,
    /// Share of the test images whose class the nearest neighbours name: see [`neighbour_accuracy`](crate::neighbour_accuracy).
    pub neighbour_accuracy: f64,
    /// Share of the test images whose class a linear probe on the embeddings names: see [`probe_accuracy`](crate::probe_accuracy).
    pub probe_accuracy: f64,
}

/// The result of judging an encoder by classes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassificationReport {
    /// The figures.
    pub classification: Classification,
    /// Which test images the nearest neighbours classify correctly. Each is a unit.
    pub neighbour_score: Score,
    /// Which test images the probe classifies correctly.
    pub probe_score: Score,
}

impl ClassificationSet {
    /// Encodes all images, and classifies the test images by the others. Images that cannot be decoded are left out, with a warning. Runs in
    /// rayon's current pool.
    ///
    /// # Errors
    /// [`EvalError::NotFinite`] where an embedding holds NaN or an infinity; [`EvalError::Nn`] where the encoder fails.
    pub fn evaluate(
        &self,
        encoder: &Encoder,
        limits: &Limits,
        config: &ClassificationConfig,
    ) -> Result<ClassificationReport, EvalError> {
        let [train, test] = [&self.train, &self.test].map(|part| part.embed(encoder, limits));
        let (train, test) = (train?, test?);
        let dim = encoder.config().dim;
        let [train_classes, test_classes] = [&train, &test].map(|part| {
            let classes = part.labels.iter().map(|class| *class as usize);
            classes.collect::<Vec<usize>>()
        });
        let labelled = |rows, labels| Labelled { dim, rows, labels };
        let seen = labelled(&train.vectors, &train_classes);
        let unseen = labelled(&test.vectors, &test_classes);
        let probe = ProbeConfig {
            rate: 1e-2,
            batch: 128,
            standardise: true,
            seed: config.seed,
            ..ProbeConfig::default()
        };
        let neighbour_score = score(
            &neighbour_classes(&seen, &unseen, config.neighbours),
            &test_classes,
        );
        let probe_score = score(&probe_classes(&seen, &unseen, &probe), &test_classes);
        Ok(ClassificationReport {
            classification: Classification {
                train: train_classes.len(),
                test: test_classes.len(),
                classes: distinct(&train_classes),
                neighbour_accuracy: neighbour_score.share(),
                probe_accuracy: probe_score.share(),
            },
            neighbour_score,
            probe_score,
        })
    }
}

impl LabelledImages {
    fn embed(&self, encoder: &Encoder, limits: &Limits) -> Result<Embedded, EvalError> {
        let mut embedded = Embedded::default();
        for (images, classes) in self.images.chunks(CHUNK).zip(self.classes.chunks(CHUNK)) {
            embedded.encode(images, classes, encoder, limits)?;
        }
        if embedded.is_finite() {
            Ok(embedded)
        } else {
            Err(EvalError::NotFinite)
        }
    }
}

fn distinct(classes: &[usize]) -> usize {
    classes
        .iter()
        .collect::<std::collections::BTreeSet<_>>()
        .len()
}

/// One unit for each test image; an image that got no class is wrong.
fn score(classes: &[usize], wanted: &[usize]) -> Score {
    let right = |(index, class)| u32::from(classes.get(index) == Some(class));
    Score {
        questions: String::new(),
        found: wanted.iter().enumerate().map(right).collect(),
        asked: vec![1; wanted.len()],
    }
}
