//! The average of the weights in training, which serves.

use super::LearnConfig;
use kith_nn::{NnError, Towers};

/// The average of weights in training over some steps, with a share of the weights that they began with if those had learned before. Steps change
/// it and never read it.
///
/// Weights between those of before and after fine-tuning often do better than either on images of other kinds (Wortsman et al. 2022, "Robust
/// fine-tuning of zero-shot models", arXiv 2109.01903).
pub struct AveragedWeights {
    /// The average.
    pub weights: Towers,
    /// The weights that training began with; `None`: no share of them is kept.
    pub start: Option<Towers>,
}

impl AveragedWeights {
    /// Takes in the weights after update number `updates` (from 1): each of the first steps counts as much as another, later ones by a share that
    /// stays.
    ///
    /// # Errors
    /// The device failed. Some weights may then have moved.
    pub(super) fn take_in(
        &mut self,
        trained: &Towers,
        updates: u64,
        config: &LearnConfig,
    ) -> Result<(), NnError> {
        let steps = config.average_steps.clamp(1, updates + 1);
        let share = 1.0 / steps as f32;
        let Some(start) = &self.start else {
            return self.weights.blend(trained, share);
        };
        // One after the other they make up `share` of the mixture.
        let of_start = share * config.start_share;
        let of_trained = (share - of_start) / (1.0 - of_start);
        self.weights.blend(trained, of_trained)?;
        self.weights.blend(start, of_start)
    }
}
