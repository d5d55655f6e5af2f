//! Averages of step reports: means over an interval for the training series, moving averages for the status.

use std::{collections::VecDeque, time::Instant};

use super::{alarms::StepFigures, status::TrainingStatus};
use crate::db::StepMetrics;
use kith_learn::StepReport;
use kith_nn::StageNorms;

/// Weight of the newest step in a moving average: about the last 20 steps count.
const SMOOTHING: f32 = 0.05;

/// Steps whose embeddings the range of 8-bit answers is taken from.
const RANGE_STEPS: usize = 32;

/// Averages of step reports.
#[derive(Debug)]
pub(super) struct Meter {
    interval: Interval,
    since: Instant,
    smooth: Option<Smooth>,
    /// Steps in all.
    steps: u64,
    /// Of the last step.
    max_chain_age: u32,
    /// As they were last measured.
    stage_norms: Option<StageNorms>,
    /// Largest magnitudes in the embeddings of the last steps.
    largest_values: VecDeque<f32>,
}

/// Sums since the last row.
#[derive(Debug, Default)]
struct Interval {
    steps: f32,
    loss: f32,
    global_loss_estimate: f32,
    acceptance_rate: f32,
    gradient_norm: f32,
    spread: f32,
    images: f32,
}

#[derive(Clone, Copy, Debug)]
struct Smooth {
    loss: f32,
    global_loss_estimate: f32,
    acceptance_rate: f32,
    chain_age: f32,
    stored_minus_fresh: f32,
    carried_share: f32,
    seconds: f32,
    images: f32,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            interval: Interval::default(),
            since: Instant::now(),
            smooth: None,
            steps: 0,
            max_chain_age: 0,
            stage_norms: None,
            largest_values: VecDeque::new(),
        }
    }

    /// Adds a step that encoded `images` images and took `seconds`.
    pub(super) fn add(&mut self, report: &StepReport, images: usize, seconds: f32) {
        let interval = &mut self.interval;
        self.steps += 1;
        interval.steps += 1.0;
        interval.loss += report.loss;
        interval.global_loss_estimate += report.global_loss_estimate;
        interval.acceptance_rate += report.acceptance_rate;
        interval.gradient_norm += report.gradient_norm;
        interval.spread += report.spread;
        interval.images += images as f32;
        self.max_chain_age = report.max_chain_age;
        self.stage_norms = report.stage_norms.or(self.stage_norms);
        if self.largest_values.len() == RANGE_STEPS {
            self.largest_values.pop_front();
        }
        self.largest_values.push_back(report.largest_value);
        let newest = Smooth {
            loss: report.loss,
            global_loss_estimate: report.global_loss_estimate,
            acceptance_rate: report.acceptance_rate,
            chain_age: report.chain_age,
            stored_minus_fresh: report.stored_minus_fresh,
            carried_share: report.carried_encoded as f32 / images.max(1) as f32,
            seconds,
            images: images as f32,
        };
        self.smooth = Some(self.smooth.map_or(newest, |smooth| smooth.towards(&newest)));
    }

    /// The row of the steps since the last one; `None` if there were none.
    pub(super) fn row(&mut self, step: u64, learning_rate: f32) -> Option<StepMetrics> {
        let seconds = self.since.elapsed().as_secs_f32().max(f32::EPSILON);
        let sums = std::mem::take(&mut self.interval);
        self.since = Instant::now();
        (sums.steps > 0.0).then(|| StepMetrics {
            step,
            loss: sums.loss / sums.steps,
            global_loss_estimate: sums.global_loss_estimate / sums.steps,
            acceptance_rate: sums.acceptance_rate / sums.steps,
            gradient_norm: sums.gradient_norm / sums.steps,
            spread: sums.spread / sums.steps,
            learning_rate,
            images_per_second: sums.images / seconds,
            at: jiff::Timestamp::now(),
        })
    }

    /// Largest magnitude of a value in the embeddings of the last steps; `None` before the first.
    pub(super) fn range(&self) -> Option<f32> {
        self.largest_values.iter().copied().reduce(f32::max)
    }

    /// What alarms are decided by; `None` before the first step.
    pub(super) fn figures(&self, chains: u64) -> Option<StepFigures> {
        self.smooth.map(|smooth| StepFigures {
            steps: self.steps,
            chains,
            acceptance_rate: smooth.acceptance_rate,
            global_loss_estimate: smooth.global_loss_estimate,
        })
    }

    /// Writes the moving averages to `status`.
    pub(super) fn write_to(&self, status: &mut TrainingStatus) {
        let Some(smooth) = self.smooth else { return };
        status.loss = Some(smooth.loss);
        status.global_loss_estimate = Some(smooth.global_loss_estimate);
        status.acceptance_rate = Some(smooth.acceptance_rate);
        status.chain_age = Some(smooth.chain_age);
        status.max_chain_age = self.max_chain_age;
        status.stored_minus_fresh = Some(smooth.stored_minus_fresh);
        status.gradient_norms = self.stage_norms;
        status.carried_share = Some(smooth.carried_share);
        let seconds = smooth.seconds.max(f32::EPSILON);
        status.steps_per_second = 1.0 / seconds;
        status.images_per_second = smooth.images / seconds;
    }
}

impl Smooth {
    fn towards(self, newest: &Self) -> Self {
        let step = |old: f32, new: f32| old + SMOOTHING * (new - old);
        Self {
            loss: step(self.loss, newest.loss),
            global_loss_estimate: step(self.global_loss_estimate, newest.global_loss_estimate),
            acceptance_rate: step(self.acceptance_rate, newest.acceptance_rate),
            chain_age: step(self.chain_age, newest.chain_age),
            stored_minus_fresh: step(self.stored_minus_fresh, newest.stored_minus_fresh),
            carried_share: step(self.carried_share, newest.carried_share),
            seconds: step(self.seconds, newest.seconds),
            images: step(self.images, newest.images),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{events::Events, train::status::SharedStatus};

    #[test]
    fn a_row_is_the_mean_of_its_interval_and_starts_the_next() {
        let mut meter = Meter::new();
        for loss in [1.0, 3.0] {
            let report = StepReport {
                loss,
                ..StepReport::default()
            };
            meter.add(&report, 8, 0.5);
        }
        let row = meter.row(10, 0.1).unwrap();
        assert_eq!((row.step, row.loss, row.learning_rate), (10, 2.0, 0.1));
        assert_eq!(meter.row(20, 0.1), None);
    }

    /// What the status shows of the averages and of the last step.
    fn shown(meter: &Meter) -> [f32; 9] {
        let shared = SharedStatus::new(String::new(), Events::default());
        shared.update(|status| meter.write_to(status));
        let status = shared.current();
        let averages = [
            status.loss,
            status.global_loss_estimate,
            status.acceptance_rate,
            status.chain_age,
            status.stored_minus_fresh,
            status.carried_share,
        ];
        let [loss, global, accepted, age, gap, carried] = averages.map(Option::unwrap);
        let (steps, images) = (status.steps_per_second, status.images_per_second);
        let oldest = status.max_chain_age as f32;
        [
            loss, global, accepted, age, gap, carried, steps, images, oldest,
        ]
    }

    #[test]
    fn each_figure_is_shown_under_its_own_name_and_moves_by_a_twentieth() {
        let report = |factor: f32| StepReport {
            loss: factor,
            global_loss_estimate: 2.0 * factor,
            acceptance_rate: 3.0 * factor,
            chain_age: 4.0 * factor,
            stored_minus_fresh: 5.0 * factor,
            max_chain_age: 6,
            carried_encoded: 2,
            ..StepReport::default()
        };
        let mut meter = Meter::new();
        meter.add(&report(1.0), 8, 0.5);
        assert_eq!(
            shown(&meter),
            [1.0, 2.0, 3.0, 4.0, 5.0, 0.25, 2.0, 16.0, 6.0]
        );
        meter.add(&report(21.0), 8, 0.5);
        let [loss, global, accepted, age, gap, carried, ..] = shown(&meter);
        let found = [loss, global, accepted, age, gap, carried];
        let off = [2.0, 4.0, 6.0, 8.0, 10.0, 0.25]
            .iter()
            .zip(found)
            .map(|(a, b)| a - b);
        assert!(off.clone().all(|off| off.abs() < 1e-5), "{found:?}");
    }

    #[test]
    fn norms_that_are_measured_now_and_then_stay_until_the_next() {
        let norms = StageNorms {
            stem: 1.0,
            ..StageNorms::default()
        };
        let mut meter = Meter::new();
        for stage_norms in [Some(norms), None] {
            let report = StepReport {
                stage_norms,
                ..StepReport::default()
            };
            meter.add(&report, 1, 1.0);
            let shared = SharedStatus::new(String::new(), Events::default());
            shared.update(|status| meter.write_to(status));
            assert_eq!(shared.current().gradient_norms, Some(norms));
        }
    }

    #[test]
    fn the_range_is_that_of_the_last_steps() {
        let mut meter = Meter::new();
        assert_eq!(meter.range(), None);
        for step in 0..=RANGE_STEPS {
            let largest_value = if step == 0 { 0.9 } else { 0.1 };
            let report = StepReport {
                largest_value,
                ..StepReport::default()
            };
            meter.add(&report, 1, 1.0);
            // The first step is forgotten with the last of these.
            let expected = if step < RANGE_STEPS { 0.9 } else { 0.1 };
            assert_eq!(meter.range(), Some(expected));
        }
    }
}
