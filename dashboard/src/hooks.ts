// What the views share: polled answers, and the tasks that a view starts.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ApiError, call, thumbnail } from "./api";

export interface Polled<T> {
  value: T | undefined;
  error: string | undefined;
  reload: () => void;
}

// The answer of GET `path`, asked again every `seconds` while the page is seen. `null`: nothing is asked.
export function usePolled<T>(path: string | null, seconds: number): Polled<T> {
  const [state, setState] = useState<{ path: string | null; value?: T; error?: string }>({ path: null });
  const [round, setRound] = useState(0);
  useEffect(() => {
    if (path === null) return;
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const look = async () => {
      if (!document.hidden) {
        try {
          const value = await call<T>("GET", path, undefined, abort.signal);
          setState({ path, value });
        } catch (error) {
          if (abort.signal.aborted) return;
          setState((before) => ({ path, value: before.path === path ? before.value : undefined, error: String((error as Error).message) }));
          if (error instanceof ApiError && [401, 403, 404, 409].includes(error.status)) return;
        }
      }
      if (!abort.signal.aborted) timer = setTimeout(look, 1000 * seconds);
    };
    look();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [path, seconds, round]);
  const current = state.path === path;
  return { value: current ? state.value : undefined, error: current ? state.error : undefined, reload: useCallback(() => setRound((n) => n + 1), []) };
}

// A task, with what it is doing and its failure. If it is run again, what becomes of the run before does not count.
export function useTask() {
  const [state, setState] = useState<{ busy: boolean; error?: string; done?: string }>({ busy: false });
  const runs = useRef(0);
  const run = useCallback(async (task: () => Promise<string | void>) => {
    const number = ++runs.current;
    const settle = (next: { error?: string; done?: string }) => number === runs.current && setState({ busy: false, ...next });
    setState({ busy: true });
    try {
      const done = await task();
      settle({ done: done ?? undefined });
    } catch (error) {
      settle({ error: String((error as Error).message) });
    }
  }, []);
  return { ...state, run };
}

export function useThumbnail(id: string): { url?: string; failed: boolean } {
  const [state, setState] = useState<{ id: string; url?: string; failed: boolean }>({ id, failed: false });
  const latest = useRef(id);
  latest.current = id;
  useEffect(() => {
    const settle = (next: { url?: string; failed: boolean }) => latest.current === id && setState({ id, ...next });
    thumbnail(id).then((url) => settle({ url, failed: false }), () => settle({ failed: true }));
  }, [id]);
  return state.id === id ? state : { failed: false };
}

export function useDark(): boolean {
  const query = matchMedia("(prefers-color-scheme: dark)");
  const [dark, setDark] = useState(query.matches);
  useEffect(() => {
    const change = () => setDark(query.matches);
    query.addEventListener("change", change);
    return () => query.removeEventListener("change", change);
  }, []);
  return dark;
}
