//! What follows a snapshot: it is evaluated on held-out pairs, passes the gate or not, is promoted or not, and older ones go.
//! Must never know: how checkpoints are written, steps.

use std::sync::Arc;

use rayon::ThreadPool;

use super::{
    context::{Context, Fault},
    snapshotter::Job,
    status::Alarm,
};
use crate::{
    checkpoint::{CheckpointError, Evaluation, EvaluationSet, Verdict, judge},
    db::CheckpointRow,
    types::CheckpointId,
};

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

    /// Judges the checkpoint of `job` and acts on the verdict, unless `go_on` says to leave off.
    pub(super) fn judge(&self, job: &Job, go_on: &(dyn Fn() -> bool + Sync)) -> Result<(), Fault> {
        let id = job.label.id;
        let context = &self.context;
        let exam = self.exam(go_on)?;
        let candidate = match self.examine(id, &exam) {
            Ok(Some(evaluation)) => evaluation,
            Ok(None) => return Ok(()),
            Err(CheckpointError::Damaged { what, .. }) => {
                let unknown = serde_json::Value::Null;
                context.wait(context.db.set_evaluation(id, &unknown, Some(&what)))?;
                self.alarm(job, what);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let live = context.wait(context.db.live_checkpoint())?;
        if live.as_ref().is_some_and(|live| live.id == id) {
            return self.store(id, &candidate, None);
        }
        let Some(live) = self.live_evaluation(live, &candidate, &exam)? else {
            return Ok(());
        };
        self.act(
            job,
            &candidate,
            judge(&candidate, live.as_ref(), &context.config.gate),
        )?;
        let gone = context.wait(context.checkpoints.prune(&context.config.retention))?;
        if !gone.is_empty() {
            tracing::debug!(checkpoints = gone.len(), "pruned");
        }
        Ok(())
    }

    fn exam<'a>(&self, go_on: &'a (dyn Fn() -> bool + Sync)) -> Result<Exam<'a>, Fault> {
        let Context { blobs, db, .. } = &*self.context;
        let most = self.context.config.snapshots.evaluation_pairs;
        let held_out = self
            .context
            .wait(EvaluationSet::held_out(blobs, db, most))?;
        let sample = match held_out.anchors.len() {
            0..HANDFUL => Some(
                self.context
                    .wait(EvaluationSet::trained(blobs, db, SAMPLE))?,
            ),
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
    ) -> Result<Option<Evaluation>, CheckpointError> {
        let context = &self.context;
        let model = context.wait(context.checkpoints.load_model(id))?;
        // In the precision that it would serve in.
        let encoder = model.open(&context.device, context.config.precision)?;
        let judged = |set: &EvaluationSet| {
            self.pool
                .install(|| set.judge_while(&model, &encoder, &context.config.limits, exam.go_on))
        };
        let Some(mut evaluation) = judged(&exam.held_out)? else {
            return Ok(None);
        };
        if let Some(sample) = &exam.sample {
            let Some(trained) = judged(sample)? else {
                return Ok(None);
            };
            evaluation.geometry = trained.geometry;
        }
        Ok(Some(evaluation))
    }

    /// The live checkpoint's figures on the same pairs, taken now if they are of others. The outer `None`: told to leave off.
    fn live_evaluation(
        &self,
        live: Option<CheckpointRow>,
        candidate: &Evaluation,
        exam: &Exam<'_>,
    ) -> Result<Option<Option<Evaluation>>, Fault> {
        let Some(live) = live else {
            return Ok(Some(None));
        };
        let known = Evaluation::of_row(&live).filter(|known| known.pairs == candidate.pairs);
        if known.is_some() {
            return Ok(Some(known));
        }
        match self.examine(live.id, exam) {
            Ok(None) => Ok(None),
            Ok(Some(evaluation)) => {
                self.store(live.id, &evaluation, live.reason.as_deref())?;
                Ok(Some(Some(evaluation)))
            }
            Err(CheckpointError::Damaged { what, .. }) => {
                tracing::error!(checkpoint = %live.id, what, "the live checkpoint cannot be judged: the candidate is held to nothing");
                Ok(Some(None))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn store(
        &self,
        id: CheckpointId,
        evaluation: &Evaluation,
        reason: Option<&str>,
    ) -> Result<(), Fault> {
        let value = serde_json::to_value(evaluation)
            .map_err(|error| Fault(format!("the evaluation cannot be stored: {error}")))?;
        let context = &self.context;
        Ok(context.wait(context.db.set_evaluation(id, &value, reason))?)
    }

    fn act(&self, job: &Job, evaluation: &Evaluation, verdict: Verdict) -> Result<(), Fault> {
        let (id, step) = (job.label.id, job.step);
        let recall = evaluation.recall_at_1();
        match verdict {
            Verdict::Promote => {
                self.store(id, evaluation, None)?;
                self.context.wait(self.context.checkpoints.promote(id))?;
                tracing::info!(checkpoint = %id, step, recall, pairs = evaluation.pairs, "promoted");
            }
            Verdict::Refuse(reason) => {
                self.store(id, evaluation, Some(&reason))?;
                tracing::info!(checkpoint = %id, step, recall, reason, "not promoted");
            }
            Verdict::Collapsed(reason) => {
                self.store(id, evaluation, Some(&reason))?;
                tracing::warn!(checkpoint = %id, step, recall, reason, "not promoted");
                self.alarm(job, reason);
            }
        }
        Ok(())
    }

    fn alarm(&self, job: &Job, why: String) {
        self.context.board.raise(Alarm {
            lineage: job.lineage,
            step: job.step,
            why,
        });
    }
}
