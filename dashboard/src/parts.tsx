// Small parts of several views.
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { useThumbnail } from "./hooks";

export function Failure({ message }: { message: string | undefined }) {
  return message ? (
    <p class="failure" role="alert">
      {message}
    </p>
  ) : null;
}

export function Figure({ name, value, hint }: { name: string; value: string; hint?: string }) {
  return (
    <div class="figure">
      <dt>{name}</dt>
      <dd>{value}</dd>
      {hint && <dd class="hint">{hint}</dd>}
    </div>
  );
}

export function Thumbnail({ id, alt }: { id: string; alt: string }) {
  const { url, failed } = useThumbnail(id);
  if (failed) return <span class="thumbnail missing" role="img" aria-label={`${alt} (it cannot be shown)`} />;
  return url ? <img class="thumbnail" src={url} alt={alt} /> : <span class="thumbnail" role="img" aria-label={alt} />;
}

// Asks before something that cannot be undone.
export function Question(props: { title: string; children: ComponentChildren; confirm: string; busy: boolean; onConfirm: () => void; onCancel: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  return (
    <dialog ref={dialog} aria-labelledby="question" onCancel={props.onCancel}>
      <h2 id="question">{props.title}</h2>
      {props.children}
      <p class="row">
        <button type="button" class="plain" onClick={props.onCancel}>
          Cancel
        </button>
        <button type="button" class="danger" disabled={props.busy} onClick={props.onConfirm}>
          {props.confirm}
        </button>
      </p>
    </dialog>
  );
}
