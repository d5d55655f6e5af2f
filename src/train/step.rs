//! One step of the loop: take the next loaded batch, learn from it, and record how it went.

use std::{collections::HashMap, time::Instant};

use jiff::Timestamp;
use rayon::ThreadPool;

use super::{
    alarms::{AlarmKind, StepFigures, frozen_chains, nothing_to_learn},
    batch_loader::{LoadedBatch, PrefetchedViews},
    batches::Batches,
    epoch::MIN_BATCH,
    error::TrainFailure,
    recovery,
    run::Run,
};
use crate::{checkpoint::Origin, events::Kind};
use kith_learn::{Batch, LearnError, Learner, ObjectiveKind, SharedView, StepImages, StepReport};
use kith_mcmc::{ImageKey, PairGraph, PairKey};
use kith_nn::NnError;

/// Batches in a row without two usable pairs after which something must be wrong with the images.
const MAX_UNUSABLE: u32 = 100;

impl Run<'_> {
    /// Makes the next step. A step counts, with its batch and its randomness, even if nothing could be learned from it: a resumed run stays
    /// equal to an uninterrupted one.
    pub(super) fn run_step(&mut self) -> Result<(), TrainFailure> {
        let started = Instant::now();
        let rate = self.rate();
        let learner = self.learner.load(self.context)?;
        let LoadedBatch {
            mut batch,
            carried,
            after,
        } = self.batches.next(&mut self.training_set, learner)?;
        let graph = &self.training_set.graph;
        drop_erased(&mut batch, |pair| graph.get(pair).is_some());
        let work = StepWork {
            learner,
            batches: &mut self.batches,
            graph,
            rate,
        };
        let learned = work.learn(self.pool, &batch, &carried);
        if let Err(LearnError::Unreadable(error)) = learned {
            // The same step is made again once the store works.
            return Err(error.into());
        }
        (self.state.epoch, self.state.cursor) = (after.all.epoch, after.all.cursor);
        self.state.recent = after.recent;
        self.state.step += 1;
        let side = self.batches.side(self.state.step);
        if side != batch.side {
            tracing::info!(step = self.state.step, side, "views are larger from now on");
        }
        match learned {
            Ok(None) => self.count_unusable(),
            // No image of the batch may be another's negative: its loss of 0 is no figure.
            Ok(Some(report)) if report.anchors == 0 => Ok(()),
            Ok(Some(report)) => {
                let images = 2 * batch.pairs.len() + report.carried_encoded;
                self.meter
                    .add(&report, images, started.elapsed().as_secs_f32());
                let (pairs, step) = (&batch.pairs, self.state.step);
                let effect = &self.context.pair_effect;
                effect.learned(pairs, step, Timestamp::now());
                self.record(&report);
                Ok(())
            }
            Err(error) if left_state_unchanged(&error) => {
                self.skip(&error);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The rate of the next step.
    pub(super) fn rate(&self) -> f32 {
        let schedule = &self.context.config.schedule;
        // A caller's rate is meant as it stands.
        let base = self.state.rate_override;
        let base =
            base.unwrap_or_else(|| schedule.base(Origin::is_pretrained(self.origin.as_ref())));
        self.state.rate_scale * schedule.rate(self.state.step, Some(base))
    }

    fn record(&mut self, report: &StepReport) {
        let step = self.state.step;
        (self.setbacks.skipped, self.setbacks.unusable) = (0, 0);
        let config = &self.context.config;
        if step.is_multiple_of(config.run.metrics_every.max(1)) {
            self.write_metrics();
        }
        self.watch_learning();
        recovery::raise_rate(&mut self.state, &config.snapshots);
        let (warmup, gate) = (config.schedule.warmup_steps, self.context.gate());
        if recovery::suspects_collapse(&mut self.state.watch, step, report, gate, warmup) {
            tracing::warn!(
                step,
                spread = report.spread,
                mean_cosine = report.mean_cosine,
                "collapse is suspected: a snapshot is taken and judged"
            );
            self.triggers.force();
        }
    }

    /// Raises and takes back the alarms that steps decide.
    fn watch_learning(&self) {
        let (status, step) = (&self.context.status, self.state.step);
        let chains = match self.context.config.learn.objective {
            ObjectiveKind::Emc2 => self.learner.chains().len() as u64,
            _ => 0,
        };
        let figures = self.meter.figures(chains);
        let Some(figures) = figures.filter(StepFigures::have_settled) else {
            return;
        };
        let frozen = frozen_chains(&figures, status.is_raised(AlarmKind::FrozenChains));
        status.set_alarm(AlarmKind::FrozenChains, step, frozen);
        let learned = nothing_to_learn(&figures, status.is_raised(AlarmKind::NothingToLearn));
        status.set_alarm(AlarmKind::NothingToLearn, step, learned);
    }

    fn write_metrics(&mut self) {
        let rate = self.rate();
        let Some(row) = self.meter.row(self.state.step, rate) else {
            return;
        };
        let context = self.context;
        let data = serde_json::to_value(&row);
        let rows = [row];
        let stored = (context.db).insert_metrics(&rows, context.config.run.metrics_rows);
        if let Err(error) = context.wait(stored) {
            tracing::warn!(step = self.state.step, %error, "a row of the training series is lost");
            return;
        }
        // Who hears of it may read it.
        match data {
            Ok(data) => context.checkpoints.events().publish(Kind::Step, data),
            Err(error) => tracing::warn!(%error, "a step is not told to those who watch"),
        }
    }

    fn skip(&mut self, error: &LearnError) {
        self.state.skipped += 1;
        self.setbacks.skipped += 1;
        let max_skipped = self.context.config.run.max_skipped.max(1);
        tracing::warn!(step = self.state.step, in_a_row = self.setbacks.skipped, %error, "step skipped");
        if self.setbacks.skipped < max_skipped {
            return;
        }
        let remedy = match error {
            LearnError::Nn(_) => "training.batch",
            _ => "the learning rate",
        };
        let reason = format!(
            "{max_skipped} steps in a row were skipped, the last because {error}: lower {remedy}, then set the state to running, \
             which goes back to the last healthy checkpoint"
        );
        self.give_up(reason);
    }

    fn count_unusable(&mut self) -> Result<(), TrainFailure> {
        self.setbacks.unusable += 1;
        if self.setbacks.unusable < MAX_UNUSABLE {
            return Ok(());
        }
        Err(TrainFailure::Broken(format!(
            "{MAX_UNUSABLE} batches in a row had fewer than two pairs whose images can be read"
        )))
    }
}

/// What a step is made with.
struct StepWork<'a> {
    learner: &'a mut Learner,
    batches: &'a mut Batches,
    graph: &'a PairGraph,
    rate: f32,
}

impl StepWork<'_> {
    /// `None`: fewer than two pairs are left, which have no negatives.
    fn learn(
        self,
        pool: &ThreadPool,
        batch: &Batch,
        carried: &HashMap<ImageKey, SharedView>,
    ) -> Result<Option<StepReport>, LearnError> {
        if batch.pairs.len() < MIN_BATCH {
            return Ok(None);
        }
        let Self {
            learner,
            batches,
            graph,
            rate,
        } = self;
        batches.look_ahead();
        let (views, upcoming) = (batches.views(carried), batches.upcoming());
        let step = || {
            let now = StepImages {
                batch,
                carried: &views,
            };
            let loaded = upcoming.map(|next| {
                let (carried, fallback) = (&next.carried, None);
                (&next.batch, PrefetchedViews { carried, fallback })
            });
            let next = loaded
                .as_ref()
                .map(|(batch, carried)| StepImages { batch, carried });
            learner.step_ahead((now, next), graph, rate)
        };
        pool.install(step).map(Some)
    }
}

/// Whether a failed step left weights, moments and chains unchanged, so that training can go on with the next.
fn left_state_unchanged(error: &LearnError) -> bool {
    matches!(
        error,
        LearnError::NonFinite { .. } | LearnError::Nn(NnError::Memory(_))
    )
}

/// Removes the pairs that were erased since the batch was planned.
fn drop_erased(batch: &mut Batch, is_there: impl Fn(PairKey) -> bool) {
    if batch.pairs.iter().all(|pair| is_there(*pair)) {
        return;
    }
    let each = batch.pixels.len() / batch.pairs.len();
    let mut kept = Batch {
        step: batch.step,
        pairs: Vec::with_capacity(batch.pairs.len()),
        recency: batch.recency,
        side: batch.side,
        pixels: Vec::with_capacity(batch.pixels.len()),
    };
    for (pair, pixels) in batch.pairs.iter().zip(batch.pixels.chunks_exact(each)) {
        if is_there(*pair) {
            kept.pairs.push(*pair);
            kept.pixels.extend_from_slice(pixels);
        }
    }
    *batch = kept;
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_mcmc::Recency;

    #[test]
    fn what_no_gpu_holds_or_is_not_finite_skips_a_step_and_all_else_is_a_fault() {
        let full = || "the GPU has no 9 bytes left".to_owned();
        let step = 3;
        for passing in [
            LearnError::Nn(NnError::Memory(full())),
            LearnError::NonFinite { what: "loss", step },
        ] {
            assert!(left_state_unchanged(&passing), "{passing}");
        }
        for failure in [NnError::Device(full()), NnError::Weights(full())] {
            assert!(!left_state_unchanged(&LearnError::Nn(failure)));
        }
    }

    #[test]
    fn a_pair_erased_after_planning_leaves_with_its_pixels() {
        let mut batch = Batch {
            step: 3,
            pairs: vec![PairKey(1), PairKey(2), PairKey(3)],
            recency: Recency::NONE,
            side: 32,
            pixels: vec![1.0, 1.5, 2.0, 2.5, 3.0, 3.5],
        };
        drop_erased(&mut batch, |pair| pair != PairKey(2));
        assert_eq!(batch.pairs, [PairKey(1), PairKey(3)]);
        assert_eq!(batch.pixels, [1.0, 1.5, 3.0, 3.5]);
    }
}
