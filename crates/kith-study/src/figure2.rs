//! The paper's figure 2: the error of each objective's gradient against that of the global loss along training, and the global loss.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Claim, Points, Run, Scale, StudyConfig, StudyError,
    encoder_study::{Curve, EncoderSettings, TrainingRun, evaluated_steps, find_curve, too_few},
    experiment::Experiment,
    gradient_error::{GradientError, squared_norm},
    method::Method,
    number::short,
    plot::Chart,
    recipe::{Recipe, sgd},
    run_recorder::RunRecorder,
    settings::with_overrides,
    views::{Epochs, FixedSet, TILE, TrainingViews},
};
use kith_learn::{GlobalLoss, Learner};
use kith_nn::Device;
use kith_pixels::DecodedImage;
use kith_seed::mix;

const ERROR: &str = "gradient_error";
const LOSS: &str = "global_loss";

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Settings {
    /// Each of `images` is a pair of two fixed views.
    #[serde(flatten)]
    encoder: EncoderSettings,
    batch: usize,
    rate: f32,
    momentum: f32,
    /// Fraction of the steps at the end over which the rate falls linearly to 0. It separates the noise of a constant rate from what a
    /// method cannot reach.
    cooldown: f32,
    steps: u64,
    /// Steps between evaluations of the exact gradient.
    every: u64,
    /// Number of gradient estimates in each evaluation.
    repeats: u64,
}

impl Settings {
    fn preset(scale: Scale) -> Self {
        let laptop = Self {
            encoder: EncoderSettings {
                images: 500,
                ..EncoderSettings::preset(scale)
            },
            batch: 4,
            rate: 1e-3,
            momentum: 0.0,
            cooldown: 0.0,
            steps: 10_000,
            every: 500,
            repeats: 8,
        };
        match scale {
            Scale::Smoke => Self {
                encoder: EncoderSettings {
                    images: 32,
                    ..laptop.encoder
                },
                steps: 60,
                every: 20,
                repeats: 4,
                ..laptop
            },
            Scale::Laptop => laptop,
            Scale::Paper => Self {
                steps: 100_000,
                every: 2_500,
                ..laptop
            },
        }
    }

    /// The learning rate of a step, counted from 1.
    fn rate(&self, step: u64) -> f32 {
        let left = (self.steps + 1).saturating_sub(step) as f32;
        let falling = self.cooldown * self.steps as f32;
        self.rate * (left / (falling + 1.0)).min(1.0)
    }
}

/// The study.
pub(super) struct Figure2 {
    settings: Settings,
    images: Vec<DecodedImage>,
    device: Device,
}

impl Figure2 {
    pub(super) fn new(config: &StudyConfig) -> Result<Self, StudyError> {
        let settings: Settings = with_overrides(&Settings::preset(config.scale), &config.sets)?;
        let images = settings.encoder.load_training(config)?;
        let usable = settings.batch >= 2
            && settings.batch <= images.len()
            && settings.every > 0
            && settings.repeats > 0
            && (0.0..=1.0).contains(&settings.cooldown)
            && !settings.encoder.objectives.is_empty();
        if !usable {
            return Err(StudyError::config(
                "the study needs an objective, a batch of 2 to all images, a cooldown of 0 to 1, and every and repeats of at least 1",
            ));
        }
        Ok(Self {
            settings,
            images,
            device: config.device.clone(),
        })
    }

    /// Every method at the one batch size, which the series do not name.
    fn curves(&self) -> Vec<Curve> {
        let methods = self.settings.encoder.objectives.iter();
        let curve = |method: &Method| Curve {
            name: method.name().to_owned(),
            method: *method,
            batch: self.settings.batch,
        };
        methods.map(curve).collect()
    }

    fn recipe(&self, method: Method, seed: u64) -> Recipe {
        Recipe {
            encoder: self.settings.encoder.encoder(),
            optimizer: sgd(self.settings.momentum),
            method,
            beta: self.settings.encoder.beta,
            images: 2 * self.images.len(),
            seed,
            device: self.device.clone(),
        }
    }
}

/// Compares estimates of the gradient with the exact one.
struct Evaluation<'a> {
    set: &'a FixedSet,
    global: &'a GlobalLoss<'a>,
    /// The epochs of training, whose seed the estimates derive theirs from.
    epochs: Epochs,
    repeats: u64,
}

impl Evaluation<'_> {
    /// Records the exact loss and gradient, and the error of several estimates. Chains and caches stay as they are.
    fn record(
        &self,
        learner: &Learner,
        step: u64,
        recorder: &mut RunRecorder<'_>,
    ) -> Result<(), StudyError> {
        let (loss, exact) = self.global.gradient(&learner.towers)?;
        let exact = exact.to_flat()?;
        let mut estimates = Vec::new();
        for repeat in 0..self.repeats {
            let seed = mix(&[self.epochs.seed, step, repeat]);
            let epochs = Epochs {
                seed,
                ..self.epochs
            };
            let batch = self.set.batch(step, epochs.draw(1));
            let (_, gradients) = learner.peek(&batch, self.set.graph(), self.set)?;
            if let Some(gradients) = gradients {
                estimates.push(gradients.to_flat()?);
            }
        }
        let found = GradientError::new(&exact, &estimates);
        recorder.record(
            step,
            &[
                (LOSS, loss),
                (ERROR, found.total),
                ("bias", found.bias),
                ("variance", found.variance),
                ("cosine", found.cosine),
                ("exact_gradient", squared_norm(&exact)),
            ],
        )
    }
}

impl Experiment for Figure2 {
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
        let (side, beta) = (self.settings.encoder.side, self.settings.encoder.beta);
        let set = FixedSet::new(&self.images, side, run.seed);
        let epochs = Epochs {
            seed: run.seed,
            pairs: self.images.len(),
            batch: curve.batch,
        };
        let evaluation = Evaluation {
            set: &set,
            global: &GlobalLoss::new(set.graph(), set.views(), beta, TILE)?,
            epochs,
            repeats: self.settings.repeats,
        };
        let training = TrainingRun {
            recipe: &self.recipe(curve.method, run.seed),
            views: &set,
            epochs,
            positions: self.positions(&run.series),
        };
        training.run(
            recorder,
            |step| self.settings.rate(step),
            |learner, elapsed, recorder| evaluation.record(learner, elapsed.step, recorder),
        )
    }

    fn charts(&self) -> Vec<Chart> {
        let chart = |value: &str, title: &str, y_label: &str, log_y| Chart {
            file: format!("figure2-{value}"),
            title: title.to_owned(),
            value: value.to_owned(),
            y_label: y_label.to_owned(),
            x_label: "steps".to_owned(),
            log_y,
            series: self.series(),
            ..Chart::default()
        };
        vec![
            chart(ERROR, "Error of a step's gradient", "‖g − ∇L‖²", true),
            // Linear, since an estimate of the bias may be 0.
            chart("bias", "Its bias", "‖E g − ∇L‖²", false),
            chart("variance", "Its variance", "E ‖g − E g‖²", true),
            chart(
                "cosine",
                "Direction of a step's gradient",
                "cosine to ∇L",
                false,
            ),
            chart(LOSS, "Global loss", "L", false),
            chart(
                "exact_gradient",
                "Gradient of the global loss",
                "‖∇L‖²",
                true,
            ),
        ]
    }

    fn unjudged_reason(&self) -> Option<String> {
        too_few(self.settings.steps)
    }

    fn judge(&self, points: &Points) -> Vec<Claim> {
        let late = |value: &'static str| move |method: Method| points.late(method.name(), value);
        let (emc2, others): (Vec<Method>, Vec<Method>) = self
            .settings
            .encoder
            .objectives
            .iter()
            .filter(|method| **method != Method::Exact)
            .partition(|method| method.is_emc2());
        let mut claims = Vec::new();
        for (value, what) in [(ERROR, "gradient error"), (LOSS, "global loss")] {
            let best = lowest(&emc2, late(value));
            let rival = lowest(&others, late(value));
            claims.push(Claim::new(
                format!("EMC² has the lowest {what} at the end"),
                best.1 < rival.1,
                format!(
                    "{} {} against {} {}",
                    best.0,
                    short(best.1),
                    rival.0,
                    short(rival.1)
                ),
            ));
        }
        let ours = lowest(&emc2, late("bias")).1;
        let theirs = late("bias")(Method::InfoNce);
        claims.push(Claim::new(
            "InfoNCE is stuck: at the end its bias is at least four times that of EMC²",
            theirs >= 4.0 * ours,
            format!("‖E g − ∇L‖² {} against {}", short(theirs), short(ours)),
        ));
        claims
    }
}

/// The method with the lowest value: its name and the value.
fn lowest(methods: &[Method], value: impl Fn(Method) -> f64) -> (&'static str, f64) {
    let all = methods.iter().map(|method| (method.name(), value(*method)));
    all.min_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap_or(("none", f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Point;

    fn study() -> Figure2 {
        Figure2 {
            settings: Settings::preset(Scale::Laptop),
            images: Vec::new(),
            device: Device::cpu(),
        }
    }

    /// The error, loss and bias of every objective, the same at all positions.
    fn points(values: impl Fn(Method) -> [f64; 3]) -> Points {
        let mut points = Points::default();
        for method in study().settings.encoder.objectives {
            for at in [0, 5_000, 10_000] {
                let [error, loss, bias] = values(method);
                let named = [(ERROR, error), (LOSS, loss), ("bias", bias)];
                points.insert(Point {
                    run: Run {
                        seed: 1,
                        series: method.name().to_owned(),
                    },
                    at,
                    values: named.map(|(name, value)| (name.to_owned(), value)).into(),
                });
            }
        }
        points
    }

    #[test]
    fn each_claim_fails_alone() {
        let failed = |points: &Points| -> Vec<bool> {
            study()
                .judge(points)
                .iter()
                .map(|claim| !claim.holds)
                .collect()
        };
        let as_published = |method: Method| {
            if method.is_emc2() {
                [1.0, 3.0, 0.1]
            } else {
                [2.0, 4.0, 1.0]
            }
        };
        assert_eq!(failed(&points(as_published)), [false; 3]);
        for index in 0..3 {
            let other = |method: Method| {
                let mut values = as_published(method);
                if method == Method::InfoNce {
                    values[index] = 0.05;
                }
                values
            };
            let expected: Vec<bool> = (0..3).map(|claim| claim == index).collect();
            assert_eq!(failed(&points(other)), expected);
        }
        assert_eq!(failed(&Points::default()), [true; 3]);
    }

    #[test]
    fn the_rate_falls_over_the_cooldown_and_stands_without_one() {
        let mut settings = Settings::preset(Scale::Laptop);
        let at = |settings: &Settings, step| settings.rate(step) / settings.rate;
        assert_eq!([1, 10_000].map(|step| at(&settings, step)), [1.0; 2]);
        settings.cooldown = 0.4;
        assert_eq!([1, 6_000].map(|step| at(&settings, step)), [1.0; 2]);
        let [half, last] = [8_000, 10_000].map(|step| at(&settings, step));
        // A step is 1/4,001 of the fall.
        assert!((half - 0.5).abs() < 3e-4 && last > 0.0 && last < 3e-4);
    }
}
