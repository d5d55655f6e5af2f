// The state in one sentence, and the series of learning and serving.
import { useMemo } from "preact/hooks";
import { call } from "./api";
import { Chart } from "./chart";
import { usePolled, useTask } from "./hooks";
import { Failure, Figure } from "./parts";
import type { Checkpoint, HistorySample, SearchState, Training, TrainingMetrics } from "./types";
import { bytes, number, percent, recall, sentence, short, standardError } from "./words";

const seconds = (at: string) => Date.parse(at) / 1000;

// What is still made for searches, in words.
function searchable(search: SearchState | undefined): string {
  const next = search?.data.find((one) => one.role === "next");
  const graph = search?.data.find((one) => one.graph_progress != null)?.graph_progress;
  const parts = [next && `${percent(next.indexed_share)} under the live checkpoint`, graph != null && `a graph is being built: ${percent(graph)}`];
  return parts.filter(Boolean).join("; ") || "of the stored images";
}

export function Overview() {
  const training = usePolled<Training>("/v1/training", 3);
  const metrics = usePolled<TrainingMetrics>("/v1/training/metrics", 10);
  const checkpoints = usePolled<{ data: Checkpoint[] }>("/v1/checkpoints", 10);
  const history = usePolled<{ data: HistorySample[] }>("/v1/history", 15);
  const search = usePolled<SearchState>("/v1/search", 5);
  const task = useTask();
  const state = training.value;
  const steps = useMemo(() => {
    const rows = metrics.value?.data ?? [];
    return { x: rows.map((row) => row.step), loss: rows.map((row) => row.loss), acceptance: rows.map((row) => row.acceptance_rate) };
  }, [metrics.value]);
  const evaluated = useMemo(() => {
    const rows = (metrics.value?.evaluations ?? []).filter((row) => row.evaluation.pairs > 0).toSorted((a, b) => a.step - b.step);
    return { x: rows.map((row) => row.step), values: rows.map((row) => recall(row.evaluation)), errors: rows.map((row) => standardError(row.evaluation)) };
  }, [metrics.value]);
  const samples = useMemo(() => {
    const rows = history.value?.data ?? [];
    const of = (pick: (row: HistorySample) => number | null) => rows.map(pick);
    return {
      x: of((row) => seconds(row.at)) as number[],
      p50: of((row) => row.p50_seconds),
      p99: of((row) => row.p99_seconds),
      rate: of((row) => row.requests_per_second),
      waiting: of((row) => row.waiting_images),
      paused: of((row) => row.paused_share),
      carried: of((row) => row.carried_share),
      age: of((row) => row.chain_age),
      pairs: of((row) => row.pairs),
      memory: of((row) => row.memory_bytes),
      disk: of((row) => (row.disk_bytes === null || row.disk_free_bytes === null ? null : row.disk_bytes - row.disk_free_bytes)),
      last: rows.at(-1),
    };
  }, [history.value]);
  if (!state) return <Failure message={training.error} />;
  const live = checkpoints.value?.data.find((one) => one.id === state.checkpoint.live);
  const change = (wanted: "paused" | "running") =>
    task.run(async () => {
      await call("PATCH", "/v1/training", { state: wanted });
      training.reload();
    });
  const answering = search.value?.data[0];
  const milliseconds = (value: number) => `${number(1000 * value)} ms`;
  return (
    <>
      <p class="sentence" aria-live="polite">
        {sentence(state, metrics.value?.evaluations ?? [], checkpoints.value?.data ?? [])}
      </p>
      {state.last_error && <Failure message={state.last_error} />}
      <p class="row">
        {state.state === "paused" ? (
          <button type="button" disabled={task.busy} onClick={() => change("running")}>
            Resume training
          </button>
        ) : (
          <button type="button" class="plain" disabled={task.busy} onClick={() => change("paused")}>
            Pause training
          </button>
        )}
      </p>
      <Failure message={task.error ?? metrics.error ?? history.error} />
      <dl class="figures">
        <Figure name="Held-out recall@1" value={live?.evaluation?.pairs ? number(recall(live.evaluation), 3) : "–"} hint={live?.evaluation?.pairs ? `± ${number(standardError(live.evaluation), 2)}, ${live.evaluation.pairs} pairs` : "not evaluated yet"} />
        <Figure name="Pairs" value={number(state.pairs, 9)} hint={`${number(state.images, 9)} images are trained on`} />
        <Figure name="Steps a second" value={number(state.steps_per_second)} hint={`learning rate ${number(state.learning_rate)}`} />
        <Figure name="Acceptance rate" value={percent(state.acceptance_rate)} hint={state.objective} />
        <Figure name="Carried share" value={percent(state.carried_share)} hint="of a step's images" />
        <Figure name="Chain age" value={number(state.chain_age)} hint={`steps; at most ${number(state.max_chain_age, 9)}`} />
        <Figure name="Live checkpoint" value={live ? short(live.id) : "–"} hint={live ? `of step ${number(live.step, 12)}${live.held ? ", held" : ""}` : undefined} />
        <Figure name="Searchable" value={percent(answering?.indexed_share)} hint={searchable(search.value)} />
        <Figure name="Memory" value={bytes(samples.last?.memory_bytes)} hint={`${bytes(samples.last?.disk_free_bytes)} free on the disk`} />
      </dl>
      <h2>Learning</h2>
      <div class="charts">
        <Chart title="Loss" x={steps.x} time={false} lines={[{ name: "loss", values: steps.loss }]} />
        <Chart title="Held-out recall@1, with one standard error" x={evaluated.x} time={false} points lines={[{ name: "recall@1", values: evaluated.values, errors: evaluated.errors }]} />
        <Chart title="Acceptance rate" x={steps.x} time={false} show={percent} lines={[{ name: "accepted", values: steps.acceptance }]} />
        <Chart title="Carried share" x={samples.x} time show={percent} lines={[{ name: "carried", values: samples.carried }]} />
        <Chart title="Chain age in steps" x={samples.x} time lines={[{ name: "mean age", values: samples.age }]} />
        <Chart title="Pairs" x={samples.x} time show={(value) => number(value, 9)} lines={[{ name: "pairs", values: samples.pairs }]} />
      </div>
      <h2>Serving</h2>
      <div class="charts">
        <Chart title="Latency of requests for embeddings" x={samples.x} time show={milliseconds} lines={[{ name: "p50", values: samples.p50 }, { name: "p99", values: samples.p99 }]} />
        <Chart title="Requests a second" x={samples.x} time lines={[{ name: "requests", values: samples.rate }]} />
        <Chart title="Images waiting" x={samples.x} time lines={[{ name: "waiting", values: samples.waiting }]} />
        <Chart title="Share of the time that training paused for requests" x={samples.x} time show={percent} lines={[{ name: "paused", values: samples.paused }]} />
        <Chart title="Memory of the process" x={samples.x} time show={bytes} lines={[{ name: "resident", values: samples.memory }]} />
        <Chart title="Disk in use" x={samples.x} time show={bytes} lines={[{ name: "in use", values: samples.disk }]} />
      </div>
    </>
  );
}
