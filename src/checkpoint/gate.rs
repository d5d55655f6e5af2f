//! The gate: compares a candidate with another checkpoint, from numbers alone.

use serde::{Deserialize, Serialize};

use kith_eval::{Evaluation, Score};

/// When a candidate may serve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// With fewer held-out pairs, recall says too little: only collapse is checked.
    pub min_pairs: usize,
    /// How sure the gate must be that a candidate is better before it serves, 0.5 (any lead will do) to below 1: one less the p-value of a
    /// paired test.
    pub confidence: f64,
    /// Candidates in a row that are worse than the best one, at the same confidence, after which training returns to that; 0: never.
    pub max_refusals: u32,
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

    /// Why an evaluation counts as collapsed, if it does.
    pub fn collapse(&self, evaluation: &Evaluation) -> Option<String> {
        let geometry = &evaluation.geometry;
        self.collapsed(geometry.spread, geometry.mean_cosine)
            .then(|| {
                format!(
                    "the embeddings collapsed: spread {:.3} (below {}) and mean cosine {:.3} (above {})",
                    geometry.spread,
                    self.collapse_spread,
                    geometry.mean_cosine,
                    self.collapse_cosine
                )
            })
    }

    /// Held-out pairs to ask, where the settings say at most `evaluation_pairs`: of fewer than the gate needs none would ever be compared.
    pub fn pairs_to_ask(&self, evaluation_pairs: usize) -> usize {
        evaluation_pairs.max(self.min_pairs)
    }

    /// Why so many held-out pairs are too few to compare by, if they are. They are `units` independent ones.
    pub fn too_few(&self, pairs: usize, units: usize) -> Option<String> {
        let (min_pairs, min_units) = (self.min_pairs, self.min_units());
        if pairs < min_pairs {
            Some(format!(
                "{pairs} held-out pairs are too few to compare by (gate.min_pairs is {min_pairs})"
            ))
        } else if units < min_units {
            Some(format!(
                "{pairs} held-out pairs are too few to compare by: those that share a group or an image count as one, which leaves {units}, and \
                 gate.confidence {} needs {min_units}",
                self.confidence
            ))
        } else {
            None
        }
    }

    /// Fewest independent units among which a candidate can be found better: of two equally good models one is ahead in all of k in one of 2ᵏ cases.
    fn min_units(&self) -> usize {
        let chance = 1.0 - self.confidence;
        (1..).find(|k| 0.5_f64.powi(*k) <= chance).unwrap_or(1) as usize
    }

    /// The first model against the second, on the same questions; `None` where these differ.
    pub fn compare(&self, first: &Score, second: &Score) -> Option<Finding> {
        let comparison = first.compare(second)?;
        let chance = 1.0 - self.confidence;
        let tails = comparison.tails;
        Some(if tails.lead <= chance {
            Finding::Better(tails.lead)
        } else if comparison.lead < 0 && tails.deficit <= chance {
            Finding::Worse(tails.deficit)
        } else {
            Finding::Undecided
        })
    }
}

#[cfg(test)]
impl GateConfig {
    /// The settings of tests.
    pub(crate) const TESTED: Self = Self {
        min_pairs: 20,
        confidence: 0.9,
        max_refusals: 5,
        collapse_spread: 0.2,
        collapse_cosine: 0.95,
    };
}

/// What a paired comparison says, with its p-value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Finding {
    /// The first model finds more, and chance does not explain it.
    Better(f64),
    /// Chance explains the difference.
    Undecided,
    /// The first model finds fewer, and chance does not explain it.
    Worse(f64),
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_eval::Geometry;

    const CONFIG: GateConfig = GateConfig::TESTED;

    fn score(found: &[u32]) -> Score {
        Score {
            questions: "today's".to_owned(),
            found: found.to_vec(),
            asked: vec![1; found.len()],
        }
    }

    #[test]
    fn collapse_needs_both_signs_and_says_them() {
        let why = |spread, mean_cosine| {
            CONFIG.collapse(&Evaluation {
                geometry: Geometry {
                    spread,
                    mean_cosine,
                    ..Geometry::default()
                },
                ..Evaluation::default()
            })
        };
        let text = why(0.1, 0.99).unwrap();
        assert!(text.contains("0.100") && text.contains("0.990"), "{text}");
        assert_eq!((why(0.1, 0.9), why(0.3, 0.99)), (None, None));
    }

    #[test]
    fn a_lead_counts_when_chance_does_not_explain_it() {
        // Of equally good models 4 of 4 discordant units go to one of them in 1 of 16 cases, 3 of 3 in 1 of 8.
        let (low, high) = (score(&[0; 10]), score(&[1, 1, 1, 1, 0, 0, 0, 0, 0, 0]));
        let three = score(&[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(CONFIG.compare(&high, &low), Some(Finding::Better(0.0625)));
        assert_eq!(CONFIG.compare(&low, &high), Some(Finding::Worse(0.0625)));
        assert_eq!(CONFIG.compare(&three, &low), Some(Finding::Undecided));
        assert_eq!(CONFIG.compare(&low, &low), Some(Finding::Undecided));
    }

    #[test]
    fn pairs_are_too_few_where_even_a_lead_in_all_of_them_may_be_chance() {
        for confidence in [0.5, 0.6, 0.75, 0.9, 0.9375, 0.99, 0.9999] {
            let config = GateConfig {
                confidence,
                ..CONFIG
            };
            for units in 1..20 {
                let (all, none) = (score(&vec![1; units]), score(&vec![0; units]));
                let can_lead = matches!(config.compare(&all, &none), Some(Finding::Better(_)));
                let why = config.too_few(20, units);
                assert_eq!(why.is_none(), can_lead, "{confidence} {units}");
            }
        }
        let why = |pairs, units| CONFIG.too_few(pairs, units).unwrap();
        assert!(why(19, 19).starts_with("19 held-out pairs are too few"));
        assert!(why(200, 3).contains("which leaves 3, and gate.confidence 0.9 needs 4"));
    }

    #[test]
    fn at_confidence_one_half_any_lead_counts_and_a_tie_does_not() {
        let lax = GateConfig {
            confidence: 0.5,
            ..CONFIG
        };
        let (one, other, both) = (score(&[1, 0]), score(&[0, 1]), score(&[1, 1]));
        assert_eq!(lax.compare(&both, &one), Some(Finding::Better(0.5)));
        assert_eq!(lax.compare(&one, &both), Some(Finding::Worse(0.5)));
        assert_eq!(lax.compare(&one, &other), Some(Finding::Undecided));
    }
}
