//! A model judged on pairs of images: retrieval in both directions, the shape of its embeddings, and its answers one by one.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{CheckpointError, EvaluationSet, Model, Score};
use crate::db::CheckpointRow;
use kith_eval::{Geometry, Retrieval};
use kith_nn::Encoder;
use kith_pixels::Limits;

/// What judging a model gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    /// The figures.
    pub evaluation: Evaluation,
    /// The answers that another model's are compared with.
    pub score: Score,
}

/// Images encoded at once, whatever the set's size.
const CHUNK: usize = 32;

/// A model judged on held-out pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Pairs used: anchors that have a positive. The geometry takes the first positive of each.
    pub pairs: usize,
    /// Anchor images as queries, positives as gallery.
    pub anchor_to_positive: Retrieval,
    /// The other direction.
    pub positive_to_anchor: Retrieval,
    /// Shape of the embeddings.
    pub geometry: Geometry,
}

impl Evaluation {
    /// Mean recall@1 of both directions.
    pub fn recall_at_1(&self) -> f64 {
        (self.anchor_to_positive.recall_at_1 + self.positive_to_anchor.recall_at_1) / 2.0
    }

    /// The evaluation stored with a checkpoint, if it has one that can be read.
    pub fn of_row(row: &CheckpointRow) -> Option<Self> {
        serde_json::from_value(row.evaluation.clone()?).ok()
    }
}

impl EvaluationSet {
    /// Encodes everything with `model`, opened as `encoder`, in small batches (in the current rayon pool) and judges it. Images that cannot be decoded
    /// are left out, with a warning. Embeddings that are not finite are an error: such a model is of no use.
    pub fn judge(
        &self,
        model: &Model,
        encoder: &Encoder,
        limits: &Limits,
    ) -> Result<Judged, CheckpointError> {
        let judged = self.judge_while(model, encoder, limits, &|| true)?;
        Ok(judged.unwrap_or_default())
    }

    /// As [`EvaluationSet::judge`], asking before each batch whether to go on; `None` when told not to.
    pub fn judge_while(
        &self,
        model: &Model,
        encoder: &Encoder,
        limits: &Limits,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Judged>, CheckpointError> {
        let mut sides: [Rows; 2] = Default::default();
        let files = [
            (&self.anchors, &self.anchor_labels),
            (&self.positives, &self.positive_labels),
        ];
        for (rows, (images, labels)) in sides.iter_mut().zip(files) {
            for (images, labels) in images.chunks(CHUNK).zip(labels.chunks(CHUNK)) {
                if !go_on() {
                    return Ok(None);
                }
                rows.encode(images, labels, encoder, limits)?;
            }
        }
        let [anchors, positives] = sides;
        if !anchors.is_finite() || !positives.is_finite() {
            return Err(CheckpointError::Damaged {
                id: model.id,
                what: "its embeddings are not finite".to_owned(),
            });
        }
        let mut judged = evaluate(model.encoder.dim, &anchors, &positives);
        // The same images at another side are other questions.
        judged.score.questions = format!("{}-{}", self.questions, model.encoder.side);
        Ok(Some(judged))
    }
}

/// One side's embeddings (`[rows, dim]`) with their labels.
#[derive(Default)]
struct Rows {
    vectors: Vec<f32>,
    labels: Vec<u64>,
}

impl Rows {
    /// Appends the embeddings of `images`, those that cannot be decoded left out.
    fn encode(
        &mut self,
        images: &[Bytes],
        labels: &[u64],
        encoder: &Encoder,
        limits: &Limits,
    ) -> Result<(), CheckpointError> {
        let side = encoder.config().side;
        let views: Vec<_> = images
            .par_iter()
            .map(|bytes| {
                kith_pixels::decode_with(bytes, limits, |picture| kith_pixels::fit(&picture, side))
            })
            .collect();
        let mut pixels = Vec::new();
        for (view, label) in views.into_iter().zip(labels) {
            match view {
                Ok(view) => {
                    pixels.extend(view);
                    self.labels.push(*label);
                }
                Err(error) => tracing::warn!(%error, "an evaluation image is left out"),
            }
        }
        if !pixels.is_empty() {
            self.vectors
                .extend(encoder.forward(&pixels)?.embedding.data);
        }
        Ok(())
    }

    fn is_finite(&self) -> bool {
        self.vectors.iter().all(|x| x.is_finite())
    }

    fn by_label(&self) -> HashMap<u64, Vec<usize>> {
        let mut rows: HashMap<u64, Vec<usize>> = HashMap::new();
        for (row, label) in self.labels.iter().enumerate() {
            rows.entry(*label).or_default().push(row);
        }
        rows
    }

    /// The rows whose label is in `gallery`, as queries.
    fn queries(&self, dim: usize, gallery: &HashMap<u64, Vec<usize>>) -> Queries {
        let mut queries = Queries::default();
        for (row, label) in self.vectors.chunks_exact(dim).zip(&self.labels) {
            if let Some(rows) = gallery.get(label) {
                queries.vectors.extend_from_slice(row);
                queries.relevant.push(rows.clone());
                queries.labels.push(*label);
            }
        }
        queries
    }
}

/// Queries (`[rows, dim]`), the gallery rows relevant to each, and their labels.
#[derive(Default)]
struct Queries {
    vectors: Vec<f32>,
    relevant: Vec<Vec<usize>>,
    labels: Vec<u64>,
}

fn evaluate(dim: usize, anchors: &Rows, positives: &Rows) -> Judged {
    let forth = anchors.queries(dim, &positives.by_label());
    if forth.relevant.is_empty() {
        return Judged::default();
    }
    let first: Vec<f32> = forth
        .relevant
        .iter()
        .flat_map(|rows| &positives.vectors[rows[0] * dim..][..dim])
        .copied()
        .collect();
    let back = positives.queries(dim, &anchors.by_label());
    let ranks = [
        kith_eval::ranks(dim, &forth.vectors, &positives.vectors, &forth.relevant),
        kith_eval::ranks(dim, &back.vectors, &anchors.vectors, &back.relevant),
    ];
    let [anchor_to_positive, positive_to_anchor] =
        [&ranks[0], &ranks[1]].map(|ranks| Retrieval::from_ranks(ranks));
    Judged {
        evaluation: Evaluation {
            pairs: forth.relevant.len(),
            anchor_to_positive,
            positive_to_anchor,
            geometry: kith_eval::geometry(dim, &forth.vectors, &first),
        },
        score: score(&[forth.labels, back.labels], &ranks),
    }
}

/// Counts by label: queries of joined images are one unit.
fn score(labels: &[Vec<u64>; 2], ranks: &[Vec<Option<usize>>; 2]) -> Score {
    let mut units: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
    for (label, rank) in labels.iter().flatten().zip(ranks.iter().flatten()) {
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
