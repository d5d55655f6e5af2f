//! The work of each kind of cell, on made-up data.

use std::{hint::black_box, time::Duration};

use rayon::prelude::*;

use super::{BenchError, DecodeStage, Figure, Pass, Setup, clock::watch};
use kith_learn::{
    Batch, CarriedViews, LearnConfig, Learner, ObjectiveKind, SharedView, StepImages, Unreadable,
};
use kith_mcmc::{
    BatchSlot, Carried, ChainState, ChainTable, ImageKey, PairEntry, PairGraph, PairKey, Recency,
    SamplerConfig, Side, SlotKey, Visit,
};
use kith_nn::{
    Device, Encoder, EncoderConfig, LayerProbe, LayerShape, PeakFlops, TowerOptimizer, Towers,
    memory::peak_of,
};
use kith_pixels::{SampleFormat, augment, decode, fit, sample};
use kith_seed::mix;

/// Largest score of a walk.
const BETA: f32 = 10.0;
/// Too small a learning rate for weights to leave where they started, however many steps are measured.
const RATE: f32 = 1e-6;
/// Size of the sample image: that of a phone's or a shop's thumbnail.
const SAMPLE_SIZE: (u32, u32) = (640, 480);

/// A fresh encoder for images of `side`.
pub(super) fn fresh(setup: &Setup, side: usize) -> Result<Encoder, BenchError> {
    Ok(Encoder::fresh(&with_side(setup, side), 1, &setup.device)?)
}

fn with_side(setup: &Setup, side: usize) -> EncoderConfig {
    EncoderConfig {
        side,
        ..setup.encoder.clone()
    }
}

/// Values in [−1, 1), no two images alike.
fn pixels(images: usize, side: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 7919) % 1013) as f32 / 506.5 - 1.0;
    (0..images * side * side * 3).map(value).collect()
}

pub(super) fn peak(budget: Duration) -> Result<Figure, BenchError> {
    watch(budget, || {
        rayon::broadcast(|_| PeakFlops::run());
        Ok(())
    })
}

pub(super) fn forward(
    encoder: &Encoder,
    batch: usize,
    budget: Duration,
) -> Result<Figure, BenchError> {
    let pixels = pixels(batch, encoder.config().side);
    watch(budget, || {
        black_box(encoder.forward(&pixels)?);
        Ok(())
    })
}

/// Its memory is all that training needs: weights, moments, the batch, the maps, the gradients.
pub(super) fn train(
    setup: &Setup,
    side: usize,
    pairs: usize,
    budget: Duration,
) -> Result<Figure, BenchError> {
    let (figure, peak_bytes) = peak_of(|| {
        let mut learner = learner(setup, side)?;
        let mut graph = if learner.towers.are_two() {
            PairGraph::directed()
        } else {
            PairGraph::default()
        };
        let keys: Vec<PairKey> = (0..pairs as u32).map(PairKey).collect();
        for key in &keys {
            let images = [2 * key.0, 2 * key.0 + 1].map(ImageKey);
            graph.insert(*key, PairEntry::new(images, None));
        }
        let mut batch = Batch {
            step: 0,
            pairs: keys,
            recency: Recency::NONE,
            side,
            pixels: pixels(2 * pairs, side),
        };
        // Another batch would count as memory where nothing is uploaded ahead.
        let mut next = learner
            .towers
            .get(Side::Anchor)
            .uploads_ahead()
            .then(|| batch.clone());
        watch(budget, || {
            batch.step += 1;
            if let Some(next) = &mut next {
                next.step = batch.step + 1;
                std::mem::swap(&mut batch.pixels, &mut next.pixels);
            }
            let images = |batch| StepImages {
                batch,
                carried: &NoViews,
            };
            let step = (images(&batch), next.as_ref().map(images));
            black_box(learner.step_ahead(step, &graph, RATE)?);
            Ok(())
        })
    });
    Ok(Figure {
        peak_bytes,
        ..figure?
    })
}

/// The softmax over the batch: what EMC² adds is measured as walks, and as the images that its chains carry in.
fn learner(setup: &Setup, side: usize) -> Result<Learner, BenchError> {
    let towers = Towers::fresh(&with_side(setup, side), 1, &setup.device)?;
    let optimizer = TowerOptimizer::new(&setup.optimizer, &towers)?;
    let config = LearnConfig {
        objective: ObjectiveKind::InfoNce,
        ..setup.learning.clone()
    };
    Ok(Learner::new(
        config,
        1,
        towers,
        optimizer,
        ChainTable::default(),
    ))
}

struct NoViews;

impl CarriedViews for NoViews {
    fn views(&self, _: u64, images: &[ImageKey]) -> Result<Vec<Option<SharedView>>, Unreadable> {
        Ok(vec![None; images.len()])
    }
}

pub(super) fn layer(
    shape: &LayerShape,
    pass: Pass,
    (batch, device): (usize, &Device),
    budget: Duration,
) -> Result<Figure, BenchError> {
    let probe = LayerProbe::new(shape, batch, device)?;
    watch(budget, || {
        match pass {
            Pass::Forward => probe.forward()?,
            Pass::Backward => probe.backward()?,
        }
        Ok(())
    })
}

/// Visits of all anchors of a batch, each with a carried negative from outside of it.
pub(super) fn walk(
    sampler: &SamplerConfig,
    pairs: usize,
    budget: Duration,
) -> Result<Figure, BenchError> {
    let count = 2 * pairs;
    let slot = |place: usize| SlotKey::from_packed(place as u32);
    let slots: Vec<BatchSlot> = (0..count)
        .map(|place| BatchSlot {
            key: slot(place),
            log_degree: 0.0,
            log_odds: 0.0,
        })
        .collect();
    let scores: Vec<f32> = (0..count * count)
        .map(|i| (mix(&[i as u64]) >> 40) as f32 / (1 << 24) as f32 * BETA)
        .collect();
    let masked: Vec<Vec<bool>> = (0..count)
        .map(|anchor| (0..count).map(|other| other / 2 == anchor / 2).collect())
        .collect();
    let state = ChainState {
        negative: slot(count),
        log_score: BETA / 2.0,
        step: 0,
        visits: 1,
        visits_since_move: 0,
    };
    let carried = Some(Carried {
        state,
        log_degree: 0.0,
        log_odds: 0.0,
        in_batch: None,
    });
    let mut step = 0;
    watch(budget, || {
        step += 1;
        let visit = |anchor: usize| Visit {
            anchor: slot(anchor),
            slots: &slots,
            scores: &scores[anchor * count..(anchor + 1) * count],
            masked: &masked[anchor],
            directed: false,
            carried,
            step,
            seed: mix(&[u64::from(step), anchor as u64]),
        };
        let estimates = (0..count)
            .into_par_iter()
            .map(|anchor| kith_mcmc::visit(sampler, &visit(anchor)));
        black_box(estimates.collect::<Vec<_>>());
        Ok(())
    })
}

pub(super) fn decode_stage(
    setup: &Setup,
    part: DecodeStage,
    side: usize,
    budget: Duration,
) -> Result<Figure, BenchError> {
    let format = match part {
        DecodeStage::DecodePng => SampleFormat::Png,
        _ => SampleFormat::Jpeg,
    };
    let bytes = sample(format, SAMPLE_SIZE.0, SAMPLE_SIZE.1);
    let mut picture = decode(&bytes, &setup.limits)?;
    if part == DecodeStage::AugmentCutOut {
        picture.alpha = Some(disc(SAMPLE_SIZE));
    }
    let mut seed = 0;
    watch(budget, || {
        match part {
            DecodeStage::DecodeJpeg | DecodeStage::DecodePng => {
                black_box(decode(&bytes, &setup.limits)?);
            }
            DecodeStage::Resize => {
                black_box(fit(&picture, side));
            }
            DecodeStage::Augment | DecodeStage::AugmentCutOut => {
                seed += 1;
                black_box(augment(&picture, side, &setup.augment, seed));
            }
        }
        Ok(())
    })
}

/// The alpha of an image of which the largest disc in the middle is opaque.
fn disc((width, height): (u32, u32)) -> Vec<u8> {
    let radius = width.min(height) / 2;
    let alpha = |place: u32| {
        let (x, y) = (place % width, place / width);
        let distance = x.abs_diff(width / 2).pow(2) + y.abs_diff(height / 2).pow(2);
        if distance < radius * radius { 255 } else { 0 }
    };
    (0..width * height).map(alpha).collect()
}
