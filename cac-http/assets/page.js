// What every page has: buttons that copy, states that stay true while the page is open.
"use strict";
const offerCopies = () => {
  if (navigator.clipboard) for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
};
offerCopies();
addEventListener("refreshed", offerCopies);
addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});

// A form is sent once; coming back by the browser's history makes it usable again.
addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent) return event.preventDefault();
  if (form.method === "post") form.dataset.sent = "yes";
});
addEventListener("pageshow", () => { for (const form of document.forms) delete form.dataset.sent; });

// This page as it is now; nothing where it cannot be had.
const pageNow = async () => {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } }).catch(() => null);
  if (!answer?.ok || answer.redirected) return null;
  return new DOMParser().parseFromString(await answer.text(), "text/html");
};

// A list that says so is fetched again while it is looked at, and put in place of the old one unless somebody works in it.
const live = document.querySelector("[data-live]");
if (live) {
  let seen = null;
  const busy = () => document.hidden || live.contains(document.activeElement) || getSelection()?.type === "Range";
  const again = async () => {
    if (busy()) return;
    const fresh = (await pageNow())?.querySelector("[data-live]");
    if (!fresh || busy() || fresh.isEqualNode(seen)) return;
    seen = fresh.cloneNode(true);
    live.replaceChildren(...fresh.childNodes);
    offerCopies();
  };
  setInterval(again, Number(live.dataset.live) * 1000);
}
