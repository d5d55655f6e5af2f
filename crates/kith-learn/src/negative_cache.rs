//! The negative cache (Lindgren et al. 2021): negatives are drawn by stale embeddings of all images, and encoded afresh for the gradient.
//! Must never know: how views are made, which vectors the cache refreshes when.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    LearnError,
    anchor::Anchor,
    embedding_cache::EmbeddingCache,
    objective::{Objective, Outside, Term},
    seating::Seating,
};
use kith_mcmc::{ImageKey, PairGraph};

/// One negative an anchor, drawn from the softmax over all cached images by Gumbel-max. An image of the batch, or one refreshed in this
/// step, stands with its vector of today. The loss it reports is the one whose gradient is taken: near 0, and no measure of progress.
pub(super) struct NegativeCache<'a> {
    pub(super) cache: &'a EmbeddingCache,
}

/// What was drawn.
#[derive(Clone, Copy)]
enum Drawn {
    Batch(usize),
    Outside(ImageKey),
}

impl Objective for NegativeCache<'_> {
    fn outside(&self, seating: &Seating, graph: &PairGraph) -> Result<Outside, LearnError> {
        let due = self.cache.due().iter().copied();
        Ok(Outside {
            images: due
                .filter(|image| graph.holds(*image) && !seating.holds(*image))
                .collect(),
            with_gradient: false,
        })
    }

    fn term(&self, anchor: &Anchor<'_>) -> Option<Term> {
        let mut draw = Draw {
            random: ChaCha8Rng::seed_from_u64(anchor.visit.seed),
            best: f64::NEG_INFINITY,
            drawn: None,
        };
        for member in anchor.candidates() {
            let log_weight = anchor.visit.scores[member] - anchor.log_repeats(member);
            draw.offer(log_weight, || Some(Drawn::Batch(member)));
        }
        let mut offer = |image: ImageKey, score: f32| {
            draw.offer(score, || {
                anchor.admits(image).then_some(Drawn::Outside(image))
            });
        };
        for (image, score) in anchor.scored() {
            offer(image, score);
        }
        for (image, vector) in self.cache.vectors() {
            if !anchor.knows(image) {
                offer(image, anchor.score(vector));
            }
        }
        let mut term = Term::default();
        match draw.drawn? {
            Drawn::Batch(position) => term.weights.push((position, 1.0)),
            Drawn::Outside(image) => term.outside.push((image, 1.0)),
        }
        Some(term)
    }

    fn keeps_vectors(&self) -> bool {
        true
    }
}

/// Gumbel-max: the largest of (log weight + Gumbel noise) is a draw by the softmax of the log weights.
struct Draw {
    random: ChaCha8Rng,
    best: f64,
    drawn: Option<Drawn>,
}

impl Draw {
    /// `candidate` is asked only when it would win: whether an image is a known positive takes longer than its noise.
    fn offer(&mut self, log_weight: f32, candidate: impl FnOnce() -> Option<Drawn>) {
        let uniform: f64 = self.random.random::<f64>().max(f64::MIN_POSITIVE);
        let value = f64::from(log_weight) - (-uniform.ln()).ln();
        if value > self.best
            && let Some(drawn) = candidate()
        {
            (self.best, self.drawn) = (value, Some(drawn));
        }
    }
}
