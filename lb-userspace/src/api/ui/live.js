"use strict";
// The connection to the agent, what is to be shown, and keys. What is shown of it is page.js's.

// The connection.
let source = null;
let again = 0;

function live(word, kind) {
  say($("live"), word);
  style($("live"), `live ${kind}`);
  document.body.classList.toggle("stale", kind === "off");
}

function connect() {
  clearTimeout(again);
  source?.close();
  rows = new Map();
  told = {};
  const query = new URLSearchParams();
  for (const key of ["search", "sort", "page", "service"]) if (view[key]) query.set(key, view[key]);
  const address = `ui/events?${query}`;
  const mine = source = new EventSource(address);
  for (const part of ["node", "drops", "reasons", "overview", "list", "service"]) {
    mine.addEventListener(part, (event) => { told[part] = JSON.parse(event.data); });
  }
  mine.addEventListener("rows", (event) => {
    for (const row of JSON.parse(event.data)) rows.set(row.name ?? row.address, row);
  });
  mine.addEventListener("tick", (event) => {
    live("live", "on");
    draw(JSON.parse(event.data).at);
  });
  mine.addEventListener("failure", (event) => live(JSON.parse(event.data).error, "off"));
  mine.onopen = () => { rows = new Map(); told = {}; };
  mine.onerror = () => {
    live("no answer from the agent; trying again", "off");
    // A new agent's clock begins anew.
    before = new Map();
    rates = new Map();
    if (mine.readyState === EventSource.CLOSED) refused(mine, address);
  };
}

/** Why it was refused is in the answer's body, which an EventSource doesn't tell. */
async function refused(mine, address) {
  const stop = new AbortController();
  try {
    const answer = await fetch(address, { signal: stop.signal });
    if (!answer.ok) live((await answer.json()).error, "off");
  } catch {
    // What is said already stands.
  }
  stop.abort();
  if (source === mine) again = setTimeout(connect, 3000);
}

// What is to be shown, which is in the page's address.
function read() {
  const query = new URLSearchParams(location.search);
  view = Object.fromEntries(["search", "sort", "page", "service"].map((key) => [key, query.get(key) ?? ""]));
  $("search").value = view.search;
  $("sort").value = view.sort || "name";
  $("search").placeholder = view.service ? "backend" : "name, VIP, port or backend";
  say($("title"), view.service || "Services");
  say($("first"), view.service ? "Backend" : "Service");
  document.title = view.service ? `${view.service} · Flowpin` : "Flowpin";
  shown.forEach((row) => row.element.remove());
  shown = new Map();
  for (const body of [...$("table").tBodies]) body.remove();
  connect();
}

function show(change, replace = false) {
  const next = { ...view, ...change };
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(next)) {
    if (value && !(key === "page" && Number(value) === 1) && !(key === "sort" && value === "name")) query.set(key, value);
  }
  history[replace ? "replaceState" : "pushState"](null, "", `?${query}`);
  read();
}

const turn = (by) => {
  if (!(by < 0 ? $("before") : $("after")).disabled) show({ page: Number(view.page || 1) + by });
};

/** Moves the focus to the next or the last service. */
function step(by) {
  const links = [...document.querySelectorAll("a.open-service")];
  const at = links.indexOf(document.activeElement);
  links[Math.min(links.length - 1, Math.max(0, at < 0 ? 0 : at + by))]?.focus();
}

const KEYS = {
  "/": () => $("search").focus(),
  j: () => step(1),
  k: () => step(-1),
  n: () => turn(1),
  p: () => turn(-1),
  "?": () => $("help").showModal(),
  Escape: () => { if (view.service || view.search) show({ service: "", search: "", page: "" }); },
};

let typing = 0;
$("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => show({ search: $("search").value, page: "" }, true), 200);
});
$("find").addEventListener("submit", (event) => event.preventDefault());
$("sort").addEventListener("change", () => show({ sort: $("sort").value, page: "" }));
$("before").addEventListener("click", () => turn(-1));
$("after").addEventListener("click", () => turn(1));
$("keys").addEventListener("click", () => $("help").showModal());
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='?']");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const query = new URLSearchParams(link.getAttribute("href"));
  show({ service: query.get("service") ?? "", search: "", page: "", sort: "" });
  $("main").focus();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const writes = ["INPUT", "SELECT"].includes(event.target.tagName);
  if (writes && event.key !== "Escape") return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  if (writes) event.target.blur();
  act();
});
addEventListener("popstate", read);
// Nobody looks: nothing need be counted.
document.addEventListener("visibilitychange", () => {
  clearTimeout(again);
  if (!document.hidden) return connect();
  source?.close();
  live("paused", "");
});
read();
