// Figures and states in words.
import type { Checkpoint, EvaluationRow, Evaluation, Training } from "./types";

export function recall(evaluation: Evaluation): number {
  return (evaluation.anchor_to_positive.recall_at_1 + evaluation.positive_to_anchor.recall_at_1) / 2;
}

// One standard error of a share of so many pairs. The two directions of a pair succeed and fail together, so they count once.
export function standardError(evaluation: Evaluation): number {
  const share = recall(evaluation);
  return Math.sqrt((share * (1 - share)) / Math.max(evaluation.pairs, 1));
}

export function number(value: number | null | undefined, digits = 3): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return value.toLocaleString("en", { maximumSignificantDigits: Math.max(digits, String(Math.trunc(Math.abs(value))).length) });
}

export function percent(share: number | null | undefined): string {
  if (share === null || share === undefined || !Number.isFinite(share)) return "–";
  return `${(100 * share).toLocaleString("en", { maximumSignificantDigits: 3 })} %`;
}

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KB", "MB", "GB", "TB"];
  let at = 0;
  while (value >= 1000 && at < units.length - 1) {
    value /= 1000;
    at++;
  }
  return `${number(value)} ${units[at]}`;
}

export function ago(at: string, now = Date.now()): string {
  const seconds = Math.max(0, (now - Date.parse(at)) / 1000);
  for (const [name, size] of [["day", 86400], ["hour", 3600], ["minute", 60]] as const) {
    const count = Math.floor(seconds / size);
    if (count >= 1) return `${count} ${name}${count > 1 ? "s" : ""} ago`;
  }
  return "just now";
}

export function short(id: string): string {
  return id.slice(-6);
}

// The state of the server in one sentence.
export function sentence(training: Training, evaluations: EvaluationRow[], checkpoints: Checkpoint[], now = Date.now()): string {
  const learning =
    training.state === "running"
      ? `Learning, at step ${number(training.step, 12)}`
      : training.state === "paused"
        ? `Training is paused at step ${number(training.step, 12)}`
        : training.state === "failed"
          ? "Training failed, and serving goes on"
          : `Not learning: ${training.waiting_for ?? "it waits"}`;
  const live = checkpoints.find((one) => one.id === training.checkpoint.live);
  if (!live) return `${learning}; no checkpoint serves.`;
  if (!live.evaluation?.pairs) return `${learning}; what serves has not been evaluated: ${training.pairs ? "too few pairs are held out so far" : "there are no pairs yet"}.`;
  const comparable = evaluations.filter((row) => row.evaluation.pairs > 0);
  const best = comparable.reduce<EvaluationRow | undefined>((best, row) => (!best || recall(row.evaluation) > recall(best.evaluation) ? row : best), undefined);
  const when = best ? `; best yet ${number(recall(best.evaluation), 2)}, ${ago(best.created_at, now)}` : "";
  return `${learning}; ${number(recall(live.evaluation), 2)} of held-out matches found first${when}.`;
}
