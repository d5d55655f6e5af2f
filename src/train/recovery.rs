//! Collapse: when it is believed, and what training goes back to. Must never know: how embeddings are judged.

use super::{
    context::{Context, Fault},
    origin::{Start, fresh},
};
use crate::{
    checkpoint::{Evaluation, GateConfig},
    db::{CheckpointRow, CheckpointStatus},
    learn::StepReport,
    types::mix,
};

/// Weight of the newest step in the watched averages.
const NEWEST: f64 = 0.05;
/// Steps before the averages mean something.
const ENOUGH: u64 = 20;
/// Steps after a suspicion before the next.
const QUIET: u64 = 200;

/// Whether a checkpoint of step `step` that was judged collapsed calls for a recovery. Fresh weights map all images close together, so
/// neither the warm-up counts nor, as long as nothing healthy was ever seen, the time up to twice its length.
pub(super) fn believed(step: u64, warmup: u64, ever_healthy: bool) -> bool {
    step > warmup && (ever_healthy || step >= 2 * warmup)
}

/// Whether a checkpoint was judged and is fit to go back to.
pub(super) fn is_healthy(row: &CheckpointRow, gate: &GateConfig) -> bool {
    row.status == CheckpointStatus::Complete
        && Evaluation::of_row(row)
            .is_some_and(|evaluation| evaluation.pairs > 0 && !evaluation.collapsed(gate))
}

/// Whether any checkpoint is healthy.
pub(super) fn ever_healthy(context: &Context) -> Result<bool, Fault> {
    let rows = context.wait(context.db.checkpoints())?;
    let gate = &context.config.gate;
    Ok(rows.iter().any(|row| is_healthy(row, gate)))
}

/// The newest healthy checkpoint with its rate multiplied by `factor`; if there is none, fresh weights from another seed. `scale` is the
/// factor that training had when it went wrong.
pub(super) fn last_healthy(context: &Context, scale: f32, factor: f32) -> Result<Start, Fault> {
    let gate = &context.config.gate;
    let healthy = |row: &CheckpointRow| is_healthy(row, gate);
    let found = context.wait(context.checkpoints.newest_where(healthy))?;
    let found = found.filter(|(_, snapshot)| snapshot.encoder == context.config.encoder);
    let mut start = match found {
        Some((id, snapshot)) => Start {
            parent: Some(id),
            snapshot,
        },
        None => {
            // The scale differs from one recovery to the next, restarts included.
            let seed = mix(&[
                context.config.run.seed,
                u64::from((scale * factor).to_bits()),
            ]);
            Start {
                parent: None,
                snapshot: fresh(&context.config, seed, &context.device)?,
            }
        }
    };
    start.snapshot.trainer.rate_scale = scale * factor;
    Ok(start)
}

/// A cheap look at every step: moving averages of what the batch's embeddings show. A suspicion calls for a snapshot, and its
/// evaluation decides.
#[derive(Debug, Default)]
pub(super) struct Watch {
    steps: u64,
    spread: f64,
    mean_cosine: f64,
    quiet_until: u64,
}

impl Watch {
    /// Adds a step; whether collapse is suspected now.
    pub(super) fn suspects(
        &mut self,
        step: u64,
        report: &StepReport,
        gate: &GateConfig,
        warmup: u64,
    ) -> bool {
        let weight = if self.steps == 0 { 1.0 } else { NEWEST };
        self.steps += 1;
        self.spread += weight * (f64::from(report.spread) - self.spread);
        self.mean_cosine += weight * (f64::from(report.mean_cosine) - self.mean_cosine);
        let suspected = self.steps >= ENOUGH
            && step >= self.quiet_until
            && step > 2 * warmup
            && gate.collapsed(self.spread, self.mean_cosine);
        if suspected {
            self.quiet_until = step + QUIET;
        }
        suspected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_untrained_encoder_is_not_taken_for_a_collapsed_one() {
        let table = [
            (0, 200, false, false),
            (200, 200, true, false),
            (201, 200, true, true),
            (399, 200, false, false),
            (400, 200, false, true),
            (0, 0, false, false),
            (1, 0, false, true),
        ];
        for (step, warmup, healthy, expected) in table {
            assert_eq!(
                believed(step, warmup, healthy),
                expected,
                "{step} {warmup} {healthy}"
            );
        }
    }

    const GATE: GateConfig = GateConfig {
        min_pairs: 20,
        tolerance: 0.02,
        collapse_spread: 0.2,
        collapse_cosine: 0.95,
    };

    fn report(spread: f32, mean_cosine: f32) -> StepReport {
        StepReport {
            spread,
            mean_cosine,
            ..StepReport::default()
        }
    }

    #[test]
    fn the_watch_suspects_what_lasts_and_not_what_passes() {
        let mut watch = Watch::default();
        assert!(!(0..300).any(|step| watch.suspects(step, &report(0.8, 0.1), &GATE, 10)));
        assert!(!watch.suspects(300, &report(0.0, 1.0), &GATE, 10));
        let first = (301..600).find(|step| watch.suspects(*step, &report(0.0, 1.0), &GATE, 10));
        // 0.8 · 0.95^n < 0.2 from n = 28 on, and the cosine's average passes 0.95 from n = 57 on.
        assert_eq!(first, Some(356));
    }

    #[test]
    fn the_watch_is_quiet_for_a_while_after_a_suspicion_and_in_the_warm_up() {
        let mut watch = Watch::default();
        let suspicions: Vec<u64> = (0..500)
            .filter(|step| watch.suspects(*step, &report(0.0, 1.0), &GATE, 20))
            .collect();
        assert_eq!(suspicions, [41, 241, 441]);
    }
}
