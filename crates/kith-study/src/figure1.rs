//! The paper's figure 1: accuracy of each objective's features along training, by steps and by seconds. Classes are not trained on.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Claim, Points, Run, Scale, StudyConfig, StudyError,
    comparison::{Comparison, LINEAR, NEIGHBOURS, SECONDS},
    encoder_study::{
        Curve, Elapsed, EncoderSettings, TrainingRun, curves, evaluated_steps, find_curve, too_few,
    },
    experiment::Experiment,
    images::{Images, Item, load},
    method::Method,
    plot::Chart,
    recipe::{Recipe, adam},
    run_recorder::RunRecorder,
    settings::with_overrides,
    views::{Epochs, FreshSet, plain_tiles},
};
use kith_eval::{Labelled, ProbeConfig, neighbour_accuracy, probe_accuracy};
use kith_learn::{Decay, ScheduleConfig};
use kith_mcmc::Side;
use kith_nn::{Device, Encoder};
use kith_pixels::DecodedImage;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Settings {
    /// `images` also limits each part that the probes see.
    #[serde(flatten)]
    encoder: EncoderSettings,
    batches: Vec<usize>,
    rate: f32,
    weight_decay: f32,
    warmup_steps: u64,
    steps: u64,
    /// Steps between evaluations of the features.
    every: u64,
    /// Number of nearest neighbours that vote.
    neighbours: usize,
    probe_rate: f32,
    probe_epochs: usize,
    probe_standardise: bool,
}

impl Settings {
    fn preset(scale: Scale) -> Self {
        let laptop = Self {
            encoder: EncoderSettings {
                beta: 14.28,
                ..EncoderSettings::preset(scale)
            },
            batches: vec![32, 8],
            rate: 1.5e-4,
            weight_decay: 1e-4,
            warmup_steps: 200,
            steps: 3_000,
            every: 600,
            neighbours: 20,
            probe_rate: 1e-2,
            probe_epochs: 100,
            probe_standardise: true,
        };
        match scale {
            Scale::Smoke => Self {
                encoder: EncoderSettings {
                    images: 100,
                    ..laptop.encoder
                },
                batches: vec![8],
                warmup_steps: 5,
                steps: 30,
                every: 15,
                ..laptop
            },
            Scale::Laptop => laptop,
            // 100 epochs of STL-10's 100,000 images; 10 of them warm up.
            Scale::Paper => Self {
                batches: vec![32],
                rate: 1e-4,
                warmup_steps: 31_250,
                steps: 312_500,
                every: 15_625,
                probe_rate: 1e-3,
                probe_standardise: false,
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

/// Images with their classes.
struct LabelledImages {
    images: Vec<DecodedImage>,
    labels: Vec<usize>,
}

impl LabelledImages {
    fn with_rows<'a>(&'a self, dim: usize, rows: &'a [f32]) -> Labelled<'a> {
        let labels = &self.labels;
        Labelled { dim, rows, labels }
    }
}

/// The study.
pub(super) struct Figure1 {
    settings: Settings,
    /// The images that the encoder trains on.
    images: Vec<DecodedImage>,
    /// The images that the probes train on.
    train: LabelledImages,
    /// The images that the probes are tested on.
    test: LabelledImages,
    device: Device,
}

impl Figure1 {
    pub(super) fn new(config: &StudyConfig) -> Result<Self, StudyError> {
        let settings: Settings = with_overrides(&Settings::preset(config.scale), &config.sets)?;
        let found = Images::find(config.images()?)?;
        if found.train.is_empty() || found.test.is_empty() {
            return Err(StudyError::config(
                "the features are judged by classes: give a folder with one sub-folder for each, or STL-10's train and test files",
            ));
        }
        let part = |items: &[Item]| {
            let items = settings.encoder.limited(items);
            let labels = items.iter().map(|item| item.label).collect();
            let images = load(items, &config.limits)?;
            Ok::<_, StudyError>(LabelledImages { images, labels })
        };
        let images = load(
            settings.encoder.limited(found.for_training()),
            &config.limits,
        )?;
        let largest = settings.batches.iter().max().copied().unwrap_or(0);
        if largest < 2 || largest > images.len() || settings.every == 0 {
            return Err(StudyError::config(
                "batches must be from 2 to the number of images, and every must be at least 1",
            ));
        }
        Ok(Self {
            train: part(&found.train)?,
            test: part(&found.test)?,
            settings,
            images,
            device: config.device.clone(),
        })
    }

    fn curves(&self) -> Vec<Curve> {
        curves(&self.settings.batches, &self.settings.encoder.objectives)
    }

    fn recipe(&self, method: Method, seed: u64) -> Recipe {
        Recipe {
            encoder: self.settings.encoder.encoder(),
            optimizer: adam(self.settings.weight_decay),
            method,
            beta: self.settings.encoder.beta,
            images: self.images.len(),
            seed,
            device: self.device.clone(),
        }
    }

    /// Records the accuracy of the encoder's features.
    fn evaluate(
        &self,
        encoder: &Encoder,
        elapsed: Elapsed,
        recorder: &mut RunRecorder<'_>,
    ) -> Result<(), StudyError> {
        let train = hidden(encoder, &self.train.images)?;
        let test = hidden(encoder, &self.test.images)?;
        let dim = 8 * self.settings.encoder.width;
        let train = self.train.with_rows(dim, &train);
        let test = self.test.with_rows(dim, &test);
        let probe = ProbeConfig {
            rate: self.settings.probe_rate,
            epochs: self.settings.probe_epochs,
            standardise: self.settings.probe_standardise,
            ..ProbeConfig::default()
        };
        let values = [
            (LINEAR, probe_accuracy(&train, &test, &probe)),
            (
                NEIGHBOURS,
                neighbour_accuracy(&train, &test, self.settings.neighbours),
            ),
            (SECONDS, elapsed.seconds),
        ];
        recorder.record(elapsed.step, &values)
    }
}

/// Features below the projection head: `[images, 8 · width]`.
fn hidden(encoder: &Encoder, images: &[DecodedImage]) -> Result<Vec<f32>, StudyError> {
    let mut rows = Vec::new();
    for pixels in plain_tiles(images, encoder.config().side) {
        rows.extend(encoder.forward(&pixels)?.hidden.data);
    }
    Ok(rows)
}

impl Experiment for Figure1 {
    fn settings(&self) -> Value {
        json!(self.settings)
    }

    fn series(&self) -> Vec<String> {
        self.curves().into_iter().map(|curve| curve.name).collect()
    }

    fn positions(&self, _series: &str) -> Vec<u64> {
        evaluated_steps(self.settings.steps, self.settings.every)
    }

    fn measure(&self, run: &Run, recorder: &mut RunRecorder<'_>) -> Result<(), StudyError> {
        let curve = find_curve(self.curves(), &run.series)?;
        let schedule = self.settings.schedule();
        let training = TrainingRun {
            recipe: &self.recipe(curve.method, run.seed),
            views: &FreshSet::new(&self.images, self.settings.encoder.side, run.seed),
            epochs: Epochs {
                seed: run.seed,
                pairs: self.images.len(),
                batch: curve.batch,
            },
            positions: self.positions(&run.series),
        };
        training.run(
            recorder,
            |step| schedule.rate(step - 1, None),
            |learner, elapsed, recorder| {
                self.evaluate(learner.towers.get(Side::Anchor), elapsed, recorder)
            },
        )
    }

    fn charts(&self) -> Vec<Chart> {
        let mut charts = Vec::new();
        for batch in &self.settings.batches {
            for (value, what) in [(LINEAR, "Linear probe"), (NEIGHBOURS, "Nearest neighbours")] {
                for (x_value, x_label) in [(None, "steps"), (Some(SECONDS), "seconds")] {
                    let series = self.curves().into_iter();
                    let series = series.filter(|curve| curve.batch == *batch);
                    charts.push(Chart {
                        file: format!("figure1-{value}-{x_label}-b{batch}"),
                        title: format!("{what} on held-out images, b = {batch}"),
                        value: value.to_owned(),
                        y_label: "accuracy".to_owned(),
                        x_value: x_value.map(str::to_owned),
                        x_label: x_label.to_owned(),
                        series: series.map(|curve| curve.name).collect(),
                        ..Chart::default()
                    });
                }
            }
        }
        charts
    }

    fn unjudged_reason(&self) -> Option<String> {
        too_few(self.settings.steps)
    }

    fn judge(&self, points: &Points) -> Vec<Claim> {
        let methods = &self.settings.encoder.objectives;
        let comparisons = self.settings.batches.iter().map(|batch| Comparison {
            methods,
            batch: *batch,
        });
        comparisons
            .flat_map(|comparison| comparison.claims(points))
            .collect()
    }
}
