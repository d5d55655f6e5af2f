//! Whether training over-fits: it goes on learning its own pairs, while held-out ones are found less often.

use std::collections::VecDeque;

use kith_eval::Score;

/// Most evaluations that are remembered.
const MAX_EVALUATIONS: usize = 16;
/// Evaluations in a row below the best one that make an alarm.
const BELOW: usize = 3;
/// How unlikely the fall must be if nothing has changed.
const CHANCE: f64 = 0.05;

/// The evaluations of one run, oldest first.
#[derive(Debug, Default)]
pub(super) struct EvaluationHistory {
    run_id: u64,
    entries: VecDeque<Judged>,
}

/// A snapshot's evaluation on held-out pairs, and the training loss before it.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) step: u64,
    pub(super) score: Score,
    /// Mean estimate of the global loss since the evaluation before.
    pub(super) loss: f32,
}

impl EvaluationHistory {
    /// The step after which the loss before the next evaluation counts: that of the newest one of this run; before the first, the step at which the
    /// run began. What the series says of earlier steps was learned by other weights, or long ago.
    pub(super) fn counts_after(&self, run_id: u64, began_at: u64) -> u64 {
        let newest = self.entries.back().filter(|_| self.run_id == run_id);
        newest.map_or(began_at, |newest| newest.step)
    }

    /// Adds an evaluation; one of another run begins anew, since a roll-back takes back what was learned.
    pub(super) fn push(&mut self, run_id: u64, judged: Judged) {
        if self.run_id != run_id {
            *self = Self {
                run_id,
                entries: VecDeque::new(),
            };
        }
        if self.entries.len() == MAX_EVALUATIONS {
            self.entries.pop_front();
        }
        self.entries.push_back(judged);
    }

    /// Why training over-fits, if it does: the last evaluations are all below the best one on the same questions, the newest by more than chance
    /// explains, and the training loss has fallen since.
    pub(super) fn over_fits(&self) -> Option<String> {
        let newest = self.entries.back()?;
        let same = |judged: &&Judged| judged.score.is_comparable(&newest.score);
        let asked: Vec<&Judged> = self.entries.iter().filter(same).collect();
        let best = (0..asked.len()).max_by_key(|index| asked[*index].score.total_found())?;
        let (best, since) = (asked[best], &asked[best + 1..]);
        let falls = best.score.compare(&newest.score)?.tails.lead < CHANCE;
        (since.len() >= BELOW && falls && newest.loss < best.loss).then(|| {
            format!(
                "Held-out recall@1 has fallen from {:.3} at step {} to {:.3} at step {}, over {} evaluations, while the training loss fell \
                 from {:.3} to {:.3}.",
                best.score.share(),
                best.step,
                newest.score.share(),
                newest.step,
                since.len(),
                best.loss,
                newest.loss
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An evaluation in which the first `found` of 100 units are found.
    fn judged(step: u64, found: u32, loss: f32) -> Judged {
        Judged {
            step,
            score: Score {
                questions: "q".to_owned(),
                found: (0..100).map(|unit| u32::from(unit < found)).collect(),
                asked: vec![1; 100],
            },
            loss,
        }
    }

    fn history(evaluations: &[(u32, f32)]) -> EvaluationHistory {
        let mut history = EvaluationHistory::default();
        for ((found, loss), step) in evaluations.iter().zip((100..).step_by(100)) {
            history.push(1, judged(step, *found, *loss));
        }
        history
    }

    #[test]
    fn recall_that_falls_for_three_evaluations_while_the_loss_falls_is_over_fitting() {
        let falls = [(40, 3.0), (60, 2.0), (57, 1.5), (54, 1.0), (50, 0.5)];
        let why = history(&falls).over_fits().unwrap();
        assert!(
            why.contains("from 0.600 at step 200 to 0.500 at step 500"),
            "{why}"
        );
        assert_eq!(history(&falls[..4]).over_fits(), None);
    }

    #[test]
    fn what_chance_explains_a_loss_that_rises_and_a_new_best_raise_nothing() {
        for silent in [
            &[(60, 2.0), (59, 1.5), (58, 1.0), (57, 0.5)][..],
            &[(60, 2.0), (57, 2.5), (54, 3.0), (50, 3.5)],
            &[(60, 2.0), (57, 1.5), (54, 1.0), (61, 0.5)],
            &[(60, 2.0), (57, 1.5), (50, 1.0)],
            &[],
        ] {
            assert_eq!(history(silent).over_fits(), None, "{silent:?}");
        }
    }

    #[test]
    fn other_questions_and_an_earlier_run_do_not_count() {
        let mut history = history(&[(60, 2.0), (57, 1.5), (54, 1.0)]);
        let mut other = judged(400, 50, 0.5);
        other.score.questions = "others".to_owned();
        history.push(1, other);
        assert_eq!(history.over_fits(), None);
        history.push(2, judged(500, 40, 0.1));
        assert_eq!(history.over_fits(), None);
        let counts_after = [(1, 80), (2, 80)].map(|(run, step)| history.counts_after(run, step));
        assert_eq!(counts_after, [80, 500]);
    }

    #[test]
    fn a_long_run_is_remembered_in_part() {
        let mut history = EvaluationHistory::default();
        for step in 0..100 {
            history.push(1, judged(step, 50, 1.0));
        }
        assert_eq!(history.entries.len(), MAX_EVALUATIONS);
    }
}
