// The tab of a DAG run: its MLflow runs as a tree that follows the work until it has ended.

import { ask, badge, bytes, duration, el, link, moment, notes, number } from "./common.js";
import { sparkline } from "./plot.js";

const POLL_SECONDS = 3;
const TROUBLE_SECONDS = 10;
// A run that never ends although its DAG run did (the janitor will close it) is not watched for ever.
const MORE_POLLS = 20;
const AUTOMATIC_DETAILS = 25;

const page = document.getElementById("page");
const { runId } = page.dataset;
const problem = el("p", { class: "notice", role: "alert", hidden: true });
const summary = el("p", { class: "summary", role: "status" }, "Asking MLflow …");
const results = el("div");
const tree = el("ol", { class: "tree", "aria-label": "MLflow runs of this DAG run" });
page.append(problem, summary, tree, results);

const cards = new Map();
const isOpen = (run) => run.status === "RUNNING" || run.status === "SCHEDULED";

function table(caption, rows, more, kind) {
  if (!rows.length) return null;
  return el(
    "section",
    { class: kind },
    caption ? el("h3", {}, caption) : null,
    el("table", {}, el("tbody", {}, rows)),
    more ? el("p", { class: "note" }, `and ${more} more`) : null,
  );
}

const pair = (key, ...cells) => el("tr", {}, el("th", { scope: "row" }, key), ...cells);

function head(run) {
  const facts = [
    run.attempt ? `attempt ${run.attempt}` : "",
    run.start ? (isOpen(run) ? `since ${duration(Date.now() - run.start)}` : duration((run.end ?? run.start) - run.start)) : "",
    run.start ? `started ${moment(run.start)}` : "",
    run.task && run.task !== run.name ? `task ${run.task}` : "",
  ];
  return el(
    "header",
    {},
    el("h2", {}, run.name),
    badge(run.status),
    run.reused ? badge("reused") : null,
    el("span", { class: "facts" }, facts.filter(Boolean).join(" · ")),
    run.url ? link("Open in MLflow", run.url, { class: "button", "aria-label": `Open ${run.name} in MLflow` }) : null,
  );
}

function body(card) {
  const { run, details } = card;
  const histories = details?.histories ?? {};
  const isPlotted = (key) => (histories[key] ?? []).length > 1;
  const anyPlot = run.metrics.some(([key]) => isPlotted(key));
  const row = ([key, value]) =>
    pair(
      key,
      el("td", { class: "value" }, number(value)),
      anyPlot ? el("td", { class: "plotted" }, isPlotted(key) ? sparkline(key, histories[key]) : null) : null,
    );
  const isOfSystem = ([key]) => key.startsWith("system/");
  const metrics = run.metrics.filter((one) => !isOfSystem(one)).map(row);
  const ofSystem = run.metrics.filter(isOfSystem).map(row);
  const params = run.params.map(([key, value]) => pair(key, el("td", {}, value)));
  const files = (details?.files ?? []).map((file) => pair(file.path, el("td", { class: "value" }, bytes(file.size))));
  return [
    run.reused ? el("p", { class: "note" }, "Nothing ran: this is the result of ", link(`run ${run.reused}`, run.original_url), ".") : null,
    run.reason ? el("p", { class: "reason" }, run.reason, run.cause ? el("span", { class: "cause" }, run.cause) : null) : null,
    run.output ? el("details", { class: "output" }, el("summary", {}, "Last lines of output"), el("pre", {}, run.output)) : null,
    el(
      "div",
      { class: "sections" },
      table("Parameters", params, run.more_params, "params"),
      table("Metrics", metrics, run.more_metrics, "metrics"),
      table("Artifacts", files, 0, "files"),
    ),
    ofSystem.length
      ? el("details", { class: "system" }, el("summary", {}, `System metrics (${ofSystem.length})`), table("", ofSystem, 0, "metrics"))
      : null,
    ...notes(details?.notes ?? []),
    card.problem ? el("p", { class: "note" }, card.problem) : null,
    card.askable ? el("button", { type: "button", onclick: () => load(card) }, "Show plots and files") : null,
  ].filter(Boolean);
}

// Draw only what changed, so that focus and opened parts stay.
function draw(card) {
  const top = JSON.stringify([card.run.name, card.run.status, card.run.attempt, card.run.end]);
  if (top !== card.top) {
    card.top = top;
    card.head = head(card.run);
    card.node.replaceChildren(card.head, card.body);
  } else if (isOpen(card.run)) {
    card.head.querySelector(".facts").replaceWith(head(card.run).querySelector(".facts"));
  }
  const below = JSON.stringify([card.run, card.details, card.problem, card.askable]);
  if (below !== card.below) {
    card.below = below;
    const opened = [...card.body.querySelectorAll("details[open]")].map((part) => part.className);
    card.body.replaceChildren(...body(card));
    for (const part of card.body.querySelectorAll("details")) part.open = opened.includes(part.className);
  }
}

async function load(card) {
  try {
    card.details = await ask("details.json", { run_id: runId, mlflow_run_id: card.run.id });
    card.problem = "";
    card.askable = false;
    card.complete = !isOpen(card.run);
  } catch (refused) {
    card.problem = refused.message;
  }
  draw(card);
}

function arrange(runs) {
  for (const [n, run] of runs.entries()) {
    let card = cards.get(run.id);
    if (!card) {
      card = { node: el("li", { class: "run" }), body: el("div", { class: "body" }), askable: n >= AUTOMATIC_DETAILS };
      cards.set(run.id, card);
    }
    card.node.className = `run depth-${Math.min(run.depth, 6)}`;
    card.node.setAttribute("aria-level", run.depth + 1);
    card.run = run;
    draw(card);
    if (tree.children[n] !== card.node) tree.insertBefore(card.node, tree.children[n] ?? null);
  }
  while (tree.children.length > runs.length) tree.lastChild.remove();
}

function summarize(content) {
  const count = {};
  for (const run of content.runs) count[run.status.toLowerCase()] = (count[run.status.toLowerCase()] ?? 0) + 1;
  const parts = Object.entries(count).map(([status, many]) => `${many} ${status}`);
  const { dag_run: dagRun } = content;
  const time = dagRun.end && dagRun.start ? ` after ${duration(dagRun.end - dagRun.start)}` : "";
  const none = dagRun.ended ? "It has no MLflow runs." : "No MLflow run has been opened yet.";
  summary.replaceChildren(
    "DAG run ",
    badge(dagRun.state),
    `${time}. ${parts.length ? `MLflow runs: ${parts.join(", ")}.` : none}`,
  );
  results.replaceChildren(...notes([...content.notes, `Read through the connection ${content.connection}.`]));
}

function complain(sentence) {
  problem.textContent = sentence;
  problem.hidden = !sentence;
  if (sentence && !cards.size) summary.textContent = "";
}

const pause = (seconds) => new Promise((resume) => setTimeout(resume, seconds * 1000));

async function visible() {
  while (document.hidden) await new Promise((seen) => document.addEventListener("visibilitychange", seen, { once: true }));
}

async function follow() {
  let more = MORE_POLLS;
  for (;;) {
    await visible();
    const asked = Date.now();
    try {
      const content = await ask("run.json", { run_id: runId });
      complain("");
      arrange(content.runs);
      summarize(content);
      for (const card of content.runs.map((run) => cards.get(run.id))) {
        if (!card.askable && !card.complete) await load(card);
      }
      if (content.dag_run.ended && (!content.runs.some(isOpen) || more-- === 0)) return;
      // A slow tracking server is asked less often.
      await pause(Math.max(POLL_SECONDS, (3 * (Date.now() - asked)) / 1000));
    } catch (refused) {
      complain(refused.message);
      if (refused.lasting) return;
      await pause(TROUBLE_SECONDS);
    }
  }
}

follow();
