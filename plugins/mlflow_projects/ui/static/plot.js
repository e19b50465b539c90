// Two small plots, drawn by hand.

import { moment, number, svg } from "./common.js";

function scale(values, low, high) {
  const least = Math.min(...values);
  const most = Math.max(...values);
  const span = most - least;
  return (value) => (span === 0 ? (low + high) / 2 : low + ((value - least) / span) * (high - low));
}

const line = (points) => points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");

// Points are [step, value, milliseconds]; without steps the x axis is time.
export function sparkline(name, points) {
  const width = 132;
  const height = 30;
  const stepped = points[0][0] !== points.at(-1)[0];
  const at = points.map((point) => (stepped ? point[0] : point[2]));
  const values = points.map((point) => point[1]);
  const x = scale(at, 3, width - 4);
  const y = scale(values, height - 4, 4);
  const placed = points.map((point, n) => [x(at[n]), y(point[1])]);
  const words =
    `${name}: ${points.length} points, from ${number(values[0])} to ${number(values.at(-1))}, ` +
    `lowest ${number(Math.min(...values))}, highest ${number(Math.max(...values))}`;
  return svg(
    "svg",
    { class: "sparkline", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": words },
    svg("title", {}, words),
    svg("polyline", { points: line(placed) }),
    svg("circle", { cx: placed.at(-1)[0], cy: placed.at(-1)[1], r: 2.5 }),
  );
}

function ticks(least, most, wanted) {
  const rough = (most - least) / wanted || Math.abs(most) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let n = Math.ceil(least / step - 1e-9); n * step <= most + step * 1e-9; n++) found.push(n * step);
  return found;
}

// One point for each of ``runs``, [{due, state, run_id, value}], with no value where a run has none; a broken line
// where the median of the earlier ones (``usual``) is.
export function runPlot({ name, runs, usual, unusual }, width) {
  const height = 240;
  const [left, right, top, bottom] = [64, 18, 14, 30];
  const values = runs.map((run) => run.value).filter((value) => value !== undefined);
  let least = Math.min(...values, usual ?? Infinity);
  let most = Math.max(...values, usual ?? -Infinity);
  const room = (most - least) * 0.08 || Math.abs(most) * 0.05 || 1;
  least -= room;
  most += room;
  const x = (n) => (runs.length === 1 ? (left + width - right) / 2 : left + (n * (width - left - right)) / (runs.length - 1));
  const y = (value) => height - bottom - ((value - least) / (most - least)) * (height - top - bottom);
  const grid = ticks(least, most, 4).map((value) =>
    svg(
      "g",
      { class: "grid" },
      svg("line", { x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      svg("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, number(value)),
    ),
  );
  const placed = runs.map((run, n) => [run, n]).filter(([run]) => run.value !== undefined);
  const dots = runs.map((run, n) => {
    const words = `${moment(run.due)}, ${run.state}: ${run.value === undefined ? "no value" : number(run.value)}`;
    const newest = n === runs.length - 1;
    const attributes = { "data-status": run.state, class: newest && unusual ? "dot unusual" : "dot" };
    if (run.value === undefined) {
      const at = `M${x(n) - 4},${height - bottom - 8}l8,8m0,-8l-8,8`;
      return svg("path", { ...attributes, d: at }, svg("title", {}, words));
    }
    const r = newest ? 6 : 4;
    return svg("circle", { ...attributes, cx: x(n), cy: y(run.value), r }, svg("title", {}, words));
  });
  const labelled = runs.length < 3 || width < 480 ? [0, runs.length - 1] : [0, Math.floor((runs.length - 1) / 2), runs.length - 1];
  const days = [...new Set(labelled)].map((n) => {
    const anchor = runs.length === 1 ? "middle" : n === 0 ? "start" : n === runs.length - 1 ? "end" : "middle";
    return svg("text", { x: x(n), y: height - 8, "text-anchor": anchor }, moment(runs[n].due));
  });
  return svg(
    "svg",
    { class: "plot", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${name} of the last ${runs.length} DAG runs; the table below holds the values` },
    ...grid,
    usual === null ? null : svg("line", { class: "median", x1: left, x2: width - right, y1: y(usual), y2: y(usual) }),
    svg("polyline", { class: "trend", points: line(placed.map(([run, n]) => [x(n), y(run.value)])) }),
    ...dots,
    ...days,
  );
}
