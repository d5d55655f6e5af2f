// The stored images in two dimensions: nearer means more alike to the checkpoint.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { call } from "./api";
import { dataUri } from "./files";
import type { FromFrame, ToFrame } from "./frame";
import { useDark, usePolled, useTask } from "./hooks";
import { Failure, Thumbnail } from "./parts";
import type { Change, Checkpoint, ImageMap, SearchAnswer } from "./types";
import { ago, number, percent, short } from "./words";

// Most images that are listed beside the map.
const MAX_LISTED = 60;
const K = 20;
// Distinguishable with every common kind of colour vision (Okabe and Ito); what is in no group, or in a later one, is grey.
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a000"];
const GREY = { light: "#767676", dark: "#a0a0a0" };

export function MapView() {
  const checkpoints = usePolled<{ data: Checkpoint[] }>("/v1/checkpoints", 20);
  const [chosen, setChosen] = useState("");
  const [previous, setPrevious] = useState("");
  const query = chosen ? `?checkpoint=${chosen}` : "";
  const [pace, setPace] = useState(3);
  const polled = usePolled<ImageMap>(`/v1/map${query}`, pace);
  const shown = useRef<ImageMap | undefined>(undefined);
  // The same map is drawn once, however often it is asked for.
  if (polled.value?.state === "ready" && !same(polled.value, shown.current)) shown.current = polled.value;
  const map = shown.current;
  useEffect(() => setPace(polled.value?.state === "ready" ? 60 : 3), [polled.value?.state]);
  const [over, setOver] = useState<number>();
  const [selected, setSelected] = useState<string[]>([]);
  const [lasso, setLasso] = useState(false);
  const [failed, setFailed] = useState<string>();
  const search = useTask();
  const changes = usePolled<{ data: Change[] }>(previous && chosen && previous !== chosen ? `/v1/map/changes?from=${previous}&to=${chosen}` : null, 600);
  const choices = checkpoints.value?.data.filter((one) => one.status === "complete") ?? [];

  const find = (file: File | undefined) => {
    if (!file) return;
    // What was found for another image is not shown beside this one.
    setSelected([]);
    search.run(async () => {
      const image = await dataUri(file);
      const answer = await call<SearchAnswer>("POST", "/v1/search", { image, k: K, ...(chosen && { checkpoint: chosen }) });
      setSelected(answer.data.map((one) => one.id));
    });
  };
  const hovered = over === undefined ? undefined : map?.ids[over];
  return (
    <>
      <div class="row">
        <label>
          Checkpoint{" "}
          <select
            value={chosen}
            onChange={(event) => {
              setPrevious(chosen || (map?.checkpoint ?? ""));
              setChosen(event.currentTarget.value);
            }}
          >
            <option value="">the one that answers searches</option>
            {choices.map((one) => (
              <option key={one.id} value={one.id}>
                {`${short(one.id)}, step ${number(one.step, 12)}, ${ago(one.created_at)}${one.role === "live" ? ", live" : ""}`}
              </option>
            ))}
          </select>
        </label>
        <button type="button" class="plain" aria-pressed={lasso} onClick={() => setLasso(!lasso)}>
          Lasso
        </button>
        <label>
          Find an image <input type="file" accept="image/*" onChange={(event) => find(event.currentTarget.files?.[0])} />
        </label>
      </div>
      <Failure message={polled.error ?? search.error ?? failed} />
      {polled.value?.state === "computing" && (
        <p role="status">
          The map is being made: {percent(polled.value.progress)}. <progress value={polled.value.progress} aria-label="Progress of the map" />
        </p>
      )}
      {map && map.ids.length === 0 && <p>No images are stored yet.</p>}
      <div class="map">
        <Frame map={map} selected={selected} lasso={lasso} onOver={setOver} onSelect={setSelected} onFailed={setFailed} />
        {hovered && (
          <div class="hovered" aria-live="polite">
            <Thumbnail id={hovered} alt={`Stored image ${hovered.slice(0, 8)}`} />
            {groupName(map, over)}
          </div>
        )}
      </div>
      <Legend map={map} />
      <section>
        <h2>{selected.length ? `${number(selected.length, 9)} chosen` : "Chosen"}</h2>
        {selected.length === 0 && <p class="hint">Draw a lasso, click a point, or find an image.</p>}
        <Images ids={selected} />
      </section>
      {(changes.value || changes.error) && (
        <section>
          <h2>
            Changed most from {short(previous)} to {short(chosen)}
          </h2>
          <Failure message={changes.error} />
          <Images ids={changes.value?.data.map((one) => one.id) ?? []} hint={(at) => `${percent(changes.value?.data[at]?.shared)} the same`} />
        </section>
      )}
    </>
  );
}

function same(map: ImageMap, before: ImageMap | undefined): boolean {
  return map.checkpoint === before?.checkpoint && map.ids.length === before.ids.length && map.ids.every((id, at) => id === before.ids[at] && map.x[at] === before.x[at] && map.group[at] === before.group[at]);
}

function groupName(map: ImageMap | undefined, at: number | undefined): string {
  const group = at === undefined ? undefined : map?.group[at];
  return group === undefined || group < 0 ? "" : (map?.groups[group] ?? "");
}

function Images({ ids, hint }: { ids: string[]; hint?: (at: number) => string }) {
  return (
    <ol class="found">
      {ids.slice(0, MAX_LISTED).map((id, at) => (
        <li key={id}>
          <span class="card">
            <Thumbnail id={id} alt={`Stored image ${id.slice(0, 8)}`} />
            {hint && <span class="hint">{hint(at)}</span>}
          </span>
        </li>
      ))}
    </ol>
  );
}

// The largest groups have a colour each.
function coloured(map: ImageMap): number[] {
  const sizes = new Map<number, number>();
  for (const group of map.group) if (group >= 0) sizes.set(group, (sizes.get(group) ?? 0) + 1);
  return [...sizes]
    .toSorted((a, b) => b[1] - a[1])
    .slice(0, COLOURS.length)
    .map(([group]) => group);
}

function Legend({ map }: { map: ImageMap | undefined }) {
  const groups = useMemo(() => (map ? coloured(map) : []), [map]);
  if (!groups.length) return null;
  return (
    <ul class="legend" aria-label="Colours of the groups">
      {groups.map((group, at) => (
        <li key={group}>
          <svg width="12" height="12" aria-hidden="true">
            <circle cx="6" cy="6" r="5" fill={COLOURS[at]} />
          </svg>{" "}
          {map?.groups[group]}
        </li>
      ))}
    </ul>
  );
}

interface FrameProps {
  map: ImageMap | undefined;
  selected: string[];
  lasso: boolean;
  onOver: (point: number | undefined) => void;
  onSelect: (ids: string[]) => void;
  onFailed: (message: string) => void;
}

function Frame({ map, selected, lasso, onOver, onSelect, onFailed }: FrameProps) {
  const frame = useRef<HTMLIFrameElement>(null);
  const [ready, setReady] = useState(false);
  // The points in the order in which the frame has them.
  const order = useRef<string[]>([]);
  const places = useRef(new Map<string, number>());
  const dark = useDark();
  const tell = (message: ToFrame) => frame.current?.contentWindow?.postMessage(message, "*");
  useEffect(() => {
    const hear = (event: MessageEvent<FromFrame>) => {
      // The frame's origin is opaque: it is known by its window.
      if (event.source !== frame.current?.contentWindow) return;
      const message = event.data;
      if (message.type === "ready") setReady(true);
      else if (message.type === "over") onOver(current.current?.places.get(order.current[message.point] ?? ""));
      else if (message.type === "out") onOver(undefined);
      else if (message.type === "select") onSelect(message.points.flatMap((point) => order.current[point] ?? []));
      else onFailed(`The map cannot be drawn here: ${message.message}`);
    };
    addEventListener("message", hear);
    return () => removeEventListener("message", hear);
  }, []);
  const current = useRef<{ places: Map<string, number> } | undefined>(undefined);
  useEffect(() => {
    if (!ready || !map) return;
    const at = new Map(map.ids.map((id, place) => [id, place]));
    current.current = { places: at };
    // Points that were there keep their place, so that each moves to where it is now.
    const kept = order.current.filter((id) => at.has(id));
    const known = new Set(kept);
    const ids = [...kept, ...map.ids.filter((id) => !known.has(id))];
    const animate = order.current.length > 0 && kept.length === order.current.length && ids.length === kept.length;
    order.current = ids;
    places.current = new Map(ids.map((id, place) => [id, place]));
    const colours = coloured(map);
    const of = (values: number[]) => ids.map((id) => values[at.get(id) ?? 0] ?? 0);
    const colour = of(map.group).map((group) => {
      const found = colours.indexOf(group);
      return found < 0 ? COLOURS.length : found;
    });
    tell({ type: "points", x: of(map.x), y: of(map.y), colour, colours: [...COLOURS, GREY[dark ? "dark" : "light"]], animate });
  }, [ready, map, dark]);
  useEffect(() => tell({ type: "select", points: selected.flatMap((id) => places.current.get(id) ?? []) }), [selected]);
  useEffect(() => tell({ type: "lasso", on: lasso }), [lasso, ready]);
  return <iframe ref={frame} src="/dashboard/map" sandbox="allow-scripts" title="Map of the stored images" />;
}
