// Calls of the interface with the caller's key, which lives as long as the tab.

const STORED_KEY = "kith-key";
let key = sessionStorage.getItem(STORED_KEY) ?? "";
let onRefused: () => void = () => {};

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

export function setKey(text: string) {
  key = text.trim();
  if (key) sessionStorage.setItem(STORED_KEY, key);
  else sessionStorage.removeItem(STORED_KEY);
}

export function hasKey(): boolean {
  return key !== "";
}

// Called when the server wants a key, or another one.
export function whenRefused(then: () => void) {
  onRefused = then;
}

async function ask(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = {};
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer: Response;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "unreachable", "The server does not answer. Is it running?");
  }
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({ error: {} }));
  if (answer.status === 401) onRefused();
  throw new ApiError(answer.status, error?.code ?? "", error?.message ?? `The server answered ${answer.status}.`);
}

export async function call<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const answer = await ask(method, path, body, signal);
  return (answer.status === 204 ? undefined : await answer.json()) as T;
}

// The image's address for an <img>. Images need the key, which an <img> cannot send.
const thumbnails = new Map<string, Promise<string>>();
const MAX_THUMBNAILS = 500;

export function thumbnail(id: string): Promise<string> {
  let found = thumbnails.get(id);
  if (!found) {
    found = ask("GET", `/v1/images/${id}/thumbnail`)
      .then((answer) => answer.blob())
      .then((blob) => URL.createObjectURL(blob));
    found.catch(() => thumbnails.delete(id));
    thumbnails.set(id, found);
    const oldest = thumbnails.keys().next().value;
    if (thumbnails.size > MAX_THUMBNAILS && oldest !== undefined) {
      thumbnails.get(oldest)?.then(URL.revokeObjectURL, () => {});
      thumbnails.delete(oldest);
    }
  }
  return found;
}

// Server-sent events, read by fetch: an EventSource cannot send the key. Begins anew after a break, until `signal` aborts.
export async function watch(signal: AbortSignal, then: (kind: string, data: Record<string, unknown>) => void) {
  let last = "";
  for (let wait = 1000; !signal.aborted; wait = Math.min(2 * wait, 30_000)) {
    try {
      const headers: Record<string, string> = {};
      if (key) headers.authorization = `Bearer ${key}`;
      // From the oldest event that is kept.
      headers["last-event-id"] = last || "0-0";
      const answer = await fetch("/v1/events", { headers, signal });
      if (!answer.ok || !answer.body) throw new Error(String(answer.status));
      wait = 1000;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
        const parts = text.split("\n\n");
        text = parts.pop() ?? "";
        for (const part of parts) {
          const fields = new Map(part.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]));
          last = fields.get("id") ?? last;
          const kind = fields.get("event");
          if (kind) then(kind, JSON.parse(fields.get("data") ?? "{}"));
        }
      }
    } catch {
      // Polling goes on meanwhile.
    }
    await new Promise((done) => setTimeout(done, wait));
  }
}
