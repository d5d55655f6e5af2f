//! The batches ahead of the trainer: drawn from the training set, loaded by threads, and taken one a step.

use std::{collections::HashMap, sync::Arc};

use super::{
    batch_loader::{BatchLoader, LoadedBatch, Plan, PrefetchedViews},
    context::Context,
    error::TrainFailure,
    image_loader::ImageLoader,
    training_set::{DrawPosition, Drawn, TrainingSet},
};
use crate::checkpoint::TrainerState;
use kith_learn::{Learner, SharedView};
use kith_mcmc::ImageKey;

/// Batches that are planned and loaded ahead.
pub(super) struct Batches {
    loader: BatchLoader,
    images: Arc<ImageLoader>,
    /// Pairs in a batch.
    size: usize,
    /// The next step to plan.
    next_step: u64,
}

impl Batches {
    /// Starts the loader's threads, from the run's state on. `pretrained`: its weights did not begin as random ones.
    pub(super) fn start(
        context: &Arc<Context>,
        state: &TrainerState,
        pretrained: bool,
    ) -> Result<Self, TrainFailure> {
        let images = ImageLoader::new(context.clone(), state.seed, pretrained);
        let images = Arc::new(images);
        Ok(Self {
            loader: BatchLoader::start(context, &images)?,
            images,
            size: context.config.run.batch,
            next_step: state.step,
        })
    }

    /// Plans batches as far ahead as the settings allow, then waits for the oldest.
    pub(super) fn next(
        &mut self,
        set: &mut TrainingSet,
        learner: &Learner,
    ) -> Result<LoadedBatch, TrainFailure> {
        while self.loader.has_room() {
            let Drawn {
                pairs: drawn,
                recency,
            } = set.draw(self.size, self.next_step);
            let with_images = |pair| set.graph.get(pair).map(|entry| (pair, entry.images));
            let plan = Plan {
                step: self.next_step,
                carried: learner.carried(&drawn, &set.graph),
                pairs: drawn.into_iter().filter_map(with_images).collect(),
                recency,
                after: set.position(),
            };
            self.loader.plan(plan)?;
            self.next_step += 1;
        }
        self.loader.next()
    }

    /// Looks whether the batch of the next step is loaded by now, for [`Batches::upcoming`].
    pub(super) fn look_ahead(&mut self) {
        self.loader.look_ahead();
    }

    /// The batch of the next step, if it was loaded when it was last looked for.
    pub(super) fn upcoming(&self) -> Option<&LoadedBatch> {
        self.loader.upcoming()
    }

    /// Drops all planned batches: they are planned again from `step` and `position` on.
    pub(super) fn restart(&mut self, set: &mut TrainingSet, step: u64, position: DrawPosition) {
        self.loader.clear();
        self.next_step = step;
        set.rewind(position);
    }

    /// Pixels across the views of `step`.
    pub(super) fn side(&self, step: u64) -> usize {
        self.images.side(step)
    }

    /// Drops erased images from the cache.
    pub(super) fn forget(&self, images: &[ImageKey]) {
        self.images.forget(images);
    }

    /// The views of carried negatives: those loaded ahead, and the others loaded on demand.
    pub(super) fn views<'a>(
        &'a self,
        carried: &'a HashMap<ImageKey, SharedView>,
    ) -> PrefetchedViews<'a> {
        PrefetchedViews {
            carried,
            fallback: Some(&*self.images),
        }
    }
}
