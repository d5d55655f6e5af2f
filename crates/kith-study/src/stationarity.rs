//! Whether the chains sample the softmax: total variation against visits, on plain scores, with controls that must miss it.
//! Must never know: encoders, images.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Claim, Order, Points, Run, Scale, StudyError,
    experiment::{Desk, Experiment},
    plot::Chart,
    report::short,
    settings::overridden,
};
use kith_mcmc::{
    Estimator, Proposals, SamplerConfig,
    simulation::{Chain, PlainWalk, Sampler, World},
};
use kith_seed::mix;

const DISTANCE: &str = "total_variation";
/// The visits for which the bounds below are stated.
const JUDGED_AT: u64 = 100_000;
/// The control that both views of a pair make is judged at this β, where its bias is far above the noise.
const CONTROL_BETA: f32 = 5.0;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    pairs: usize,
    batch: usize,
    betas: Vec<f32>,
    /// Anchors a seed, each with scores and batches of its own.
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

/// What is visited.
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

    /// What must be reached after [`JUDGED_AT`] visits, by the estimators; and not, by the controls.
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
    pub(super) fn new(order: &Order) -> Result<Self, StudyError> {
        let settings = overridden(&Settings::preset(order.scale), &order.sets)?;
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

    /// Every kind at every β; controls at one.
    fn curves(&self) -> Vec<(String, Kind, f32)> {
        let at = |kind: Kind| {
            let betas = self.settings.betas.iter();
            betas.filter(move |beta| !kind.is_control() || **beta == CONTROL_BETA)
        };
        KINDS
            .iter()
            .flat_map(|kind| at(*kind).map(|beta| (name(*kind, *beta), *kind, *beta)))
            .collect()
    }

    fn judged_at(&self) -> u64 {
        self.settings.visits.min(JUDGED_AT)
    }
}

fn name(kind: Kind, beta: f32) -> String {
    format!("{}, β = {beta}", kind.name())
}

/// 100, 300, 1,000 … up to `visits`, and the place where the bounds are judged.
fn looks(visits: u64) -> Vec<u64> {
    let steps = (2..).flat_map(|power| [10_u64.pow(power), 3 * 10_u64.pow(power)]);
    let mut looks: Vec<u64> = steps.take_while(|look| *look < visits).collect();
    looks.push(visits);
    looks
}

impl Experiment for Stationarity {
    fn settings(&self) -> Value {
        json!(self.settings)
    }

    fn series(&self) -> Vec<String> {
        self.curves().into_iter().map(|(name, ..)| name).collect()
    }

    fn places(&self, _series: &str) -> Vec<u64> {
        looks(self.settings.visits)
    }

    fn measure(&self, run: &Run, desk: &mut Desk<'_>) -> Result<(), StudyError> {
        let found = self
            .curves()
            .into_iter()
            .find(|(name, ..)| *name == run.series);
        let (_, kind, beta) =
            found.ok_or_else(|| StudyError::config(format!("no series {}", run.series)))?;
        let Settings {
            pairs,
            batch,
            anchors,
            visits,
            ..
        } = self.settings;
        let looks = looks(visits);
        let curves: Vec<Vec<f64>> = (0..anchors)
            .into_par_iter()
            .map(|anchor| {
                let seed = mix(&[run.seed, anchor]);
                let world = World::new(pairs, beta, seed);
                world.distances(&mut *kind.chain(), batch, seed, &looks)
            })
            .collect();
        for (place, look) in looks.iter().enumerate() {
            let mean = curves.iter().map(|curve| curve[place]).sum::<f64>() / anchors as f64;
            desk.note(*look, &[(DISTANCE, mean)])?;
        }
        desk.advance(visits);
        Ok(())
    }

    fn charts(&self) -> Vec<Chart> {
        let chart = |beta: &f32| {
            let curves = self.curves().into_iter();
            let series = curves.filter(|(.., at)| at == beta).map(|(name, ..)| name);
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
        let first = looks(self.settings.visits)[0];
        let claim = |(series, kind, beta): (String, Kind, f32)| {
            let distance = |at| points.at(&series, DISTANCE, at).mean;
            let (start, end, bound) = (distance(first), distance(at), kind.bound(beta));
            let evidence = format!("{} after {at} visits", short(end));
            match kind.is_control() {
                true => Claim::new(format!("{series}: misses {bound}"), end > bound, evidence),
                false => Claim::new(
                    format!("{series}: falls to at most {bound}"),
                    end <= bound && end < start,
                    format!("{evidence}, {} after {first}", short(start)),
                ),
            }
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

    /// Every series ends at `distance` of its kind.
    fn points(distance: impl Fn(Kind) -> f64) -> Points {
        let mut points = Points::default();
        for (series, kind, _) in study().curves() {
            for (at, value) in [(100, 0.4), (JUDGED_AT, distance(kind))] {
                let run = Run {
                    seed: 1,
                    series: series.clone(),
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
    fn the_bounds_are_looked_at_where_they_are_stated() {
        for visits in [JUDGED_AT, 10 * JUDGED_AT] {
            let looks = looks(visits);
            assert!(looks.contains(&JUDGED_AT) && looks.last() == Some(&visits));
            assert!(looks.is_sorted());
        }
        assert_eq!(looks(50), [50]);
    }
}
