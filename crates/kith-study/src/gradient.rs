//! Whether the mean gradient of many steps is that of the global loss. The encoder does not change, and its views are fixed.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Claim, Points, Run, Scale, StudyConfig, StudyError,
    encoder_study::{Curve, EncoderSettings, curves, find_curve, train_step},
    experiment::Experiment,
    gradient_error::{squared_distance, squared_norm},
    method::Method,
    number::short,
    plot::Chart,
    recipe::{Recipe, adam, sgd},
    run_recorder::RunRecorder,
    settings::with_overrides,
    views::{Epochs, FixedSet, TILE, TrainingViews},
};
use kith_learn::{GlobalLoss, Learner};
use kith_nn::{Device, Towers};
use kith_pixels::DecodedImage;
use kith_seed::mix;

const ERROR: &str = "relative_error";
/// The objective that is known to be biased.
const BIASED: Method = Method::InfoNce;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Settings {
    /// Each of `images` is a pair of two fixed views.
    #[serde(flatten)]
    encoder: EncoderSettings,
    batches: Vec<usize>,
    /// Steps of InfoNCE before the encoder is frozen. To an untrained one all images look alike, and every estimate is right.
    pretrain_steps: u64,
    pretrain_rate: f32,
    /// Epochs that burn the chains in and are not averaged.
    burn_epochs: u64,
    /// Steps whose gradients are averaged.
    steps: u64,
}

impl Settings {
    fn preset(scale: Scale) -> Self {
        let (images, steps, batches) = match scale {
            Scale::Smoke => (32, 1_024, vec![4]),
            Scale::Laptop => (64, 8_192, vec![4, 8, 32]),
            Scale::Paper => (256, 100_000, vec![4, 8, 32]),
        };
        Self {
            encoder: EncoderSettings {
                images,
                objectives: vec![Method::Emc2Walk, Method::Emc2Subset, BIASED],
                // The error of the mean, not the encoder, is what the study looks at: a small one serves at every scale.
                ..EncoderSettings::preset(Scale::Smoke)
            },
            batches,
            pretrain_steps: 20,
            pretrain_rate: 1e-3,
            burn_epochs: 20,
            steps,
        }
    }
}

/// The study.
pub(super) struct Gradient {
    settings: Settings,
    images: Vec<DecodedImage>,
    device: Device,
}

impl Gradient {
    pub(super) fn new(config: &StudyConfig) -> Result<Self, StudyError> {
        let settings: Settings = with_overrides(&Settings::preset(config.scale), &config.sets)?;
        let images = settings.encoder.load_training(config)?;
        let usable = |batch: &usize| (2..=images.len()).contains(batch);
        if !settings.batches.iter().all(usable) {
            return Err(StudyError::config(
                "batches must be from 2 to the number of images",
            ));
        }
        if settings.encoder.objectives.is_empty() || settings.steps < 8 {
            return Err(StudyError::config(
                "the study needs an objective and at least 8 steps",
            ));
        }
        Ok(Self {
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
            optimizer: sgd(0.0),
            method,
            beta: self.settings.encoder.beta,
            images: 2 * self.images.len(),
            seed,
            device: self.device.clone(),
        }
    }

    /// The frozen encoder, the same in all runs of a seed.
    fn pretrained(&self, set: &FixedSet, seed: u64) -> Result<Towers, StudyError> {
        let mut recipe = self.recipe(BIASED, seed);
        recipe.optimizer = adam(0.0);
        let mut learner = recipe.fresh()?;
        let (pairs, batch) = (self.images.len(), self.images.len().min(32));
        let epochs = Epochs { seed, pairs, batch };
        for step in 1..=self.settings.pretrain_steps {
            train_step(
                &mut learner,
                set,
                &epochs,
                step,
                self.settings.pretrain_rate,
            )?;
        }
        Ok(learner.towers)
    }

    /// Adds up gradients, and records at each position how far their mean is from `exact`.
    fn average(
        &self,
        (learner, set): (&mut Learner, &FixedSet),
        epochs: &Epochs,
        exact: &[f32],
        recorder: &mut RunRecorder<'_>,
    ) -> Result<(), StudyError> {
        let burned = self.settings.burn_epochs * (epochs.pairs / epochs.batch) as u64;
        let positions = halvings(self.settings.steps);
        let mut sum = vec![0.0_f64; exact.len()];
        for step in 1..=burned + self.settings.steps {
            let batch = set.batch(step, epochs.draw(step));
            let (_, gradients) = learner.gradient(&batch, set.graph(), set)?;
            let Some(counted) = step.checked_sub(burned).filter(|counted| *counted > 0) else {
                continue;
            };
            if let Some(gradients) = gradients {
                let values = gradients.to_flat()?;
                sum.iter_mut()
                    .zip(values)
                    .for_each(|(sum, value)| *sum += f64::from(value));
            }
            recorder.advance(1);
            if positions.contains(&counted) {
                let mean: Vec<f32> = sum
                    .iter()
                    .map(|sum| (sum / counted as f64) as f32)
                    .collect();
                let error = (squared_distance(&mean, exact) / squared_norm(exact)).sqrt();
                recorder.record(counted, &[(ERROR, error)])?;
            }
        }
        Ok(())
    }
}

/// `steps` and its halves down to 1/64, ascending.
fn halvings(steps: u64) -> Vec<u64> {
    let mut positions: Vec<u64> = (0..=6)
        .map(|power| steps >> power)
        .filter(|position| *position > 0)
        .collect();
    positions.reverse();
    positions
}

impl Experiment for Gradient {
    fn settings(&self) -> Value {
        json!(self.settings)
    }

    fn series(&self) -> Vec<String> {
        self.curves().into_iter().map(|curve| curve.name).collect()
    }

    fn positions(&self, _series: &str) -> Vec<u64> {
        halvings(self.settings.steps)
    }

    /// An interrupted run starts again, since it is short.
    fn measure(&self, run: &Run, recorder: &mut RunRecorder<'_>) -> Result<(), StudyError> {
        let curve = find_curve(self.curves(), &run.series)?;
        let (side, beta) = (self.settings.encoder.side, self.settings.encoder.beta);
        let set = FixedSet::new(&self.images, side, run.seed);
        let towers = self.pretrained(&set, run.seed)?;
        let global = GlobalLoss::new(set.graph(), set.views(), beta, TILE)?;
        let (_, exact) = global.gradient(&towers)?;
        let exact = exact.to_flat()?;
        let mut learner = self.recipe(curve.method, run.seed).with_towers(towers)?;
        let epochs = Epochs {
            seed: mix(&[run.seed, 1]),
            pairs: self.images.len(),
            batch: curve.batch,
        };
        self.average((&mut learner, &set), &epochs, &exact, recorder)
    }

    fn charts(&self) -> Vec<Chart> {
        vec![Chart {
            file: "gradient-error".to_owned(),
            title: "Error of the mean gradient of N steps, relative to ‖∇L‖".to_owned(),
            value: ERROR.to_owned(),
            y_label: "‖mean − ∇L‖ / ‖∇L‖".to_owned(),
            x_label: "N".to_owned(),
            log_x: true,
            log_y: true,
            series: self.series(),
            ..Chart::default()
        }]
    }

    fn judge(&self, points: &Points) -> Vec<Claim> {
        let least = self.settings.batches.iter().min().copied().unwrap_or(0);
        let floor = points.last(&BIASED.series(least), ERROR).mean;
        let mut claims = Vec::new();
        for Curve {
            name: series,
            method,
            ..
        } in self.curves()
        {
            let (slope, end) = (
                late_slope(points, &series),
                points.last(&series, ERROR).mean,
            );
            let evidence = format!(
                "exponent {slope:.2} over the last four doublings, error {}",
                short(end)
            );
            if method.is_emc2() {
                // 1/√N is −1/2; the fit of five noisy points strays from it. At fewer steps the visits of a chain are correlated.
                let falls = slope <= -0.35;
                claims.push(Claim::new(
                    format!("{series}: the error falls like 1/√N"),
                    falls,
                    evidence.clone(),
                ));
                let text = format!("{series}: ends below half of infonce's error at b = {least}");
                let below = end < 0.5 * floor;
                claims.push(Claim::new(
                    text,
                    below,
                    format!("{} against {}", short(end), short(floor)),
                ));
            }
        }
        let biased = BIASED.series(least);
        if self.series().contains(&biased) {
            let slope = late_slope(points, &biased);
            let evidence = format!(
                "exponent {slope:.2} over the last four doublings, error {}",
                short(floor)
            );
            claims.push(Claim::new(
                format!("{biased}: stays at its bias"),
                slope > -0.25,
                evidence,
            ));
        }
        claims
    }
}

/// Exponent of the power law through the means over the seeds at the last five positions, by least squares in logarithms.
fn late_slope(points: &Points, series: &str) -> f64 {
    let curve = log_curve(points, series);
    slope(&curve[curve.len().saturating_sub(5)..])
}

/// The logarithms of position and mean error.
fn log_curve(points: &Points, series: &str) -> Vec<(f64, f64)> {
    let mean = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    points
        .curve(series, ERROR)
        .iter()
        .map(|(at, values)| ((*at as f64).ln(), mean(values).ln()))
        .collect()
}

/// Slope of the least-squares line through points (x, y).
fn slope(curve: &[(f64, f64)]) -> f64 {
    let count = curve.len() as f64;
    let centre = |value: &dyn Fn(&(f64, f64)) -> f64| curve.iter().map(value).sum::<f64>() / count;
    let (x, y) = (centre(&|point| point.0), centre(&|point| point.1));
    let product: f64 = curve
        .iter()
        .map(|point| (point.0 - x) * (point.1 - y))
        .sum();
    product / curve.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Point;

    /// A study without images, to judge with.
    fn study() -> Gradient {
        Gradient {
            settings: Settings::preset(Scale::Laptop),
            images: Vec::new(),
            device: Device::cpu(),
        }
    }

    fn points(error: impl Fn(Method, f64) -> f64) -> Points {
        let mut points = Points::default();
        for curve in study().curves() {
            for at in halvings(8_192) {
                let run = Run {
                    seed: 1,
                    series: curve.name.clone(),
                };
                let values = [(ERROR.to_owned(), error(curve.method, at as f64))].into();
                points.insert(Point { run, at, values });
            }
        }
        points
    }

    #[test]
    fn the_claims_tell_a_bias_from_noise() {
        let holds = |points: &Points| study().judge(points).iter().all(|claim| claim.holds);
        let noise = |steps: f64| 3.0 / steps.sqrt();
        let biased = |steps: f64| noise(steps) + 0.5;
        let expected = |method: Method, steps| {
            if method.is_emc2() {
                noise(steps)
            } else {
                biased(steps)
            }
        };
        assert!(holds(&points(expected)));
        assert!(!holds(&points(|_, steps| biased(steps))), "EMC² biased");
        assert!(!holds(&points(|_, steps| noise(steps))), "InfoNCE unbiased");
        assert!(!holds(&Points::default()));
    }
}
