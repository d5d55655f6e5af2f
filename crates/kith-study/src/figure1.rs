//! The paper's figure 1: what the features of each objective are worth along training, by steps and by seconds; classes are not trained on.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Claim, Order, Points, Run, Scale, StudyError,
    experiment::{Desk, Experiment, too_few},
    fixed::{Epochs, FreshSet, plain_tiles},
    images::{Images, Item, load},
    lead::{Field, LINEAR, NEIGHBOURS, SECONDS},
    method::Method,
    plot::Chart,
    settings::overridden,
    state::{Recipe, adam, page},
};
use kith_eval::{Labelled, ProbeConfig, neighbour_accuracy, probe_accuracy};
use kith_learn::{Decay, Learner, ScheduleConfig};
use kith_nn::{Device, Encoder, EncoderConfig};
use kith_pixels::DecodedImage;

/// File of a state with the seconds of training so far.
const CLOCK: &str = "seconds.json";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Most pictures that are trained on, and most of each part that the probes see; 0: all.
    images: usize,
    width: usize,
    side: usize,
    dim: usize,
    beta: f32,
    batches: Vec<usize>,
    objectives: Vec<Method>,
    rate: f32,
    weight_decay: f32,
    warmup_steps: u64,
    steps: u64,
    /// Steps between looks at the features.
    every: u64,
    /// Votes of the nearest neighbours.
    neighbours: usize,
    probe_rate: f32,
    probe_epochs: usize,
    probe_standardise: bool,
}

impl Settings {
    fn preset(scale: Scale) -> Self {
        let small = Self {
            images: 0,
            width: 16,
            side: 64,
            dim: 128,
            beta: 14.28,
            batches: vec![32, 8],
            objectives: Method::COMPARED.to_vec(),
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
                images: 100,
                width: 8,
                side: 32,
                dim: 32,
                batches: vec![8],
                warmup_steps: 5,
                steps: 30,
                every: 15,
                ..small
            },
            Scale::Laptop => small,
            // 100 epochs of STL-10's 100,000 images; 10 of them warm up.
            Scale::Paper => Self {
                width: 64,
                side: 96,
                dim: 512,
                batches: vec![32],
                rate: 1e-4,
                warmup_steps: 31_250,
                steps: 312_500,
                every: 15_625,
                probe_rate: 1e-3,
                probe_standardise: false,
                ..small
            },
        }
    }

    fn schedule(&self) -> ScheduleConfig {
        ScheduleConfig {
            learning_rate: self.rate,
            warmup_steps: self.warmup_steps,
            decay: Decay::Cosine,
            total_steps: self.steps,
            final_rate: 0.0,
        }
    }
}

/// Pictures with their classes.
struct Part {
    pictures: Vec<DecodedImage>,
    labels: Vec<usize>,
}

impl Part {
    fn labelled<'a>(&'a self, dim: usize, rows: &'a [f32]) -> Labelled<'a> {
        let labels = &self.labels;
        Labelled { dim, rows, labels }
    }
}

/// The study.
pub(super) struct Figure1 {
    settings: Settings,
    pictures: Vec<DecodedImage>,
    train: Part,
    test: Part,
    device: Device,
}

impl Figure1 {
    pub(super) fn new(order: &Order) -> Result<Self, StudyError> {
        let settings: Settings = overridden(&Settings::preset(order.scale), &order.sets)?;
        let images = Images::find(order.images()?)?;
        if images.train.is_empty() || images.test.is_empty() {
            return Err(StudyError::config(
                "the features are judged by classes: give a folder with one sub-folder for each, or STL-10's train and test files",
            ));
        }
        let most = |items: &[Item]| match settings.images {
            0 => items.len(),
            most => most.min(items.len()),
        };
        let part = |items: &[Item]| {
            let items = &items[..most(items)];
            let labels = items.iter().map(|item| item.label).collect();
            let pictures = load(items, &order.limits)?;
            Ok::<_, StudyError>(Part { pictures, labels })
        };
        let unlabelled = images.for_training();
        let pictures = load(&unlabelled[..most(unlabelled)], &order.limits)?;
        let largest = settings.batches.iter().max().copied().unwrap_or(0);
        if largest < 2 || largest > pictures.len() || settings.every == 0 {
            return Err(StudyError::config(
                "batches must be from 2 to the number of images, with looks in between",
            ));
        }
        Ok(Self {
            train: part(&images.train)?,
            test: part(&images.test)?,
            settings,
            pictures,
            device: order.device.clone(),
        })
    }

    fn curves(&self) -> Vec<(String, Method, usize)> {
        let of = |batch: &usize| {
            let batch = *batch;
            let named = move |method: &Method| (method.at(batch), *method, batch);
            self.settings.objectives.iter().map(named)
        };
        self.settings.batches.iter().flat_map(of).collect()
    }

    fn recipe(&self, method: Method, seed: u64) -> Recipe {
        let Settings {
            width, side, dim, ..
        } = self.settings;
        Recipe {
            encoder: EncoderConfig { width, side, dim },
            optimizer: adam(self.settings.weight_decay),
            method,
            beta: self.settings.beta,
            images: self.pictures.len(),
            seed,
            device: self.device.clone(),
        }
    }

    fn look(
        &self,
        encoder: &Encoder,
        (step, seconds): (u64, f64),
        desk: &mut Desk<'_>,
    ) -> Result<(), StudyError> {
        let (train, test) = (
            hidden(encoder, &self.train.pictures)?,
            hidden(encoder, &self.test.pictures)?,
        );
        let dim = 8 * self.settings.width;
        let train = self.train.labelled(dim, &train);
        let test = self.test.labelled(dim, &test);
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
            (SECONDS, seconds),
        ];
        desk.note(step, &values)
    }

    /// Trains from `done` to the end; only steps count as seconds, looks do not.
    fn train(
        &self,
        (mut learner, epochs): (Learner, Epochs),
        (done, mut seconds): (u64, f64),
        run: &Run,
        desk: &mut Desk<'_>,
    ) -> Result<(), StudyError> {
        let set = FreshSet::new(&self.pictures, self.settings.side, run.seed);
        let (schedule, places) = (self.settings.schedule(), self.places(&run.series));
        for step in done + 1..=self.settings.steps {
            let started = Instant::now();
            let batch = set.batch(step, epochs.draw(step));
            learner.step(&batch, &set.graph, &set, schedule.rate(step - 1, None))?;
            seconds += started.elapsed().as_secs_f64();
            desk.advance(1);
            if places.contains(&step) {
                self.look(&learner.encoder, (step, seconds), desk)?;
                if let Some(mut state) = page(&learner)? {
                    state.push((CLOCK.to_owned(), seconds.to_string().into_bytes()));
                    desk.keep(step, &state)?;
                }
            }
        }
        Ok(())
    }
}

/// Features below the projection head, `[pictures, 8 · width]`.
fn hidden(encoder: &Encoder, pictures: &[DecodedImage]) -> Result<Vec<f32>, StudyError> {
    let mut rows = Vec::new();
    for pixels in plain_tiles(pictures, encoder.config().side) {
        rows.extend(encoder.forward(&pixels)?.hidden.data);
    }
    Ok(rows)
}

impl Experiment for Figure1 {
    fn settings(&self) -> Value {
        json!(self.settings)
    }

    fn series(&self) -> Vec<String> {
        self.curves().into_iter().map(|(name, ..)| name).collect()
    }

    fn places(&self, _series: &str) -> Vec<u64> {
        let Settings { steps, every, .. } = self.settings;
        let mut places: Vec<u64> = (0..steps).step_by(every as usize).collect();
        places.push(steps);
        places
    }

    fn measure(&self, run: &Run, desk: &mut Desk<'_>) -> Result<(), StudyError> {
        let found = self
            .curves()
            .into_iter()
            .find(|(name, ..)| *name == run.series);
        let (_, method, batch) =
            found.ok_or_else(|| StudyError::config(format!("no series {}", run.series)))?;
        let recipe = self.recipe(method, run.seed);
        let epochs = Epochs {
            seed: run.seed,
            pairs: self.pictures.len(),
            batch,
        };
        let Some((done, state)) = desk.kept()? else {
            let learner = recipe.fresh()?;
            self.look(&learner.encoder, (0, 0.0), desk)?;
            return self.train((learner, epochs), (0, 0.0), run, desk);
        };
        let clock = state.iter().find(|(name, _)| name == CLOCK);
        let seconds = clock.and_then(|(_, bytes)| serde_json::from_slice(bytes).ok());
        desk.advance(done);
        let learner = recipe.restored(&state)?;
        self.train(
            (learner, epochs),
            (done, seconds.unwrap_or(f64::NAN)),
            run,
            desk,
        )
    }

    fn charts(&self) -> Vec<Chart> {
        let mut charts = Vec::new();
        for batch in &self.settings.batches {
            for (value, what) in [(LINEAR, "Linear probe"), (NEIGHBOURS, "Nearest neighbours")] {
                for (x_value, x_label) in [(None, "steps"), (Some(SECONDS), "seconds")] {
                    let curves = self.curves().into_iter();
                    let series = curves.filter(|(.., of)| of == batch).map(|(name, ..)| name);
                    charts.push(Chart {
                        file: format!("figure1-{value}-{x_label}-b{batch}"),
                        title: format!("{what} on held-out images, b = {batch}"),
                        value: value.to_owned(),
                        y_label: "accuracy".to_owned(),
                        x_value: x_value.map(str::to_owned),
                        x_label: x_label.to_owned(),
                        series: series.collect(),
                        ..Chart::default()
                    });
                }
            }
        }
        charts
    }

    fn too_little(&self) -> Option<String> {
        too_few(self.settings.steps)
    }

    fn judge(&self, points: &Points) -> Vec<Claim> {
        let methods = &self.settings.objectives;
        let fields = self.settings.batches.iter();
        let fields = fields.map(|batch| Field {
            methods,
            batch: *batch,
        });
        fields.flat_map(|field| field.claims(points)).collect()
    }
}
