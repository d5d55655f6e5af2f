//! Whether the mean gradient of many steps is that of the global loss: the encoder stands still, its views are fixed.
//! Must never know: how a gradient is estimated.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Claim, Order, Points, Run, Scale, StudyError,
    deviation::{distance, square},
    experiment::{Desk, Experiment},
    fixed::{Epochs, FixedSet, TILE},
    images::{Images, load},
    method::Method,
    plot::Chart,
    report::short,
    settings::overridden,
    state::{Recipe, adam, sgd},
};
use kith_learn::{GlobalLoss, Learner};
use kith_nn::{Device, Encoder, EncoderConfig};
use kith_pixels::DecodedImage;
use kith_seed::mix;

const ERROR: &str = "relative_error";
/// The objective that is known to be biased.
const BIASED: Method = Method::InfoNce;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Pictures, each a pair of two fixed views.
    images: usize,
    width: usize,
    side: usize,
    dim: usize,
    beta: f32,
    batches: Vec<usize>,
    objectives: Vec<Method>,
    /// Steps of InfoNCE before the encoder is frozen: in an untrained one all images look alike, and every estimate is right.
    pretrain_steps: u64,
    pretrain_rate: f32,
    /// Epochs that only burn the chains in.
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
            images,
            width: 8,
            side: 32,
            dim: 32,
            beta: 5.0,
            batches,
            objectives: vec![Method::Emc2Walk, Method::Emc2Subset, BIASED],
            pretrain_steps: 20,
            pretrain_rate: 1e-3,
            burn_epochs: 20,
            steps,
        }
    }

    fn encoder(&self) -> EncoderConfig {
        EncoderConfig {
            width: self.width,
            side: self.side,
            dim: self.dim,
        }
    }
}

/// The study.
pub(super) struct Gradient {
    settings: Settings,
    pictures: Vec<DecodedImage>,
    device: Device,
}

impl Gradient {
    pub(super) fn new(order: &Order) -> Result<Self, StudyError> {
        let settings: Settings = overridden(&Settings::preset(order.scale), &order.sets)?;
        let images = Images::find(order.images()?)?;
        let some = images.for_training();
        let pictures = load(&some[..settings.images.min(some.len())], &order.limits)?;
        if settings
            .batches
            .iter()
            .any(|batch| *batch < 2 || *batch > pictures.len())
        {
            return Err(StudyError::config(
                "batches must be from 2 to the number of images",
            ));
        }
        if settings.objectives.is_empty() || settings.steps < 8 {
            return Err(StudyError::config(
                "the study needs an objective and at least 8 steps",
            ));
        }
        Ok(Self {
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
        Recipe {
            encoder: self.settings.encoder(),
            optimizer: sgd(0.0),
            method,
            beta: self.settings.beta,
            images: 2 * self.pictures.len(),
            seed,
            device: self.device.clone(),
        }
    }

    /// The encoder that stands still in all runs of a seed.
    fn pretrained(&self, set: &FixedSet, seed: u64) -> Result<Encoder, StudyError> {
        let mut recipe = self.recipe(BIASED, seed);
        recipe.optimizer = adam(0.0);
        let mut learner = recipe.fresh()?;
        let (pairs, batch) = (self.pictures.len(), self.pictures.len().min(32));
        let epochs = Epochs { seed, pairs, batch };
        for step in 1..=self.settings.pretrain_steps {
            let batch = set.batch(step, epochs.draw(step));
            learner.step(&batch, &set.graph, set, self.settings.pretrain_rate)?;
        }
        Ok(learner.encoder)
    }

    /// Adds up gradients, and notes at each place how far their mean is from `exact`.
    fn average(
        &self,
        (learner, set): (&mut Learner, &FixedSet),
        epochs: &Epochs,
        exact: &[f32],
        desk: &mut Desk<'_>,
    ) -> Result<(), StudyError> {
        let burned = self.settings.burn_epochs * (epochs.pairs / epochs.batch) as u64;
        let places = places(self.settings.steps);
        let mut sum = vec![0.0_f64; exact.len()];
        for step in 1..=burned + self.settings.steps {
            let batch = set.batch(step, epochs.draw(step));
            let (_, gradients) = learner.gradient(&batch, &set.graph, set)?;
            let Some(counted) = step.checked_sub(burned).filter(|counted| *counted > 0) else {
                continue;
            };
            if let Some(gradients) = gradients {
                let values = gradients.to_flat()?;
                sum.iter_mut()
                    .zip(values)
                    .for_each(|(sum, value)| *sum += f64::from(value));
            }
            desk.advance(1);
            if places.contains(&counted) {
                let mean: Vec<f32> = sum
                    .iter()
                    .map(|sum| (sum / counted as f64) as f32)
                    .collect();
                let error = (distance(&mean, exact) / square(exact)).sqrt();
                desk.note(counted, &[(ERROR, error)])?;
            }
        }
        Ok(())
    }
}

/// Halvings of the number of steps, down to 1/64.
fn places(steps: u64) -> Vec<u64> {
    let mut places: Vec<u64> = (0..=6)
        .map(|power| steps >> power)
        .filter(|place| *place > 0)
        .collect();
    places.reverse();
    places
}

impl Experiment for Gradient {
    fn settings(&self) -> Value {
        json!(self.settings)
    }

    fn series(&self) -> Vec<String> {
        self.curves().into_iter().map(|(name, ..)| name).collect()
    }

    fn places(&self, _series: &str) -> Vec<u64> {
        places(self.settings.steps)
    }

    /// A run that was broken off is measured anew: it is short.
    fn measure(&self, run: &Run, desk: &mut Desk<'_>) -> Result<(), StudyError> {
        let found = self
            .curves()
            .into_iter()
            .find(|(name, ..)| *name == run.series);
        let (_, method, batch) =
            found.ok_or_else(|| StudyError::config(format!("no series {}", run.series)))?;
        let set = FixedSet::new(&self.pictures, self.settings.side, run.seed);
        let encoder = self.pretrained(&set, run.seed)?;
        let global = GlobalLoss::new(&set.graph, set.views(), self.settings.beta, TILE)?;
        let (_, exact) = global.gradient(&encoder)?;
        let exact = exact.to_flat()?;
        let mut learner = self.recipe(method, run.seed).around(encoder)?;
        let epochs = Epochs {
            seed: mix(&[run.seed, 1]),
            pairs: self.pictures.len(),
            batch,
        };
        self.average((&mut learner, &set), &epochs, &exact, desk)
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
        let floor = points.last(&BIASED.at(least), ERROR).mean;
        let mut claims = Vec::new();
        for (series, method, _) in self.curves() {
            let (slope, end) = (
                late_slope(points, &series),
                points.last(&series, ERROR).mean,
            );
            let evidence = format!(
                "exponent {slope:.2} over the last four doublings, error {}",
                short(end)
            );
            if method.is_emc2() {
                // 1/√N is −1/2; the fit of five noisy places strays from it. Before, a chain's visits resemble one another.
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
        let biased = BIASED.at(least);
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

/// Exponent of a power law through the means over the seeds at the last five places, by least squares in logarithms.
fn late_slope(points: &Points, series: &str) -> f64 {
    let curve = curve(points, series);
    fit(&curve[curve.len().saturating_sub(5)..])
}

fn curve(points: &Points, series: &str) -> Vec<(f64, f64)> {
    let mean = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    points
        .curve(series, ERROR)
        .iter()
        .map(|(at, values)| ((*at as f64).ln(), mean(values).ln()))
        .collect()
}

fn fit(curve: &[(f64, f64)]) -> f64 {
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

    /// A study of no pictures, to judge with.
    fn study() -> Gradient {
        Gradient {
            settings: Settings::preset(Scale::Laptop),
            pictures: Vec::new(),
            device: Device::cpu(),
        }
    }

    fn points(error: impl Fn(Method, f64) -> f64) -> Points {
        let mut points = Points::default();
        for (series, method, _) in study().curves() {
            for at in places(8_192) {
                let run = Run {
                    seed: 1,
                    series: series.clone(),
                };
                let values = [(ERROR.to_owned(), error(method, at as f64))].into();
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
        let expected = |method: Method, steps| match method.is_emc2() {
            true => noise(steps),
            false => biased(steps),
        };
        assert!(holds(&points(expected)));
        assert!(!holds(&points(|_, steps| biased(steps))), "EMC² biased");
        assert!(!holds(&points(|_, steps| noise(steps))), "InfoNCE unbiased");
        assert!(!holds(&Points::default()));
    }
}
