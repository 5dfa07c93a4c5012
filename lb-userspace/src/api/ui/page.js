"use strict";
// Draws what /ui/events tells: parts and rows that have changed, then a tick. Whatever it is told is set as text.
// live.js listens.

const $ = (id) => document.getElementById(id);

/** An element with classes, text and children. */
function make(tag, classes = "", ...children) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  element.append(...children);
  return element;
}

/** Sets what is different, so that nothing is laid out anew for what is as it was. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
function style(element, classes) {
  if (element.className !== classes) element.className = classes;
}

const whole = new Intl.NumberFormat("en-US");
const number = (n) => whole.format(n);
const plural = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`;

function rate(n) {
  return n === null ? "" : n > 0 && n < 10 ? n.toFixed(1) : number(Math.round(n));
}

function bytes(n) {
  if (n === null) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) [n, unit] = [n / 1024, unit + 1];
  return `${unit ? n.toFixed(n < 10 ? 1 : 0) : Math.round(n)} ${units[unit]}`;
}

function time(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** Bounds of durations, which are powers of two of 64 ms. */
function bound(seconds) {
  if (seconds === null) return "-";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

// What is known.
let view = {};
let told = {};
let rows = new Map();
// Counts before, of whom there are rates.
let before = new Map();
let rates = new Map();
// The most connections that a draining backend was seen with, of whom the agent doesn't know.
const drains = new Map();
// Rows that are shown: their elements, by name.
let shown = new Map();

/** Rates of something since it was counted before; `at`: when it was counted now. */
function measure(key, at, counts) {
  const old = before.get(key);
  if (old && at > old.at) {
    const per = (name) => Math.max(0, counts[name] - old.counts[name]) / (at - old.at);
    rates.set(key, { fresh: per("total_connections"), sent: per("bytes_in"), back: per("bytes_out") });
  }
  if (!old || at > old.at) before.set(key, { at, counts });
}
const NONE = { fresh: null, sent: null, back: null };
const rateOf = (key) => rates.get(key) ?? NONE;

/** Cells of numbers, which all rows have. */
function cells() {
  const list = ["open", "fresh", "sent", "back", "total"].map((name, i) => make("td", `number ${name}${i > 1 ? " wide" : ""}`));
  const [open, fresh, sent, back, total] = list;
  return { list, open, fresh, sent, back, total };
}

function fill(to, key, counts) {
  const { fresh, sent, back } = rateOf(key);
  say(to.open, number(counts.active_connections));
  say(to.total, number(counts.total_connections));
  say(to.fresh, rate(fresh));
  say(to.sent, bytes(sent));
  say(to.back, bytes(back));
  to.sent.title = `${number(counts.bytes_in)} bytes so far`;
  to.back.title = `${number(counts.bytes_out)} bytes so far`;
}

/** A drain's progress: its words, and the part of its connections that have ended. */
function progress(key, b) {
  const most = Math.max(b.drain_from ?? drains.get(key) ?? 0, b.active_connections);
  drains.set(key, most);
  const words = [`${number(b.active_connections)} left of ${number(most)}`];
  if (b.drain_seconds != null) words.push(`for ${time(b.drain_seconds)}`);
  if (b.drain_deadline_seconds != null) {
    words.push(b.drain_deadline_seconds < 0 ? "past its deadline" : `${time(b.drain_deadline_seconds)} to its deadline`);
  }
  return { text: words.join(" · "), done: most ? 1 - b.active_connections / most : 1 };
}

function standing(b) {
  if (b.state === "draining") return ["draining", "warn"];
  if (b.state === "drained") return ["drained", "warn"];
  if (!b.healthy) return ["unhealthy", "bad"];
  if (b.one_way) return ["one-way", "bad"];
  return b.backup ? ["backup", "good"] : ["active", "good"];
}

function meter(classes) {
  const fillIn = make("i");
  return { element: make("span", `meter ${classes}`, fillIn), set: (part) => { fillIn.style.width = `${Math.round(part * 1000) / 10}%`; } };
}

/** A backend's row. `most`: connections for its weight of the fullest one. */
function backendRow(service, address) {
  const key = JSON.stringify([service, address]);
  const name = make("span", "", address);
  const note = make("span", "why");
  const badge = make("span", "badge");
  const why = make("span", "why");
  const drain = meter("warn");
  const load = meter("");
  const share = make("span", "why");
  const count = cells();
  const balance = make("td", "balance", load.element, share);
  const element = make("tr", "backend", make("td", "", name, note), make("td", "", badge, why, drain.element), balance, ...count.list);
  element.dataset.backend = address;
  return {
    element,
    update(b, most) {
      const [word, kind] = standing(b);
      const out = b.state !== "active" || !b.healthy;
      style(element, out ? "backend out" : "backend");
      say(badge, word);
      style(badge, `badge ${kind}`);
      const leaves = b.state === "draining";
      const told = leaves ? progress(key, b) : null;
      if (!leaves) drains.delete(key);
      const failed = b.last_health_check_failure;
      const words = leaves ? told.text : "";
      say(why, [words, failed && !b.healthy ? failed : ""].filter(Boolean).join(" · "));
      style(why, b.healthy ? "why" : "why bad");
      badge.title = failed ? `${plural(b.health_check_failures, "failed check")}; the last one: ${failed}` : "";
      drain.element.hidden = !leaves;
      if (leaves) drain.set(told.done);
      style(load.element, out ? "meter out" : "meter");
      load.set(most > 0 ? b.active_connections / Math.max(1, b.weight) / most : 0);
      const limit = b.max_connections === null ? "" : ` · at most ${number(b.max_connections)}`;
      const clients = b.clients == null ? "" : ` · ${plural(b.clients, "client")}`;
      say(share, b.weight === 1 && !limit && !clients ? "" : `weight ${b.weight}${limit}${clients}`);
      say(note, b.oldest_seconds == null || !view.service ? "" : `oldest ${time(b.oldest_seconds)}`);
      fill(count, key, b);
    },
  };
}

const fullest = (all) => Math.max(0, ...all.map(([active, weight]) => active / Math.max(1, weight)));

/** A service, with its backends below if they are told. */
function serviceRow(name) {
  const link = make("a", "open-service", name);
  link.href = `?${new URLSearchParams({ service: name })}`;
  const where = make("span", "why");
  const badge = make("span", "badge");
  const note = make("span", "why");
  const bars = make("span", "bars");
  const imbalance = make("span", "imbalance");
  const count = cells();
  const own = make("tr", "service", make("td", "", link, where), make("td", "", badge, note),
    make("td", "balance", bars, imbalance), ...count.list);
  const element = make("tbody", "", own);
  element.dataset.service = name;
  const below = new Map();
  return {
    element,
    update(s) {
      say(where, `${s.vip} ${s.ports.join(" ")}`);
      const t = s.totals;
      const gone = t.unhealthy + t.draining + t.drained;
      const [word, kind] = t.unhealthy ? [`${number(t.unhealthy)} of ${number(t.backends)} unhealthy`, "bad"]
        : t.backends === 0 ? ["no backends", "bad"]
        : gone ? [`${number(gone)} of ${number(t.backends)} ${t.draining ? "draining" : "drained"}`, "warn"] : [plural(t.backends, "backend"), "good"];
      say(badge, word);
      style(badge, `badge ${kind}`);
      say(note, s.notes.length ? plural(s.notes.length, "note") : "");
      note.title = s.notes.join("\n");
      const most = fullest(s.bars);
      while (bars.childElementCount > s.bars.length) bars.lastChild.remove();
      s.bars.forEach(([active, weight, used], i) => {
        const one = bars.children[i] ?? bars.appendChild(make("i"));
        style(one, used ? "" : "out");
        one.style.height = `${most ? Math.round(active / Math.max(1, weight) / most * 100) : 0}%`;
      });
      say(imbalance, s.imbalance === null ? "" : s.imbalance.toFixed(2));
      style(imbalance, s.imbalance > 1.5 ? "imbalance uneven" : "imbalance");
      fill(count, name, t);
      const told = s.backends ?? [];
      const highest = fullest(told.map((b) => [b.active_connections, b.weight]));
      const wanted = new Set(told.map((b) => b.address));
      for (const [address, row] of below) if (!wanted.has(address)) { row.element.remove(); below.delete(address); }
      let last = own;
      for (const b of told) {
        let row = below.get(b.address);
        if (!row) below.set(b.address, row = backendRow(name, b.address));
        if (last.nextSibling !== row.element) last.after(row.element);
        row.update(b, highest);
        last = row.element;
      }
    },
  };
}

/** Rows in the list's order; those that are there already stay. */
function drawRows(list) {
  const table = $("table");
  let body = table.tBodies[0];
  if (view.service && !(body && body.classList.contains("alone"))) {
    shown.forEach((row) => row.element.remove());
    shown = new Map();
    body = table.appendChild(make("tbody", "alone"));
  }
  const wanted = new Set(list.names);
  for (const [name, row] of shown) if (!wanted.has(name)) { row.element.remove(); shown.delete(name); }
  let last = null;
  for (const name of list.names) {
    const data = rows.get(name);
    if (!data) continue;
    let row = shown.get(name);
    if (!row) shown.set(name, row = view.service ? backendRow(view.service, name) : serviceRow(name));
    const parent = view.service ? body : table;
    const next = last ? last.nextSibling : view.service ? body.firstChild : table.tHead.nextSibling;
    if (next !== row.element) parent.insertBefore(row.element, next);
    row.update(data, told.service?.most ?? 0);
    last = row.element;
  }
}

function tile(name, value, note, bad = false) {
  let one = $(`tile-${name}`);
  if (!one) {
    one = make("div", "", make("dt", "", name), make("dd", "", make("span"), make("small")));
    one.id = `tile-${name}`;
    $("tiles").append(one);
  }
  const [text, small] = one.lastChild.children;
  say(text, value);
  say(small, note);
  style(small, bad ? "bad" : "");
}

function drawOverview({ totals, attention }, node) {
  const r = rateOf("");
  tile("Services", number(totals.services), node.rejected ? `${number(node.rejected)} refused` : "", true);
  const out = [[totals.unhealthy, "unhealthy"], [totals.draining, "draining"], [totals.drained, "drained"]];
  tile("Backends", number(totals.backends), out.filter(([n]) => n).map(([n, word]) => `${number(n)} ${word}`).join(", "), totals.unhealthy > 0);
  tile("Open connections", number(totals.active_connections), `${number(totals.total_connections)} so far`);
  tile("New connections", r.fresh === null ? "–" : `${rate(r.fresh)}/s`, "");
  tile("To backends", r.sent === null ? "–" : `${bytes(r.sent)}/s`, `${bytes(totals.bytes_in)} so far`);
  tile("To clients", r.back === null ? "–" : `${bytes(r.back)}/s`, `${bytes(totals.bytes_out)} so far`);
  const part = node.conntrack_entries / Math.max(1, node.conntrack_capacity);
  tile("Flow table", `${(part * 100).toFixed(part < 0.1 ? 1 : 0)} %`, `${number(node.conntrack_entries)} of ${number(node.conntrack_capacity)}`, part > 0.8);
  const list = $("attention-list");
  $("attention").hidden = attention.length === 0 || Boolean(view.service);
  const all = totals.unhealthy + totals.draining + totals.drained;
  say($("attention-more"), all > attention.length ? `the first ${attention.length}` : "");
  list.replaceChildren(...attention.map((b) => {
    const link = make("a", "", b.service);
    link.href = `?${new URLSearchParams({ service: b.service })}`;
    const [word, kind] = standing(b);
    const leaves = b.state === "draining";
    const told = leaves ? progress(JSON.stringify([b.service, b.address]), b) : null;
    const text = make("span", "", leaves ? told.text : b.healthy ? "" : b.last_health_check_failure ?? "");
    if (leaves) {
      const bar = meter("warn");
      bar.set(told.done);
      text.append(bar.element);
    }
    return make("li", "", make("span", "", link, " ", b.address), make("span", `badge ${kind}`, word), text);
  }));
}

function drawNode(node) {
  say($("state"), node.detached ? "detached" : node.state);
  style($("state"), `badge ${node.state === "ok" ? "good" : "bad"}`);
  say($("about"), `${node.version} on Linux ${node.kernel}`);
  const box = $("problems");
  const lines = [...node.problems, ...node.warnings.map((w) => `${w.text}: ${w.remedy}`)];
  box.hidden = lines.length === 0;
  style(box, node.problems.length ? "problems" : "problems warn");
  box.replaceChildren(...lines.slice(0, 20).map((line) => make("p", "", line)));
  if (lines.length > 20) box.append(make("p", "", `${number(lines.length - 20)} more: flowpin status`));
  $("interfaces").replaceChildren(...node.interfaces.slice(0, 20).map((i) =>
    make("li", "", make("span", "", i.name), make("span", "quiet", i.error ?? i.mode ?? "not attached"))));
}

function drawDrops(drops, reasons) {
  const counted = reasons.filter((r) => drops[r.reason] > 0).sort((a, b) => drops[b.reason] - drops[a.reason]);
  $("drops").replaceChildren(...counted.map((r) => {
    const line = make("li", "", make("span", "", r.reason, make("small", "", r.meaning)), make("span", "", number(drops[r.reason])));
    line.dataset.reason = r.reason;
    line.title = r.remedy;
    return line;
  }));
  const none = reasons.filter((r) => !drops[r.reason]).map((r) => r.reason);
  say($("zeros"), none.length ? `None: ${none.join(", ")}` : "");
}

function drawDurations(d) {
  say($("durations-of"), d.count
    ? `${plural(d.count, "connection")}${view.service ? "" : " of all services"}: half shorter than ${bound(d.p50_seconds)}, 99\u00a0% than ${bound(d.p99_seconds)}`
    : "No connection has ended yet.");
  const used = d.buckets.map((count, i) => [count, i]).filter(([count]) => count);
  const [first, last] = used.length ? [used[0][1], used[used.length - 1][1]] : [0, -1];
  const most = Math.max(1, ...d.buckets);
  const parts = [];
  for (let i = first; i <= last; i++) {
    const bar = meter("");
    bar.set(d.buckets[i] / most);
    const longest = i === d.buckets.length - 1;
    parts.push(make("span", "", longest ? "longer" : `< ${bound(0.064 * 2 ** i)}`), bar.element, make("span", "", number(d.buckets[i])));
  }
  $("durations").replaceChildren(...parts);
}

function drawService(s) {
  $("declared-card").hidden = !s;
  const notes = s ? s.notes : [];
  $("notes").replaceChildren(...notes.map((note) => make("p", "note", note)));
  if (!s) return;
  const where = s.frontends.map((f) => `${f.addresses.join(", ")} ${f.ports.join(" ")}`).join("; ");
  say($("title"), `${s.name} · ${where}`);
  const even = s.imbalance === null ? "" : `imbalance ${s.imbalance.toFixed(2)}\n`;
  say($("declared"), `${even}${JSON.stringify({ algorithm: s.algorithm, origin: s.origin, ...s.declared }, null, 2)}`);
}

/** After each tick: all that was told is of one moment. */
function draw(at) {
  const { list, node, overview } = told;
  if (!list || !node || !overview || (list.service ?? "") !== (view.service ?? "")) return;
  measure("", overview.at, overview.totals);
  for (const name of list.names) {
    const data = rows.get(name);
    if (!data) continue;
    if (list.service) measure(JSON.stringify([list.service, name]), at, data);
    else {
      measure(name, at, data.totals);
      for (const b of data.backends ?? []) measure(JSON.stringify([name, b.address]), at, b);
    }
  }
  drawNode(node);
  drawOverview(overview, node);
  drawDrops(told.drops, told.reasons);
  drawDurations(list.service ? told.service.durations : overview.durations);
  drawService(list.service ? told.service : null);
  drawRows(list);
  say($("pages"), `${number(list.page)} of ${number(list.pages)} · ${plural(list.found, list.service ? "backend" : "service")}`);
  $("before").disabled = list.page <= 1;
  $("after").disabled = list.page >= list.pages;
  view.page = list.page;
  $("empty").hidden = list.found > 0;
  say($("empty"), view.search ? `Nothing has “${view.search}” in it.` : list.service ? "It has no backends." : "There are no services yet: flowpin service add");
  document.body.dataset.at = at;
}
