//! Whether the chains sample the softmax: total variation distance against visits, on given scores, with controls that must fail.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Claim, Points, Run, Scale, StudyConfig, StudyError, experiment::Experiment, number::short,
    plot::Chart, run_recorder::RunRecorder, settings::with_overrides,
};
use kith_mcmc::{
    Estimator, Proposals, SamplerConfig,
    simulation::{Chain, PlainWalk, Sampler, World},
};
use kith_seed::mix;

const DISTANCE: &str = "total_variation";
/// Number of visits at which the bounds below are judged.
const JUDGED_AT: u64 = 100_000;
/// The β at which the controls are judged: the bias of proposing both views is far above the noise there.
const CONTROL_BETA: f32 = 5.0;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    pairs: usize,
    batch: usize,
    betas: Vec<f32>,
    /// Anchors for each seed, each with its own scores and batches.
    anchors: u64,
    visits: u64,
}

impl Settings {
    fn preset(scale: Scale) -> Self {
        let (anchors, visits) = match scale {
            Scale::Smoke => (8, JUDGED_AT),
            Scale::Laptop => (16, 10 * JUDGED_AT),
            Scale::Paper => (64, 100 * JUDGED_AT),
        };
        Self {
            pairs: 64,
            batch: 8,
            betas: vec![1.0, 5.0, 14.28],
            anchors,
            visits,
        }
    }
}

/// The study.
pub(super) struct Stationarity {
    settings: Settings,
}

/// How a chain moves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Walk,
    Subset,
    BothViews,
    AlwaysAccepts,
    WithReplacement,
}

const KINDS: [Kind; 5] = [
    Kind::Walk,
    Kind::Subset,
    Kind::BothViews,
    Kind::AlwaysAccepts,
    Kind::WithReplacement,
];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Walk => "walk",
            Self::Subset => "subset",
            Self::BothViews => "control: both views of a pair",
            Self::AlwaysAccepts => "control: always accepts",
            Self::WithReplacement => "control: with replacement",
        }
    }

    fn is_control(self) -> bool {
        !matches!(self, Self::Walk | Self::Subset)
    }

    /// The distance that an estimator must reach after [`JUDGED_AT`] visits, and a control must not.
    fn bound(self, beta: f32) -> f64 {
        match (self, beta <= 5.0) {
            (Self::Subset, true) => 0.01,
            (Self::Subset, false) => 0.025,
            (_, true) => 0.015,
            (_, false) => 0.03,
        }
    }

    fn chain(self) -> Box<dyn Chain> {
        let sampler = |estimator, proposals| {
            Box::new(Sampler::new(SamplerConfig {
                estimator,
                burn_in: 0.5,
                proposals,
            }))
        };
        match self {
            Self::Walk => sampler(Estimator::Walk, Proposals::OneView),
            Self::Subset => sampler(Estimator::Subset, Proposals::OneView),
            Self::BothViews => sampler(Estimator::Walk, Proposals::BothViews),
            Self::AlwaysAccepts => Box::new(PlainWalk::new(true, false)),
            Self::WithReplacement => Box::new(PlainWalk::new(false, true)),
        }
    }
}

impl Stationarity {
    pub(super) fn new(config: &StudyConfig) -> Result<Self, StudyError> {
        let settings = with_overrides(&Settings::preset(config.scale), &config.sets)?;
        let Settings {
            pairs,
            batch,
            anchors,
            visits,
            ..
        } = settings;
        if batch < 2 || pairs < batch || anchors == 0 || visits == 0 {
            return Err(StudyError::config(
                "a chain needs a batch of 2 to all pairs, and at least one anchor and visit",
            ));
        }
        Ok(Self { settings })
    }

    /// Every kind at every β; the controls at [`CONTROL_BETA`] only.
    fn curves(&self) -> Vec<Curve> {
        let at = |kind: Kind| {
            let betas = self.settings.betas.iter();
            betas.filter(move |beta| !kind.is_control() || **beta == CONTROL_BETA)
        };
        KINDS
            .iter()
            .flat_map(|kind| at(*kind).map(|beta| Curve::new(*kind, *beta)))
            .collect()
    }

    fn judged_at(&self) -> u64 {
        self.settings.visits.min(JUDGED_AT)
    }
}

/// A series: one kind of chain at one β.
struct Curve {
    name: String,
    kind: Kind,
    beta: f32,
}

impl Curve {
    fn new(kind: Kind, beta: f32) -> Self {
        let name = format!("{}, β = {beta}", kind.name());
        Self { name, kind, beta }
    }
}

/// The numbers of visits at which the distance is measured: 100, 300, 1,000 … and `visits`.
fn measured_visits(visits: u64) -> Vec<u64> {
    let steps = (2..).flat_map(|power| [10_u64.pow(power), 3 * 10_u64.pow(power)]);
    let mut positions: Vec<u64> = steps.take_while(|position| *position < visits).collect();
    positions.push(visits);
    positions
}

impl Experiment for Stationarity {
    fn settings(&self) -> Value {
        json!(self.settings)
    }

    fn series(&self) -> Vec<String> {
        self.curves().into_iter().map(|curve| curve.name).collect()
    }

    fn positions(&self, _series: &str) -> Vec<u64> {
        measured_visits(self.settings.visits)
    }

    fn measure(&self, run: &Run, recorder: &mut RunRecorder<'_>) -> Result<(), StudyError> {
        let found = self
            .curves()
            .into_iter()
            .find(|curve| curve.name == run.series);
        let Curve { kind, beta, .. } =
            found.ok_or_else(|| StudyError::unknown_series(&run.series))?;
        let Settings {
            pairs,
            batch,
            anchors,
            visits,
            ..
        } = self.settings;
        let positions = measured_visits(visits);
        let distances: Vec<Vec<f64>> = (0..anchors)
            .into_par_iter()
            .map(|anchor| {
                let seed = mix(&[run.seed, anchor]);
                let world = World::new(pairs, beta, seed);
                world.distances(&mut *kind.chain(), batch, seed, &positions)
            })
            .collect();
        for (index, position) in positions.iter().enumerate() {
            let mean = distances.iter().map(|curve| curve[index]).sum::<f64>() / anchors as f64;
            recorder.record(*position, &[(DISTANCE, mean)])?;
        }
        recorder.advance(visits);
        Ok(())
    }

    fn charts(&self) -> Vec<Chart> {
        let chart = |beta: &f32| {
            let curves = self.curves().into_iter();
            let series = curves
                .filter(|curve| curve.beta == *beta)
                .map(|curve| curve.name);
            Chart {
                file: format!("stationarity-beta-{beta}"),
                title: format!("Distance of the visited states from the softmax, β = {beta}"),
                value: DISTANCE.to_owned(),
                y_label: "total variation".to_owned(),
                x_label: "visits".to_owned(),
                log_x: true,
                log_y: true,
                series: series.collect(),
                bounds: vec![Kind::Walk.bound(*beta), Kind::Subset.bound(*beta)],
                ..Chart::default()
            }
        };
        self.settings.betas.iter().map(chart).collect()
    }

    fn judge(&self, points: &Points) -> Vec<Claim> {
        let at = self.judged_at();
        let first = measured_visits(self.settings.visits)[0];
        let claim = |curve: Curve| {
            let Curve {
                name: series,
                kind,
                beta,
            } = curve;
            let distance = |at| points.at(&series, DISTANCE, at).mean;
            let (start, end, bound) = (distance(first), distance(at), kind.bound(beta));
            let evidence = format!("{} after {at} visits", short(end));
            if kind.is_control() {
                return Claim::new(format!("{series}: misses {bound}"), end > bound, evidence);
            }
            Claim::new(
                format!("{series}: falls to at most {bound}"),
                end <= bound && end < start,
                format!("{evidence}, {} after {first}", short(start)),
            )
        };
        self.curves().into_iter().map(claim).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Point;

    fn study() -> Stationarity {
        Stationarity {
            settings: Settings::preset(Scale::Smoke),
        }
    }

    /// Points in which every series ends at the distance of its kind.
    fn points(distance: impl Fn(Kind) -> f64) -> Points {
        let mut points = Points::default();
        for curve in study().curves() {
            for (at, value) in [(100, 0.4), (JUDGED_AT, distance(curve.kind))] {
                let run = Run {
                    seed: 1,
                    series: curve.name.clone(),
                };
                let values = [(DISTANCE.to_owned(), value)].into();
                points.insert(Point { run, at, values });
            }
        }
        points
    }

    #[test]
    fn the_claims_hold_only_if_the_controls_fail() {
        let holds = |points: &Points| study().judge(points).iter().all(|claim| claim.holds);
        let good = |kind: Kind| if kind.is_control() { 0.05 } else { 0.009 };
        assert!(holds(&points(good)));
        assert!(!holds(&points(|_| 0.009)), "controls that pass");
        assert!(!holds(&points(|_| 0.05)), "estimators that miss");
        assert!(!holds(&Points::default()), "nothing measured");
    }

    #[test]
    fn the_distance_is_measured_where_the_bounds_are_judged() {
        for visits in [JUDGED_AT, 10 * JUDGED_AT] {
            let positions = measured_visits(visits);
            assert!(positions.contains(&JUDGED_AT) && positions.last() == Some(&visits));
            assert!(positions.is_sorted());
        }
        assert_eq!(measured_visits(50), [50]);
    }
}
