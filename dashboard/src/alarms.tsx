// What needs a person, each with what to do about it.
import { useEffect, useMemo, useState } from "preact/hooks";
import { watch } from "./api";
import { usePolled } from "./hooks";
import { Failure } from "./parts";
import type { HistorySample, Training } from "./types";
import { ago, bytes, percent } from "./words";

interface Alarm {
  what: string;
  remedy: string;
}

// What is wrong at this moment.
export function alarmsOf(training: Training | undefined, sample: HistorySample | undefined, damaged: number): Alarm[] {
  const alarms: Alarm[] = [];
  if (training && !training.checkpoint.live) alarms.push({ what: "No checkpoint serves.", remedy: "Promote one on the page Checkpoints. The server's log says why the last one does not load." });
  if (training?.state === "failed") alarms.push({ what: `Training failed: ${training.last_error ?? "the log says why"}`, remedy: "Serving goes on. Training is tried again by itself, unless the message says otherwise: then resume it on the page Overview." });
  else if (training?.last_error) alarms.push({ what: training.last_error, remedy: "Training goes on. If it comes back, look for wrong pairs that were posted lately, and lower the learning rate." });
  for (const { message, remedy } of training?.alarms ?? []) alarms.push({ what: message, remedy });
  if (training?.checkpoint.held) alarms.push({ what: "A person's promotion holds: no candidate replaces it.", remedy: "Give the choice back to the gate on the page Checkpoints, once you want the best candidate to serve again." });
  if (damaged > 0) alarms.push({ what: `${damaged} stored image${damaged > 1 ? "s are" : " is"} damaged.`, remedy: "Post the same images again, which repairs them, or delete them: GET /v1/images?damaged=true lists them." });
  if (sample?.disk_bytes && sample.disk_free_bytes !== null && sample.disk_free_bytes < 0.05 * sample.disk_bytes)
    alarms.push({ what: `The disk of the data folder has ${bytes(sample.disk_free_bytes)} left.`, remedy: "Free space on it, delete checkpoints or images, or move the folder to a larger disk. When it is full nothing is stored and no snapshot is taken." });
  if (sample && sample.paused_share > 0.9) alarms.push({ what: `Training paused ${percent(sample.paused_share)} of the last moments for requests.`, remedy: "It hardly learns under this load. Raise training.min_share, or give the server more cores." });
  return alarms;
}

export function useAlarms(): { alarms: Alarm[]; error: string | undefined } {
  const training = usePolled<Training>("/v1/training", 10);
  const history = usePolled<{ data: HistorySample[] }>("/v1/history", 30);
  const damaged = usePolled<{ data: unknown[] }>("/v1/images?damaged=true&limit=1000", 60);
  const alarms = useMemo(() => alarmsOf(training.value, history.value?.data.at(-1), damaged.value?.data.length ?? 0), [training.value, history.value, damaged.value]);
  return { alarms, error: training.error };
}

interface Line {
  kind: string;
  text: string;
  at: string;
}

const MAX_LINES = 200;

function describe(kind: string, data: Record<string, unknown>): string | undefined {
  const id = String(data.checkpoint ?? "").slice(-6);
  switch (kind) {
    case "alarm":
      return String(data.message);
    case "promotion":
      return `Checkpoint ${id} serves: ${data.reason}`;
    case "evaluation":
      return `Checkpoint ${id} was judged ${data.verdict}${data.reason ? `: ${data.reason}` : ""}`;
    case "checkpoint":
      return `Checkpoint ${id} is ${data.status}${data.reason ? `: ${data.reason}` : ""}`;
    case "training":
      return `Training: ${data.state}${data.waiting_for ? ` (${data.waiting_for})` : ""}`;
    default:
      return undefined;
  }
}

export function Alarms({ alarms, error }: { alarms: Alarm[]; error: string | undefined }) {
  const [lines, setLines] = useState<Line[]>([]);
  useEffect(() => {
    const abort = new AbortController();
    watch(abort.signal, (kind, data) => {
      const text = describe(kind, data);
      if (text) setLines((before) => [{ kind, text, at: String(data.at) }, ...before].slice(0, MAX_LINES));
    });
    return () => abort.abort();
  }, []);
  return (
    <>
      <h2>Now</h2>
      <Failure message={error} />
      {alarms.length === 0 && !error && <p>Nothing needs you.</p>}
      <ul class="alarms">
        {alarms.map(({ what, remedy }) => (
          <li key={what}>
            <strong>{what}</strong>
            <p>{remedy}</p>
          </li>
        ))}
      </ul>
      <h2>What happened</h2>
      {lines.length === 0 && <p class="hint">Nothing since the server was started.</p>}
      <ol class="events">
        {lines.map((line, at) => (
          <li key={lines.length - at} class={line.kind}>
            <time dateTime={line.at} title={line.at}>
              {ago(line.at)}
            </time>{" "}
            {line.text}
          </li>
        ))}
      </ol>
    </>
  );
}
