//! How many queries a model answered, unit by unit, so that two models can be compared by a paired test.

use serde::{Deserialize, Serialize};

use crate::{Tails, sign_flip};

/// The answers of one model, counted by independent unit. Queries with equal labels are one unit: they succeed and fail together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Digest of the questions: the images, their labels, and the side they are resized to. Scores compare only where it is equal.
    pub questions: String,
    /// Queries of each unit that found their match first.
    pub found: Vec<u32>,
    /// Queries of each unit.
    pub asked: Vec<u32>,
}

/// The difference between two models on the same questions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Queries that the first model answers, less those that the second answers.
    pub lead: i64,
    /// How likely such a lead, or such a deficit, is if the models are equally good.
    pub tails: Tails,
}

impl Score {
    /// Number of queries that found their match first.
    pub fn total_found(&self) -> u32 {
        self.found.iter().sum()
    }

    /// Number of queries.
    pub fn total_asked(&self) -> u32 {
        self.asked.iter().sum()
    }

    /// Share of the queries that found their match first.
    pub fn share(&self) -> f64 {
        f64::from(self.total_found()) / f64::from(self.total_asked().max(1))
    }

    /// Whether both scores answer the same questions.
    pub fn is_comparable(&self, other: &Self) -> bool {
        self.questions == other.questions && self.asked == other.asked
    }

    /// Compares this score with `other`; `None` where the questions differ.
    pub fn compare(&self, other: &Self) -> Option<Comparison> {
        if !self.is_comparable(other) {
            return None;
        }
        let differences = self.differences(other)?;
        Some(Comparison {
            lead: differences.iter().map(|d| i64::from(*d)).sum(),
            tails: sign_flip(&differences),
        })
    }

    /// Found queries less those of `other`, unit by unit; `None` where they count other units.
    pub(crate) fn differences(&self, other: &Self) -> Option<Vec<i32>> {
        let units = self.found.iter().zip(&other.found);
        (self.asked == other.asked).then(|| units.map(|(a, b)| *a as i32 - *b as i32).collect())
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
