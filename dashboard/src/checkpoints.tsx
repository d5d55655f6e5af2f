// The checkpoints, and what an administrator may do with them.
import { useState } from "preact/hooks";
import { call } from "./api";
import { usePolled, useTask } from "./hooks";
import { Failure, Question } from "./parts";
import type { Checkpoint, Training } from "./types";
import { ago, bytes, number, recall, short, standardError } from "./words";

const COLUMNS = ["Checkpoint", "Step", "Taken", "Recall@1", "Verdict", "Size", "Note", "Acts"];

export function Checkpoints() {
  const list = usePolled<{ data: Checkpoint[] }>("/v1/checkpoints", 5);
  const training = usePolled<Training>("/v1/training", 5);
  const task = useTask();
  const [asked, setAsked] = useState<{ act: "delete" | "promote"; of: Checkpoint }>();
  const [note, setNote] = useState<{ of: string; text: string }>();
  const act = (what: string, method: string, path: string, body?: unknown) =>
    task.run(async () => {
      await call(method, path, body);
      setAsked(undefined);
      setNote(undefined);
      list.reload();
      training.reload();
      return what;
    });
  const live = list.value?.data.find((one) => one.role === "live");
  const confirm = () => {
    if (!asked) return;
    const { of } = asked;
    if (asked.act === "delete") act(`Checkpoint ${short(of.id)} is deleted.`, "DELETE", `/v1/checkpoints/${of.id}`);
    else act(`Checkpoint ${short(of.id)} serves.`, "POST", `/v1/checkpoints/${of.id}/promote`, {});
  };
  return (
    <>
      <p class="row">
        <button type="button" disabled={task.busy} onClick={() => act("A snapshot is being written.", "POST", "/v1/checkpoints", {})}>
          Take a snapshot
        </button>
        {training.value?.checkpoint.held && (
          <button type="button" class="plain" disabled={task.busy} onClick={() => act("The gate chooses again.", "POST", "/v1/checkpoints/auto")}>
            Give the choice back to the gate
          </button>
        )}
      </p>
      <Failure message={task.error ?? list.error} />
      <p role="status">{task.done ?? ""}</p>
      {/* It may scroll on a tablet, so the keyboard must reach it. On a phone each row is a card; roles say that it is a table all the same. */}
      <div class="scroll stacked" tabIndex={0} role="region" aria-label="Checkpoints">
        <table role="table">
          <thead role="rowgroup">
            <tr role="row">
              {COLUMNS.map((name) => (
                <th scope="col" role="columnheader" key={name}>
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody role="rowgroup">
            {list.value?.data.map((one) => (
              <tr role="row" key={one.id} class={one.role}>
                <th scope="row" role="rowheader" title={one.id}>
                  {short(one.id)} <Badges of={one} />
                </th>
                <td role="cell" data-name="Step">{number(one.step, 12)}</td>
                <td role="cell" data-name="Taken" title={one.created_at}>{ago(one.created_at)}</td>
                <td role="cell" data-name="Recall@1">{one.evaluation?.pairs ? `${number(recall(one.evaluation), 3)} ± ${number(standardError(one.evaluation), 2)}` : "–"}</td>
                <td role="cell" data-name="Verdict" title={one.reason ?? undefined}>{one.verdict ?? one.reason ?? "–"}</td>
                <td role="cell" data-name="Size">{bytes(one.bytes)}</td>
                <td role="cell" data-name="Note">
                  {note?.of === one.id ? (
                    <form
                      class="row"
                      onSubmit={(event) => {
                        event.preventDefault();
                        act("The note is kept.", "PATCH", `/v1/checkpoints/${one.id}`, { note: note.text });
                      }}
                    >
                      <input aria-label={`Note of checkpoint ${short(one.id)}`} maxLength={4096} value={note.text} onInput={(event) => setNote({ of: one.id, text: event.currentTarget.value })} />
                      <button type="submit">Keep</button>
                    </form>
                  ) : (
                    (one.note ?? "")
                  )}
                </td>
                <td role="cell">
                  <Acts one={one} live={live} busy={task.busy} onAsk={setAsked} onNote={() => setNote({ of: one.id, text: one.note ?? "" })} onPin={() => act(one.keep ? "Retention may prune it." : "Retention leaves it.", "PATCH", `/v1/checkpoints/${one.id}`, { keep: !one.keep })} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {asked && (
        <Question
          title={asked.act === "delete" ? `Delete checkpoint ${short(asked.of.id)}?` : `${rolledBack(asked.of, live) ? "Roll back to" : "Promote"} checkpoint ${short(asked.of.id)}?`}
          confirm={asked.act === "delete" ? "Delete it" : rolledBack(asked.of, live) ? "Roll back" : "Promote it"}
          busy={task.busy}
          onConfirm={confirm}
          onCancel={() => setAsked(undefined)}
        >
          {asked.act === "delete" ? (
            <p>It is the state of step {number(asked.of.step, 12)}, {bytes(asked.of.bytes)}. It cannot be brought back.</p>
          ) : (
            <p>All requests are answered by it from now on, and it stays until you choose another or give the choice back to the gate. Vectors of other checkpoints cannot be compared with its own.</p>
          )}
        </Question>
      )}
    </>
  );
}

function rolledBack(one: Checkpoint, live: Checkpoint | undefined): boolean {
  return live !== undefined && one.created_at < live.created_at;
}

function Badges({ of }: { of: Checkpoint }) {
  const badges = [of.role === "live" && (of.held ? "live, held" : "live"), of.status !== "complete" && of.status, of.keep && "pinned"];
  return (
    <>
      {badges.filter(Boolean).map((text) => (
        <span class="badge" key={String(text)}>
          {text}
        </span>
      ))}
    </>
  );
}

interface ActsProps {
  one: Checkpoint;
  live: Checkpoint | undefined;
  busy: boolean;
  onAsk: (asked: { act: "delete" | "promote"; of: Checkpoint }) => void;
  onNote: () => void;
  onPin: () => void;
}

function Acts({ one, live, busy, onAsk, onNote, onPin }: ActsProps) {
  const name = short(one.id);
  const complete = one.status === "complete";
  return (
    <span class="row acts">
      {complete && one.role !== "live" && (
        <button type="button" class="plain" disabled={busy} aria-label={`${rolledBack(one, live) ? "Roll back to" : "Promote"} ${name}`} onClick={() => onAsk({ act: "promote", of: one })}>
          {rolledBack(one, live) ? "Roll back" : "Promote"}
        </button>
      )}
      {complete && (
        <button type="button" class="plain" disabled={busy} aria-pressed={one.keep} aria-label={`${one.keep ? "Unpin" : "Pin"} ${name}`} onClick={onPin}>
          {one.keep ? "Unpin" : "Pin"}
        </button>
      )}
      <button type="button" class="plain" disabled={busy} aria-label={`Note of ${name}`} onClick={onNote}>
        Note
      </button>
      {one.role !== "live" && (
        <button type="button" class="plain" disabled={busy} aria-label={`Delete ${name}`} onClick={() => onAsk({ act: "delete", of: one })}>
          Delete
        </button>
      )}
    </span>
  );
}
