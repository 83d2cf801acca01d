// The progress page: the log as it comes, with terminal colours, and the steps with their times. The stream is taken up where it
// broke off (`Last-Event-ID`), so nothing is missing or there twice.
"use strict";
const log = document.getElementById("log");
const steps = document.getElementById("steps");
const follow = document.getElementById("follow");
const trouble = document.getElementById("trouble");
const outcome = () => document.getElementById("outcome");
log.parentElement.hidden = false;
const LINES_PER_BLOCK = 200;
const BUDGET_MS = 8;

// --- terminal text: "select graphic rendition" is shown, every other control sequence is left out (ECMA-48) ---
const style = { on: new Set(), fore: "" };
const rendition = (parameters) => {
  const codes = parameters === "" ? [0] : parameters.split(/[;:]/).map(Number);
  for (let i = 0; i < codes.length; i += 1) {
    const code = codes[i];
    if (code === 0) { style.on.clear(); style.fore = ""; }
    else if ([1, 2, 3, 4, 7, 9].includes(code)) style.on.add(`a${code}`);
    else if (code === 22) { style.on.delete("a1"); style.on.delete("a2"); }
    else if ([23, 24, 27, 29].includes(code)) style.on.delete(`a${code - 20}`);
    else if (code >= 30 && code <= 37) style.fore = `f${code - 30}`;
    else if (code >= 90 && code <= 97) style.fore = `f${code - 90}`;
    else if (code === 39) style.fore = "";
    else if (code === 38 || code === 48) i += codes[i + 1] === 5 ? 2 : 4;
  }
};
// One sequence, one lone carriage return, or text up to the next of them.
const TOKEN = /\x1b\[([0-?]*)[ -/]*([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]|\r(?!\n)|[\x00-\x08\x0b-\x1f\x7f]|[^\x00-\x08\x0b-\x1f\x7f]+/g;

// Text that waits for its place in the page, so that a long log never holds up the page.
let pending = [], held = "", scheduled = false, block = null, lines = 0;
const put = (text) => {
  if (!block || lines >= LINES_PER_BLOCK) {
    if (block) sizes.unobserve(block);
    block = document.createElement("div");
    log.append(block);
    sizes.observe(block);
    lines = 0;
  }
  const names = [...style.on, style.fore].filter(Boolean);
  if (names.length) {
    const span = document.createElement("span");
    span.className = names.join(" ");
    span.textContent = text;
    block.append(span);
  } else block.append(text);
  for (const c of text) if (c === "\n") lines += 1;
};
const show = (text) => {
  for (const [token, parameters, end] of text.matchAll(TOKEN)) {
    if (end === "m") rendition(parameters);
    else if (token >= " " || token[0] === "\n" || token[0] === "\t") put(token);
    else if (token === "\r") put("\n");
  }
};
let following = true, reached = 0;
const toEnd = () => { log.scrollTop = log.scrollHeight; reached = log.scrollTop; };
// Who scrolls up reads: the end is left alone until it is asked for or reached again.
const notice = () => {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  if (following ? !atEnd && log.scrollTop < reached - 4 : atEnd) following = !following;
  follow.hidden = following;
};
// The end stays in sight when the window or the letters change.
const sizes = new ResizeObserver(() => { notice(); if (following) toEnd(); });
sizes.observe(log);
const work = () => {
  scheduled = false;
  notice();
  const until = performance.now() + BUDGET_MS;
  while (pending.length && performance.now() < until) show(pending.shift());
  if (following) toEnd();
  if (pending.length) schedule();
};
const schedule = () => { if (!scheduled) { scheduled = true; (document.hidden ? setTimeout : requestAnimationFrame)(work); } };
const add = (text) => {
  text = held + text;
  // A sequence may be cut in two by the end of a chunk.
  const cut = text.lastIndexOf("\x1b");
  const whole = cut < 0 || text.length - cut > 64 || /^\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-Z\\^-~])/.test(text.slice(cut));
  held = whole ? "" : text.slice(cut);
  if (!whole) text = text.slice(0, cut);
  // In pieces that fit a frame.
  for (let at = 0; at < text.length;) {
    let end = Math.min(at + 8192, text.length);
    if (end < text.length) {
      const line = text.lastIndexOf("\n", end);
      if (line > at) end = line + 1;
    }
    pending.push(text.slice(at, end));
    at = end;
  }
  schedule();
};
log.addEventListener("scroll", notice);
follow.addEventListener("click", () => { following = true; follow.hidden = true; toEnd(); log.focus(); });

// --- steps ---
const known = [];
let partial = "";
const took = (from, to) => (to - from < 100 ? "< 0.1 s" : `${(Math.floor((to - from) / 100) / 10).toFixed(1)} s`);
const draw = (status, finished) => {
  if (!known.length) return;
  const total = known[0].of;
  steps.replaceChildren(...Array.from({ length: total }, (_, i) => {
    const step = known[i], item = document.createElement("li"), next = known[i + 1];
    if (!step) { item.textContent = i === known.length && !finished ? "…" : ""; item.hidden = !item.textContent || Boolean(finished); return item; }
    const end = next?.at ?? finished;
    item.className = next || status === "success" ? "done" : finished ? "failed" : "now";
    const title = document.createElement("span"), time = document.createElement("span");
    title.textContent = step.title;
    time.className = "took";
    if (end) time.textContent = took(step.at, end);
    else time.dataset.since = step.at;
    item.append(title, time);
    return item;
  }));
};
const look = (text, at) => {
  const all = (partial + text).split("\n");
  partial = all.pop().slice(-500);
  let found = false;
  for (const line of all) {
    const [, number, of, title] = /^\[(\d{1,2})\/(\d{1,2})\] (.+)$/.exec(line) ?? [];
    if (!title || Number(number) !== known.length + 1) continue;
    known.push({ title, of: Number(of), at });
    found = true;
  }
  if (found) draw("running");
};
setInterval(() => {
  for (const time of steps.querySelectorAll("[data-since]")) time.textContent = took(Number(time.dataset.since), Date.now());
}, 500);

// --- the job ---
let ended = false;
const refresh = async () => {
  const page = await pageNow();
  const fresh = page?.getElementById("outcome");
  if (!fresh || fresh.isEqualNode(outcome())) return;
  outcome().replaceWith(fresh);
  document.title = page.title;
  dispatchEvent(new Event("refreshed"));
};
if (log.dataset.typed !== "true") steps.hidden = true;
const source = new EventSource(`/jobs/${log.dataset.job}/stream`);
source.addEventListener("output", (event) => {
  const row = JSON.parse(event.data);
  if (log.dataset.typed === "true") look(row.output, Date.parse(row.createdAt));
  add(row.output);
});
source.addEventListener("state", (event) => {
  const job = JSON.parse(event.data);
  if (job.status !== outcome().dataset.status) refresh();
});
source.addEventListener("end", (event) => {
  const job = JSON.parse(event.data);
  ended = true;
  source.close();
  if (held) { pending.push(held.replaceAll("\x1b", "")); held = ""; schedule(); }
  look("\n", Date.parse(job.finishedAt ?? job.updatedAt));
  draw(job.status, Date.parse(job.finishedAt ?? job.updatedAt));
  trouble.hidden = true;
  if (job.status !== outcome().dataset.status) refresh();
});
source.addEventListener("open", () => { trouble.hidden = true; });
source.addEventListener("error", () => {
  if (ended) return;
  trouble.textContent = source.readyState === EventSource.CLOSED
    ? "The portal does not show this any more; load the page again."
    : "The connection broke off; it is taken up again by itself.";
  trouble.hidden = false;
});
// While it waits its place in the queue changes.
setInterval(() => { if (!ended && outcome().dataset.status === "pending" && !document.hidden) refresh(); }, 3000);
