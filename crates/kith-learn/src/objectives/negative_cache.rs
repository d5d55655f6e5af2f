//! The negative cache (Lindgren et al. 2021): negatives are drawn by stale embeddings of all images and encoded again for the gradient.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    LearnError,
    anchor::Anchor,
    batch_layout::BatchLayout,
    embedding_cache::EmbeddingCache,
    objective::{ExtraImages, NegativeTerm, Objective},
};
use kith_mcmc::{PairGraph, SidedImage};

/// One negative for each anchor, drawn by Gumbel-max from the softmax over all cached images. Images that this step encoded enter with
/// their current embeddings. The reported loss is the one whose gradient is taken. It is near 0 and does not measure progress.
pub(super) struct NegativeCache<'a> {
    pub(super) cache: &'a EmbeddingCache,
}

/// A drawn negative.
#[derive(Clone, Copy)]
enum Drawn {
    Batch(usize),
    Outside(SidedImage),
}

impl Objective for NegativeCache<'_> {
    /// The images whose turn it is to be refreshed.
    fn extra_images(
        &self,
        layout: &BatchLayout,
        graph: &PairGraph,
    ) -> Result<ExtraImages, LearnError> {
        let due = self.cache.due().iter().copied();
        Ok(ExtraImages {
            images: due
                .filter(|image| graph.holds(*image) && !layout.contains(*image))
                .collect(),
            with_gradient: false,
        })
    }

    fn negative_term(&self, anchor: &Anchor<'_>) -> Option<NegativeTerm> {
        let mut draw = Draw {
            random: ChaCha8Rng::seed_from_u64(anchor.visit.seed),
            best: f64::NEG_INFINITY,
            drawn: None,
        };
        for member in anchor.candidates() {
            let log_weight = anchor.visit.scores[member] - anchor.log_repeats(member);
            draw.offer(log_weight, || Some(Drawn::Batch(member)));
        }
        let mut offer = |image: SidedImage, score: f32| {
            draw.offer(score, || {
                anchor.admits(image).then_some(Drawn::Outside(image))
            });
        };
        for (image, score) in anchor.scored_outside() {
            offer(image, score);
        }
        for (image, vector) in self.cache.vectors() {
            if !anchor.is_encoded(image) {
                offer(image, anchor.score(vector));
            }
        }
        let mut term = NegativeTerm::default();
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
    /// Offers a candidate. `candidate` is called only if it would win: looking up whether an image is a known positive costs more than the
    /// noise.
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
