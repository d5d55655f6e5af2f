//! What is wrong with learning, in plain words, and what to do about it. Figures in, alarms out: who watches is told elsewhere.

use serde::{Deserialize, Serialize};

use crate::checkpoint::{GateConfig, Outcome};

/// Steps of a run before its moving averages are judged.
const SETTLED_STEPS: u64 = 200;
/// Share of the chains that move in a step below which they are frozen, and from which on they are not any more.
const FROZEN: [f32; 2] = [0.01, 0.02];
/// Estimate of the global loss below which there is nothing to learn, and from which on there is again. At −4.6 = ln 0.01 an anchor already
/// gives its positive 99 % of the softmax over all images.
const LEARNED: [f32; 2] = [-4.6, -4.0];

/// What an alarm is about.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// A checkpoint gives all images nearly the same vector.
    Collapse,
    /// Hardly any chain moves.
    FrozenChains,
    /// The training loss falls while held-out recall falls.
    OverFitting,
    /// The pairs hold nothing that is not learned.
    NothingToLearn,
    /// So few pairs are held out that no candidate can be judged.
    FewHeldOut,
}

impl AlarmKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Collapse,
        Self::FrozenChains,
        Self::OverFitting,
        Self::NothingToLearn,
        Self::FewHeldOut,
    ];

    /// The name in the interface.
    pub fn name(self) -> &'static str {
        match self {
            Self::Collapse => "collapse",
            Self::FrozenChains => "frozen_chains",
            Self::OverFitting => "over_fitting",
            Self::NothingToLearn => "nothing_to_learn",
            Self::FewHeldOut => "few_held_out",
        }
    }

    /// What to do about it.
    fn remedy(self) -> &'static str {
        match self {
            Self::Collapse => {
                "Nothing served is lost: the gate refuses such a checkpoint, and training goes back to the best one at a lower rate. If it \
                 comes back, lower schedule.learning_rate, raise training.batch, and look for pairs whose two images are the same or do not \
                 belong together."
            }
            Self::FrozenChains => {
                "Lower the learning rate or learning.beta, and leave learning.scores at \"refreshed\", so that chains are not held by scores of \
                 older weights. `kith audit sampler` says whether the chains hold what they should."
            }
            Self::OverFitting => {
                "Post more pairs, and of more kinds of things; strengthen [augment] (`kith augment preview` shows it); or lower the learning \
                 rate. The gate keeps the better checkpoint serving meanwhile, so training may also be paused."
            }
            Self::NothingToLearn => {
                "Post other pairs: ones whose images look different though they belong together, and of more things. Pairs that share a group \
                 or an image are never each other's negatives, so name groups only where images show the same thing. Or pause training."
            }
            Self::FewHeldOut => {
                "Post more pairs, and of more things: pairs.holdout_share of them are held out, whole groups together. Or raise that share, which \
                 new pairs follow, or lower gate.min_pairs, or gate.confidence where they are too alike, if you accept that chance decides more. \
                 Until then candidates are promoted unless they have collapsed."
            }
        }
    }
}

/// Something about learning that needs a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Alarm {
    /// What it is about.
    pub alarm: AlarmKind,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// The step at which it was raised.
    pub since_step: u64,
}

impl Alarm {
    pub(super) fn new(alarm: AlarmKind, since_step: u64, message: String) -> Self {
        Self {
            alarm,
            message,
            remedy: alarm.remedy().to_owned(),
            since_step,
        }
    }
}

/// The figures of a run that are judged at each step.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepFigures {
    /// Steps of this run.
    pub(super) steps: u64,
    /// Chains in the table; 0 for an objective without chains.
    pub(super) chains: u64,
    /// Moving averages of [`kith_learn::StepReport`].
    pub(super) acceptance_rate: f32,
    pub(super) global_loss_estimate: f32,
}

impl StepFigures {
    /// Whether the moving averages say something: a run's first steps neither raise an alarm nor take one of the run before back.
    pub(super) fn have_settled(&self) -> bool {
        self.steps >= SETTLED_STEPS
    }
}

/// Why the chains are frozen, if they are; `raised`: whether they were a step ago.
pub(super) fn frozen_chains(figures: &StepFigures, raised: bool) -> Option<String> {
    let rate = figures.acceptance_rate;
    (figures.chains > 0 && rate < FROZEN[usize::from(raised)]).then(|| {
        format!(
            "{:.1} % of the chains move when they are visited: the negatives are always the same images.",
            100.0 * rate
        )
    })
}

/// Why there is nothing to learn, if so; `raised`: whether there was not a step ago.
pub(super) fn nothing_to_learn(figures: &StepFigures, raised: bool) -> Option<String> {
    let loss = figures.global_loss_estimate;
    (loss < LEARNED[usize::from(raised)]).then(|| {
        "The pairs that are trained on are told from all others already: a step changes next to nothing.".to_owned()
    })
}

/// What the checkpoint of `step` has collapsed for, in a sentence.
pub(super) fn collapsed(step: u64, why: &str) -> String {
    format!("The checkpoint of step {step} is of no use: {why}.")
}

/// The alarms that the evaluation of the checkpoint of `step` raises, each with why, or takes back. `shows_sound`: whether that it has not collapsed
/// says something of training. What a roll-back went back to is sound, and says nothing of training since.
pub(super) fn evaluated(
    outcome: &Outcome,
    (step, shows_sound): (u64, bool),
    gate: &GateConfig,
) -> Vec<(AlarmKind, Option<String>)> {
    match outcome {
        Outcome::Collapsed(why) => {
            vec![(AlarmKind::Collapse, Some(collapsed(step, why)))]
        }
        Outcome::Scored { pairs, units, .. } => {
            let why = gate.too_few(*pairs, *units);
            let message = why.map(|why| format!("No candidate is compared: {why}."));
            let few = (AlarmKind::FewHeldOut, message);
            let sound = shows_sound.then_some((AlarmKind::Collapse, None));
            sound.into_iter().chain([few]).collect()
        }
        Outcome::Untrained(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: StepFigures = StepFigures {
        steps: 500,
        chains: 64,
        acceptance_rate: 0.4,
        global_loss_estimate: 2.0,
    };

    #[test]
    fn chains_that_do_not_move_are_frozen_once_the_averages_have_settled() {
        let still = StepFigures {
            acceptance_rate: 0.005,
            ..HEALTHY
        };
        assert!(
            frozen_chains(&still, false)
                .unwrap()
                .starts_with("0.5 % of the chains")
        );
        // Another objective.
        for silent in [HEALTHY, StepFigures { chains: 0, ..still }] {
            assert_eq!(frozen_chains(&silent, false), None, "{silent:?}");
        }
        let after = |steps| StepFigures { steps, ..still }.have_settled();
        assert!(!after(199) && after(200));
    }

    #[test]
    fn a_small_softmax_is_learned_and_a_loss_that_is_merely_low_is_not() {
        let learned = StepFigures {
            global_loss_estimate: -5.0,
            ..HEALTHY
        };
        assert!(nothing_to_learn(&learned, false).is_some());
        let low = StepFigures {
            global_loss_estimate: -4.5,
            ..HEALTHY
        };
        for silent in [HEALTHY, low] {
            assert_eq!(nothing_to_learn(&silent, false), None, "{silent:?}");
        }
    }

    #[test]
    fn an_average_that_wavers_at_the_threshold_raises_one_alarm() {
        let wavering = StepFigures {
            acceptance_rate: 0.015,
            global_loss_estimate: -4.3,
            ..HEALTHY
        };
        assert_eq!(frozen_chains(&wavering, false), None);
        assert!(frozen_chains(&wavering, true).is_some());
        assert_eq!(nothing_to_learn(&wavering, false), None);
        assert!(nothing_to_learn(&wavering, true).is_some());
    }

    #[test]
    fn a_sound_evaluation_takes_a_collapse_back_and_one_near_the_start_says_nothing() {
        const GATE: GateConfig = GateConfig::TESTED;
        let scored = |pairs, units| Outcome::Scored {
            pairs,
            units,
            live_readable: true,
            is_live_copy: false,
        };
        let untrained = Outcome::Untrained("too near".to_owned());
        let collapsed = Outcome::Collapsed("not finite".to_owned());
        assert_eq!(
            evaluated(&scored(20, 20), (7, true), &GATE),
            [(AlarmKind::Collapse, None), (AlarmKind::FewHeldOut, None)]
        );
        // What a roll-back went back to.
        assert_eq!(
            evaluated(&scored(20, 4), (7, false), &GATE),
            [(AlarmKind::FewHeldOut, None)]
        );
        for few in [scored(0, 0), scored(200, 3)] {
            let found = &evaluated(&few, (7, true), &GATE)[1];
            assert!(found.1.as_ref().unwrap().starts_with("No candidate"));
        }
        let message = "The checkpoint of step 7 is of no use: not finite.".to_owned();
        let raised = [(AlarmKind::Collapse, Some(message))];
        assert_eq!(evaluated(&collapsed, (7, false), &GATE), raised);
        assert_eq!(evaluated(&untrained, (7, false), &GATE), []);
    }

    #[test]
    fn each_alarm_has_a_remedy_and_the_name_that_the_interface_shows() {
        for kind in AlarmKind::ALL {
            let shown = serde_json::to_value(kind).unwrap();
            assert_eq!(shown, kind.name());
            assert!(kind.remedy().len() > 40);
        }
    }
}
