//! The sentences that tell people why a checkpoint serves or does not.

use super::{Finding, GateConfig, life::Entry};
use crate::db::Verdict;
use kith_eval::Score;

pub(super) const HELD: &str = "a person chose it; it serves until the choice is released";
pub(super) const CHOSEN: &str = "a person chose it; the gate may replace it";
pub(super) const RELEASED: &str =
    "a person chose it and gave the choice back; the gate may replace it";
pub(super) const NOTHING_SERVES: &str = "nothing served before";
pub(super) const LIVE_UNREADABLE: &str =
    "the checkpoint that served before it cannot be read or judged";
pub(super) const LIVE_COPY: &str = "it has the weights of the checkpoint that serves";
pub(super) const UNREADABLE: &str =
    "it could not be read when it was wanted: kith checkpoint verify says what is wrong with it";
/// Of a candidate that was judged while a person's choice serves.
const CHOICE_HOLDS: &str = "a person's choice holds and serves";

/// Of a candidate that cannot be compared, for the reason `why`.
pub(super) fn not_compared(why: &str, held: bool) -> String {
    let outcome = if held {
        CHOICE_HOLDS
    } else {
        "it serves without having been compared"
    };
    format!("{why}: {outcome}")
}

/// A candidate beside the live and the best checkpoint, on the same questions.
pub(super) fn compared(
    score: &Score,
    live: &Entry,
    best: &Entry,
    verdict: Verdict,
    gate: &GateConfig,
) -> String {
    let against = match verdict {
        Verdict::Worse => best.score.as_ref(),
        _ => live.score.as_ref(),
    };
    let Some(against) = against.filter(|other| other.is_comparable(score)) else {
        return LIVE_UNREADABLE.to_owned();
    };
    let whose = if verdict == Verdict::Worse && best.id != live.id {
        "the best checkpoint's"
    } else {
        "the live checkpoint's"
    };
    let confidence = gate.confidence;
    let judgement = match verdict {
        Verdict::Better => format!("better at confidence {confidence}"),
        Verdict::Worse => format!("worse at confidence {confidence}"),
        _ => format!("too close to tell apart at confidence {confidence}"),
    };
    let end = match (live.held, verdict) {
        (true, _) => format!("; {CHOICE_HOLDS}"),
        (false, Verdict::Better) => String::new(),
        (false, _) => "; the live one goes on serving".to_owned(),
    };
    format!(
        "{} of {} held-out queries find their match first, {whose} {}: {judgement}{end}",
        score.total_found(),
        score.total_asked(),
        against.total_found()
    )
}

pub(super) fn better(score: &Score, live: &Score, gate: &GateConfig) -> String {
    let p = match gate.compare(score, live) {
        Some(Finding::Better(p)) => format!(" (p = {p:.4})"),
        _ => String::new(),
    };
    format!(
        "{} of {} held-out queries find their match first, {} did with the checkpoint that served before: better{p}",
        score.total_found(),
        score.total_asked(),
        live.total_found()
    )
}
