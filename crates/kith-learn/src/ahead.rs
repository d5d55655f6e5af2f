//! The images of the next step, uploaded to the encoder's device while it computes this one.

use std::collections::HashMap;

use super::{
    Batch, CarriedViews,
    batch_layout::BatchLayout,
    encoded::ToEncode,
    passes::Pass,
    step_inputs::StepInputs,
    views::{self, View},
};
use kith_mcmc::{ChainState, PairKey, Side, SlotKey};
use kith_nn::UploadedPixels;

/// A batch with a source of views of the images that its step needs besides.
#[derive(Clone, Copy)]
pub struct StepImages<'a> {
    /// The batch.
    pub batch: &'a Batch,
    /// Views of the negatives outside the batch.
    pub carried: &'a dyn CarriedViews,
}

/// Uploaded images with what tells whether they are those of a step.
pub(super) struct Ahead {
    step: u64,
    pairs: Vec<PairKey>,
    /// The address and the number of the batch's values.
    pixels: (usize, usize),
    views: Vec<View>,
    /// Of each pass of an encoder, in their order; `None` if the device did not take them.
    uploaded: Vec<Option<UploadedPixels>>,
}

impl Ahead {
    /// Uploads the images that the step after `inputs`' will encode with a gradient, given the chains' new `states`. `None` if the device does not
    /// upload them ahead.
    pub(super) fn upload(
        inputs: StepInputs<'_>,
        next: StepImages<'_>,
        states: &[(SlotKey, ChainState)],
    ) -> Option<Self> {
        let (towers, batch) = (inputs.towers, next.batch);
        if !towers.get(Side::Anchor).uploads_ahead() || batch.pixels.is_empty() {
            return None;
        }
        let states: HashMap<SlotKey, ChainState> = states.iter().copied().collect();
        let chains = inputs.objective.chains();
        let layout = BatchLayout::with_states(batch.into(), inputs.graph, (chains, &states));
        let extra = inputs.objective.extra_images(&layout, inputs.graph).ok()?;
        let (views, _) = if extra.with_gradient {
            views::load(next.carried, batch.step, &extra.images).ok()?
        } else {
            Default::default()
        };
        let images = ToEncode {
            across: batch.side,
            pixels: &batch.pixels,
            views: &views,
        };
        let upload = |pass: &Pass<'_>| {
            let encoder = towers.get(pass.side);
            encoder.upload_ahead(pass.images(images.across))
        };
        let uploaded = images
            .passes(towers, 0)
            .iter()
            .map(upload)
            .collect::<Result<Vec<_>, _>>()
            .ok()?;
        uploaded.iter().any(Option::is_some).then_some(())?;
        Some(Self {
            step: batch.step,
            pairs: batch.pairs.clone(),
            pixels: identity(batch),
            views,
            uploaded,
        })
    }

    /// The upload, if it is of `batch` and of `views` after it.
    pub(super) fn of(self, batch: &Batch, views: &[View]) -> Option<Vec<Option<UploadedPixels>>> {
        let same_views = self.views.len() == views.len()
            && self.views.iter().zip(views).all(|(ours, theirs)| {
                // The same memory, which is held here, and so has not changed.
                ours.0 == theirs.0 && std::sync::Arc::ptr_eq(&ours.1, &theirs.1)
            });
        let same_batch =
            (self.step, &self.pairs, self.pixels) == (batch.step, &batch.pairs, identity(batch));
        (same_batch && same_views).then_some(self.uploaded)
    }
}

/// Where the batch's pixels are. A step's pixels depend on its number and its pairs alone.
fn identity(batch: &Batch) -> (usize, usize) {
    (batch.pixels.as_ptr() as usize, batch.pixels.len())
}
