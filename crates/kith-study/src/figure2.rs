//! The paper's figure 2: how far each objective's gradient is from the global loss's along training, and where that loss goes.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Claim, Order, Points, Run, Scale, StudyError,
    deviation::{Deviation, square},
    experiment::{Desk, Experiment, too_few},
    fixed::{Epochs, FixedSet, TILE},
    images::{Images, load},
    method::Method,
    plot::Chart,
    report::short,
    settings::overridden,
    state::{Recipe, page, sgd},
};
use kith_learn::{GlobalLoss, Learner};
use kith_nn::{Device, EncoderConfig};
use kith_pixels::DecodedImage;
use kith_seed::mix;

const ERROR: &str = "gradient_error";
const LOSS: &str = "global_loss";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Pictures, each a pair of two fixed views.
    images: usize,
    width: usize,
    side: usize,
    dim: usize,
    beta: f32,
    batch: usize,
    objectives: Vec<Method>,
    rate: f32,
    momentum: f32,
    /// Share of the steps, the last ones, over which the rate falls evenly to 0: tells noise at a constant rate from what a method cannot reach.
    cooldown: f32,
    steps: u64,
    /// Steps between looks at the exact gradient.
    every: u64,
    /// Gradients that are estimated at each look.
    repeats: u64,
}

impl Settings {
    fn preset(scale: Scale) -> Self {
        let small = Self {
            images: 500,
            width: 16,
            side: 64,
            dim: 128,
            beta: 5.0,
            batch: 4,
            objectives: Method::COMPARED.to_vec(),
            rate: 1e-3,
            momentum: 0.0,
            cooldown: 0.0,
            steps: 10_000,
            every: 500,
            repeats: 8,
        };
        match scale {
            Scale::Smoke => Self {
                images: 32,
                width: 8,
                side: 32,
                dim: 32,
                steps: 60,
                every: 20,
                repeats: 4,
                ..small
            },
            Scale::Laptop => small,
            Scale::Paper => Self {
                width: 64,
                side: 96,
                dim: 512,
                steps: 100_000,
                every: 2_500,
                ..small
            },
        }
    }
}

impl Settings {
    /// Of a step, counted from 1.
    fn rate(&self, step: u64) -> f32 {
        let left = (self.steps + 1).saturating_sub(step) as f32;
        let falling = self.cooldown * self.steps as f32;
        self.rate * (left / (falling + 1.0)).min(1.0)
    }
}

/// The study.
pub(super) struct Figure2 {
    settings: Settings,
    pictures: Vec<DecodedImage>,
    device: Device,
}

impl Figure2 {
    pub(super) fn new(order: &Order) -> Result<Self, StudyError> {
        let settings: Settings = overridden(&Settings::preset(order.scale), &order.sets)?;
        let images = Images::find(order.images()?)?;
        let some = images.for_training();
        let pictures = load(&some[..settings.images.min(some.len())], &order.limits)?;
        let usable = settings.batch >= 2
            && settings.batch <= pictures.len()
            && settings.every > 0
            && settings.repeats > 0
            && (0.0..=1.0).contains(&settings.cooldown)
            && !settings.objectives.is_empty();
        match usable {
            true => Ok(Self {
                settings,
                pictures,
                device: order.device.clone(),
            }),
            false => Err(StudyError::config(
                "the study needs an objective, a batch of 2 to all images, a cooldown of 0 to 1, and looks with at least one repeat",
            )),
        }
    }

    fn method(&self, series: &str) -> Result<Method, StudyError> {
        let mut methods = self.settings.objectives.iter();
        let found = methods.find(|method| method.name() == series);
        found
            .copied()
            .ok_or_else(|| StudyError::config(format!("no series {series}")))
    }

    fn recipe(&self, method: Method, seed: u64) -> Recipe {
        let Settings {
            width, side, dim, ..
        } = self.settings;
        Recipe {
            encoder: EncoderConfig { width, side, dim },
            optimizer: sgd(self.settings.momentum),
            method,
            beta: self.settings.beta,
            images: 2 * self.pictures.len(),
            seed,
            device: self.device.clone(),
        }
    }

    /// The exact loss and gradient, and what estimates of it are like. Looks are no visits: whatever the objective remembers stays.
    fn look(
        &self,
        learner: &Learner,
        (set, global): (&FixedSet, &GlobalLoss<'_>),
        (run, step): (&Run, u64),
        desk: &mut Desk<'_>,
    ) -> Result<(), StudyError> {
        let (loss, exact) = global.gradient(&learner.encoder)?;
        let exact = exact.to_flat()?;
        let mut estimates = Vec::new();
        for repeat in 0..self.settings.repeats {
            let epochs = self.epochs(mix(&[run.seed, step, repeat]));
            let batch = set.batch(step, epochs.draw(1));
            let (_, gradients) = learner.peek(&batch, &set.graph, set)?;
            if let Some(gradients) = gradients {
                estimates.push(gradients.to_flat()?);
            }
        }
        let found = Deviation::of(&exact, &estimates);
        desk.note(
            step,
            &[
                (LOSS, loss),
                (ERROR, found.error),
                ("bias", found.bias),
                ("variance", found.variance),
                ("cosine", found.cosine),
                ("exact_gradient", square(&exact)),
            ],
        )
    }

    fn epochs(&self, seed: u64) -> Epochs {
        Epochs {
            seed,
            pairs: self.pictures.len(),
            batch: self.settings.batch,
        }
    }
}

impl Experiment for Figure2 {
    fn settings(&self) -> Value {
        json!(self.settings)
    }

    fn series(&self) -> Vec<String> {
        let names = self.settings.objectives.iter().map(|method| method.name());
        names.map(str::to_owned).collect()
    }

    fn places(&self, _series: &str) -> Vec<u64> {
        places(self.settings.steps, self.settings.every)
    }

    fn measure(&self, run: &Run, desk: &mut Desk<'_>) -> Result<(), StudyError> {
        let set = FixedSet::new(&self.pictures, self.settings.side, run.seed);
        let global = GlobalLoss::new(&set.graph, set.views(), self.settings.beta, TILE)?;
        let recipe = self.recipe(self.method(&run.series)?, run.seed);
        let (mut learner, done) = match desk.kept()? {
            Some((at, page)) => (recipe.restored(&page)?, at),
            None => {
                let learner = recipe.fresh()?;
                self.look(&learner, (&set, &global), (run, 0), desk)?;
                (learner, 0)
            }
        };
        desk.advance(done);
        let (epochs, places) = (self.epochs(run.seed), self.places(&run.series));
        for step in done + 1..=self.settings.steps {
            let batch = set.batch(step, epochs.draw(step));
            learner.step(&batch, &set.graph, &set, self.settings.rate(step))?;
            desk.advance(1);
            if places.contains(&step) {
                self.look(&learner, (&set, &global), (run, step), desk)?;
                if let Some(state) = page(&learner)? {
                    desk.keep(step, &state)?;
                }
            }
        }
        Ok(())
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
            // Not by powers of ten: what cannot be told from no bias is 0.
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

    fn too_little(&self) -> Option<String> {
        too_few(self.settings.steps)
    }

    fn judge(&self, points: &Points) -> Vec<Claim> {
        let late = |value: &'static str| move |method: Method| points.late(method.name(), value);
        let (emc2, others): (Vec<Method>, Vec<Method>) = self
            .settings
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

/// 0, every multiple of `every`, and the last step.
fn places(steps: u64, every: u64) -> Vec<u64> {
    let mut places: Vec<u64> = (0..steps).step_by(every as usize).collect();
    places.push(steps);
    places
}

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
            pictures: Vec::new(),
            device: Device::cpu(),
        }
    }

    /// Every objective's error, loss and bias at all places.
    fn points(values: impl Fn(Method) -> [f64; 3]) -> Points {
        let mut points = Points::default();
        for method in study().settings.objectives {
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
        let as_published = |method: Method| match method.is_emc2() {
            true => [1.0, 3.0, 0.1],
            false => [2.0, 4.0, 1.0],
        };
        assert_eq!(failed(&points(as_published)), [false; 3]);
        for place in 0..3 {
            let other = |method: Method| {
                let mut values = as_published(method);
                if method == Method::InfoNce {
                    values[place] = 0.05;
                }
                values
            };
            let expected: Vec<bool> = (0..3).map(|claim| claim == place).collect();
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

    #[test]
    fn the_last_step_is_looked_at() {
        assert_eq!(places(10, 4), [0, 4, 8, 10]);
        assert_eq!(places(8, 4), [0, 4, 8]);
    }
}
