//! Test fixture: the settings of a series of steps, and the faults that they may have.

use super::{
    LearnConfig, NeuClipConfig, ObjectiveKind, Scores, batch_layout::BatchLayout, forward::Forward,
};
use kith_mcmc::{Estimator, Proposals, SamplerConfig};

pub(super) const BETA: f32 = 5.0;

/// A deliberate fault of the steps, as a control.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    None,
    /// Carried negatives weigh nothing.
    DropsCarried,
    /// The walk's sum is divided by its proposals, not by what it retained.
    DividesByProposals,
    /// Every chain starts anew at each visit.
    Cold,
    /// Pairs that are drawn seldom count as if they were drawn as often as others.
    IgnoresOdds,
}

impl Fault {
    pub(super) fn spoil_layout(self, layout: &mut BatchLayout) {
        if self != Self::IgnoresOdds {
            return;
        }
        layout.slots.iter_mut().for_each(|slot| slot.log_odds = 0.0);
        for chain in layout
            .masks
            .iter_mut()
            .filter_map(|mask| mask.chain.as_mut())
        {
            chain.carried.log_odds = 0.0;
        }
    }

    pub(super) fn spoil(self, forward: &mut Forward) {
        match self {
            Self::None | Self::Cold | Self::IgnoresOdds => {}
            Self::DropsCarried => forward.importance_weights.fill(0.0),
            Self::DividesByProposals => {
                for term in forward.terms.iter_mut().flatten() {
                    // Burn-in 0.5: of n proposals n − ⌊n/2⌋ are retained.
                    let (made, retained) = (term.proposals, term.proposals.div_ceil(2));
                    let share = retained as f32 / made.max(1) as f32;
                    term.weights
                        .iter_mut()
                        .for_each(|(_, weight)| *weight *= share);
                    term.outside
                        .iter_mut()
                        .for_each(|(_, weight)| *weight *= share);
                }
            }
        }
    }
}

/// The settings of a series of steps.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub(super) config: LearnConfig,
    pub(super) batch: usize,
    pub(super) fault: Fault,
    pub(super) seed: u64,
}

impl Trial {
    pub(super) fn new(objective: ObjectiveKind, estimator: Estimator, batch: usize) -> Self {
        let sampler = SamplerConfig {
            estimator,
            burn_in: 0.5,
            proposals: Proposals::OneView,
        };
        Self {
            config: LearnConfig {
                beta: BETA,
                objective,
                sampler,
                scores: Scores::Refreshed,
                carried_budget: 1.0,
                roulette: 0.0,
                sogclr_gamma: 0.9,
                scent_alpha: 0.1,
                neuclip: NeuClipConfig {
                    prototypes: 64,
                    updates: 10,
                    rate: 0.03,
                    restart_steps: 500,
                },
                cache_images: 1000,
                cache_refresh: 1.0,
                exact_images: 1000,
                average_steps: 0,
                start_share: 0.0,
            },
            batch,
            fault: Fault::None,
            seed: 7,
        }
    }

    pub(super) fn with(&self, fault: Fault) -> Self {
        Self {
            fault,
            ..self.clone()
        }
    }
}
