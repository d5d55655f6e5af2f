//! The first half of a step: encode, score, visit, encode what has weight outside the batch. Changes nothing outside of itself.

use std::{collections::BTreeSet, time::Instant};

use rayon::prelude::*;

use super::{
    Batch, CarriedViews, LearnError,
    anchor::{Anchor, stamp},
    carried,
    embedding_cache::Fresh,
    encoded::{Encoded, View},
    loss::{Cosines, dot, scores},
    objective::{Objective, Outside, Term},
    seating::Seating,
};
use kith_mcmc::{Carried, ChainState, ImageKey, PairGraph, SlotKey};
use kith_nn::{Encoder, NnError};

/// What a step is done with.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) beta: f32,
    pub(super) seed: u64,
    pub(super) encoder: &'a Encoder,
    pub(super) objective: &'a dyn Objective,
    pub(super) graph: &'a PairGraph,
    pub(super) source: &'a dyn CarriedViews,
}

/// Everything that is known before the gradient.
pub(super) struct Forward {
    pub(super) seating: Seating,
    pub(super) encoded: Encoded,
    /// Views of images that were scored before the visits, without keeping what a gradient needs; and their vectors.
    glanced: (Vec<View>, Encoded),
    /// Images that could not be read.
    pub(super) gone: BTreeSet<ImageKey>,
    /// `[slots, slots]`, β times the cosine.
    pub(super) scores: Vec<f32>,
    /// Of each slot as an anchor; `None`: it takes no part.
    pub(super) terms: Vec<Option<Term>>,
    /// See [`Objective::factors`].
    pub(super) factors: Vec<f32>,
    pub(super) score_seconds: f64,
    pub(super) walk_seconds: f64,
    pub(super) encode_seconds: f64,
    pub(super) beta: f32,
    pub(super) step: u64,
}

impl Forward {
    pub(super) fn new(seating: Seating, beta: f32, step: u64) -> Self {
        Self {
            seating,
            encoded: Encoded::default(),
            glanced: Default::default(),
            gone: BTreeSet::new(),
            scores: Vec::new(),
            terms: Vec::new(),
            factors: Vec::new(),
            score_seconds: 0.0,
            walk_seconds: 0.0,
            encode_seconds: 0.0,
            beta,
            step,
        }
    }

    pub(super) fn run(context: Context<'_>, batch: &Batch) -> Result<Self, LearnError> {
        let started = Instant::now();
        let chains = context.objective.chains();
        let seating = Seating::new(&batch.pairs, context.graph, chains);
        let outside = context.objective.outside(&seating, context.graph)?;
        let mut forward = Self::new(seating, context.beta, batch.step);
        forward.score_seconds = started.elapsed().as_secs_f64();
        if !forward.seating.has_negatives()
            && outside.images.is_empty()
            && !context.objective.keeps_vectors()
        {
            return Ok(forward.without_anchors());
        }
        forward.encode_batch(context, &batch.pixels, &outside)?;
        forward.visit_all(context.objective, context.graph, context.seed);
        forward.encode_wanted(context)?;
        Ok(forward)
    }

    /// Of a batch in which no anchor has a negative: there is nothing to encode it for.
    fn without_anchors(mut self) -> Self {
        self.terms = vec![None; self.seating.slots.len()];
        self
    }

    /// The batch, and what the objective wants to know of outside of it: with the batch if all of it has a gradient, else without
    /// keeping what a gradient needs, at a third of the cost.
    fn encode_batch(
        &mut self,
        context: Context<'_>,
        pixels: &[f32],
        outside: &Outside,
    ) -> Result<(), LearnError> {
        let started = Instant::now();
        let (views, missing) = carried::load(context.source, self.step, &outside.images);
        self.lose(missing);
        let (along, apart) = if outside.with_gradient {
            (views, Vec::new())
        } else {
            (Vec::new(), views)
        };
        self.encoded.push(context.encoder, pixels, &along)?;
        self.check_rows(along.len())?;
        self.check_finite(&self.encoded)?;
        let vectors = Encoded::without_tape(context.encoder, &apart)?;
        self.check_finite(&vectors)?;
        self.glanced = (apart, vectors);
        self.encode_seconds += started.elapsed().as_secs_f64();
        self.refresh();
        Ok(())
    }

    /// Images that cannot be read are nobody's negatives in this step; chains that stand on them start anew.
    fn lose(&mut self, missing: BTreeSet<ImageKey>) {
        self.seating.restart_on(&missing);
        self.gone.extend(missing);
    }

    fn check_rows(&self, views: usize) -> Result<(), NnError> {
        let (slots, rows) = (self.seating.slots.len(), self.encoded.rows() - views);
        if slots == rows {
            return Ok(());
        }
        Err(NnError::Config(format!(
            "a batch of {slots} slots came with pixels of {rows} images"
        )))
    }

    /// Chains that stand on what was encoded or scored by now enter their visit with today's score.
    pub(super) fn refresh(&mut self) {
        for anchor in 0..self.seating.slots.len() {
            if let (Some(log_score), Some(chain)) = (
                self.fresh_score(anchor),
                self.seating.seats[anchor].chain.as_mut(),
            ) {
                chain.carried.state.log_score = log_score;
                chain.carried.state.step = stamp(self.step);
            }
        }
    }

    /// Scores and weights; what has weight outside the batch may still be unencoded.
    pub(super) fn visit_all(&mut self, objective: &dyn Objective, graph: &PairGraph, seed: u64) {
        let started = Instant::now();
        let slots = self.seating.slots.len();
        self.scores = scores(self.beta, self.encoded.dim, &self.encoded.embedding, slots);
        self.score_seconds += started.elapsed().as_secs_f64();
        let started = Instant::now();
        self.terms = (0..slots)
            .into_par_iter()
            .map(|anchor| objective.term(&Anchor::new(self, graph, seed, anchor)))
            .collect();
        let factors = objective.factors([seed, self.step], &self.seating, &self.terms);
        self.factors = factors.unwrap_or_else(|| vec![1.0; slots]);
        self.walk_seconds += started.elapsed().as_secs_f64();
    }

    /// Encodes what has weight and is not encoded with a gradient yet.
    fn encode_wanted(&mut self, context: Context<'_>) -> Result<(), LearnError> {
        let started = Instant::now();
        let mut views = std::mem::take(&mut self.glanced.0);
        loop {
            let wanted = self.wanted();
            views.retain(|(image, _)| wanted.contains(image));
            let loaded: BTreeSet<ImageKey> = views.iter().map(|(image, _)| *image).collect();
            let late: Vec<ImageKey> = wanted.difference(&loaded).copied().collect();
            let (found, missing) = carried::load(context.source, self.step, &late);
            views.extend(found);
            if missing.is_empty() {
                break;
            }
            self.visit_without(context, missing);
        }
        self.encoded.push(context.encoder, &[], &views)?;
        self.check_finite(&self.encoded)?;
        self.encode_seconds += started.elapsed().as_secs_f64();
        Ok(())
    }

    /// Anchors with weight on images that turn out to be gone are visited again without them.
    fn visit_without(&mut self, context: Context<'_>, missing: BTreeSet<ImageKey>) {
        let hit = |anchor: &usize| {
            let outside = self.terms[*anchor].iter().flat_map(|term| &term.outside);
            outside
                .into_iter()
                .any(|(image, _)| missing.contains(image))
        };
        let anchors: Vec<usize> = (0..self.terms.len()).filter(hit).collect();
        self.lose(missing);
        for anchor in anchors {
            let view = Anchor::new(self, context.graph, context.seed, anchor);
            self.terms[anchor] = context.objective.term(&view);
        }
    }

    /// The images outside the batch that have weight and no row with a gradient.
    pub(super) fn wanted(&self) -> BTreeSet<ImageKey> {
        let weighted = self
            .terms
            .iter()
            .zip(&self.factors)
            .flat_map(|(term, factor)| {
                let outside = term.iter().flat_map(|term| &term.outside);
                outside.filter(move |(_, weight)| weight * factor > 0.0)
            });
        weighted
            .map(|(image, _)| *image)
            .filter(|image| self.encoded.vector(*image).is_none())
            .collect()
    }

    fn check_finite(&self, encoded: &Encoded) -> Result<(), LearnError> {
        if encoded.embedding.iter().all(|value| value.is_finite()) {
            return Ok(());
        }
        Err(LearnError::NonFinite {
            what: "embedding",
            step: self.step,
        })
    }

    /// Today's vector of an image outside the batch, if it was encoded by now.
    pub(super) fn vector(&self, image: ImageKey) -> Option<&[f32]> {
        let glanced = || self.glanced.1.vector(image);
        self.encoded.vector(image).or_else(glanced)
    }

    /// All of [`Self::vector`]: with a gradient, then without, each by key.
    pub(super) fn today(&self) -> impl Iterator<Item = (ImageKey, &[f32])> {
        let glanced = self.glanced.1.vectors();
        let only_glanced = glanced.filter(|(image, _)| self.encoded.vector(*image).is_none());
        self.encoded.vectors().chain(only_glanced)
    }

    /// Today's score of the negative that the anchor's chain stood on before the visit, if its slot is not part of the batch.
    fn fresh_score(&self, anchor: usize) -> Option<f32> {
        let seat = &self.seating.seats[anchor];
        let vector = match seat.shared_row() {
            Some(row) => self.encoded.row(row),
            None => self.vector(seat.outside()?)?,
        };
        Some(self.beta * dot(self.encoded.row(anchor), vector))
    }

    /// What a cache of embeddings learns from this step.
    pub(super) fn fresh(&self) -> Fresh {
        let batch = self.seating.images.iter();
        let batch = batch.map(|(image, slot)| (*image, self.encoded.row(*slot)));
        Fresh {
            vectors: batch
                .chain(self.today())
                .map(|(image, vector)| (image, vector.to_vec()))
                .collect(),
            gone: self.gone.clone(),
        }
    }

    /// Anchors that take part.
    pub(super) fn anchors(&self) -> usize {
        self.terms.iter().flatten().count()
    }

    /// The loss, but for its constant offset: a mean over the anchors that take part.
    pub(super) fn cosines(&self) -> Cosines {
        let scale = self.beta / self.anchors().max(1) as f32;
        Cosines::of(self.terms.len(), self.encoded.rows(), |anchor, line| {
            let Some(term) = &self.terms[anchor] else {
                return;
            };
            line[anchor ^ 1] -= scale;
            for (other, weight) in &term.weights {
                line[*other] += scale * weight;
            }
            for (image, weight) in &term.outside {
                let weight = weight * self.factors[anchor];
                if let Some(row) = self.encoded.carried.get(image).filter(|_| weight > 0.0) {
                    line[*row] += scale * weight;
                }
            }
        })
    }

    /// The constant that [`Self::cosines`] leaves out.
    pub(super) fn offset(&self) -> f32 {
        let offsets = self.terms.iter().flatten().map(|term| term.offset);
        offsets.sum::<f32>() / self.anchors().max(1) as f32
    }

    /// The chains' new states. One that stayed on a negative which was encoded gets today's score.
    pub(super) fn next_states(&self) -> Vec<(SlotKey, ChainState)> {
        let next = |(anchor, term): (usize, &Option<Term>)| {
            let mut next = term.as_ref()?.next?;
            let stands_on = self.seating.seats[anchor].chain.map(|chain| chain.carried);
            if let Some(log_score) = self
                .fresh_score(anchor)
                .filter(|_| stayed(stands_on, &next))
            {
                next.log_score = log_score;
                next.step = stamp(self.step);
            }
            Some((self.seating.slots[anchor].key, next))
        };
        self.terms.iter().enumerate().filter_map(next).collect()
    }
}

fn stayed(before: Option<Carried>, next: &ChainState) -> bool {
    before.is_some_and(|carried| carried.state.negative == next.negative)
}
