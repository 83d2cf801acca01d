// The form for a new container asks while it is filled in what would be refused; the server says the same again when it is sent.
"use strict";
const form = document.getElementById("new");
const said = document.getElementById("said");
const shownName = document.getElementById("shown-name");
const suggestion = document.getElementById("suggestion");
const touched = new Set();
let waiting, asked = 0;

const problem = (name, text) => {
  const place = document.getElementById(`${name}-problem`);
  if (!place) return false;
  // Every second part is between backticks.
  place.replaceChildren(...(text ?? "").split("`").map((part, i) => {
    if (i % 2 === 0) return part;
    const code = document.createElement("code");
    code.textContent = part;
    return code;
  }));
  place.hidden = !text;
  const field = form.elements[name];
  if (field instanceof RadioNodeList) return true;
  if (text) field?.setAttribute("aria-invalid", "true");
  else field?.removeAttribute("aria-invalid");
  return true;
};

const ask = async () => {
  const number = ++asked;
  const body = {};
  for (const [name, value] of new FormData(form)) if (value.trim()) body[name] = value.trim();
  if (!body.hostname) return;
  const answer = await fetch("/containers?init=true&dryRun=true", {
    method: "POST",
    headers: { accept: "application/json", "content-type": "application/json" },
    body: JSON.stringify(body),
  }).catch(() => null);
  // What was typed since is asked about by itself.
  if (!answer || number !== asked) return;
  const told = await answer.json().catch(() => ({}));
  const errors = answer.ok ? {} : told.errors ?? {};
  for (const name of touched) problem(name, errors[name]);
  const good = touched.has("hostname") && !errors.hostname && (answer.ok || told.errors);
  said.textContent = answer.ok ? `${body.hostname} is free, and there is room on ${told.node}.` : good ? `${body.hostname} is free.` : "";
  said.classList.toggle("good", good);
};

form.addEventListener("input", (event) => {
  const name = event.target.name;
  if (!name) return;
  touched.add(name);
  if (name === "hostname") shownName.textContent = event.target.value.trim().toLowerCase() || "NAME";
  said.textContent = "";
  asked += 1;
  clearTimeout(waiting);
  waiting = setTimeout(ask, 300);
});

suggestion.hidden = false;
suggestion.addEventListener("click", () => {
  form.elements.hostname.value = suggestion.dataset.name;
  form.elements.hostname.dispatchEvent(new Event("input", { bubbles: true }));
  form.elements.osRelease.focus();
});
