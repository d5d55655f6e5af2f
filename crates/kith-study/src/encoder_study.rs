//! What the studies of an encoder share: sizes, series, images and the training loop.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{
    Scale, StudyConfig, StudyError,
    images::{Images, Item, load},
    method::Method,
    recipe::{Recipe, Snapshot, can_resume},
    run_recorder::RunRecorder,
    views::{Epochs, TrainingViews},
};
use kith_learn::Learner;
use kith_nn::EncoderConfig;
use kith_pixels::DecodedImage;

/// File of a saved state with the seconds of training so far.
const CLOCK: &str = "seconds.json";

/// The settings that every study of an encoder has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct EncoderSettings {
    /// Maximum number of images that are used; 0: all.
    pub(super) images: usize,
    pub(super) width: usize,
    pub(super) side: usize,
    pub(super) dim: usize,
    pub(super) beta: f32,
    pub(super) objectives: Vec<Method>,
}

impl EncoderSettings {
    /// The encoder of each scale, with all images, β = 5 and the objectives that the paper compares.
    pub(super) fn preset(scale: Scale) -> Self {
        let (width, side, dim) = match scale {
            Scale::Smoke => (8, 32, 32),
            Scale::Laptop => (16, 64, 128),
            Scale::Paper => (64, 96, 512),
        };
        Self {
            images: 0,
            width,
            side,
            dim,
            beta: 5.0,
            objectives: Method::COMPARED.to_vec(),
        }
    }

    pub(super) fn encoder(&self) -> EncoderConfig {
        EncoderConfig {
            width: self.width,
            side: self.side,
            dim: self.dim,
            towers: 1,
        }
    }

    /// The first of `items`, as many as are used.
    pub(super) fn limited<'a>(&self, items: &'a [Item]) -> &'a [Item] {
        match self.images {
            0 => items,
            max => &items[..max.min(items.len())],
        }
    }

    /// Decodes the images that are trained on.
    pub(super) fn load_training(
        &self,
        config: &StudyConfig,
    ) -> Result<Vec<DecodedImage>, StudyError> {
        let images = Images::find(config.images()?)?;
        load(self.limited(images.for_training()), &config.limits)
    }
}

/// A series of a study: one method at one batch size.
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) method: Method,
    pub(super) batch: usize,
}

/// Every method at every batch size.
pub(super) fn curves(batches: &[usize], methods: &[Method]) -> Vec<Curve> {
    let at = |batch: usize| {
        methods.iter().map(move |method| Curve {
            name: method.series(batch),
            method: *method,
            batch,
        })
    };
    batches.iter().flat_map(|batch| at(*batch)).collect()
}

/// The curve of the series `name`.
pub(super) fn find_curve(curves: Vec<Curve>, name: &str) -> Result<Curve, StudyError> {
    let found = curves.into_iter().find(|curve| curve.name == name);
    found.ok_or_else(|| StudyError::unknown_series(name))
}

/// 0, every multiple of `every` below `steps`, and `steps`.
pub(super) fn evaluated_steps(steps: u64, every: u64) -> Vec<u64> {
    let mut positions: Vec<u64> = (0..steps).step_by(every as usize).collect();
    positions.push(steps);
    positions
}

/// Fewest steps of training after which an objective is judged.
const MIN_STEPS: u64 = 1_000;

/// Why `steps` steps are too few to judge a trained objective; `None` if they are enough.
pub(super) fn too_few(steps: u64) -> Option<String> {
    (steps < MIN_STEPS).then(|| {
        format!(
            "{steps} steps of training are too few to judge these claims, which need {MIN_STEPS} at least: take --scale laptop"
        )
    })
}

/// How far a training run has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elapsed {
    /// Steps so far.
    pub(super) step: u64,
    /// Seconds that those steps took.
    pub(super) seconds: f64,
}

/// A training run that is evaluated at some of its steps.
pub(super) struct TrainingRun<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) views: &'a dyn TrainingViews,
    pub(super) epochs: Epochs,
    /// The steps at which it is evaluated, ascending; the last is its end.
    pub(super) positions: Vec<u64>,
}

impl TrainingRun<'_> {
    /// Trains from the saved state, or from the start, to the end. `rate` is the learning rate of a step, counted from 1.
    ///
    /// `evaluate` is called at each position. Its time does not count as training.
    pub(super) fn run(
        &self,
        recorder: &mut RunRecorder<'_>,
        rate: impl Fn(u64) -> f32,
        evaluate: impl Fn(&Learner, Elapsed, &mut RunRecorder<'_>) -> Result<(), StudyError>,
    ) -> Result<(), StudyError> {
        let (mut learner, mut elapsed) = match recorder.saved_state()? {
            Some(state) => {
                let clock = state.file(CLOCK);
                let seconds = clock.and_then(|bytes| serde_json::from_slice(bytes).ok());
                let elapsed = Elapsed {
                    step: state.at,
                    seconds: seconds.unwrap_or(f64::NAN),
                };
                (self.recipe.restore(&state)?, elapsed)
            }
            None => {
                let (step, seconds) = (0, 0.0);
                let (learner, start) = (self.recipe.fresh()?, Elapsed { step, seconds });
                evaluate(&learner, start, recorder)?;
                (learner, start)
            }
        };
        recorder.advance(elapsed.step);
        let end = self.positions.last().copied().unwrap_or(0);
        for step in elapsed.step + 1..=end {
            let started = Instant::now();
            train_step(&mut learner, self.views, &self.epochs, step, rate(step))?;
            elapsed.step = step;
            elapsed.seconds += started.elapsed().as_secs_f64();
            recorder.advance(1);
            if self.positions.contains(&step) {
                evaluate(&learner, elapsed, recorder)?;
                save(&learner, elapsed, recorder)?;
            }
        }
        Ok(())
    }
}

/// One training step on the pairs that `epochs` draws for it.
pub(super) fn train_step(
    learner: &mut Learner,
    views: &dyn TrainingViews,
    epochs: &Epochs,
    step: u64,
    rate: f32,
) -> Result<(), StudyError> {
    let batch = views.batch(step, epochs.draw(step));
    learner.step(&batch, views.graph(), views, rate)?;
    Ok(())
}

/// Saves the run's state, unless the learner remembers more than a state holds.
fn save(learner: &Learner, elapsed: Elapsed, recorder: &RunRecorder<'_>) -> Result<(), StudyError> {
    if !can_resume(learner) {
        return Ok(());
    }
    let mut state = Snapshot::capture(learner)?.to_state(elapsed.step)?;
    let seconds = elapsed.seconds.to_string().into_bytes();
    state.files.push((CLOCK.to_owned(), seconds));
    recorder.save_state(&state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_step_is_evaluated() {
        assert_eq!(evaluated_steps(10, 4), [0, 4, 8, 10]);
        assert_eq!(evaluated_steps(8, 4), [0, 4, 8]);
    }
}
