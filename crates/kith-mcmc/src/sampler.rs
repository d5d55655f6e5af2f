//! One visit of a chain by the configured estimator.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::{Estimate, Estimator, SamplerConfig, Visit, subset, walk};

/// Visits one anchor's chain: weighs its negatives and draws the chain's next state.
///
/// Returns `None` if neither the batch nor the chain has a candidate: the anchor then has no negative term. A carried score that is not
/// finite, as in a damaged table, counts as no state.
pub fn visit(config: &SamplerConfig, visit: &Visit<'_>) -> Option<Estimate> {
    debug_assert!(
        visit.slots.len() == visit.scores.len() && visit.slots.len() == visit.masked.len()
    );
    let carried = visit
        .carried
        .filter(|carried| carried.in_batch.is_some() || carried.state.log_score.is_finite());
    let visit = Visit { carried, ..*visit };
    let mut random = ChaCha8Rng::seed_from_u64(visit.seed);
    match config.estimator {
        Estimator::Walk => walk::walk(config, &visit, &mut random),
        Estimator::Subset => subset::subset(&visit, &mut random),
    }
}
