// One series over time or steps, by uPlot, with the same figures as a table for those who do not see it.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { useDark } from "./hooks";
import { number } from "./words";

export interface Line {
  name: string;
  values: (number | null)[];
  // Half the height of the error bars.
  errors?: (number | null)[];
}

export interface ChartProps {
  title: string;
  x: number[];
  // Whether `x` is in seconds since 1970; else it counts steps.
  time: boolean;
  lines: Line[];
  show?: (value: number) => string;
  points?: boolean;
}

const COLOURS = { light: ["#2f5fc4", "#b04a12", "#2b7a3d"], dark: ["#8fb2ff", "#ffab7a", "#86d79a"] };
const HEIGHT = 170;

export function Chart({ title, x, time, lines, show = (value) => number(value), points = false }: ChartProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const dark = useDark();
  const data = [x, ...lines.map((line) => line.values)] as uPlot.AlignedData;
  const shape = JSON.stringify([lines.map((line) => line.name), time, dark, x.length === 0]);
  useEffect(() => {
    const element = place.current;
    if (!element || x.length === 0) return;
    const style = getComputedStyle(element);
    const [ink, grid] = [style.getPropertyValue("--ink"), style.getPropertyValue("--line")];
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font: "12px system-ui, sans-serif" };
    const colours = COLOURS[dark ? "dark" : "light"];
    plot.current = new uPlot(
      {
        width: element.clientWidth,
        height: HEIGHT,
        scales: { x: { time }, y: { range: (_, low, high) => padded(lines, low, high) } },
        cursor: { y: false, drag: { x: true, y: false } },
        legend: { live: true },
        axes: [axis, { ...axis, size: (_, labels) => labelWidth(labels), values: (_, ticks) => ticks.map(show) }],
        series: [
          time ? {} : { label: "step" },
          ...lines.map((line, at) => ({
            label: line.name,
            stroke: colours[at % colours.length],
            width: 1.5,
            spanGaps: true,
            points: { show: points, size: 5 },
            value: (_: uPlot, value: number | null) => (value === null || value === undefined ? "–" : show(value)),
          })),
        ],
        hooks: { draw: [(drawn) => drawErrors(drawn, lines, colours)] },
      },
      data,
      element,
    );
    const resize = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT }));
    resize.observe(element);
    return () => {
      resize.disconnect();
      plot.current?.destroy();
      plot.current = undefined;
    };
  }, [shape]);
  useEffect(() => plot.current?.setData(data), [x, lines]);
  const last = lines.map((line) => `${line.name} ${latest(line, show)}`).join(", ");
  return (
    <figure class="chart">
      <figcaption>{title}</figcaption>
      {x.length === 0 ? <p class="hint">Nothing yet.</p> : <div ref={place} role="img" aria-label={`${title}; latest: ${last}`} />}
    </figure>
  );
}

function latest(line: Line, show: (value: number) => string): string {
  const value = line.values.findLast((one) => one !== null && one !== undefined);
  return value === null || value === undefined ? "not known" : show(value);
}

// Pixels for the longest label beside its tick, at some 7 a letter.
function labelWidth(labels: string[] | null): number {
  return 22 + 7 * Math.max(5, ...(labels ?? []).map((label) => label.length));
}

// Room for the error bars, and a little above and below all: enough that ticks of three digits differ.
function padded(lines: Line[], low: number | null, high: number | null): [number, number] {
  let [from, to] = [low ?? 0, high ?? 1];
  for (const line of lines) {
    for (const [row, error] of (line.errors ?? []).entries()) {
      const value = line.values[row];
      if (value === null || value === undefined || error === null) continue;
      [from, to] = [Math.min(from, value - error), Math.max(to, value + error)];
    }
  }
  const room = Math.max((to - from) * 0.08, Math.abs(from) * 0.02, Math.abs(to) * 0.02) || 1;
  return [from >= 0 ? Math.max(0, from - room) : from - room, to + room];
}

function drawErrors(plot: uPlot, lines: Line[], colours: string[]) {
  const { ctx } = plot;
  for (const [at, line] of lines.entries()) {
    if (!line.errors) continue;
    ctx.save();
    ctx.strokeStyle = colours[at % colours.length] ?? "";
    ctx.lineWidth = devicePixelRatio;
    ctx.beginPath();
    for (const [row, error] of line.errors.entries()) {
      const [x, value] = [plot.data[0][row], line.values[row]];
      if (x === undefined || value === null || value === undefined || error === null) continue;
      const across = plot.valToPos(x, "x", true);
      ctx.moveTo(across, plot.valToPos(value - error, "y", true));
      ctx.lineTo(across, plot.valToPos(value + error, "y", true));
    }
    ctx.stroke();
    ctx.restore();
  }
}
