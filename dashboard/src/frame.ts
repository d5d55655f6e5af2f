// The points of the map, drawn by WebGL in a frame of its own. The library makes code at run time; in this frame that code has no key, no
// network and no access to the page. The page talks to it by messages.
import createScatterplot from "regl-scatterplot";

export type ToFrame =
  | { type: "points"; x: number[]; y: number[]; colour: number[]; colours: string[]; animate: boolean }
  | { type: "select"; points: number[] }
  | { type: "lasso"; on: boolean };
export type FromFrame = { type: "ready" } | { type: "over"; point: number } | { type: "out" } | { type: "select"; points: number[] } | { type: "failed"; message: string };

const MS = 1200;
const STEP = 0.15;
const tell = (message: FromFrame) => parent.postMessage(message, "*");
const dark = matchMedia("(prefers-color-scheme: dark)");
const background = () => (dark.matches ? "#14161a" : "#ffffff");

function begin() {
  const canvas = document.createElement("canvas");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "Map of the stored images. Arrow keys move it, plus and minus change its scale.");
  document.body.append(canvas);
  const plot = createScatterplot({ canvas, width: "auto", height: "auto", pointSize: 4, opacity: 0.8, backgroundColor: background(), lassoColor: "#888888" });
  type Points = Extract<ToFrame, { type: "points" }>;
  let sent: Points | undefined;
  const draw = async (points: Points) => {
    const before = sent;
    sent = points;
    const transition = points.animate && before?.x.length === points.x.length && !matchMedia("(prefers-reduced-motion: reduce)").matches;
    plot.set({ colorBy: "category", pointColor: points.colours, pointSize: points.x.length > 20_000 ? 2 : points.x.length > 2_000 ? 4 : 7 });
    await plot.draw({ x: points.x, y: points.y, category: points.colour }, { transition, transitionDuration: MS, transitionEasing: (t: number) => t * t * (3 - 2 * t) });
  };
  // One at a time: the library drops what comes while it draws. Of several that wait only the newest counts.
  let [drawing, waiting]: [boolean, Points | undefined] = [false, undefined];
  const drawNext = async (points: Points) => {
    waiting = points;
    if (drawing) return;
    drawing = true;
    while (waiting) {
      const next: Points = waiting;
      waiting = undefined;
      await draw(next);
    }
    drawing = false;
  };
  plot.subscribe("pointOver", (point: number) => tell({ type: "over", point }));
  plot.subscribe("pointOut", () => tell({ type: "out" }));
  plot.subscribe("select", ({ points }: { points: number[] }) => tell({ type: "select", points: [...points] }));
  plot.subscribe("deselect", () => tell({ type: "select", points: [] }));
  dark.addEventListener("change", () => plot.set({ backgroundColor: background() }));
  canvas.addEventListener("keydown", (event) => {
    const [x, y] = plot.get("cameraTarget") as [number, number];
    const distance = plot.get("cameraDistance") as number;
    const step = STEP * distance;
    const moves: Record<string, () => object> = {
      ArrowLeft: () => ({ cameraTarget: [x - step, y] }),
      ArrowRight: () => ({ cameraTarget: [x + step, y] }),
      ArrowUp: () => ({ cameraTarget: [x, y + step] }),
      ArrowDown: () => ({ cameraTarget: [x, y - step] }),
      "+": () => ({ cameraDistance: distance / 1.25 }),
      "-": () => ({ cameraDistance: distance * 1.25 }),
    };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    plot.set(move());
  });
  addEventListener("message", (event: MessageEvent<ToFrame>) => {
    if (event.source !== parent) return;
    if (event.data.type === "points") drawNext(event.data);
    else if (event.data.type === "select") plot.select(event.data.points, { preventEvent: true });
    else plot.set({ mouseMode: event.data.on ? "lasso" : "panZoom" });
  });
  tell({ type: "ready" });
}

try {
  begin();
} catch (error) {
  tell({ type: "failed", message: String(error) });
}
