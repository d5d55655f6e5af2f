//! Evaluates the encoders of the two sides on pairs of images: retrieval in both directions, the geometry of the embeddings, and a score for each unit.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::{
    EvalError, EvaluationSet, Geometry, Retrieval, Score, embedded::Embedded, geometry,
    geometry_of_each, ranks,
};
use kith_mcmc::Side;
use kith_nn::Towers;
use kith_pixels::Limits;

/// Images encoded at once, whatever the set's size.
const CHUNK: usize = 32;

/// The result of evaluating an encoder on a set of images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvalReport {
    /// The figures.
    pub evaluation: Evaluation,
    /// The answers to compare with those of another encoder.
    pub score: Score,
}

/// Figures of an encoder on pairs of images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Evaluation {
    /// Anchors that have a positive. The geometry uses the first positive of each.
    pub pairs: usize,
    /// Anchors as queries, positives as gallery.
    pub anchor_to_positive: Retrieval,
    /// Positives as queries, anchors as gallery.
    pub positive_to_anchor: Retrieval,
    /// Shape of the embeddings.
    pub geometry: Geometry,
}

impl Evaluation {
    /// Mean recall@1 of both directions.
    pub fn recall_at_1(&self) -> f64 {
        (self.anchor_to_positive.recall_at_1 + self.positive_to_anchor.recall_at_1) / 2.0
    }
}

impl EvaluationSet {
    /// Encodes all images with the encoder of their side in small batches and evaluates the embeddings. Decoding and ranking run in rayon's current pool.
    /// Images that cannot be decoded are left out, with a warning.
    ///
    /// Calls `keep_going` before each batch; returns `None` once it answers `false`.
    ///
    /// # Errors
    /// [`EvalError::NotFinite`] where an embedding holds NaN or an infinity; [`EvalError::Nn`] where the encoder fails.
    pub fn evaluate(
        &self,
        towers: &Towers,
        limits: &Limits,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Option<EvalReport>, EvalError> {
        let mut sides: [Embedded; 2] = Default::default();
        let files = [
            (&self.anchors, &self.anchor_labels),
            (&self.positives, &self.positive_labels),
        ];
        for ((embedded, side), (images, labels)) in sides.iter_mut().zip(Side::BOTH).zip(files) {
            for (images, labels) in images.chunks(CHUNK).zip(labels.chunks(CHUNK)) {
                if !keep_going() {
                    return Ok(None);
                }
                embedded.encode(images, labels, towers.get(side), limits)?;
            }
        }
        let [anchors, positives] = sides;
        if !anchors.is_finite() || !positives.is_finite() {
            return Err(EvalError::NotFinite);
        }
        let config = towers.config();
        let mut report = evaluate(config.dim, [&anchors, &positives], towers.are_two());
        // The same images at another side are other questions.
        report.score.questions = format!("{}-{}", self.questions, config.side);
        Ok(Some(report))
    }
}

/// Queries (`[rows, dim]`), the gallery rows relevant to each, and their labels.
#[derive(Default)]
struct Queries {
    vectors: Vec<f32>,
    relevant: Vec<Vec<usize>>,
    labels: Vec<u64>,
}

impl Queries {
    /// The rows of `side` whose label is in `gallery`.
    fn new(dim: usize, side: &Embedded, gallery: &HashMap<u64, Vec<usize>>) -> Self {
        let mut queries = Self::default();
        for (row, label) in side.vectors.chunks_exact(dim).zip(&side.labels) {
            if let Some(rows) = gallery.get(label) {
                queries.vectors.extend_from_slice(row);
                queries.relevant.push(rows.clone());
                queries.labels.push(*label);
            }
        }
        queries
    }
}

/// `directed`: each side has an encoder of its own. Then the score is that of anchors as queries, and the geometry that of each side.
fn evaluate(dim: usize, [anchors, positives]: [&Embedded; 2], directed: bool) -> EvalReport {
    let forward = Queries::new(dim, anchors, &positives.rows_by_label());
    if forward.relevant.is_empty() {
        return EvalReport::default();
    }
    let first: Vec<f32> = forward
        .relevant
        .iter()
        .flat_map(|rows| &positives.vectors[rows[0] * dim..][..dim])
        .copied()
        .collect();
    let backward = Queries::new(dim, positives, &anchors.rows_by_label());
    let ranks = [
        ranks(dim, &forward.vectors, &positives.vectors, &forward.relevant),
        ranks(dim, &backward.vectors, &anchors.vectors, &backward.relevant),
    ];
    let [anchor_to_positive, positive_to_anchor] =
        [&ranks[0], &ranks[1]].map(|ranks| Retrieval::from_ranks(ranks));
    let geometry = if directed { geometry_of_each } else { geometry };
    let mut labels = [forward.labels, backward.labels];
    if directed {
        labels[1].clear();
    }
    EvalReport {
        evaluation: Evaluation {
            pairs: forward.relevant.len(),
            anchor_to_positive,
            positive_to_anchor,
            geometry: geometry(dim, &forward.vectors, &first),
        },
        score: score(&labels, &ranks),
    }
}

/// Counts by label: queries with equal labels are one unit. A side without labels does not count.
fn score(labels: &[Vec<u64>; 2], ranks: &[Vec<Option<usize>>; 2]) -> Score {
    let mut units: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
    let sides = labels.iter().zip(ranks);
    for (label, rank) in sides.flat_map(|(labels, ranks)| labels.iter().zip(ranks)) {
        let (found, asked) = units.entry(*label).or_default();
        *found += u32::from(*rank == Some(1));
        *asked += 1;
    }
    let (found, asked) = units.into_values().unzip();
    Score {
        questions: String::new(),
        found,
        asked,
    }
}
