//! NeuCLIP, the global contrastive loss as a joint minimum over the encoder and a network that predicts log normalisers (Wei, Lin and Yang 2026,
//! arXiv 2511.08417).

use rayon::prelude::*;

use super::batch_mean::BatchMean;
use crate::{
    NeuClipConfig, Prototypes,
    anchor::{Anchor, StepScores},
    objective::{Objective, Terms},
    softmax::log_ratio,
};

/// SCENT's joint objective with ν(x) by a network in place of a variable for each anchor. The network is updated several times on the batch, then
/// gives the ν that weigh the batch's negatives. An anchor for which no prototype counts takes the batch's mean.
pub(super) struct NeuClip<'a> {
    pub(super) config: &'a NeuClipConfig,
    pub(super) prototypes: &'a Prototypes,
}

impl Objective for NeuClip<'_> {
    fn negative_terms(&self, step: StepScores<'_>) -> Terms {
        let anchors = (0..step.layout.slots.len()).into_par_iter();
        let batches: Vec<Option<BatchMean>> = anchors
            .map(|position| BatchMean::new(&Anchor::new(step, position)))
            .collect();
        let targets: Vec<Option<f64>> = batches
            .iter()
            .map(|batch| Some(batch.as_ref()?.log_mean))
            .collect();
        let mut prototypes = self.prototypes.clone();
        prototypes.retain(|source| step.graph.candidate(source).is_some());
        let inputs = prototypes.inputs(step);
        for _ in 0..self.config.updates {
            prototypes.update(&inputs, &targets, self.config.rate);
        }
        let predicted = prototypes.predict(&inputs);
        prototypes.restart(&inputs, self.config);
        let term = |(batch, predicted): (Option<BatchMean>, Option<f64>)| {
            let batch = batch?;
            let nu = predicted.unwrap_or(batch.log_mean);
            let value = log_ratio(batch.log_mean, nu).exp() + nu - 1.0;
            Some(batch.term(nu, value))
        };
        Terms {
            terms: batches.into_iter().zip(predicted).map(term).collect(),
            prototypes: Some(prototypes),
        }
    }
}
