//! What follows a snapshot: it is evaluated on held-out pairs beside the best ones before it, and the life of checkpoints goes on.

use std::sync::Arc;

use rayon::ThreadPool;

use super::{
    context::{Context, Fault},
    recovery,
    snapshotter::Job,
    status::{Judgement, News},
};
use crate::{
    checkpoint::{Action, CheckpointError, Event, Outcome},
    db::Verdict,
    types::CheckpointId,
};
use kith_eval::{EvalReport, EvaluationSet};

/// With fewer held-out pairs, the shape of the embeddings is looked at on trained images instead …
const HANDFUL: usize = 8;
/// … of this many pairs.
const SAMPLE: usize = 32;

/// Judges checkpoints in a pool of one thread, beside the training pool.
pub(super) struct Judge {
    context: Arc<Context>,
    pool: ThreadPool,
}

/// The images of one judgement.
struct Exam<'a> {
    held_out: EvaluationSet,
    sample: Option<EvaluationSet>,
    go_on: &'a (dyn Fn() -> bool + Sync),
}

impl Judge {
    pub(super) fn new(context: Arc<Context>) -> Result<Self, Fault> {
        let pool = context.pool("kith-judge", 1)?;
        Ok(Self { context, pool })
    }

    /// Judges the checkpoint of `job` and has the consequences carried out, unless `go_on` says to leave off.
    pub(super) fn judge(&self, job: &Job, go_on: &(dyn Fn() -> bool + Sync)) -> Result<(), Fault> {
        let id = job.label.id;
        let context = &self.context;
        let exam = self.exam(go_on)?;
        let Some(outcome) = self.outcome(job, &exam)? else {
            return Ok(());
        };
        let event = Event::Judged { id, outcome };
        let actions = context.wait(context.checkpoints.decide(&event))?;
        for action in &actions {
            self.report(job, action);
        }
        let gone = context.wait(context.checkpoints.prune())?;
        if !gone.is_empty() {
            tracing::debug!(checkpoints = gone.len(), "pruned");
        }
        Ok(())
    }

    /// What came out; `None`: told to leave off.
    fn outcome(&self, job: &Job, exam: &Exam<'_>) -> Result<Option<Outcome>, Fault> {
        let (id, context) = (job.label.id, &self.context);
        let judged = match self.examine(id, exam) {
            Ok(Some(judged)) => judged,
            Ok(None) => return Ok(None),
            Err(error @ (CheckpointError::Damaged { .. } | CheckpointError::NotFinite(_))) => {
                return Ok(Some(Outcome::Collapsed(error.to_string())));
            }
            Err(error) => return Err(error.into()),
        };
        context.wait(context.checkpoints.set_evaluation(id, &judged))?;
        if let Some(why) = context.gate().collapse(&judged.evaluation) {
            return self.collapsed(job.step, why).map(Some);
        }
        let live_readable = self.judge_others(id, &judged, exam)?;
        Ok(live_readable.map(|live_readable| Outcome::Scored {
            pairs: judged.evaluation.pairs,
            live_readable,
        }))
    }

    /// Embeddings that lie close together: those of weights that are still near their start are no collapse.
    fn collapsed(&self, step: u64, why: String) -> Result<Outcome, Fault> {
        let context = &self.context;
        let life = context.wait(context.checkpoints.life())?;
        let warmup = context.config.schedule.warmup_steps;
        if recovery::believed(step, warmup, recovery::ever_healthy(&life)) {
            return Ok(Outcome::Collapsed(why));
        }
        Ok(Outcome::Untrained(format!(
            "step {step} is too near the fresh weights to be judged (schedule.warmup_steps is {warmup})"
        )))
    }

    /// Has the live checkpoint and the best ones answer the same questions, where they have not. Whether the live one could be read;
    /// `None`: told to leave off.
    fn judge_others(
        &self,
        candidate: CheckpointId,
        judged: &EvalReport,
        exam: &Exam<'_>,
    ) -> Result<Option<bool>, Fault> {
        let context = &self.context;
        let life = context.wait(context.checkpoints.life())?;
        let most = context.checkpoints.policy().retention.keep_best.max(1);
        let live = life.live().map(|live| live.id);
        let mut live_readable = true;
        for id in life.to_judge_again(&judged.score.questions, most) {
            if id == candidate {
                continue;
            }
            match self.examine(id, exam) {
                Ok(Some(judged)) => {
                    context.wait(context.checkpoints.set_evaluation(id, &judged))?
                }
                Ok(None) => return Ok(None),
                Err(error @ (CheckpointError::Damaged { .. } | CheckpointError::NotFinite(_))) => {
                    tracing::error!(checkpoint = %id, %error, "a checkpoint cannot be judged again");
                    context.wait(context.checkpoints.decide(&Event::Unreadable(id)))?;
                    live_readable &= live != Some(id);
                }
                // Deleted meanwhile.
                Err(CheckpointError::Unknown(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(live_readable))
    }

    fn exam<'a>(&self, go_on: &'a (dyn Fn() -> bool + Sync)) -> Result<Exam<'a>, Fault> {
        let Context {
            checkpoints,
            config,
            ..
        } = &*self.context;
        let max_pairs = config.snapshots.evaluation_pairs;
        let held_out = self.context.wait(checkpoints.held_out_set(max_pairs))?;
        let sample = match held_out.anchors.len() {
            0..HANDFUL => Some(self.context.wait(checkpoints.trained_set(SAMPLE))?),
            _ => None,
        };
        Ok(Exam {
            held_out,
            sample,
            go_on,
        })
    }

    fn examine(
        &self,
        id: CheckpointId,
        exam: &Exam<'_>,
    ) -> Result<Option<EvalReport>, CheckpointError> {
        let context = &self.context;
        let model = context.wait(context.checkpoints.load_model(id))?;
        // In the precision that it would serve in.
        let encoder = model.open(&context.device, context.config.precision)?;
        let judged = |set: &EvaluationSet| {
            self.pool
                .install(|| model.evaluate(&encoder, set, &context.config.limits, exam.go_on))
        };
        let Some(mut judgement) = judged(&exam.held_out)? else {
            return Ok(None);
        };
        if let Some(sample) = &exam.sample {
            let Some(trained) = judged(sample)? else {
                return Ok(None);
            };
            judgement.evaluation.geometry = trained.evaluation.geometry;
        }
        Ok(Some(judgement))
    }

    /// Tells the log and the loop what was found out about the candidate.
    fn report(&self, job: &Job, action: &Action) {
        let Action::Mark { id, verdict, why } = action else {
            return;
        };
        let why = why.as_deref().unwrap_or("it serves");
        tracing::info!(checkpoint = %id, step = job.step, ?verdict, why, "judged");
        let why = why.to_owned();
        let news = match verdict {
            Verdict::Better => News::Better,
            Verdict::Worse => News::Worse(why),
            Verdict::Collapsed => News::Collapsed(why),
            Verdict::Undecided | Verdict::Untested | Verdict::Untrained | Verdict::Damaged => {
                News::Undecided
            }
        };
        self.context.board.tell(Judgement {
            lineage: job.lineage,
            news,
        });
    }
}
