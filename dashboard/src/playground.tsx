// The nearest stored images of any image, under the live checkpoint and an older one side by side; and posting a pair.
import { useEffect, useRef, useState } from "preact/hooks";
import { call } from "./api";
import { dataUri } from "./files";
import { usePolled, useTask } from "./hooks";
import { Failure, Thumbnail } from "./parts";
import type { Checkpoint, Found, SearchAnswer } from "./types";
import { ago, number, percent, recall, short } from "./words";

const K = 12;
// How long until a checkpoint that is being embedded is asked again.
const AGAIN_MS = 2000;

interface Picture {
  name: string;
  uri: string;
}

interface Answers {
  // What they are the answers to.
  picture?: Picture;
  live?: SearchAnswer;
  other?: SearchAnswer;
  // Why the other checkpoint has no answer.
  failed?: { checkpoint: string; message: string };
}

export function Playground() {
  const checkpoints = usePolled<{ data: Checkpoint[] }>("/v1/checkpoints", 20);
  const [picture, setPicture] = useState<Picture>();
  const [other, setOther] = useState("");
  const [answers, setAnswers] = useState<Answers>({});
  const [partner, setPartner] = useState<string>();
  const [group, setGroup] = useState("");
  const [over, setOver] = useState(false);
  const load = useTask();
  const search = useTask();
  const post = useTask();
  const input = useRef<HTMLInputElement>(null);

  const take = (file: File | undefined) => {
    if (!file) return;
    load.run(async () => {
      setPicture({ name: file.name, uri: await dataUri(file) });
      setPartner(undefined);
    });
  };
  useEffect(() => {
    const paste = (event: ClipboardEvent) => take([...(event.clipboardData?.files ?? [])].find((file) => file.type.startsWith("image/")));
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  }, []);
  useEffect(() => {
    if (!picture) return;
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const look = () =>
      search.run(async () => {
        const ask = (checkpoint?: string) => call<SearchAnswer>("POST", "/v1/search", { image: picture.uri, k: K, ...(checkpoint && { checkpoint }) }, abort.signal);
        // If it fails under the other checkpoint, the live one's answer is shown all the same.
        const [live, compared] = await Promise.all([ask(), other ? ask(other).catch((error: unknown) => error as Error) : undefined]);
        if (abort.signal.aborted) return;
        const older = compared instanceof Error ? undefined : compared;
        setAnswers({ picture, live, other: older, ...(compared instanceof Error && { failed: { checkpoint: other, message: compared.message } }) });
        if (live.next || live.indexed_share < 1 || (older && older.indexed_share < 1)) timer = setTimeout(look, AGAIN_MS);
      });
    look();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [picture, other]);

  const send = () =>
    post.run(async () => {
      if (!picture || !partner) return;
      const pair = { anchor: { image: picture.uri }, positive: { id: partner }, ...(group && { group }) };
      const { data } = await call<{ data: { duplicate: boolean }[] }>("POST", "/v1/pairs", { pairs: [pair] });
      setPartner(undefined);
      return data[0]?.duplicate ? "This pair was there already." : "The pair is stored, and training draws from it.";
    });
  const choices = checkpoints.value?.data.filter((one) => one.status === "complete" && one.role !== "live") ?? [];
  // What was found for another image is not shown beside this one.
  const shown = picture && answers.picture === picture && !search.error ? answers : {};
  return (
    <>
      <div
        class={`drop${over ? " over" : ""}`}
        onDragOver={(event) => {
          event.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        onDrop={(event) => {
          event.preventDefault();
          setOver(false);
          take(event.dataTransfer?.files[0]);
        }}
      >
        {picture && <img class="thumbnail large" src={picture.uri} alt={`The image that is searched for, ${picture.name}`} />}
        <div>
          <p>Drop an image here, paste one, or choose a file.</p>
          <input ref={input} id="file" type="file" accept="image/*" aria-label="Image to search for" onChange={(event) => take(event.currentTarget.files?.[0])} />
        </div>
        <label>
          Compare with{" "}
          <select value={other} onChange={(event) => setOther(event.currentTarget.value)}>
            <option value="">no other checkpoint</option>
            {choices.map((one) => (
              <option key={one.id} value={one.id}>
                {`${short(one.id)}, step ${number(one.step, 12)}, ${ago(one.created_at)}${one.evaluation?.pairs ? `, recall@1 ${number(recall(one.evaluation), 2)}` : ""}`}
              </option>
            ))}
          </select>
        </label>
      </div>
      <Failure message={load.error ?? search.error ?? checkpoints.error} />
      <div class="sides" aria-busy={search.busy}>
        {shown.live && <Side title="Live" answer={shown.live} before={shown.other?.data} partner={partner} onChoose={setPartner} />}
        {shown.other && <Side title={`Checkpoint ${short(shown.other.model)}`} answer={shown.other} before={shown.live?.data} partner={partner} onChoose={setPartner} />}
        {shown.failed && (
          <section>
            <h2>Checkpoint {short(shown.failed.checkpoint)}</h2>
            <Failure message={`This checkpoint was not searched: ${shown.failed.message}`} />
          </section>
        )}
      </div>
      {shown.live && (
        <form
          class="row"
          onSubmit={(event) => {
            event.preventDefault();
            send();
          }}
        >
          <label>
            Group (optional) <input value={group} maxLength={256} onInput={(event) => setGroup(event.currentTarget.value)} />
          </label>
          <button type="submit" disabled={!partner || post.busy}>
            Post as a pair with the chosen image
          </button>
          {!partner && <span class="hint">Choose an image above that belongs with yours.</span>}
        </form>
      )}
      <Failure message={post.error} />
      <p role="status">{post.done ?? ""}</p>
    </>
  );
}

// How an image moved between two lists, in words; nothing where there is only one list.
export function moved(id: string, at: number, before: Found[] | undefined): string {
  if (!before) return "";
  const was = before.findIndex((one) => one.id === id);
  if (was < 0) return "only here";
  if (was === at) return "";
  return was > at ? `${was - at} higher` : `${at - was} lower`;
}

interface SideProps {
  title: string;
  answer: SearchAnswer;
  before: Found[] | undefined;
  partner: string | undefined;
  onChoose: (id: string) => void;
}

function Side({ title, answer, before, partner, onChoose }: SideProps) {
  const { indexed_share: share, next } = answer;
  return (
    <section>
      <h2>
        {title} <small>{short(answer.model)}</small>
      </h2>
      {share < 1 && <p class="hint">{percent(share)} of the stored images are embedded under it so far.</p>}
      {next && <p class="hint">The live checkpoint {short(next.model)} takes over when all images are embedded under it: {percent(next.indexed_share)} are.</p>}
      {answer.data.length === 0 && share === 1 && <p>No images are stored yet. Post some, or pairs.</p>}
      <ol class="found">
        {answer.data.map((one, at) => {
          const change = moved(one.id, at, before);
          return (
            <li key={one.id}>
              <button type="button" class={change ? "changed" : ""} aria-pressed={partner === one.id} onClick={() => onChoose(one.id)}>
                <Thumbnail id={one.id} alt={`Stored image ${one.id.slice(0, 8)}`} />
                <span>{number(one.score)}</span>
                {one.group && <span class="hint">{one.group}</span>}
                {change && <span class="change">{change}</span>}
              </button>
            </li>
          );
        })}
      </ol>
    </section>
  );
}
