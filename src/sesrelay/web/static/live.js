// Refreshes the live parts of the page from the page itself; without this script a reload does the same.
"use strict";

const EVERY = 2000; // milliseconds
const PATIENCE = 10000; // milliseconds until an answer counts as missing

function selecting(part) {
  const chosen = document.getSelection();
  return chosen && !chosen.isCollapsed && part.contains(chosen.anchorNode);
}

function replace(part, fresh) {
  if (part.innerHTML === fresh.innerHTML || selecting(part)) return;
  const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  part.replaceChildren(...fresh.childNodes);
  if (focused) {
    const again = [...part.querySelectorAll("a[href]")].find((link) => link.getAttribute("href") === focused);
    if (again) again.focus({ preventScroll: true });
  }
}

async function refresh() {
  const stale = document.getElementById("stale");
  try {
    const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    // A page that tells of a problem is shown as well, and gives way to the good one by itself.
    if (!(answer.headers.get("Content-Type") || "").startsWith("text/html")) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const fresh = page.getElementById(part.id);
      if (fresh) replace(part, fresh);
    }
    stale.hidden = true;
  } catch {
    stale.hidden = false;
  }
}

async function loop() {
  if (document.visibilityState === "visible") await refresh();
  setTimeout(loop, EVERY);
}

setTimeout(loop, EVERY);
