//! The cost of a step and of the chain table: the walk's share of a step, step time and memory against the number of chains, and the
//! pause that a snapshot makes. Images are noise.

use std::{path::PathBuf, time::Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Claim, Points, Run, Scale, StudyConfig, StudyError,
    experiment::Experiment,
    fixture::Fixture,
    method::Method,
    number::short,
    plot::Chart,
    recipe::{Recipe, adam},
    run_recorder::RunRecorder,
    settings::with_overrides,
    table_cost::{self, BYTES, PAUSE, WRITE},
};
use kith_nn::{Device, EncoderConfig};

const SHARE: &str = "walk_share";
/// Share of a step that masks and scores take. They are no part of the walk, since every contrastive loss needs them.
const SCORES: &str = "score_share";
const STEP: &str = "step_milliseconds";
/// A step's time over the number of images it encodes: with few chains, several of a batch have the same image as their state.
const IMAGE: &str = "milliseconds_an_image";
/// Claimed maximum of the walk's share of a step.
const MAX_SHARE: f64 = 0.01;
/// Claimed maximum of bytes for each anchor.
const MAX_BYTES: f64 = 64.0;
/// Claimed maximum of the slowest over the fastest time of a step.
const MAX_RATIO: f64 = 1.1;

const TABLE: &str = "chain table";
const CHAINS: &str = "steps against chains";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    batch: usize,
    beta: f32,
    /// The encoder whose step the walk's share is taken of, and whose state a snapshot copies.
    width: usize,
    side: usize,
    dim: usize,
    steps: u64,
    /// The encoder whose steps are timed against the number of chains: small, so that the chains would show.
    small_width: usize,
    small_side: usize,
    small_steps: u64,
    chains: Vec<u64>,
}

impl Settings {
    fn preset(scale: Scale) -> Self {
        let (steps, small_steps) = match scale {
            Scale::Smoke => (4, 30),
            Scale::Laptop => (40, 400),
            Scale::Paper => (200, 2_000),
        };
        Self {
            batch: 32,
            beta: 14.28,
            width: 64,
            side: 96,
            dim: 512,
            steps,
            small_width: 8,
            small_side: 32,
            small_steps,
            chains: vec![1_000, 10_000, 100_000, 1_000_000],
        }
    }
}

/// The study.
pub(super) struct Cost {
    settings: Settings,
    device: Device,
    out: PathBuf,
}

impl Cost {
    pub(super) fn new(config: &StudyConfig) -> Result<Self, StudyError> {
        let settings: Settings = with_overrides(&Settings::preset(config.scale), &config.sets)?;
        let least = settings.chains.iter().min().copied().unwrap_or(0);
        let usable = settings.batch >= 2 && least >= 2 * settings.batch as u64;
        if !usable || !settings.chains.is_sorted() || settings.steps * settings.small_steps == 0 {
            return Err(StudyError::config(
                "chains must ascend from twice the batch on, and at least one step of each encoder is timed",
            ));
        }
        Ok(Self {
            settings,
            device: config.device.clone(),
            out: config.out.clone(),
        })
    }

    fn max_chains(&self) -> u64 {
        self.settings.chains.last().copied().unwrap_or(0)
    }

    fn encoder(&self) -> EncoderConfig {
        EncoderConfig {
            width: self.settings.width,
            side: self.settings.side,
            dim: self.settings.dim,
            towers: 1,
        }
    }

    /// Records the lower quartile of a step's time for each number of chains. Steps are taken in turn, so that all see the same machine.
    fn steps(&self, run: &Run, recorder: &mut RunRecorder<'_>) -> Result<(), StudyError> {
        let Settings {
            small_width: width,
            small_side: side,
            small_steps,
            ..
        } = self.settings;
        let encoder = EncoderConfig {
            width,
            side,
            dim: 32,
            towers: 1,
        };
        let recipe = self.recipe(encoder, Method::Emc2Subset, run.seed);
        let build = |chains: &u64| Fixture::new(&recipe, self.settings.batch, *chains);
        let fixtures = self.settings.chains.iter().map(build);
        let mut fixtures = fixtures.collect::<Result<Vec<_>, StudyError>>()?;
        let mut times = vec![Vec::new(); fixtures.len()];
        for step in 0..=small_steps {
            for (fixture, times) in fixtures.iter_mut().zip(&mut times) {
                let [batch, next] = [step, step + 1].map(|step| fixture.batch(step));
                let started = Instant::now();
                let report = fixture.step(&batch, &next)?;
                // The first step meets cold memory.
                if step > 0 {
                    let images = (2 * self.settings.batch + report.carried_encoded) as f64;
                    let time = 1e3 * started.elapsed().as_secs_f64();
                    times.push((time, time / images));
                }
            }
        }
        for (chains, times) in self.settings.chains.iter().zip(times) {
            let (steps, images) = times.into_iter().unzip();
            let values = [(STEP, quartile(steps, 1)), (IMAGE, quartile(images, 1))];
            recorder.record(*chains, &values)?;
        }
        recorder.advance(self.max_chains());
        Ok(())
    }

    /// Records the times of the visits, and of masks and scores, as shares of whole steps.
    fn share(
        &self,
        run: &Run,
        method: Method,
        recorder: &mut RunRecorder<'_>,
    ) -> Result<(), StudyError> {
        let settings = &self.settings;
        let steps = settings.steps;
        let recipe = self.recipe(self.encoder(), method, run.seed);
        let chains = 10_000.min(self.max_chains());
        let mut fixture = Fixture::new(&recipe, self.settings.batch, chains)?;
        let (mut walk, mut scores, mut times) = (0.0, 0.0, Vec::new());
        let mut batch = fixture.batch(0);
        for step in 0..=steps {
            let next = fixture.batch(step + 1);
            let started = Instant::now();
            let report = fixture.step(&batch, &next)?;
            if step > 0 {
                walk += report.walk_seconds;
                scores += report.score_seconds;
                times.push(started.elapsed().as_secs_f64());
            }
            batch = next;
        }
        let total: f64 = times.iter().sum();
        recorder.record(
            steps,
            &[
                (SHARE, walk / total),
                (SCORES, scores / total),
                (STEP, 1e3 * quartile(times, 2)),
            ],
        )?;
        recorder.advance(steps);
        Ok(())
    }

    fn recipe(&self, encoder: EncoderConfig, method: Method, seed: u64) -> Recipe {
        Recipe {
            encoder,
            optimizer: adam(0.0),
            method,
            beta: self.settings.beta,
            images: self.max_chains() as usize,
            seed,
            device: self.device.clone(),
        }
    }
}

/// Quartile `number` of the values: 1 is the lower one, 2 the median. A device takes much longer for the first steps with each number of
/// images, so the mean would not do.
fn quartile(mut values: Vec<f64>, number: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let index = values.len() * number / 4;
    values.get(index).copied().unwrap_or(f64::NAN)
}

fn share_series(method: Method) -> String {
    format!("{}, walk's share", method.name())
}

impl Experiment for Cost {
    fn settings(&self) -> Value {
        json!(self.settings)
    }

    fn series(&self) -> Vec<String> {
        let shares = [Method::Emc2Walk, Method::Emc2Subset].map(share_series);
        [TABLE, CHAINS]
            .map(str::to_owned)
            .into_iter()
            .chain(shares)
            .collect()
    }

    fn positions(&self, series: &str) -> Vec<u64> {
        match series {
            TABLE | CHAINS => self.settings.chains.clone(),
            _ => vec![self.settings.steps],
        }
    }

    fn measure(&self, run: &Run, recorder: &mut RunRecorder<'_>) -> Result<(), StudyError> {
        match run.series.as_str() {
            TABLE => {
                let recipe = self.recipe(self.encoder(), Method::Emc2Subset, run.seed);
                table_cost::measure(&self.settings.chains, &recipe, &self.out, recorder)
            }
            CHAINS => self.steps(run, recorder),
            series if series == share_series(Method::Emc2Walk) => {
                self.share(run, Method::Emc2Walk, recorder)
            }
            _ => self.share(run, Method::Emc2Subset, recorder),
        }
    }

    fn charts(&self) -> Vec<Chart> {
        let chart = |series: &str, value: &str, title: &str, y_label: &str| Chart {
            file: format!("cost-{value}"),
            title: title.to_owned(),
            value: value.to_owned(),
            y_label: y_label.to_owned(),
            x_label: "chains".to_owned(),
            log_x: true,
            series: vec![series.to_owned()],
            ..Chart::default()
        };
        vec![
            chart(CHAINS, IMAGE, "A step of a small encoder", "milliseconds"),
            Chart {
                bounds: vec![MAX_BYTES],
                ..chart(TABLE, BYTES, "Memory of the chain table", "bytes an anchor")
            },
            chart(
                TABLE,
                PAUSE,
                "Pause of a snapshot: copy of weights, moments and chains",
                "milliseconds",
            ),
            chart(
                TABLE,
                WRITE,
                "Writing the chain table to the disk",
                "milliseconds",
            ),
        ]
    }

    fn judge(&self, points: &Points) -> Vec<Claim> {
        let shares = [Method::Emc2Walk, Method::Emc2Subset].map(|method| {
            let of = |value| points.last(&share_series(method), value).mean;
            let (share, scores) = (of(SHARE), of(SCORES));
            let text = format!("{}: visits take at most 1 % of a step", method.name());
            let [walk, rest] = [share, scores].map(|share| format!("{:.2} %", 100.0 * share));
            let found = format!("{walk}, masks and scores {rest}");
            Claim::new(text, share <= MAX_SHARE, found)
        });
        let times: Vec<f64> = (self.settings.chains.iter())
            .map(|chains| points.at(CHAINS, IMAGE, *chains).mean)
            .collect();
        let fastest = times.iter().copied().fold(f64::NAN, f64::min);
        let slowest = times.iter().copied().fold(f64::NAN, f64::max);
        let listed: Vec<String> = times.iter().map(|time| short(*time)).collect();
        let bytes = points.last(TABLE, BYTES).max;
        let chains = self.max_chains();
        let last = |value| short(points.last(TABLE, value).mean);
        let mut claims = shares.to_vec();
        claims.push(Claim::new(
            "an image of a step takes as long however many chains there are, within a tenth",
            slowest <= MAX_RATIO * fastest,
            format!("{} ms", listed.join(", ")),
        ));
        claims.push(Claim::new(
            format!("the table takes at most 64 bytes an anchor at {chains} chains"),
            bytes <= MAX_BYTES,
            format!(
                "{} bytes; a snapshot's pause {} ms, writing the table {} ms",
                short(bytes),
                last(PAUSE),
                last(WRITE)
            ),
        ));
        claims
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Point;

    fn study() -> Cost {
        Cost {
            settings: Settings::preset(Scale::Laptop),
            device: Device::cpu(),
            out: PathBuf::new(),
        }
    }

    fn points(share: f64, slowest: f64, bytes: f64) -> Points {
        let mut points = Points::default();
        let mut note = |series: &str, at: u64, name: &str, value: f64| {
            points.insert(Point {
                run: Run {
                    seed: 1,
                    series: series.to_owned(),
                },
                at,
                values: [(name.to_owned(), value)].into(),
            });
        };
        for method in [Method::Emc2Walk, Method::Emc2Subset] {
            note(&share_series(method), 40, SHARE, share);
        }
        for chains in study().settings.chains {
            let time = if chains == 1_000_000 { slowest } else { 10.0 };
            note(CHAINS, chains, IMAGE, time);
            note(TABLE, chains, BYTES, bytes);
        }
        points
    }

    #[test]
    fn each_limit_is_held_to() {
        let failed = |points: &Points| {
            study()
                .judge(points)
                .iter()
                .filter(|claim| !claim.holds)
                .count()
        };
        assert_eq!(failed(&points(0.009, 10.9, 60.0)), 0);
        assert_eq!(failed(&points(0.011, 10.9, 60.0)), 2, "both estimators");
        assert_eq!(failed(&points(0.009, 11.1, 60.0)), 1);
        assert_eq!(failed(&points(0.009, 10.9, 65.0)), 1);
        assert_eq!(failed(&Points::default()), 4);
    }
}
