// The tab of a DAG: one metric over its last runs, and which metrics left their usual range.

import { airflowUrl, ask, badge, el, link, moment, notes, number } from "./common.js";
import { runPlot, sparkline } from "./plot.js";

const TILES = 12;
// The newest value is unusual if it is this many deviations away from the median of at least so many others.
const UNUSUAL = 4;
const ENOUGH = 4;
const HEADINGS = [
  ["DAG run", null],
  ["Due", "due"],
  ["State", null],
  ["Value", "value"],
  ["Against the run before", "value"],
];

const page = document.getElementById("page");
const { dagId } = page.dataset;

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const half = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};

const percent = (value) => `${value > 0 ? "+" : "−"}${Number(Math.abs(value * 100).toPrecision(3))} %`;

function change(value, from) {
  if (value === from) return "unchanged";
  return from === 0 ? `${value > 0 ? "+" : "−"}${number(Math.abs(value))}` : percent((value - from) / Math.abs(from));
}

// How the newest value of a metric stands against the median of the earlier ones.
function judge(name, dagRuns) {
  const runs = dagRuns.map((run) => {
    const value = run.values[name];
    return { ...run, value: typeof value === "number" ? value : undefined };
  });
  const values = runs.map((run) => run.value).filter((value) => value !== undefined);
  const [last, earlier] = [values.at(-1), values.slice(0, -1)];
  if (!earlier.length) return { name, runs, last, usual: null, distance: 0, unusual: false };
  const usual = median(earlier);
  const spread = 1.4826 * median(earlier.map((value) => Math.abs(value - usual)));
  const distance = Math.abs(last - usual) / Math.max(spread, Math.abs(usual) * 0.01, 1e-12);
  return { name, runs, last, usual, distance, unusual: earlier.length >= ENOUGH && distance > UNUSUAL };
}

function verdict(judged) {
  const others = judged.runs.filter((run) => run.value !== undefined).length - 1;
  if (judged.last === undefined) return "No value yet.";
  if (!others) return `${number(judged.last)} in the only run that has it.`;
  const what = `Newest: ${number(judged.last)}, ${change(judged.last, judged.usual)} against the median `;
  return `${what}${number(judged.usual)} of ${others} earlier run${others > 1 ? "s" : ""}.`;
}

function tile(judged, chosen, choose) {
  const points = judged.runs.map((run, n) => [n, run.value, run.due]).filter((point) => point[1] !== undefined);
  const [task, metric] = judged.name.split(" · ");
  return el(
    "button",
    { type: "button", class: "tile", "aria-pressed": String(chosen), "data-unusual": String(judged.unusual), onclick: choose },
    el("span", { class: "task" }, task),
    el("span", { class: "metric" }, metric),
    el("span", { class: "newest" }, judged.last === undefined ? "–" : number(judged.last)),
    judged.usual === null ? "" : el("span", { class: "change" }, `${judged.unusual ? "⚠ " : ""}${change(judged.last, judged.usual)}`),
    points.length > 1 ? sparkline(judged.name, points) : "",
  );
}

function rows(judged) {
  let before;
  const found = judged.runs.map((run) => {
    const difference = run.value === undefined || before === undefined ? "" : change(run.value, before);
    if (run.value !== undefined) before = run.value;
    const tab = airflowUrl("dags", dagId, "runs", run.run_id, "plugin", "mlflow-run");
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, link(run.run_id, tab, { inside: true })),
      el("td", { class: "due" }, moment(run.due)),
      el("td", {}, badge(run.state)),
      el("td", { class: "value" }, run.value === undefined ? "–" : number(run.value)),
      el("td", { class: "value" }, difference),
    );
  });
  return found.reverse();
}

function show(content) {
  const judged = content.series.map((name) => judge(name, content.dag_runs));
  const isTime = (one) => one.name.endsWith(" · duration (s)");
  judged.sort((a, b) => b.unusual - a.unusual || isTime(a) - isTime(b) || (b.unusual && b.distance - a.distance) || 0);
  const tiles = el("div", { class: "tiles", role: "group", "aria-label": "Metrics" });
  const choice = el(
    "select",
    { id: "metric", onchange: () => choose(choice.value) },
    content.series.map((name) => el("option", { value: name }, name)),
  );
  const sentence = el("p", { class: "verdict", role: "status" });
  const plot = el("div", { class: "plotted" });
  const values = el("tbody");
  let chosen;

  function choose(name) {
    try {
      localStorage.setItem(`mlflow_projects.metric.${dagId}`, name);
    } catch {
      // Then the choice lasts as long as the page.
    }
    draw(name);
  }

  function draw(name) {
    chosen = judged.find((one) => one.name === name) ?? judged[0];
    choice.value = chosen.name;
    const focused = document.activeElement?.classList.contains("tile");
    tiles.replaceChildren(...judged.slice(0, TILES).map((one) => tile(one, one === chosen, () => choose(one.name))));
    if (focused) tiles.querySelector("[aria-pressed=true]")?.focus();
    sentence.textContent = verdict(chosen);
    sentence.dataset.unusual = chosen.unusual;
    paint();
    values.replaceChildren(...rows(chosen));
  }

  function paint() {
    const width = Math.max(280, Math.floor(plot.clientWidth));
    plot.replaceChildren(chosen.last === undefined ? "" : runPlot(chosen, width));
  }

  const unusual = judged.filter((one) => one.unusual).length;
  page.replaceChildren(
    el(
      "p",
      { class: "summary" },
      `The last ${content.dag_runs.length} DAG run${content.dag_runs.length === 1 ? "" : "s"}. `,
      unusual
        ? el("strong", {}, `${unusual} metric${unusual > 1 ? "s" : ""} of the newest run left the usual range.`)
        : "No metric of the newest run left its usual range.",
    ),
    tiles,
    judged.length > TILES ? el("p", { class: "note" }, `${judged.length - TILES} more in the list.`) : "",
    el("p", { class: "chooser" }, el("label", { for: "metric" }, "Metric "), choice),
    sentence,
    plot,
    el(
      "div",
      { class: "scroll" },
      el(
        "table",
        { class: "runs" },
        el("caption", {}, "Newest first"),
        el("thead", {}, el("tr", {}, HEADINGS.map(([name, kind]) => el("th", { scope: "col", class: kind }, name)))),
        values,
      ),
    ),
    ...notes([...content.notes, `Read through the connection ${content.connection}.`]),
  );
  let remembered = null;
  try {
    remembered = localStorage.getItem(`mlflow_projects.metric.${dagId}`);
  } catch {
    // Storage is switched off.
  }
  draw(judged[0].unusual || !remembered ? judged[0].name : remembered);
  new ResizeObserver(paint).observe(plot);
}

async function start() {
  page.replaceChildren(el("p", { class: "summary", role: "status" }, "Asking MLflow …"));
  try {
    const content = await ask("compare.json", {});
    if (content.series.length) show(content);
    else
      page.replaceChildren(
        el("p", { class: "summary" }, content.dag_runs.length ? "The last DAG runs left no MLflow runs." : "This DAG has not run yet."),
        ...notes([...content.notes, `Read through the connection ${content.connection}.`]),
      );
  } catch (refused) {
    page.replaceChildren(
      el("p", { class: "notice", role: "alert" }, refused.message),
      refused.lasting ? "" : el("p", {}, el("button", { type: "button", onclick: start }, "Try again")),
    );
  }
}

start();
