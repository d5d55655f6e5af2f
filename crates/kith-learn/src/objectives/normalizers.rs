//! The chain table as a store of one estimate of the normaliser for each anchor.

use crate::anchor::Anchor;
use kith_mcmc::{ChainState, ChainTable};

/// A table of states of the kind [`StateKind::Averages`](kith_mcmc::StateKind::Averages).
///
/// It holds logarithms, which neither overflow nor underflow, in place of a chain's log score, and the anchor's own slot in place of a negative.
pub(super) struct Normalizers<'a>(pub(super) &'a ChainTable);

impl Normalizers<'_> {
    /// ln of the anchor's estimate; `None` before its first visit.
    pub(super) fn get(&self, anchor: &Anchor<'_>) -> Option<f64> {
        let state = self.0.get(anchor.visit.anchor)?;
        Some(f64::from(state.log_score)).filter(|log| log.is_finite())
    }

    /// The state that holds the anchor's new estimate.
    pub(super) fn next(&self, anchor: &Anchor<'_>, log_normalizer: f64) -> ChainState {
        let before = self.0.get(anchor.visit.anchor);
        let visits = before
            .filter(|state| state.log_score.is_finite())
            .map_or(0, |state| state.visits);
        ChainState {
            negative: anchor.visit.anchor,
            log_score: log_normalizer as f32,
            step: anchor.visit.step,
            visits: visits.saturating_add(1),
            visits_since_move: 0,
        }
    }
}
