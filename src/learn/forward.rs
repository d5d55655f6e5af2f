//! The first half of a step: encode, score, visit, encode what is carried. Changes nothing outside of itself.
//! Must never know: gradients, the optimiser.

use std::{collections::BTreeSet, time::Instant};

use rayon::prelude::*;

use super::{
    Batch, CarriedViews, LearnConfig, LearnError, Scores, carried,
    encoded::{Encoded, View},
    loss::{Cosines, dot, scores},
    objective::{Objective, Term},
    seating::Seating,
    visits::{Visits, stamp},
};
use crate::{
    mcmc::{Carried, ChainState},
    nn::{Encoder, NnError},
    types::{ImageKey, SlotKey},
};

/// What a step is done with.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) config: &'a LearnConfig,
    pub(super) seed: u64,
    pub(super) encoder: &'a Encoder,
    pub(super) objective: &'a dyn Objective,
    pub(super) source: &'a dyn CarriedViews,
}

/// Everything that is known before the gradient.
pub(super) struct Forward {
    pub(super) seating: Seating,
    pub(super) encoded: Encoded,
    /// Views of carried negatives that were scored before the visits, without keeping what a gradient needs; and their vectors.
    glanced: (Vec<View>, Encoded),
    /// `[slots, slots]`, β times the cosine.
    pub(super) scores: Vec<f32>,
    /// Of each slot as an anchor; `None`: it takes no part.
    pub(super) terms: Vec<Option<Term>>,
    /// See [`carried::factors`].
    pub(super) factors: Vec<f32>,
    pub(super) walk_seconds: f64,
    pub(super) encode_seconds: f64,
    beta: f32,
    step: u64,
}

impl Forward {
    pub(super) fn new(seating: Seating, beta: f32, step: u64) -> Self {
        Self {
            seating,
            encoded: Encoded::default(),
            glanced: Default::default(),
            scores: Vec::new(),
            terms: Vec::new(),
            factors: Vec::new(),
            walk_seconds: 0.0,
            encode_seconds: 0.0,
            beta,
            step,
        }
    }

    pub(super) fn run(
        context: Context<'_>,
        seating: Seating,
        batch: &Batch,
    ) -> Result<Self, LearnError> {
        let mut forward = Self::new(seating, context.config.beta, batch.step);
        let refreshed = context.config.scores == Scores::Refreshed;
        forward.encode_batch(context, &batch.pixels, refreshed)?;
        forward.visit_all(context.objective, context.seed);
        if !refreshed || carried::chooses(context.config) {
            forward.encode_carried(context)?;
        }
        Ok(forward)
    }

    /// The batch, and (`refreshed`) all that chains stand on, whose scores are then of today: with the batch if all of them will be
    /// needed, else without keeping what a gradient needs, at a third of the cost.
    fn encode_batch(
        &mut self,
        context: Context<'_>,
        pixels: &[f32],
        refreshed: bool,
    ) -> Result<(), LearnError> {
        let started = Instant::now();
        let images = if refreshed {
            self.seating.outside()
        } else {
            Vec::new()
        };
        let (views, missing) = carried::load(context.source, self.step, &images);
        self.seating.restart_on(&missing);
        let (along, apart) = if carried::chooses(context.config) {
            (Vec::new(), views)
        } else {
            (views, Vec::new())
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

    /// Scores and weights. All carried negatives weigh what they weigh, until [`Self::encode_carried`] chooses.
    pub(super) fn visit_all(&mut self, objective: &dyn Objective, seed: u64) {
        let started = Instant::now();
        let slots = self.seating.slots.len();
        self.scores = scores(self.beta, self.encoded.dim, &self.encoded.embedding, slots);
        let visits = self.visits(objective, seed);
        self.terms = (0..slots)
            .into_par_iter()
            .map(|anchor| visits.of(anchor))
            .collect();
        self.factors = vec![1.0; slots];
        self.walk_seconds += started.elapsed().as_secs_f64();
    }

    fn visits<'a>(&'a self, objective: &'a dyn Objective, seed: u64) -> Visits<'a> {
        Visits {
            objective,
            seating: &self.seating,
            scores: &self.scores,
            seed,
            step: self.step,
        }
    }

    /// Encodes those carried negatives whose weight survived.
    fn encode_carried(&mut self, context: Context<'_>) -> Result<(), LearnError> {
        let started = Instant::now();
        self.factors = carried::factors(
            context.config,
            [context.seed, self.step],
            &self.seating,
            &self.terms,
        );
        let wanted = self.wanted();
        let mut views = std::mem::take(&mut self.glanced.0);
        views.retain(|(image, _)| wanted.contains(image));
        if context.config.scores == Scores::Stored {
            views = self.load_late(context, &wanted);
        }
        self.encoded.push(context.encoder, &[], &views)?;
        self.check_finite(&self.encoded)?;
        self.encode_seconds += started.elapsed().as_secs_f64();
        Ok(())
    }

    /// Anchors whose image turns out to be gone are visited again without it.
    fn load_late(&mut self, context: Context<'_>, wanted: &[ImageKey]) -> Vec<View> {
        let (views, missing) = carried::load(context.source, self.step, wanted);
        for anchor in 0..self.terms.len() {
            if self.seating.seats[anchor]
                .outside()
                .is_some_and(|image| missing.contains(&image))
            {
                self.seating.seats[anchor].chain = None;
                self.terms[anchor] = self.visits(context.objective, context.seed).of(anchor);
            }
        }
        views
    }

    /// The images with a factor, each once.
    pub(super) fn wanted(&self) -> Vec<ImageKey> {
        let anchors = self
            .seating
            .seats
            .iter()
            .zip(&self.factors)
            .filter(|(_, factor)| **factor > 0.0);
        anchors
            .filter_map(|(seat, _)| seat.outside())
            .collect::<BTreeSet<_>>()
            .into_iter()
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

    /// The row of the anchor's carried negative outside the batch, if it was encoded.
    fn carried_row(&self, anchor: usize) -> Option<usize> {
        self.encoded
            .carried
            .get(&self.seating.seats[anchor].outside()?)
            .copied()
    }

    /// Today's score of that negative, if it was encoded or scored by now.
    fn fresh_score(&self, anchor: usize) -> Option<f32> {
        let image = self.seating.seats[anchor].outside()?;
        let carried = self
            .encoded
            .vector(image)
            .or_else(|| self.glanced.1.vector(image))?;
        Some(self.beta * dot(self.encoded.row(anchor), carried))
    }

    /// Anchors that take part.
    pub(super) fn anchors(&self) -> usize {
        self.terms.iter().flatten().count()
    }

    /// The loss, but for its constant offset: a mean over the anchors that take part.
    pub(super) fn cosines(&self) -> Cosines {
        let scale = self.beta / self.anchors().max(1) as f32;
        let mut cosines = Cosines::default();
        for (anchor, term) in self.terms.iter().enumerate() {
            let Some(term) = term else { continue };
            cosines.push(anchor, anchor ^ 1, -scale);
            term.weights
                .iter()
                .for_each(|(other, weight)| cosines.push(anchor, *other, scale * weight));
            let weight = term.carried * self.factors[anchor];
            if let Some(row) = self.carried_row(anchor).filter(|_| weight > 0.0) {
                cosines.push(anchor, row, scale * weight);
            }
        }
        cosines
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
