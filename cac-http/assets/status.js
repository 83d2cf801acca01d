// Keeps the log of the progress page live; without script the page is loaded again every few seconds.
"use strict";
const log = document.getElementById("log");
const state = document.getElementById("state");
if (log && log.dataset.ended !== "true") {
  // The page has everything up to `after`; a reader of the whole stream skips what is there already.
  const after = Number(log.dataset.after);
  const source = new EventSource(`/jobs/${log.dataset.job}/stream`);
  source.addEventListener("output", (event) => {
    if (Number(event.lastEventId) <= after) return;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.append(JSON.parse(event.data).output);
    if (atEnd) log.scrollTop = log.scrollHeight;
  });
  source.addEventListener("state", (event) => { state.textContent = JSON.parse(event.data).status; });
  source.addEventListener("end", () => { source.close(); location.reload(); });
}
