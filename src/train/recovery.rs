//! Recovery from collapse and from bad candidates: when it is suspected, what training rolls back to, and at which learning rate.

use rayon::ThreadPool;

use super::{
    config::{SnapshotConfig, StartWeights},
    context::Context,
    error::{TrainError, TrainFailure},
    origin::Start,
};
use crate::checkpoint::{CollapseWatch, GateConfig, Life, Recovery, Snapshot, TrainerState};
use kith_learn::StepReport;
use kith_seed::mix;

/// Weight of the newest step in the moving averages.
const SMOOTHING: f32 = 0.05;
/// Steps before the averages mean something.
const MIN_STEPS: u64 = 20;
/// Steps after a suspicion before the next.
const QUIET_STEPS: u64 = 200;
/// Domain of the seed after a rollback: its draws differ from those that led to it.
const ROLLBACK_SEED: u64 = 0xa6;

/// A return to a sound checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rollback {
    /// What happened.
    pub(super) why: String,
    /// Factor on the learning rate from now on.
    pub(super) rate_scale: f32,
    /// Rollbacks so far, this one included.
    pub(super) tries: u32,
}

impl Rollback {
    /// A rollback at a lower rate, down to the floor. `None`: there were as many as the settings allow.
    pub(super) fn with_lower_rate(
        why: String,
        state: &TrainerState,
        config: &SnapshotConfig,
    ) -> Option<Self> {
        let lowered = state.rate_scale * config.recovery_rate;
        (state.recovery.tries < config.max_recoveries).then(|| Self {
            why,
            // A factor that a caller's settings put below the floor is not raised to it.
            rate_scale: lowered.max(config.recovery_floor.min(state.rate_scale)),
            tries: state.recovery.tries + 1,
        })
    }

    /// A rollback because a caller resumes training that gave up: the rate stays, and the tries are counted anew.
    pub(super) fn after_resume(why: String, state: &TrainerState) -> Self {
        Self {
            why,
            rate_scale: state.rate_scale,
            tries: 0,
        }
    }
}

/// Raises a lowered rate by one recovery's factor once enough steps went well.
pub(super) fn raise_rate(state: &mut TrainerState, config: &SnapshotConfig) {
    let since = state.step.saturating_sub(state.recovery.since);
    if state.rate_scale < 1.0 && config.recovery_steps > 0 && since >= config.recovery_steps {
        state.rate_scale = (state.rate_scale / config.recovery_rate).min(1.0);
        state.recovery.since = state.step;
    }
}

/// Whether a checkpoint of step `step` that was judged collapsed calls for a recovery. Fresh weights map all images close together, so
/// neither the warm-up counts nor, as long as nothing healthy was ever seen, the time up to twice its length.
pub(super) fn collapse_counts(step: u64, warmup: u64, ever_healthy: bool) -> bool {
    step > warmup && (ever_healthy || step >= 2 * warmup)
}

/// Whether any checkpoint from after step `tells_after` was judged and found sound.
pub(super) fn ever_healthy(life: &Life, tells_after: u64) -> bool {
    let mut entries = life.entries.iter().filter(|entry| entry.step > tells_after);
    entries.any(|entry| entry.verdict.is_some() && entry.may_serve())
}

/// The state to go on from: that of the best sound checkpoint, or first weights if there is none.
/// First weights are made in `pool`, at the trainer's priority.
pub(super) fn rollback_start(
    context: &Context,
    pool: &ThreadPool,
    rollback: &Rollback,
) -> Result<Start, TrainFailure> {
    let life = context.wait(context.checkpoints.life())?;
    let found = context.wait(context.checkpoints.first_of(&life.rollback_candidates()))?;
    let found = found.filter(|(_, snapshot)| snapshot.encoder == context.config.encoder);
    let mut start = match found {
        Some((id, snapshot)) => Start {
            parent: Some(id),
            snapshot,
            is_restored: true,
        },
        None => Start {
            parent: None,
            snapshot: first_snapshot(context, pool)?,
            is_restored: true,
        },
    };
    begin_again(&mut start.snapshot.trainer, rollback);
    Ok(start)
}

/// Changes a checkpoint's state into that of the run which begins with it after a roll-back.
fn begin_again(state: &mut TrainerState, rollback: &Rollback) {
    // With the seed of before, the same draws would lead to the same end. The factor differs from one recovery to the next, restarts included.
    let turn = u64::from(rollback.rate_scale.to_bits()) << 32 | u64::from(rollback.tries);
    state.seed = mix(&[state.seed, ROLLBACK_SEED, turn]);
    state.cursor = None;
    if let Some(recent) = &mut state.recent {
        recent.cursor = None;
    }
    state.rate_scale = rollback.rate_scale;
    state.recovery = Recovery {
        tries: rollback.tries,
        since: state.step,
        refusals: 0,
    };
    state.watch = CollapseWatch::default();
}

/// First weights as `encoder.start` says; random ones if its file cannot be used any more.
fn first_snapshot(context: &Context, pool: &ThreadPool) -> Result<Snapshot, TrainFailure> {
    let first = context.first_weights(Some(pool));
    let chosen = context.wait(async {
        match first.choose(&context.config.start).await {
            Err(TrainError::Invalid(reason)) => {
                tracing::error!(reason, "training goes on from random weights");
                first.choose(&StartWeights::Fresh).await
            }
            chosen => chosen,
        }
    });
    chosen.map_err(TrainFailure::broken)
}

/// Adds a step to the moving averages of what the batches' embeddings show; whether collapse is suspected now. A suspicion calls for a
/// snapshot, and its evaluation decides.
pub(super) fn suspects_collapse(
    watch: &mut CollapseWatch,
    step: u64,
    report: &StepReport,
    gate: &GateConfig,
    warmup: u64,
) -> bool {
    let weight = if watch.steps == 0 { 1.0 } else { SMOOTHING };
    watch.steps += 1;
    watch.spread += weight * (report.spread - watch.spread);
    watch.mean_cosine += weight * (report.mean_cosine - watch.mean_cosine);
    let suspected = step >= watch.quiet_until && step > 2 * warmup && looks_collapsed(watch, gate);
    if suspected {
        watch.quiet_until = step + QUIET_STEPS;
    }
    suspected
}

/// Whether the embeddings of the last steps meet the gate's rule of a collapse.
pub(super) fn looks_collapsed(watch: &CollapseWatch, gate: &GateConfig) -> bool {
    watch.steps >= MIN_STEPS && gate.collapsed(watch.spread.into(), watch.mean_cosine.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkpoint::Entry,
        db::{CheckpointRole, CheckpointStatus, Verdict},
        types::CheckpointId,
    };

    const CONFIG: SnapshotConfig = SnapshotConfig {
        every_steps: 0,
        every_minutes: 0.0,
        first_steps: 0,
        head_pairs: 0,
        head_seconds: 0.0,
        evaluation_pairs: 1,
        recovery_rate: 0.5,
        recovery_floor: 0.1,
        recovery_steps: 100,
        max_recoveries: 6,
    };

    #[test]
    fn recoveries_lower_the_rate_to_the_floor_and_no_further_and_end() {
        let mut state = TrainerState::new(40, 1);
        let mut scales = Vec::new();
        while let Some(rollback) = Rollback::with_lower_rate("again".to_owned(), &state, &CONFIG) {
            (state.rate_scale, state.recovery.tries) = (rollback.rate_scale, rollback.tries);
            scales.push(rollback.rate_scale);
        }
        assert_eq!(scales, [0.5, 0.25, 0.125, 0.1, 0.1, 0.1]);
    }

    #[test]
    fn a_run_after_a_roll_back_draws_otherwise_and_counts_from_its_first_step() {
        let before = TrainerState {
            cursor: Some((5, 3)),
            watch: CollapseWatch {
                steps: 50,
                quiet_until: 900,
                ..CollapseWatch::default()
            },
            recovery: Recovery {
                refusals: 4,
                ..Recovery::default()
            },
            ..TrainerState::new(40, 1)
        };
        let seed_after = |tries| {
            let rollback = Rollback {
                why: "again".to_owned(),
                rate_scale: 0.5,
                tries,
            };
            let mut state = before.clone();
            begin_again(&mut state, &rollback);
            let recovery = Recovery {
                tries,
                since: before.step,
                refusals: 0,
            };
            assert_eq!((state.rate_scale, &state.recovery), (0.5, &recovery));
            assert_eq!((state.step, state.cursor), (before.step, None));
            assert_eq!(state.watch, CollapseWatch::default());
            state.seed
        };
        let seeds = [before.seed, seed_after(1), seed_after(2)];
        assert!(seeds[0] != seeds[1] && seeds[1] != seeds[2] && seeds[0] != seeds[2]);
    }

    #[test]
    fn steps_that_go_well_raise_the_rate_again_and_no_higher_than_it_was() {
        let mut state = TrainerState::new(0, 1);
        state.rate_scale = 0.2;
        let mut raised = Vec::new();
        for step in 1..=400 {
            state.step = step;
            let before = state.rate_scale;
            raise_rate(&mut state, &CONFIG);
            if state.rate_scale != before {
                raised.push((step, state.rate_scale));
            }
        }
        assert_eq!(raised, [(100, 0.4), (200, 0.8), (300, 1.0)]);
    }

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
                collapse_counts(step, warmup, healthy),
                expected,
                "{step} {warmup} {healthy}"
            );
        }
    }

    #[test]
    fn what_a_fit_makes_of_nearly_random_weights_does_not_end_their_grace() {
        let at = |step, verdict| Entry {
            id: CheckpointId::now(),
            step,
            status: CheckpointStatus::Complete,
            role: CheckpointRole::Retired,
            kept: false,
            held: false,
            aliased: false,
            in_use: false,
            verdict,
            score: None,
        };
        let healthy = |entries| ever_healthy(&Life { entries }, 60);
        let early = || at(60, Some(Verdict::Better));
        assert!(!healthy(vec![early(), at(61, None)]));
        assert!(!healthy(vec![early(), at(61, Some(Verdict::Untrained))]));
        assert!(healthy(vec![early(), at(61, Some(Verdict::Undecided))]));
    }

    const GATE: GateConfig = GateConfig::TESTED;

    fn report(spread: f32, mean_cosine: f32) -> StepReport {
        StepReport {
            spread,
            mean_cosine,
            ..StepReport::default()
        }
    }

    #[test]
    fn the_watch_suspects_what_lasts_and_not_what_passes() {
        let mut watch = CollapseWatch::default();
        let mut sees = |step, spread, cosine| {
            suspects_collapse(&mut watch, step, &report(spread, cosine), &GATE, 10)
        };
        assert!(!(0..300).any(|step| sees(step, 0.8, 0.1)));
        assert!(!sees(300, 0.0, 1.0));
        let first = (301..600).find(|step| sees(*step, 0.0, 1.0));
        // 0.8 · 0.95^n < 0.2 from n = 28 on, and the cosine's average passes 0.95 from n = 57 on.
        assert_eq!(first, Some(356));
    }

    #[test]
    fn the_watch_is_quiet_for_a_while_after_a_suspicion_and_in_the_warm_up() {
        let mut watch = CollapseWatch::default();
        let suspicions: Vec<u64> = (0..500)
            .filter(|step| suspects_collapse(&mut watch, *step, &report(0.0, 1.0), &GATE, 20))
            .collect();
        assert_eq!(suspicions, [41, 241, 441]);
    }
}
