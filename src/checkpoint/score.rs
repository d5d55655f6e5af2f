//! What a model found among the held-out images, in the form that two models can be compared by.

use serde::{Deserialize, Serialize};

use kith_eval::{Tails, sign_flip};

/// Held-out queries of one model, by independent unit: images joined by pairs and groups are one unit, since their queries
/// succeed and fail together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Digest of the questions: images, which belong together, and the input they are scaled to. Scores compare only where it is equal.
    pub questions: String,
    /// Queries of each unit that found their match first.
    pub found: Vec<u32>,
    /// Queries of each unit.
    pub asked: Vec<u32>,
}

/// Two models on the same questions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Queries that the first one answers right, less those that the second does.
    pub lead: i64,
    /// How likely such a lead, or such a deficit, is between equally good models.
    pub tails: Tails,
}

impl Score {
    /// Queries that found their match first.
    pub fn total_found(&self) -> u32 {
        self.found.iter().sum()
    }

    /// Queries.
    pub fn total_asked(&self) -> u32 {
        self.asked.iter().sum()
    }

    /// Share of the queries that found their match first.
    pub fn share(&self) -> f64 {
        f64::from(self.total_found()) / f64::from(self.total_asked().max(1))
    }

    /// Whether the two answer the same questions.
    pub fn is_comparable(&self, other: &Self) -> bool {
        self.questions == other.questions && self.asked == other.asked
    }

    /// This one against `other`; `None` where the questions differ.
    pub fn compare(&self, other: &Self) -> Option<Comparison> {
        if !self.is_comparable(other) {
            return None;
        }
        let units = self.found.iter().zip(&other.found);
        let differences: Vec<i32> = units.map(|(a, b)| *a as i32 - *b as i32).collect();
        Some(Comparison {
            lead: differences.iter().map(|d| i64::from(*d)).sum(),
            tails: sign_flip(&differences),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_to_the_same_questions_compare() {
        let score = |questions: &str, found: [u32; 3]| Score {
            questions: questions.to_owned(),
            found: found.to_vec(),
            asked: vec![2; 3],
        };
        let (a, b) = (score("x", [2, 1, 0]), score("x", [0, 0, 1]));
        assert_eq!(a.compare(&b).unwrap().lead, 2);
        assert_eq!(b.compare(&a).unwrap().lead, -2);
        assert_eq!(a.compare(&score("y", [0, 0, 1])), None);
        let fewer = Score {
            asked: vec![1; 3],
            ..b
        };
        assert_eq!(a.compare(&fewer), None);
    }
}
