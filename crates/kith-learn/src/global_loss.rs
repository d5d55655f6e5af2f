//! The exact global contrastive loss and its gradient over a fixed set of views, as a reference for the estimates of steps.

use rayon::prelude::*;

use super::{
    LearnError,
    encoded::GradientSums,
    loss::dot,
    passes::{Pass, batch_images, passes},
    softmax::log_sum_exp,
};
use kith_mcmc::{PairGraph, PairKey, SlotKey};
use kith_nn::{NnError, TowerGradients, Towers};

/// One view of each slot of a set of pairs.
///
/// A step asks for a carried negative by its image, not by its slot. To compare steps with the exact gradient, give each slot an image key
/// of its own: two fixed augmentations of a picture are two keys in one pair.
#[derive(Clone, Copy, Debug)]
pub struct FixedViews<'a> {
    /// The pairs, each once; all must be in the graph.
    pub pairs: &'a [PairKey],
    /// `[2 · pairs, side, side, 3]`: each pair's anchor, then its positive.
    pub pixels: &'a [f32],
}

/// The global contrastive loss (Yau et al. 2024, equation 1). Every slot is an anchor x, and its candidates z are all slots that are no
/// known positives of it:
///
/// mean over anchors x of  −β φ(x)·φ(y) + ln Σ_z exp(β φ(x)·φ(z)) / degree(z),
///
/// in which each anchor counts by the weight of its pair.
///
/// An image of several slots counts once, by the mean over its views. Where each side has an encoder of its own, candidates are those of the
/// other side. Anchors without a candidate take no part. Sums run in `f64`. Memory
/// holds all embeddings and the activations of one tile of images.
#[derive(Debug)]
pub struct GlobalLoss<'a> {
    pixels: &'a [f32],
    /// `[slots]`: for each anchor the slots that may not be its negatives, ascending.
    excluded: Vec<Vec<usize>>,
    log_degree: Vec<f64>,
    /// `[slots]`: the weight of the slot's pair.
    weights: Vec<f64>,
    beta: f32,
    tile: usize,
}

impl<'a> GlobalLoss<'a> {
    /// Finds the candidates of each anchor. `tile` is the number of images that are encoded at once, at least 1.
    ///
    /// Fails if there are no pairs or if the number of pixels does not fit them.
    pub fn new(
        graph: &PairGraph,
        views: FixedViews<'a>,
        beta: f32,
        tile: usize,
    ) -> Result<Self, LearnError> {
        let slots: Vec<SlotKey> = views.pairs.iter().flat_map(|pair| pair.slots()).collect();
        if slots.is_empty() || !views.pixels.len().is_multiple_of(slots.len()) {
            let (values, slots) = (views.pixels.len(), slots.len());
            return Err(
                NnError::Config(format!("{values} values are not {slots} views, or none")).into(),
            );
        }
        let candidates: Vec<_> = slots.iter().map(|slot| graph.candidate(*slot)).collect();
        let excluded = slots.par_iter().map(|anchor| {
            let positives = graph.positives(*anchor);
            (0..slots.len())
                .filter(|other| positives.excludes_candidate(candidates[*other].as_ref()))
                .collect()
        });
        let log_degree = slots.iter().map(|slot| {
            graph
                .sided_image(*slot)
                .map_or(0.0, |image| f64::from(graph.log_degree(image)))
        });
        let weights = slots.iter().map(|slot| {
            let entry = graph.get(slot.pair());
            entry.map_or(1.0, |entry| entry.weight.value())
        });
        Ok(Self {
            pixels: views.pixels,
            excluded: excluded.collect(),
            log_degree: log_degree.collect(),
            weights: weights.collect(),
            beta,
            tile: tile.max(1),
        })
    }

    /// The loss of `towers`; 0 if no anchor has a candidate. Fails if the views do not have the encoder's input side.
    pub fn value(&self, towers: &Towers) -> Result<f64, LearnError> {
        Ok(self.loss_and_log_sums(&self.encode(towers)?).0)
    }

    /// The loss and its gradient with respect to all weights. Each tile is encoded a second time, with a tape for the backward pass, and the
    /// gradients of the tiles are summed. Fails as [`Self::value`].
    pub fn gradient(&self, towers: &Towers) -> Result<(f64, TowerGradients), LearnError> {
        let rows = self.encode(towers)?;
        let (loss, log_sums) = self.loss_and_log_sums(&rows);
        let row_gradient = self.row_gradient(&rows, &log_sums);
        let mut sums = GradientSums::default();
        for Pass {
            side,
            images,
            rows: own,
        } in self.tiles(towers)
        {
            let tape = towers.get(side).forward_train_all(&images)?;
            sums.add(side, tape.backward(&own.gather(rows.dim, &row_gradient))?)?;
        }
        let none = || NnError::Config("there is no view".to_owned());
        Ok((loss, sums.finish().ok_or_else(none)?))
    }

    /// Passes of at most `tile` images, which together see each slot once.
    fn tiles(&self, towers: &Towers) -> Vec<Pass<'a>> {
        let whole = passes(towers, 0, batch_images(towers.config().side, self.pixels));
        let tiles = whole.iter().flat_map(|pass| {
            let tiles = pass.images.chunks(self.tile).enumerate();
            tiles.map(|(number, images)| Pass {
                side: pass.side,
                images: images.to_vec(),
                rows: pass.rows.part(number * self.tile, self.tile),
            })
        });
        tiles.collect()
    }

    fn encode(&self, towers: &Towers) -> Result<Rows, LearnError> {
        let (slots, side) = (self.excluded.len(), towers.config().side);
        if self.pixels.len() != slots * side * side * 3 {
            let values = self.pixels.len();
            let message = format!("{values} values are not {slots} images of {side} × {side} × 3");
            return Err(NnError::Config(message).into());
        }
        let dim = towers.config().dim;
        let mut data = vec![0.0; slots * dim];
        for Pass { side, images, rows } in self.tiles(towers) {
            let vectors = towers.get(side).forward_all(&images)?.embedding;
            rows.scatter(dim, &vectors.data, &mut data);
        }
        Ok(Rows { dim, data })
    }

    /// The loss, and for each anchor the logarithm of its sum over candidates; `None` without a candidate.
    fn loss_and_log_sums(&self, rows: &Rows) -> (f64, Vec<Option<f64>>) {
        let log_sums: Vec<Option<f64>> = (0..self.excluded.len())
            .into_par_iter()
            .map(|anchor| self.log_sum(rows, anchor))
            .collect();
        let term = |(anchor, log_sum): (usize, &Option<f64>)| {
            let term = (*log_sum)? - self.score(rows, anchor, anchor ^ 1);
            Some(self.weights[anchor] * term)
        };
        let terms = log_sums.iter().enumerate().filter_map(term);
        (terms.sum::<f64>() / self.total_weight(&log_sums), log_sums)
    }

    /// Sum of the weights of the anchors that take part; 1 if there is none.
    fn total_weight(&self, log_sums: &[Option<f64>]) -> f64 {
        let anchors = self.weights.iter().zip(log_sums);
        let total: f64 = anchors
            .filter_map(|(weight, log_sum)| log_sum.map(|_| weight))
            .sum();
        if total > 0.0 { total } else { 1.0 }
    }

    fn score(&self, rows: &Rows, anchor: usize, other: usize) -> f64 {
        f64::from(self.beta * dot(rows.row(anchor), rows.row(other)))
    }

    fn admits(&self, anchor: usize, candidate: usize) -> bool {
        self.excluded[anchor].binary_search(&candidate).is_err()
    }

    fn log_sum(&self, rows: &Rows, anchor: usize) -> Option<f64> {
        let log_weights: Vec<f64> = (0..self.excluded.len())
            .filter(|candidate| self.admits(anchor, *candidate))
            .map(|candidate| self.score(rows, anchor, candidate) - self.log_degree[candidate])
            .collect();
        log_sum_exp(&log_weights)
    }

    /// dL/dφ, `[slots, dim]`. One thread sums each row in a fixed order and computes the scores again, so that no `[slots, slots]` matrix is
    /// kept.
    fn row_gradient(&self, rows: &Rows, log_sums: &[Option<f64>]) -> Vec<f32> {
        let scale = f64::from(self.beta) / self.total_weight(log_sums);
        let mut gradient = vec![0.0_f32; rows.data.len()];
        gradient
            .par_chunks_exact_mut(rows.dim)
            .enumerate()
            .for_each(|(row, gradient)| {
                let mut sum = vec![0.0_f64; rows.dim];
                for other in 0..log_sums.len() {
                    let weight = self.weight(rows, log_sums, [row, other])
                        + self.weight(rows, log_sums, [other, row]);
                    if weight != 0.0 {
                        sum.iter_mut()
                            .zip(rows.row(other))
                            .for_each(|(sum, value)| *sum += weight * f64::from(*value));
                    }
                }
                gradient
                    .iter_mut()
                    .zip(sum)
                    .for_each(|(value, sum)| *value = (scale * sum) as f32);
            });
        gradient
    }

    /// The factor of ∇ φ(anchor)·φ(other) in the anchor's term: p_x(other), minus 1 for the positive, times the anchor's weight.
    fn weight(&self, rows: &Rows, log_sums: &[Option<f64>], [anchor, other]: [usize; 2]) -> f64 {
        let Some(log_sum) = log_sums[anchor] else {
            return 0.0;
        };
        let positive = f64::from(u8::from(other == anchor ^ 1));
        if self.admits(anchor, other) {
            let score = self.score(rows, anchor, other) - self.log_degree[other];
            self.weights[anchor] * ((score - log_sum).exp() - positive)
        } else {
            -self.weights[anchor] * positive
        }
    }
}

/// Embeddings of all slots, `[slots, dim]`.
struct Rows {
    dim: usize,
    data: Vec<f32>,
}

impl Rows {
    fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.dim..(row + 1) * self.dim]
    }
}
