// The answers of the interface, as far as the dashboard reads them.

export interface Training {
  state: "running" | "paused" | "waiting" | "failed";
  waiting_for: string | null;
  step: number;
  epoch: number;
  objective: string;
  loss: number | null;
  acceptance_rate: number | null;
  chain_age: number | null;
  max_chain_age: number;
  carried_share: number | null;
  pairs: number;
  images: number;
  steps_per_second: number;
  learning_rate: number;
  recoveries: number;
  alarms: { alarm: string; message: string; remedy: string }[];
  last_error: string | null;
  checkpoint: { live: string | null; latest: string | null; held: boolean; reason: string | null };
}

export interface Retrieval {
  recall_at_1: number;
  recall_at_5: number;
  recall_at_10: number;
  mrr: number;
}

export interface Evaluation {
  pairs: number;
  anchor_to_positive: Retrieval;
  positive_to_anchor: Retrieval;
}

export interface Checkpoint {
  id: string;
  status: "writing" | "complete" | "failed";
  role: "candidate" | "live" | "retired";
  step: number;
  created_at: string;
  note: string | null;
  bytes: number;
  evaluation: Evaluation | null;
  verdict: string | null;
  decided_by: string | null;
  reason: string | null;
  keep: boolean;
  held: boolean;
  parent: string | null;
}

export interface EvaluationRow {
  checkpoint: string;
  step: number;
  created_at: string;
  evaluation: Evaluation;
}

export interface StepRow {
  step: number;
  loss: number | null;
  acceptance_rate: number | null;
  learning_rate: number;
  at: string;
}

export interface TrainingMetrics {
  data: StepRow[];
  evaluations: EvaluationRow[];
}

export interface HistorySample {
  at: string;
  step: number;
  requests_per_second: number;
  p50_seconds: number | null;
  p99_seconds: number | null;
  waiting_images: number;
  paused_share: number;
  carried_share: number | null;
  chain_age: number | null;
  pairs: number;
  images: number;
  memory_bytes: number | null;
  disk_free_bytes: number | null;
  disk_bytes: number | null;
}

export interface Found {
  id: string;
  score: number;
  group: string | null;
}

export interface SearchAnswer {
  data: Found[];
  model: string;
  indexed_share: number;
  next: { model: string; indexed_share: number } | null;
}

export interface SearchState {
  enabled: boolean;
  data: { checkpoint: string; role: string; images: number; indexed_share: number; graph_progress?: number | null }[];
}

export interface ImageMap {
  checkpoint: string;
  state: "ready" | "computing";
  progress: number;
  ids: string[];
  x: number[];
  y: number[];
  group: number[];
  groups: string[];
}

export interface Change {
  id: string;
  shared: number;
}

export interface KithEvent {
  kind: string;
  data: Record<string, unknown> & { at: string };
}
