// The dashboard: login, the views, and which one is shown.
import "uplot/dist/uPlot.min.css";
import "./style.css";
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Alarms, useAlarms } from "./alarms";
import { ApiError, call, hasKey, setKey, whenRefused } from "./api";
import { Checkpoints } from "./checkpoints";
import { MapView } from "./map";
import { Overview } from "./overview";
import { Failure } from "./parts";
import { Playground } from "./playground";

const VIEWS = ["overview", "checkpoints", "playground", "map", "alarms"] as const;
type View = (typeof VIEWS)[number];
const TITLES: Record<View, string> = { overview: "Overview", checkpoints: "Checkpoints", playground: "Playground", map: "Map", alarms: "Alarms" };

function viewOf(hash: string): View {
  return VIEWS.find((view) => hash === `#${view}`) ?? "overview";
}

function App() {
  const [state, setState] = useState<"asking" | "refused" | "open">("asking");
  const [message, setMessage] = useState<string>();
  const enter = async () => {
    try {
      await call("GET", "/v1/models");
      setState("open");
      setMessage(undefined);
    } catch (error) {
      setState("refused");
      if (hasKey() || !(error instanceof ApiError && error.status === 401)) setMessage((error as Error).message);
    }
  };
  useEffect(() => {
    whenRefused(() => setState("refused"));
    enter();
  }, []);
  if (state === "asking") return <p class="loading">Loading…</p>;
  if (state === "refused") return <Login message={message} onKey={enter} />;
  return (
    <Views
      onLeave={() => {
        setKey("");
        setMessage(undefined);
        setState("asking");
        enter();
      }}
    />
  );
}

function Login({ message, onKey }: { message: string | undefined; onKey: () => void }) {
  const [text, setText] = useState("");
  return (
    <main class="login">
      <h1>kith</h1>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          setKey(text);
          onKey();
        }}
      >
        <label>
          API key
          <input type="password" autocomplete="current-password" required value={text} onInput={(event) => setText(event.currentTarget.value)} />
        </label>
        <button type="submit">Enter</button>
        <p class="hint">
          <code>kith key create --data-dir kith-data --name me --scope admin</code> makes one. It stays in this tab, and is gone when you close it.
        </p>
        <Failure message={message} />
      </form>
    </main>
  );
}

function Views({ onLeave }: { onLeave: () => void }) {
  const [view, setView] = useState(viewOf(location.hash));
  const { alarms, error } = useAlarms();
  useEffect(() => {
    const change = () => {
      setView(viewOf(location.hash));
      // A reader of the screen learns where it is.
      document.querySelector<HTMLElement>("main h1")?.focus();
    };
    addEventListener("hashchange", change);
    return () => removeEventListener("hashchange", change);
  }, []);
  useEffect(() => {
    document.title = `${TITLES[view]} · kith`;
  }, [view]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => {
        event.preventDefault();
        document.querySelector<HTMLElement>("main h1")?.focus();
      }}>
        To the content
      </a>
      <header>
        <span class="brand">kith</span>
        <nav aria-label="Views">
          {VIEWS.map((one) => (
            <a key={one} href={`#${one}`} aria-current={one === view ? "page" : undefined}>
              {TITLES[one]}
              {one === "alarms" && alarms.length > 0 && (
                <span class="count" aria-label={`${alarms.length} now`}>
                  {alarms.length}
                </span>
              )}
            </a>
          ))}
        </nav>
        <a href="/docs">Interface</a>
        {hasKey() && (
          <button type="button" class="plain" onClick={onLeave}>
            Leave
          </button>
        )}
      </header>
      <main id="main">
        <h1 tabIndex={-1}>{TITLES[view]}</h1>
        {view === "overview" && <Overview />}
        {view === "checkpoints" && <Checkpoints />}
        {view === "playground" && <Playground />}
        {view === "map" && <MapView />}
        {view === "alarms" && <Alarms alarms={alarms} error={error} />}
      </main>
    </>
  );
}

const place = document.getElementById("app");
if (place) {
  place.replaceChildren();
  render(<App />, place);
}
