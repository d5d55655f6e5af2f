//! The forward half of a step: encodes the batch, scores it, visits the chains, and encodes the negatives outside the batch.

use std::{collections::BTreeSet, time::Instant};

use super::{
    Batch, LearnError, Prototypes,
    ahead::Ahead,
    anchor::{Anchor, StepScores},
    batch::step_stamp,
    batch_layout::BatchLayout,
    embedding_cache::FreshEmbeddings,
    embeddings::Embeddings,
    encoded::{Encoded, ToEncode},
    loss::{Cosines, dot, scores},
    objective::{ExtraImages, NegativeTerm, Objective, Terms},
    step_inputs::StepInputs,
    views::{self, View},
};
use kith_mcmc::{Carried, ChainState, PairGraph, SidedImage, SlotKey};
use kith_nn::NnError;

/// The results of a step's forward half.
pub(super) struct Forward {
    pub(super) layout: BatchLayout,
    pub(super) embeddings: Embeddings,
    /// The views behind [`Embeddings::without_grad`], in case some of them need a gradient.
    scored_without_grad: Vec<View>,
    /// `[slots, slots]`: β times the cosine.
    pub(super) scores: Vec<f32>,
    /// `[slots]`: the score that each anchor's chain came with.
    stored_scores: Vec<Option<f32>>,
    /// `[slots]`: the negative term of each slot as an anchor; `None` if it takes no part in the step.
    pub(super) terms: Vec<Option<NegativeTerm>>,
    /// See [`Terms::prototypes`].
    pub(super) prototypes: Option<Prototypes>,
    /// `[slots]`: see [`Objective::importance_weights`].
    pub(super) importance_weights: Vec<f32>,
    pub(super) score_seconds: f64,
    pub(super) walk_seconds: f64,
    pub(super) encode_seconds: f64,
    /// Whether the images of the first pass were on the device before the step.
    pub(super) uploaded_ahead: bool,
    pub(super) beta: f32,
    pub(super) step: u64,
}

impl Forward {
    pub(super) fn new(layout: BatchLayout, beta: f32, step: u64) -> Self {
        let chains = layout.masks.iter().map(|mask| mask.chain);
        let stored = chains.map(|chain| chain.map(|chain| chain.carried.state.log_score));
        Self {
            stored_scores: stored.collect(),
            layout,
            embeddings: Embeddings::default(),
            scored_without_grad: Vec::new(),
            scores: Vec::new(),
            terms: Vec::new(),
            prototypes: None,
            importance_weights: Vec::new(),
            score_seconds: 0.0,
            walk_seconds: 0.0,
            encode_seconds: 0.0,
            uploaded_ahead: false,
            beta,
            step,
        }
    }

    /// Runs the forward half of a step over `batch`, whose images may have been uploaded `ahead`.
    pub(super) fn run(
        inputs: StepInputs<'_>,
        batch: &Batch,
        ahead: Option<Ahead>,
    ) -> Result<Self, LearnError> {
        let started = Instant::now();
        let chains = inputs.objective.chains();
        let layout = BatchLayout::new(batch.into(), inputs.graph, chains);
        let extra = inputs.objective.extra_images(&layout, inputs.graph)?;
        let mut forward = Self::new(layout, inputs.beta, batch.step);
        forward.score_seconds = started.elapsed().as_secs_f64();
        if !forward.layout.has_negatives()
            && extra.images.is_empty()
            && !inputs.objective.keeps_vectors()
        {
            return Ok(forward.without_anchors());
        }
        forward.encode_batch(inputs, (batch, ahead), &extra)?;
        forward.visit_all(inputs.objective, inputs.graph, inputs.seed);
        forward.encode_wanted(inputs, batch.side)?;
        Ok(forward)
    }

    /// The result for a batch in which no anchor has a negative: nothing needs to be encoded.
    fn without_anchors(mut self) -> Self {
        self.terms = vec![None; self.layout.slots.len()];
        self
    }

    /// Encodes the batch and the objective's extra images. If all of these have a gradient they are encoded with the batch, else without a
    /// tape, at a third of the cost.
    fn encode_batch(
        &mut self,
        inputs: StepInputs<'_>,
        (batch, ahead): (&Batch, Option<Ahead>),
        extra: &ExtraImages,
    ) -> Result<(), LearnError> {
        let started = Instant::now();
        let (views, missing) = views::load(inputs.source, self.step, &extra.images)?;
        self.drop_missing(missing);
        let (along, apart) = if extra.with_gradient {
            (views, Vec::new())
        } else {
            (Vec::new(), views)
        };
        let with_grad = &mut self.embeddings.with_grad;
        let uploaded = ahead.and_then(|ahead| ahead.of(batch, &along));
        self.uploaded_ahead = uploaded.is_some();
        let across = batch.side;
        let images = ToEncode {
            across,
            pixels: &batch.pixels,
            views: &along,
        };
        with_grad.push(inputs.towers, images, uploaded.unwrap_or_default())?;
        self.check_rows(along.len())?;
        self.check_finite(&self.embeddings.with_grad)?;
        let images = ToEncode {
            across,
            pixels: &[],
            views: &apart,
        };
        self.embeddings.without_grad = Encoded::without_tape(inputs.towers, images)?;
        self.check_finite(&self.embeddings.without_grad)?;
        self.scored_without_grad = apart;
        self.encode_seconds += started.elapsed().as_secs_f64();
        self.refresh();
        Ok(())
    }

    /// Excludes images that cannot be read from this step's negatives; chains whose state is one of them restart.
    fn drop_missing(&mut self, missing: BTreeSet<SidedImage>) {
        self.layout.restart_chains(&missing);
        self.embeddings.missing.extend(missing);
    }

    fn check_rows(&self, views: usize) -> Result<(), NnError> {
        let rows = self.embeddings.with_grad.rows() - views;
        let slots = self.layout.slots.len();
        if slots == rows {
            return Ok(());
        }
        Err(NnError::Config(format!(
            "a batch of {slots} slots came with pixels of {rows} images"
        )))
    }

    /// Refreshes the scores of chain states whose images were encoded by now.
    pub(super) fn refresh(&mut self) {
        for anchor in 0..self.layout.slots.len() {
            if let (Some(log_score), Some(chain)) = (
                self.fresh_score(anchor),
                self.layout.masks[anchor].chain.as_mut(),
            ) {
                chain.carried.state.log_score = log_score;
                chain.carried.state.step = step_stamp(self.step);
            }
        }
    }

    /// Computes the scores and the anchors' terms. Images outside the batch with a weight may not be encoded yet.
    pub(super) fn visit_all(&mut self, objective: &dyn Objective, graph: &PairGraph, seed: u64) {
        let started = Instant::now();
        let slots = self.layout.slots.len();
        let encoded = &self.embeddings.with_grad;
        self.scores = scores(self.beta, encoded.dim, &encoded.embedding, slots);
        self.score_seconds += started.elapsed().as_secs_f64();
        let started = Instant::now();
        let Terms { terms, prototypes } = objective.negative_terms(self.step_scores(graph, seed));
        (self.terms, self.prototypes) = (terms, prototypes);
        let weights = objective.importance_weights([seed, self.step], &self.layout, &self.terms);
        self.importance_weights = weights.unwrap_or_else(|| vec![1.0; slots]);
        self.walk_seconds += started.elapsed().as_secs_f64();
    }

    pub(super) fn step_scores<'a>(&'a self, graph: &'a PairGraph, seed: u64) -> StepScores<'a> {
        StepScores {
            layout: &self.layout,
            embeddings: &self.embeddings,
            graph,
            scores: &self.scores,
            beta: self.beta,
            step: self.step,
            seed,
        }
    }

    /// Encodes the images that have a weight and no gradient yet, views of `across` pixels.
    fn encode_wanted(&mut self, inputs: StepInputs<'_>, across: usize) -> Result<(), LearnError> {
        let started = Instant::now();
        let mut views = std::mem::take(&mut self.scored_without_grad);
        loop {
            let wanted = self.wanted();
            views.retain(|(image, _)| wanted.contains(image));
            let loaded: BTreeSet<SidedImage> = views.iter().map(|(image, _)| *image).collect();
            let late: Vec<SidedImage> = wanted.difference(&loaded).copied().collect();
            let (found, missing) = views::load(inputs.source, self.step, &late)?;
            views.extend(found);
            if missing.is_empty() {
                break;
            }
            self.visit_without(inputs, missing);
        }
        let with_grad = &mut self.embeddings.with_grad;
        let images = ToEncode {
            across,
            pixels: &[],
            views: &views,
        };
        with_grad.push(inputs.towers, images, Vec::new())?;
        self.check_finite(&self.embeddings.with_grad)?;
        self.encode_seconds += started.elapsed().as_secs_f64();
        Ok(())
    }

    /// Visits the anchors with a weight on missing images again, without these images.
    fn visit_without(&mut self, inputs: StepInputs<'_>, missing: BTreeSet<SidedImage>) {
        let hit = |anchor: &usize| {
            let outside = self.terms[*anchor].iter().flat_map(|term| &term.outside);
            outside
                .into_iter()
                .any(|(image, _)| missing.contains(image))
        };
        let anchors: Vec<usize> = (0..self.terms.len()).filter(hit).collect();
        self.drop_missing(missing);
        for anchor in anchors {
            let step = self.step_scores(inputs.graph, inputs.seed);
            let term = inputs.objective.negative_term(&Anchor::new(step, anchor));
            self.terms[anchor] = term;
        }
    }

    /// The images outside the batch that have a weight and no row with a gradient.
    pub(super) fn wanted(&self) -> BTreeSet<SidedImage> {
        let weighted =
            self.terms
                .iter()
                .zip(&self.importance_weights)
                .flat_map(|(term, importance)| {
                    let outside = term.iter().flat_map(|term| &term.outside);
                    outside.filter(move |(_, weight)| weight * importance > 0.0)
                });
        weighted
            .map(|(image, _)| *image)
            .filter(|image| self.embeddings.with_grad.vector(*image).is_none())
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

    /// The current score of the anchor's carried negative, if it was encoded and its own slot is not part of the batch.
    fn fresh_score(&self, anchor: usize) -> Option<f32> {
        let mask = &self.layout.masks[anchor];
        let encoded = &self.embeddings.with_grad;
        let vector = match mask.shared_row() {
            Some(row) => encoded.row(row),
            None => self.embeddings.vector(mask.image_outside()?)?,
        };
        Some(self.beta * dot(encoded.row(anchor), vector))
    }

    /// The score that the anchor's chain came with, less that of the same image now; `None` where the image was not encoded.
    pub(super) fn stored_minus_fresh(&self, anchor: usize) -> Option<f32> {
        let chain = self.layout.masks[anchor].chain?;
        let encoded = &self.embeddings.with_grad;
        let vector = match chain.row {
            Some(row) => encoded.row(row),
            None => self.embeddings.vector(chain.image)?,
        };
        Some(self.stored_scores[anchor]? - self.beta * dot(encoded.row(anchor), vector))
    }

    /// The embeddings of this step, for a cache.
    pub(super) fn fresh(&self) -> FreshEmbeddings {
        let batch = self.layout.images.iter();
        let batch = batch.map(|(image, slot)| (*image, self.embeddings.with_grad.row(*slot)));
        FreshEmbeddings {
            vectors: batch
                .chain(self.embeddings.current_embeddings())
                .map(|(image, vector)| (image, vector.to_vec()))
                .collect(),
            missing: self.embeddings.missing.clone(),
        }
    }

    /// Number of anchors that take part.
    pub(super) fn anchors(&self) -> usize {
        self.terms.iter().flatten().count()
    }

    /// The loss without its constant offset: a mean over the anchors that take part, each with its factor.
    pub(super) fn cosines(&self) -> Cosines {
        let anchors = self.anchors().max(1) as f32;
        let encoded = &self.embeddings.with_grad;
        Cosines::new(self.terms.len(), encoded.rows(), |anchor, line| {
            let Some(term) = &self.terms[anchor] else {
                return;
            };
            let scale = self.beta * self.layout.loss_factors[anchor] / anchors;
            line[anchor ^ 1] -= scale;
            for (other, weight) in &term.weights {
                line[*other] += scale * weight;
            }
            for (image, weight) in &term.outside {
                let weight = weight * self.importance_weights[anchor];
                if let Some(row) = encoded.carried.get(image).filter(|_| weight > 0.0) {
                    line[*row] += scale * weight;
                }
            }
        })
    }

    /// The constant part of the loss, which [`Self::cosines`] leaves out.
    pub(super) fn offset(&self) -> f32 {
        let factors = self.layout.loss_factors.iter();
        let offsets = factors
            .zip(&self.terms)
            .filter_map(|(factor, term)| Some(factor * term.as_ref()?.offset));
        offsets.sum::<f32>() / self.anchors().max(1) as f32
    }

    /// The chains' new states. A chain that kept its negative gets the current score if the negative was encoded.
    pub(super) fn next_states(&self) -> Vec<(SlotKey, ChainState)> {
        let next = |(anchor, term): (usize, &Option<NegativeTerm>)| {
            let mut next = term.as_ref()?.next?;
            let before = self.layout.masks[anchor].chain.map(|chain| chain.carried);
            if let Some(log_score) = self.fresh_score(anchor).filter(|_| stayed(before, &next)) {
                next.log_score = log_score;
                next.step = step_stamp(self.step);
            }
            Some((self.layout.slots[anchor].key, next))
        };
        self.terms.iter().enumerate().filter_map(next).collect()
    }
}

fn stayed(before: Option<Carried>, next: &ChainState) -> bool {
    before.is_some_and(|carried| carried.state.negative == next.negative)
}
