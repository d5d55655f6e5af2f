//! Whether an encoder for each side of pairs learns what one for both learns worse: images and their disguises, which look nothing alike.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Claim, Points, Run, Scale, StudyConfig, StudyError,
    encoder_study::{Elapsed, EncoderSettings, TrainingRun, evaluated_steps, too_few},
    experiment::Experiment,
    images::{Images, load},
    method::Method,
    number::short,
    plot::Chart,
    recipe::{Recipe, adam},
    run_recorder::RunRecorder,
    settings::with_overrides,
    views::{DisguisedSet, Epochs, disguise, plain_tiles},
};
use kith_eval::retrieval;
use kith_learn::{Decay, Learner, ScheduleConfig};
use kith_mcmc::Side;
use kith_nn::{Device, EncoderConfig};
use kith_pixels::DecodedImage;

/// Share of the held-out images whose disguise is the nearest of all.
const RECALL: &str = "recall_at_1";
/// Mean milliseconds of a step.
const STEP_MS: &str = "step_ms";
/// Encoders by the names of their series.
const SERIES: [(&str, usize); 2] = [("one tower", 1), ("two towers", 2)];

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Settings {
    /// The first of `objectives` is trained; `images` also limits the held-out ones.
    #[serde(flatten)]
    encoder: EncoderSettings,
    batch: usize,
    rate: f32,
    warmup_steps: u64,
    steps: u64,
    /// Steps between evaluations.
    every: u64,
}

impl Settings {
    fn preset(scale: Scale) -> Self {
        let laptop = Self {
            encoder: EncoderSettings {
                beta: 10.0,
                objectives: vec![Method::Emc2Subset],
                ..EncoderSettings::preset(scale)
            },
            batch: 32,
            rate: 5e-4,
            warmup_steps: 100,
            steps: 1_500,
            every: 300,
        };
        match scale {
            Scale::Smoke => Self {
                encoder: EncoderSettings {
                    images: 60,
                    ..laptop.encoder
                },
                batch: 8,
                warmup_steps: 5,
                steps: 20,
                every: 10,
                ..laptop
            },
            Scale::Laptop => laptop,
            Scale::Paper => Self {
                steps: 15_000,
                every: 1_500,
                ..laptop
            },
        }
    }

    fn schedule(&self) -> ScheduleConfig {
        ScheduleConfig {
            learning_rate: self.rate,
            pretrained_factor: 1.0,
            warmup_steps: self.warmup_steps,
            decay: Decay::Cosine,
            total_steps: self.steps,
            final_rate: 0.0,
            resize_steps: 0,
        }
    }
}

/// The study.
pub(super) struct Towers {
    settings: Settings,
    images: Vec<DecodedImage>,
    held_out: Vec<DecodedImage>,
    device: Device,
}

impl Towers {
    pub(super) fn new(config: &StudyConfig) -> Result<Self, StudyError> {
        let settings: Settings = with_overrides(&Settings::preset(config.scale), &config.sets)?;
        let found = Images::find(config.images()?)?;
        let part = |items| load(settings.encoder.limited(items), &config.limits);
        let (images, held_out) = (part(&found.train)?, part(&found.test)?);
        let batch = settings.batch;
        if held_out.is_empty() || batch < 2 || batch > images.len() || settings.every == 0 {
            return Err(StudyError::config(
                "give a folder with train and test images, a batch from 2 to the number of images, and every of at least 1",
            ));
        }
        if settings.encoder.objectives.len() != 1 {
            return Err(StudyError::config("name one objective"));
        }
        Ok(Self {
            settings,
            images,
            held_out,
            device: config.device.clone(),
        })
    }

    fn recipe(&self, towers: usize, seed: u64) -> Recipe {
        Recipe {
            encoder: EncoderConfig {
                towers,
                ..self.settings.encoder.encoder()
            },
            optimizer: adam(1e-4),
            method: self.settings.encoder.objectives[0],
            beta: self.settings.encoder.beta,
            images: 2 * self.images.len(),
            seed,
            device: self.device.clone(),
        }
    }

    /// Records how often a held-out image finds its disguise.
    fn evaluate(
        &self,
        learner: &Learner,
        elapsed: Elapsed,
        recorder: &mut RunRecorder<'_>,
    ) -> Result<(), StudyError> {
        let side = self.settings.encoder.side;
        let mut rows: [Vec<f32>; 2] = Default::default();
        for pixels in plain_tiles(&self.held_out, side) {
            let images = pixels.chunks_exact(side * side * 3);
            let disguised: Vec<f32> = images.flat_map(|image| disguise(image, side)).collect();
            for (rows, (side, pixels)) in rows
                .iter_mut()
                .zip([(Side::Anchor, &pixels), (Side::Positive, &disguised)])
            {
                rows.extend(learner.towers.get(side).forward(pixels)?.embedding.data);
            }
        }
        let relevant: Vec<Vec<usize>> = (0..self.held_out.len()).map(|row| vec![row]).collect();
        let dim = self.settings.encoder.dim;
        let found = retrieval(dim, &rows[0], &rows[1], &relevant);
        let step_ms = 1e3 * elapsed.seconds / elapsed.step.max(1) as f64;
        let values = [(RECALL, found.recall_at_1), (STEP_MS, step_ms)];
        recorder.record(elapsed.step, &values)
    }
}

impl Experiment for Towers {
    fn settings(&self) -> Value {
        json!(self.settings)
    }

    fn series(&self) -> Vec<String> {
        SERIES.map(|(name, _)| name.to_owned()).to_vec()
    }

    fn positions(&self, _series: &str) -> Vec<u64> {
        evaluated_steps(self.settings.steps, self.settings.every)
    }

    fn measure(&self, run: &Run, recorder: &mut RunRecorder<'_>) -> Result<(), StudyError> {
        let series = SERIES.iter().find(|(name, _)| *name == run.series);
        let (_, towers) = series.ok_or_else(|| StudyError::unknown_series(&run.series))?;
        let schedule = self.settings.schedule();
        let side = self.settings.encoder.side;
        let training = TrainingRun {
            recipe: &self.recipe(*towers, run.seed),
            views: &DisguisedSet::new(&self.images, side, *towers > 1, run.seed),
            epochs: Epochs {
                seed: run.seed,
                pairs: self.images.len(),
                batch: self.settings.batch,
            },
            positions: self.positions(&run.series),
        };
        training.run(
            recorder,
            |step| schedule.rate(step - 1, None),
            |learner, elapsed, recorder| self.evaluate(learner, elapsed, recorder),
        )
    }

    fn charts(&self) -> Vec<Chart> {
        vec![Chart {
            file: "towers-recall".to_owned(),
            title: "Held-out images that find their disguise".to_owned(),
            value: RECALL.to_owned(),
            y_label: "recall@1".to_owned(),
            x_label: "steps".to_owned(),
            series: self.series(),
            ..Chart::default()
        }]
    }

    fn unjudged_reason(&self) -> Option<String> {
        too_few(self.settings.steps)
    }

    fn judge(&self, points: &Points) -> Vec<Claim> {
        let [one, two] = SERIES.map(|(name, _)| points.last(name, RECALL).mean);
        vec![Claim::new(
            "two towers find disguised images more often than one".to_owned(),
            two > one,
            format!("{} against {}", short(two), short(one)),
        )]
    }
}
