//! The gate: may a candidate serve? A decision from numbers alone. Must never know: how a model is judged or promoted.

use serde::{Deserialize, Serialize};

use super::Evaluation;

/// When a candidate may serve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// With fewer held-out pairs, recall says too little: only collapse is looked at.
    pub min_pairs: usize,
    /// How far the candidate's mean recall@1 may lie below the live one's, absolute.
    pub tolerance: f64,
    /// Spread below which embeddings count as collapsed (1: uniform sphere, 0: one point) …
    pub collapse_spread: f64,
    /// … when the mean cosine of random pairs is above this, too.
    pub collapse_cosine: f64,
}

impl GateConfig {
    /// Whether embeddings of this spread and mean cosine count as collapsed.
    pub fn collapsed(&self, spread: f64, mean_cosine: f64) -> bool {
        spread < self.collapse_spread && mean_cosine > self.collapse_cosine
    }
}

/// The gate's decision.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It may serve.
    Promote,
    /// It is no better: keep serving the live one.
    Refuse(String),
    /// Its embeddings collapsed: the trainer must recover.
    Collapsed(String),
}

/// Decides purely from numbers: collapse first, then whether there is enough evidence, then recall@1.
/// `live`: the live model on the same pairs; `None`: nothing serves, so anything that did not collapse may.
pub fn judge(candidate: &Evaluation, live: Option<&Evaluation>, config: &GateConfig) -> Verdict {
    let geometry = &candidate.geometry;
    if config.collapsed(geometry.spread, geometry.mean_cosine) {
        return Verdict::Collapsed(format!(
            "the embeddings collapsed: spread {:.3} (below {}) and mean cosine {:.3} (above {})",
            geometry.spread, config.collapse_spread, geometry.mean_cosine, config.collapse_cosine
        ));
    }
    let Some(live) = live.filter(|_| candidate.pairs >= config.min_pairs) else {
        return Verdict::Promote;
    };
    let (found, wanted) = (candidate.recall_at_1(), live.recall_at_1());
    if found >= wanted - config.tolerance {
        return Verdict::Promote;
    }
    Verdict::Refuse(format!(
        "held-out recall@1 is {found:.3}, more than {} below the live checkpoint's {wanted:.3} ({} pairs)",
        config.tolerance, candidate.pairs
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{Geometry, Retrieval};

    fn evaluation(pairs: usize, recall: [f64; 2], spread: f64, mean_cosine: f64) -> Evaluation {
        let retrieval = |recall_at_1| Retrieval {
            recall_at_1,
            ..Retrieval::default()
        };
        Evaluation {
            pairs,
            anchor_to_positive: retrieval(recall[0]),
            positive_to_anchor: retrieval(recall[1]),
            geometry: Geometry {
                spread,
                mean_cosine,
                ..Geometry::default()
            },
        }
    }

    const CONFIG: GateConfig = GateConfig {
        min_pairs: 20,
        tolerance: 0.02,
        collapse_spread: 0.2,
        collapse_cosine: 0.95,
    };

    #[test]
    fn collapse_counts_before_recall_and_needs_both_signs() {
        let live = evaluation(30, [0.1, 0.1], 0.9, 0.1);
        let verdict = |spread, cosine| {
            judge(
                &evaluation(30, [0.9, 0.9], spread, cosine),
                Some(&live),
                &CONFIG,
            )
        };
        assert!(
            matches!(verdict(0.1, 0.99), Verdict::Collapsed(why) if why.contains("0.100") && why.contains("0.990"))
        );
        assert_eq!(verdict(0.1, 0.9), Verdict::Promote);
        assert_eq!(verdict(0.3, 0.99), Verdict::Promote);
    }

    #[test]
    fn the_mean_of_both_directions_may_fall_by_the_tolerance() {
        let live = evaluation(30, [0.6, 0.4], 0.9, 0.1);
        let verdict = |recall| judge(&evaluation(30, recall, 0.9, 0.1), Some(&live), &CONFIG);
        assert_eq!(verdict([0.4, 0.6]), Verdict::Promote);
        assert_eq!(verdict([0.49, 0.49]), Verdict::Promote);
        assert!(
            matches!(verdict([0.45, 0.5]), Verdict::Refuse(why) if why.contains("0.475") && why.contains("0.500"))
        );
    }

    #[test]
    fn few_pairs_or_no_live_one_only_ask_for_life() {
        let live = evaluation(19, [1.0, 1.0], 0.9, 0.1);
        let worse = evaluation(19, [0.0, 0.0], 0.9, 0.1);
        assert_eq!(judge(&worse, Some(&live), &CONFIG), Verdict::Promote);
        let many = evaluation(200, [0.0, 0.0], 0.9, 0.1);
        assert_eq!(judge(&many, None, &CONFIG), Verdict::Promote);
        let dead = evaluation(3, [1.0, 1.0], 0.0, 1.0);
        assert!(matches!(judge(&dead, None, &CONFIG), Verdict::Collapsed(_)));
    }
}
