// The live page of natwise: it draws what the events say, once a second, into elements that
// stay. Nothing that came from outside is ever parsed as HTML: names are text (textContent).
"use strict";

const states = ["active", "idle", "dialing", "cooling"];
const shownAtFirst = 25; // destinations, until somebody wants all
const keepFor = 15 * 60_000; // ms of the past

const byId = (id) => document.getElementById(id);

const view = {
  state: null, // as it came last
  pending: null, // what came last while paused
  held: [], // the samples that came meanwhile
  past: [], // samples, the oldest first
  minutes: 5,
  paused: false,
  filter: "",
  all: false,
  open: null, // the destination whose drawer is open
  touched: -Infinity, // when somebody has last moved the pointer or pressed a key
  reorder: false, // even under the pointer, since somebody has asked for other rows
  cursor: null, // where in the charts the pointer is: 0 is the oldest, 1 is now
};

// ---- elements -----------------------------------------------------------------------------

// el makes an element; children are elements or text.
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function svg(tag, attributes = {}) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

// put changes text, and attr an attribute, only where they differ: an element that is not
// touched costs nothing.
function put(node, text) {
  if (node.said !== text) node.textContent = node.said = text;
}

function attr(node, name, value) {
  const known = (node.known ??= new Map());
  if (known.get(name) === value) return;
  known.set(name, value);
  if (value === null) node.removeAttribute(name);
  else node.setAttribute(name, value);
}

function width(node, share) {
  const text = (100 * share).toFixed(3) + "%";
  if (node.wide !== text) node.style.width = node.wide = text;
}

// ---- words --------------------------------------------------------------------------------

const grouped = new Intl.NumberFormat("en");
const number = (n) => (n < 1000 && Number.isInteger(n) ? String(n) : grouped.format(n)); // most are small, and there are many
const percent = (share) => Math.floor(share * 100 + 1e-9) + " %"; // 100 % is what is full
const plural = (n, one, many = one + "s") => number(n) + " " + (n === 1 ? one : many);

// tidy has two decimals of small numbers, one of larger ones, none of large ones.
function tidy(n) {
  return number(Number(n.toFixed(n < 1 ? 2 : n < 100 ? 1 : 0)));
}

function duration(s) {
  if (s === null || s === undefined) return "–";
  if (s === 0) return "0 s";
  if (s < 0.001) return Math.max(1, Math.round(s * 1e6)) + " µs";
  if (s < 0.01) return Number((s * 1000).toFixed(1)) + " ms";
  if (s < 0.9995) return Math.round(s * 1000) + " ms";
  if (s < 9.95) return s.toFixed(1) + " s";
  if (s < 119.5) return Math.round(s) + " s";
  const minutes = Math.floor(Math.round(s) / 60);
  if (minutes < 60) return joined(minutes, "min", Math.round(s) % 60, "s");
  return joined(Math.floor(minutes / 60), "h", minutes % 60, "min");
}

// roughly is a duration in as few letters as it takes.
const roughly = (s) => (s >= 119.5 ? duration(60 * Math.floor(s / 60)) : s >= 1 && Number.isInteger(s) ? s + " s" : duration(s));

function joined(a, unit, b, smaller) {
  return `${a} ${unit}` + (b ? ` ${b} ${smaller}` : "");
}

// countdown is until something happens: in whole seconds, which can be watched, and never 0
// before it has.
function countdown(s) {
  if (s === null) return "–";
  const whole = Math.max(1, Math.ceil(s));
  return whole < 1000 ? whole + " s" : duration(whole);
}

const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });

// beforePort and port are the parts of "host:port".
const beforePort = (at) => at.slice(0, Math.max(0, at.lastIndexOf(":"))) || at;
const port = (at) => at.slice(at.lastIndexOf(":") + 1);

// sentence is words as one.
const sentence = (words) => words && words[0].toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : ".");

// forgets is an idle timeout: in seconds, as documents have it, where that is short.
const forgets = (s) => (s < 600 ? tidy(s) + " s" : duration(s));

// inWords is what a row's bar shows.
function inWords(d) {
  const parts = d.would_have_waited ? [`${plural(d.would_have_waited, "dial")} would have waited`] : [];
  if (learned(d)) parts.push("limit learned");
  parts.push(...states.filter((s) => d.ports[s] > 0).map((s) => `${number(d.ports[s])} ${s}`));
  if (d.ports.free > 0) parts.push(`${number(d.ports.free)} ${keptBack(d) ? "kept for newcomers" : "free"}`);
  return parts;
}

// keptBack says why nobody who waits has the last free ports.
const keptBack = (d) => d.waiting > 0 && d.ports.free <= d.kept_back;

function barLabel(d) {
  const counted = states.map((s) => `${number(d.ports[s])} ${s}`).join(", ");
  if (d.ports.limit === null) return `${counted}, no limit`;
  return `${counted} of ${number(d.ports.limit)}` + (learned(d) ? ", a limit that was learned" : "");
}

// learned says of a limit that it is what dials have taught, and may move.
const learned = (d) => d.limit_grade === "learned";

// alarm is how a share of a limit looks: 80 % is where the ledger warns.
const alarm = (share) => (share === null ? "" : share >= 0.98 ? "bad" : share >= 0.8 ? "warn" : "");

// ---- what comes ---------------------------------------------------------------------------

function receive(state) {
  news.at = performance.now();
  if (view.paused) {
    view.pending = state;
    view.held.push(state.history);
    if (view.held.length > keepFor / 1000) view.held.shift();
    return;
  }
  remember(state.history);
  view.state = state;
  drawSoon();
}

// remember adds samples to the past. After a reconnection, or a restart of the server, they
// may be some that are known, or begin anew.
function remember(columns) {
  const last = view.past.length ? view.past[view.past.length - 1].at_ms : 0;
  for (const s of samplesOf(columns)) if (s.at_ms > last) view.past.push(s);
  const oldest = (view.past.length ? view.past[view.past.length - 1].at_ms : 0) - keepFor;
  const keep = view.past.findIndex((s) => s.at_ms >= oldest);
  if (keep > 0) view.past.splice(0, keep);
}

function samplesOf(columns) {
  const names = Object.keys(columns);
  return columns.at_ms.map((_, i) => Object.fromEntries(names.map((name) => [name, columns[name][i]])));
}

let drawing = false;

// drawSoon draws before the next frame, however much has changed until then.
function drawSoon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  const state = view.state;
  if (!state) return;
  draws++;
  document.documentElement.dataset.known = ""; // from now on there is something to see
  drawHeader(state);
  drawTiles(state);
  drawRows(state);
  drawCharts(state);
  drawEvents(state);
  document.documentElement.dataset.updated = state.at_ms;
}

// ---- header and tiles ---------------------------------------------------------------------

function drawHeader(state) {
  const title = state.process + released(state.version) + (state.ledger ? ` · ${state.ledger}` : "");
  put(byId("process"), title);
  drawTitle();
  const about = ["natwise" + released(state.natwise_version), `path ${state.path.name}, ${state.path.grade}`];
  put(byId("about"), about.join(" · "));
  byId("shadow").hidden = !state.shadow;
  attr(byId("about"), "title", state.path.source || null);
  const problem = byId("problem");
  problem.hidden = !state.problem;
  if (state.problem) put(problem, "Every dial is refused: " + state.problem);
  drawShared(state.shared);
}

// drawTitle has the tab say how full it is, unless nobody knows.
function drawTitle() {
  const worst = view.state?.fullest ? percent(view.state.fullest.utilization) + " " : "";
  const title = (frozen ? "" : lost() ? "no news · " : view.paused ? "paused · " : worst) + byId("process").textContent;
  if (document.title !== title) document.title = title;
}

// drawShared says with how many others the ports are shared, by each engine that does it, and
// what is wrong with those that are degraded.
function drawShared(shared) {
  inItems(byId("shared"), shared, (item, s) => {
    item.pill ??= item.appendChild(el("span", { class: "pill bad" }, "degraded"));
    item.words ??= item.appendChild(el("span", {}, " ", el("span", { title: sharedMeans }))).lastChild;
    put(item.words, [sharedWith(s), `${number(s.limit)} ports to each destination`, "all together " + leasedParts(s).join(", ")].join(" · "));
    item.pill.hidden = s.trouble === null;
  });
  inItems(byId("degraded"), shared.filter((s) => s.trouble), (item, s) => {
    item.what ??= item.appendChild(el("p", {}, el("b", { class: "verdict" }, "degraded"), " ", el("span"))).lastChild;
    item.evidence ??= item.appendChild(el("p", { class: "evidence" }));
    item.todo ??= item.appendChild(el("p"));
    put(item.what, s.trouble.what);
    put(item.evidence, `${s.engine}: ${visible(s.trouble.evidence)}`);
    put(item.todo, s.trouble.what_to_do);
    item.todo.hidden = s.trouble.what_to_do === "";
  });
}

// inItems has a list show as many items as there are things.
function inItems(list, things, draw) {
  while (list.children.length > things.length) list.lastChild.remove();
  while (list.children.length < things.length) list.append(el("li"));
  things.forEach((thing, i) => draw(list.children[i], thing));
  list.hidden = things.length === 0;
}

const sharedMeans = "floor: may be held without asking; leased: lent beyond that; kept: left in the NAT by processes that are gone";

const sharedWith = (s) => `shared by ${s.engine} with ${plural(s.sharers - 1, "other")}`;

function leasedParts(s) {
  const parts = [`floor ${number(s.floor)}`, `leased ${number(s.leased)}`, `kept ${number(s.quarantined)}`];
  if (s.lease_age_seconds !== null) parts.push(`lease ${duration(s.lease_age_seconds)} old`);
  return parts;
}

// calledInVain says how many of the calls to a server have failed, if any has.
const calledInVain = (s) => (s.failures ? [`${number(s.failures)} of ${plural(s.renewals + s.failures, "call")} failed`] : []);

// released is a version, of what has one.
const released = (version) => (version && version !== "(devel)" ? " " + version : "");

const tiles = new Map();

// tile shows one number; its element is made when it is needed first.
function tile(name, value, more, look = "") {
  let t = tiles.get(name);
  if (!t) {
    t = { value: el("dd"), more: el("dd", { class: "more" }) };
    t.box = el("div", {}, el("dt", {}, name), t.value, t.more);
    tiles.set(name, t);
    byId("tiles").append(t.box);
  }
  put(t.value, value);
  put(t.more, more);
  attr(t.more, "title", more);
  attr(t.value, "class", look || null);
}

function drawTiles(state) {
  const worst = state.fullest && state.destinations.find((d) => d.destination === state.fullest.destination);
  tile("Fullest destination", worst ? percent(worst.utilization) : "–", worst ? called(worst) : state.destinations.length ? "no limit is known" : "nothing is booked",
    worst ? alarm(worst.utilization) : "");
  const ports = state.ports;
  tile("Ports taken", number(ports.taken),
    (ports.limit === null ? "" : `of ${number(ports.limit)}, `) + `${number(ports.cooling)} of them cooling`);
  tile("Waiting", number(state.waiting),
    state.waiting ? `the first for ${duration(state.oldest_wait_seconds)}` : "nobody", state.waiting ? "warn" : "");
  drawNext(state.destinations.filter((d) => counted(d) && d.next_free_seconds !== null));
  tile("Black holes", number(state.blackholes), state.blackholes ? "connections gone dark" : "no connection has gone dark",
    state.blackholes ? "bad" : "");
  const ill = troubles(state);
  const worse = state.problem ? ["every dial is refused"] : [];
  worse.push(...state.shared.filter((s) => s.trouble).map((s) => `degraded: ${s.engine}`));
  const said = [...worse, ...ill.map((t) => `${t.verdict}: ${nameOf(t)}`)];
  tile("In trouble", number(said.length), said[0] ?? "no dial fails", said.length ? (worse.length || ill.some(grave) ? "bad" : "warn") : "");
  if (state.shadow) tile("Would have waited", number(state.would_have_waited), "dials beyond the limit");
}

// counted is a row whose ports no other row has too.
const counted = (d) => d.scope === "destination" || d.scope === "source";

// drawNext says which of the rows in which ports cool has one first.
function drawNext(cooling) {
  if (!cooling.length) return tile("Next port free in", "–", "none is cooling");
  const next = cooling.reduce((a, b) => (b.next_free_seconds < a.next_free_seconds ? b : a));
  const all = Math.max(...cooling.map((d) => d.all_free_seconds));
  tile("Next port free in", countdown(next.next_free_seconds), `to ${called(next)}; the last in ${countdown(all)}`);
}

// troubles are why dials fail, of all destinations, the last first.
function troubles(state) {
  const booked = state.destinations.map((d) => d.trouble).filter((t) => t !== null);
  const each = new Map(booked.map((t) => [t.destination, t])); // which may have a row for each source
  return [...state.troubles, ...each.values()].sort((a, b) => b.last_ms - a.last_ms);
}

// grave is what somebody should look after: a hairpin that was helped is not, nor what nobody
// knows yet.
const grave = (t) => t.dials > 0 && t.verdict !== "unknown";

const nameOf = (t) => visible(beforePort(t.name));

// called is what people call a destination; its port stands in its address.
const called = (d) => (d.names.length ? visible(beforePort(d.names[0])) : d.destination);

// visible is a name as it is, and not as its control characters would have it look.
const visible = (name) => name.replace(/[\p{Cc}\p{Cf}]/gu, "\ufffd");

// ---- the table ----------------------------------------------------------------------------

const rows = new Map(); // by destination
const lone = new Map(); // troubles of what has no row, by name and address

function drawRows(state) {
  const all = state.destinations;
  const matching = all.filter(matches);
  const wanted = [...matching.filter((d) => d.trouble), ...matching.filter((d) => !d.trouble)];
  const some = (list) => (view.all || view.filter ? list : list.slice(0, shownAtFirst));
  const shown = some(wanted);
  if (view.open && !all.some((d) => d.destination === view.open)) closeDrawer();
  if (view.open && !shown.some((d) => d.destination === view.open)) {
    const open = wanted.find((d) => d.destination === view.open);
    if (open) shown.push(open); // what somebody reads does not go away
  }
  const ill = state.troubles.filter((t) => matches({ destination: t.destination, names: [t.name] }));
  const others = drawLone(some(ill), state);
  const known = all.length + state.troubles.length;
  const destinations = all.filter(counted).length + state.troubles.length;
  byId("empty").hidden = known > 0;
  byId("table").hidden = shown.length + others.length === 0;
  byId("nothing").hidden = known === 0 || shown.length + others.length > 0;
  const more = byId("all");
  more.hidden = view.filter !== "" || Math.max(wanted.length, ill.length) <= shownAtFirst;
  put(more, view.all ? `Show the fullest ${shownAtFirst} only` : `Show all ${number(wanted.length + ill.length)} destinations`);
  byId("rows").className = shown.length <= shownAtFirst ? "few" : "";

  const largest = Math.max(1, ...all.filter((d) => d.ports.limit === null).map((d) => d.ports.taken));
  const gone = new Set(rows.keys());
  for (const d of shown) {
    gone.delete(d.destination);
    if (!rows.has(d.destination)) rows.set(d.destination, new Row(d.destination));
    rows.get(d.destination).draw(d, largest, state);
  }
  for (const name of gone) {
    rows.get(name).remove();
    rows.delete(name);
  }
  order([...others, ...shown.map((d) => rows.get(d.destination))]);
  put(byId("destinations-title"), destinations ? plural(destinations, "destination") : "Destinations");
  openDrawer()?.refresh();
}

// drawLone returns what is shown of troubles that have no row to stand below.
function drawLone(shown, state) {
  const gone = new Set(lone.keys());
  const drawn = shown.map((t) => {
    const key = `${t.name} ${t.destination}`;
    gone.delete(key);
    if (!lone.has(key)) lone.set(key, new Trouble(t));
    lone.get(key).draw(t, state);
    return lone.get(key);
  });
  for (const key of gone) {
    lone.get(key).node.remove();
    lone.delete(key);
  }
  return drawn;
}

function matches(d) {
  if (!view.filter) return true;
  return [d.destination, ...d.names].some((s) => s.toLowerCase().includes(view.filter));
}

// order puts the rows in the order of the state, but moves nothing while somebody is busy in
// them: rows that are new come last until then.
function order(shown) {
  const body = byId("rows");
  const focused = document.activeElement;
  const held = (body.matches(":hover") || body.contains(focused)) && performance.now() - view.touched < 5000;
  if (held && !view.reorder) {
    for (const row of shown) if (!row.node.isConnected) body.append(...row.parts());
    return;
  }
  view.reorder = false;
  let at = body.firstElementChild;
  for (const row of shown) {
    for (const part of row.parts()) {
      if (part === at) at = at.nextElementSibling;
      else move(body, part, at);
    }
  }
  if (document.activeElement !== focused && focused.isConnected) focused.focus({ preventScroll: true });
}

// move keeps what is in a part as it is, where the browser can.
function move(body, part, at) {
  if (part.isConnected && body.moveBefore) body.moveBefore(part, at);
  else body.insertBefore(part, at);
}

// A cell has a first line and a second one below it.
class Cell {
  constructor(tag, label, attributes) {
    this.first = el("span", { class: "first" });
    this.second = el("span", { class: "second" });
    this.node = el(tag, { role: "cell", "data-label": label, ...attributes }, this.first, this.second);
  }

  say(first, second = "", look = "") {
    put(this.first, first);
    put(this.second, second);
    attr(this.first, "class", "first" + (look ? " " + look : "") + (/^(–|0( .*)?)$/.test(first) ? " none" : ""));
  }
}

// A row that nobody can see tells its numbers to programs (data-active), and is written anew
// only every tenth second: five hundred of them cost little more than the twenty in sight.
const nearby = new IntersectionObserver((entries) => {
  for (const e of entries) e.target.row.seen(e.isIntersecting);
}, { rootMargin: "400px" });
const turns = 10;

let draws = 0;
let rowsMade = 0;
let made = 0; // of what has an id

// A Row is one destination's.
class Row {
  constructor(destination) {
    this.destination = destination;
    this.name = el("bdi", { class: "first" });
    this.address = el("span", { class: "second mono" });
    this.button = el("button", { type: "button", class: "open", "aria-expanded": "false" }, this.name, this.address);
    this.button.addEventListener("click", () => toggleDrawer(destination));
    this.bar = new Bar();
    this.numbers = el("span", { class: "second numbers" });
    this.taken = el("b");
    this.rest = el("span");
    this.numbers.append(this.taken, this.rest);
    this.free = new Cell("td", "Next port free");
    this.waiting = new Cell("td", "Waiting");
    this.waits = new Cell("td", "Wait for a connection");
    this.dials = new Cell("td", "Dials");
    this.holes = new Cell("td", "Black holes");
    this.path = new Cell("td", "Path forgets");
    this.spark = new Spark();
    this.node = el("tr", { class: "row", role: "row", "data-destination": destination },
      el("th", { scope: "row", role: "rowheader" }, this.button),
      el("td", { class: "ports", role: "cell", "data-label": "Ports" }, this.bar.node, this.numbers),
      this.free.node, this.waiting.node, this.waits.node, this.dials.node, this.holes.node, this.path.node,
      el("td", { class: "trend", role: "cell" }, this.spark.node));
    this.drawer = null;
    this.trouble = null;
    this.near = true; // until somebody knows better
    this.turn = rowsMade++ % turns;
    this.node.row = this;
    nearby.observe(this.node);
  }

  seen(near) {
    this.near = near;
    if (near && this.latest) this.write(...this.latest);
  }

  parts() {
    return [this, this.trouble, this.drawer].filter((part) => part !== null).map((part) => part.node);
  }

  remove() {
    nearby.unobserve(this.node);
    for (const part of this.parts()) part.remove();
  }

  draw(d, largest, state) {
    this.latest = [d, largest, state];
    this.bar.tell(d);
    this.drawTrouble(d.trouble, state);
    if (this.near || this.turn === draws % turns) this.write(d, largest, state);
  }

  write(d, largest, state) {
    this.drawName(d);
    this.drawPorts(d, largest);
    this.free.say(d.next_free_seconds === null ? "–" : "in " + countdown(d.next_free_seconds),
      d.all_free_seconds === null ? "none cools" : `all in ${countdown(d.all_free_seconds)}`);
    this.waiting.say(number(d.waiting), d.waiting ? `for ${roughly(d.oldest_wait_seconds)}` : "nobody", d.waiting ? "warn" : "");
    const longer = d.waiting && d.oldest_wait_seconds > (d.wait_p99_seconds ?? 0); // which would be forgotten until it is over
    this.waits.say(duration(d.wait_p50_seconds), longer ? `${roughly(d.oldest_wait_seconds)} so far` : d.wait_p99_seconds === null ? "no waits" : `p99 ${duration(d.wait_p99_seconds)}`);
    this.drawCounts(d, state);
    this.path.say(d.idle_timeout_seconds === null ? "never" : forgets(d.idle_timeout_seconds), d.idle_timeout_grade);
    this.spark.draw(d);
  }

  drawTrouble(t, state) {
    if (t === null) {
      this.trouble?.node.remove();
      this.trouble = null;
    } else {
      this.trouble ??= new Trouble();
      this.trouble.draw(t, state);
    }
    attr(this.button, "aria-describedby", this.trouble?.id ?? null);
  }

  drawName(d) {
    const names = d.names.length + d.more_names;
    put(this.name, called(d));
    const more = names > 1 ? `${d.destination} +${plural(names - 1, "name")}` : names ? d.destination : { ports: "together", sockets: "to all destinations" }[d.scope] ?? "";
    put(this.address, more);
    attr(this.button, "title", [d.destination, ...d.names].join("\n"));
    const full = d.utilization !== null && d.utilization >= 0.98;
    attr(this.node, "class", "row" + (full ? " spent" : "") + (d.trouble ? " troubled" : "") + (this.drawer ? " opened" : ""));
  }

  drawPorts(d, largest) {
    this.bar.draw(d.ports, largest);
    const p = d.ports;
    put(this.taken, p.limit === null ? plural(p.taken, "port") : `${number(p.taken)} of ${number(p.limit)}`);
    attr(this.taken, "class", alarm(d.utilization) || null);
    const words = inWords(d);
    put(this.rest, words.join(" · "));
    attr(this.numbers, "title", words.join(", "));
  }

  drawCounts(d, state) {
    const rate = d.dials_per_second === null ? "–" : `${tidy(d.dials_per_second)} / s`;
    const uses = d.counts && d.counts.uses_per_connection;
    this.dials.say(rate, uses ? `${tidy(uses)} ${uses === 1 ? "use" : "uses"} each` : "");
    if (!d.counts) return this.holes.say("–", "not counted");
    const last = d.counts.last_blackhole_ms;
    this.holes.say(number(d.counts.blackholes), last === null ? "none" : `${roughly(Math.floor((state.at_ms - last) / 1000))} ago`,
      d.counts.blackholes ? "bad" : "");
  }
}

// A Bar shows ports by state: of a limit, or where there is none, beside the largest.
class Bar {
  constructor() {
    this.node = el("div", { class: "bar", role: "img" });
    this.parts = states.map((s) => el("i", { class: s }));
    this.limit = el("i", { class: "limit" });
    this.node.append(...this.parts, this.limit);
  }

  tell(d) {
    const all = [...states, "limit", "free"].map((s) => d.ports[s]).join() + d.limit_grade;
    if (this.told === all) return;
    this.told = all;
    for (const s of [...states, "limit", "free"]) attr(this.node, "data-" + s, d.ports[s]);
    attr(this.node, "aria-label", barLabel(d));
  }

  draw(ports, largest) {
    const whole = ports.limit === null ? largest : Math.max(ports.limit, ports.taken, 1);
    states.forEach((s, i) => width(this.parts[i], ports[s] / whole));
    this.node.classList.toggle("unlimited", ports.limit === null);
    const over = ports.limit !== null && ports.taken > ports.limit;
    this.limit.hidden = !over;
    if (over) this.limit.style.left = `calc(${(100 * ports.limit) / whole}% - 1px)`;
  }
}

// A Trouble says why dials fail and what to do, below the row that it is about; what has no
// row, since no NAT counts it or it has no address, is named with it.
class Trouble {
  constructor(of = null) {
    this.verdict = el("b", { class: "verdict" });
    this.what = el("span");
    this.when = el("span", { class: "when" });
    this.evidence = el("p", { class: "evidence" });
    this.todo = el("p");
    this.id = "trouble-" + ++made;
    const words = el("td", { role: "cell", colspan: of ? 8 : 9, id: this.id },
      el("p", {}, this.verdict, " ", this.what, " ", this.when), this.evidence, this.todo);
    this.node = el("tr", { role: "row" }, words);
    if (of) {
      words.before(el("th", { scope: "row", role: "rowheader" },
        el("bdi", { class: "first" }, nameOf(of)), el("span", { class: "second mono" }, of.destination || visible(of.name))));
    }
    this.look = of ? "trouble lone" : "trouble";
  }

  parts() {
    return [this.node];
  }

  draw(t, state) {
    put(this.verdict, t.verdict);
    put(this.what, t.what);
    put(this.when, failed(t, state.at_ms));
    put(this.evidence, visible(t.evidence));
    this.evidence.hidden = t.evidence === "";
    put(this.todo, t.what_to_do);
    attr(this.node, "class", this.look + (grave(t) ? "" : " mild"));
    attr(this.node, "data-verdict", t.verdict);
  }
}

// failed says how many dials did, and when.
function failed(t, now) {
  const whole = (ms) => roughly(Math.max(0, Math.floor(ms / 1000)));
  const last = `${whole(now - t.last_ms)} ago`;
  if (t.dials === 0) return `The last, ${last}.`;
  if (t.dials === 1) return `One dial failed, ${last}.`;
  const within = t.last_ms - t.since_ms < 1000 ? "" : ` in ${whole(t.last_ms - t.since_ms)}`;
  return `${number(t.dials)} dials failed${within}, the last ${last}.`;
}

// A Spark is how many ports were taken in the last five minutes.
class Spark {
  constructor() {
    this.path = svg("path");
    this.node = svg("svg", { class: "spark", viewBox: "0 0 59 20", preserveAspectRatio: "none", role: "img" });
    this.node.append(this.path);
  }

  draw(d) {
    const most = Math.max(d.ports.limit ?? 0, 1, ...d.trend);
    const from = 60 - d.trend.length;
    attr(this.path, "d", d.trend.map((n, i) => `${i ? "L" : "M"}${from + i} ${(19 - (18 * n) / most).toFixed(1)}`).join(""));
    attr(this.node, "aria-label", d.trend.length ? `at most ${number(Math.max(...d.trend))} ports in 5 minutes` : "no past");
  }
}

// ---- the drawer ---------------------------------------------------------------------------

// A Drawer shows the connections of one destination, and its own past.
class Drawer {
  constructor(row) {
    this.row = row;
    this.facts = el("p", { class: "facts" });
    this.ports = new Chart("Ports", "wide", drawPorts);
    this.ports.keys.append(...states.map((s) => key(s, s)));
    this.forecast = new Chart("Ports that come free", "wide", drawForecast);
    this.body = el("tbody", { role: "rowgroup" });
    this.more = el("p", { class: "quiet" });
    this.lines = [];
    const columns = ["Local port", "Name", "State", "Age", "Last proof", "RTT", "In flight", "Uses", "Trace"];
    this.table = el("table", { class: "connections", role: "table", "aria-label": `Connections to ${row.destination}` },
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...columns.map((c) => el("th", { scope: "col", role: "columnheader" }, c)))), this.body);
    this.columns = columns;
    this.id = "drawer-" + ++made;
    this.node = el("tr", { class: "drawer", role: "row", id: this.id },
      el("td", { colspan: 9, role: "cell" }, el("div", { class: "charts" }, this.ports.node, this.forecast.node), this.facts, this.table, this.more));
    this.asking = false;
    this.draw(null, "");
  }

  // refresh asks for the connections, one question at a time; while paused only once.
  async refresh() {
    if (frozen) return this.draw(frozen.details[this.row.destination] ?? null, "The details of this destination are not in this file.");
    if (this.asking || (view.paused && this.detail)) return;
    this.asking = true;
    let detail = null;
    try {
      const answer = await fetch("?format=json&destination=" + encodeURIComponent(this.row.destination), { signal: AbortSignal.timeout(5000) });
      if (answer.ok) detail = await answer.json();
    } catch {
      // The status says that there is no news.
    }
    this.asking = false;
    if (detail || !this.detail) this.draw(detail, "Its connections could not be asked for.");
  }

  // draw says why if there is nothing to draw.
  draw(detail, why) {
    for (const part of [this.ports.node, this.forecast.node, this.table]) part.hidden = !detail;
    if (!detail) {
      this.facts.replaceChildren(why);
      return;
    }
    this.detail = detail;
    this.facts.replaceChildren(...factsOf(detail));
    this.drawCharts();
    const list = shortened(detail.connections);
    const more = detail.connections.length + detail.more_connections - list.length;
    this.table.hidden = list.length === 0;
    while (this.lines.length < list.length) this.lines.push(new Line(this.columns));
    this.lines.splice(list.length).forEach((l) => l.node.remove());
    list.forEach((c, i) => {
      this.lines[i].draw(c);
      if (!this.lines[i].node.isConnected) this.body.append(this.lines[i].node);
    });
    put(this.more, more > 0 ? `and ${plural(more, "more port")}` : "");
  }

  drawCharts() {
    if (!this.detail) return;
    this.ports.draw(samplesOf(this.detail.history ?? { at_ms: [] }), this.detail.ports.limit, this.detail.at_ms);
    this.forecast.draw(this.detail);
  }
}

const mostLines = 100;
const mostCooling = 12;

// shortened leaves out most of those that only cool: they come last, and the forecast says it
// better.
function shortened(connections) {
  const cooling = connections.findIndex((c) => c.state === "cooling");
  const live = cooling < 0 ? connections.length : cooling;
  return connections.slice(0, Math.min(live, mostLines)).concat(connections.slice(live, live + mostCooling));
}

function factsOf(d) {
  const facts = [];
  const fact = (name, value) => facts.push(el("span", {}, name + " ", el("b", {}, value)));
  if (d.at_ms > view.state.at_ms + 1500) fact("as it was at", clock(d.at_ms)); // the row is older
  fact("address", d.destination);
  if (d.ports.limit !== null) fact("limit", `${number(d.ports.limit)}, ${d.limit_grade}`);
  for (const s of d.shared) fact(`${sharedWith(s)}, ${number(s.limit)} ports:`, [`held ${number(s.held)}`, ...leasedParts(s), ...calledInVain(s)].join(", "));
  if (d.names.length > 1) fact("names", visible(d.names.join(", ")) + (d.more_names ? ` and ${d.more_names} more` : ""));
  if (d.counts) {
    fact("opened", number(d.counts.opened));
    fact("failed", number(d.counts.failed));
    fact("had to wait for a port", number(d.counts.waited));
    fact("refused a port", number(d.counts.refused));
  }
  for (const [reason, n] of Object.entries(d.closed).sort((a, b) => b[1] - a[1])) fact("closed: " + reason.replace("_", " "), number(n));
  return facts;
}

// A Line is one connection's.
class Line {
  constructor(columns) {
    this.cells = columns.map((c) => el("td", { role: "cell", "data-label": c }));
    this.swatch = el("i", { class: "swatch" });
    this.state = el("span");
    this.cells[2].append(this.swatch, this.state);
    this.node = el("tr", { role: "row" }, ...this.cells);
  }

  draw(c) {
    const drawn = { asked: "dialing", closing: "cooling" }[c.state] ?? c.state;
    attr(this.swatch, "class", "swatch " + drawn);
    put(this.state, c.state === "cooling" ? `cooling, free in ${countdown(c.free_seconds)} (${c.ending.replaceAll("-", " ")})` : c.state);
    attr(this.state, "title", this.state.said);
    const over = c.state === "cooling"; // nobody knows any more what it was used for
    const flight = c.unacked_bytes ? `${number(c.in_flight)}, ${number(c.unacked_bytes)} B unacked` : number(c.in_flight);
    const says = [c.local ? port(c.local) : "–", visible(c.name), null, duration(c.age_seconds), duration(c.last_proof_seconds),
      duration(c.rtt_seconds), over ? "–" : flight, over ? "–" : number(c.uses), c.trace_id || "–"];
    says.forEach((text, i) => {
      if (text === null) return;
      put(this.cells[i], text);
      attr(this.cells[i], "title", text);
    });
    attr(this.node, "data-local", c.local || null);
    attr(this.node, "class", over ? "over" : null);
  }
}

const openDrawer = () => rows.get(view.open)?.drawer;

function toggleDrawer(destination) {
  const wasOpen = view.open === destination;
  closeDrawer();
  if (wasOpen) return;
  const row = rows.get(destination);
  view.open = destination;
  row.drawer = new Drawer(row);
  (row.trouble?.node.isConnected ? row.trouble : row).node.after(row.drawer.node);
  attr(row.button, "aria-expanded", "true");
  attr(row.button, "aria-controls", row.drawer.id);
  row.node.classList.add("opened");
  row.drawer.refresh();
}

function closeDrawer() {
  const row = rows.get(view.open);
  view.open = null;
  if (!row || !row.drawer) return;
  if (row.drawer.node.contains(document.activeElement)) row.button.focus();
  row.drawer.node.remove();
  row.drawer = null;
  attr(row.button, "aria-expanded", "false");
  attr(row.button, "aria-controls", null);
  row.node.classList.remove("opened");
}

// ---- charts -------------------------------------------------------------------------------

const resized = new ResizeObserver((entries) => {
  for (const e of entries) e.target.chart.resize(e.contentRect);
});

const room = { left: 0, right: 0, top: 16, bottom: 18 }; // around the plot, for words

// A Chart is a figure whose paths are drawn by a function. Points are where the pixels are:
// nothing is stretched.
class Chart {
  constructor(title, size, paint) {
    this.paint = paint;
    this.now = el("output");
    this.keys = el("span");
    this.plot = svg("svg", { class: "chart", role: "img" });
    this.title = title;
    this.node = el("figure", { class: size }, el("figcaption", {}, el("b", {}, title), this.keys, this.now), this.plot);
    this.made = new Map();
    this.wide = 0;
    this.plot.chart = this;
    this.plot.addEventListener("pointermove", (e) => this.point(e.offsetX));
    this.plot.addEventListener("pointerleave", () => this.point(null));
    resized.observe(this.plot);
  }

  resize(rect) {
    this.wide = Math.round(rect.width);
    this.high = Math.round(rect.height);
    if (this.drawn) this.draw(...this.drawn);
  }

  draw(...what) {
    this.drawn = what;
    if (!this.wide) {
      const rect = this.plot.getBoundingClientRect();
      this.wide = Math.round(rect.width);
      this.high = Math.round(rect.height);
    }
    if (!this.wide) return; // not on the page yet
    attr(this.plot, "viewBox", `0 0 ${this.wide} ${this.high}`);
    for (const node of this.made.values()) node.unused = true;
    this.paint(this, ...what);
    for (const node of this.made.values()) if (node.unused) attr(node, "visibility", "hidden");
  }

  // shape returns the element of that name, made when it is needed first: the order in which
  // they are first drawn is that in which they cover each other.
  shape(tag, name, attributes) {
    let node = this.made.get(name);
    if (!node) {
      node = svg(tag);
      this.made.set(name, node);
      this.plot.append(node);
    }
    node.unused = false;
    attr(node, "visibility", null);
    for (const [k, v] of Object.entries(attributes)) attr(node, k, v);
    return node;
  }

  text(name, words, attributes) {
    put(this.shape("text", name, attributes), words);
  }

  y(value, most) {
    return room.top + (this.high - room.top - room.bottom) * (1 - value / most);
  }

  x(share) {
    return room.left + (this.wide - room.left - room.right) * share;
  }

  // axes draws the ground line, one at the top, and what they stand for.
  axes(most, unit, from, to) {
    const top = Math.round(this.y(most, most)) + 0.5;
    const ground = Math.round(this.y(0, most)) + 0.5;
    this.shape("path", "grid", { class: "grid", d: `M0 ${top}H${this.wide}M0 ${ground}H${this.wide}` });
    this.text("most", unit(most), { x: 0, y: top - 4 });
    this.text("from", from, { x: 0, y: this.high - 4 });
    this.text("to", to, { x: this.wide, y: this.high - 4, "text-anchor": "end" });
  }

  say(words, label) {
    put(this.now, words);
    attr(this.plot, "aria-label", `${this.title}: ${label ?? words}`);
  }

  // point moves the cursor of all charts over time.
  point(x) {
    if (this.paint === drawForecast) return;
    view.cursor = x === null ? null : (x - room.left) / (this.wide - room.left - room.right);
    drawCharts(view.state);
    openDrawer()?.drawCharts();
  }
}

// round is the next larger number that reads well on an axis.
function round(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  const steps = power < 10 ? [1, 2, 3, 4, 5, 6, 8, 10] : [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10];
  return steps.map((n) => n * power).find((n) => n >= most * 0.999);
}

// windowOf returns the samples of the range that is looked at, and where a moment is in it.
function windowOf(samples, to) {
  const from = to - view.minutes * 60_000;
  const at = (s) => Math.max(0, Math.min(1, (s.at_ms - from) / (to - from)));
  return { at, some: samples.filter((s) => s.at_ms >= from - 1000 && s.at_ms <= to) };
}

// runs cuts samples where nobody has looked for a while, and where there is nothing to show.
function runs(some, known = () => true) {
  const all = [];
  let last = -Infinity;
  for (const s of some) {
    if (!known(s)) {
      last = -Infinity;
      continue;
    }
    if (s.at_ms - last > 3000) all.push([]);
    all[all.length - 1].push(s);
    last = s.at_ms;
  }
  return all;
}

const point = (x, y) => `${x.toFixed(1)} ${y.toFixed(1)}`;

// area is what lies between two heights of a sample.
function area(chart, window, low, high, known) {
  return runs(window.some, known).map((run) => {
    const up = run.map((s) => point(chart.x(window.at(s)), high(s)));
    const back = run.map((s) => point(chart.x(window.at(s)), low(s))).reverse();
    return "M" + up.concat(back).join("L") + "Z";
  }).join("");
}

function line(chart, window, high, known) {
  return runs(window.some, known).map((run) => "M" + run.map((s) => point(chart.x(window.at(s)), high(s))).join("L")).join("");
}

// selected is the sample under the cursor, or the last; and its line.
function selected(chart, window) {
  if (!window.some.length) return null;
  let best = window.some[window.some.length - 1];
  if (view.cursor !== null) {
    for (const s of window.some) if (Math.abs(window.at(s) - view.cursor) < Math.abs(window.at(best) - view.cursor)) best = s;
    const x = Math.round(chart.x(window.at(best))) + 0.5;
    chart.shape("path", "cursor", { class: "cursor", d: `M${x} ${room.top}V${chart.high - room.bottom}` });
  }
  return best;
}

const when = (s) => (view.cursor === null ? "" : clock(s.at_ms) + ": ");
const span = () => `${view.minutes} min ago`;

// drawPorts stacks the states; the cooling ones are hatched.
function drawPorts(chart, samples, limit, to) {
  const window = windowOf(samples, to);
  const total = (s) => states.reduce((sum, state) => sum + s[state], 0);
  const taken = Math.max(0, ...window.some.map(total));
  if (chart.limitIs && 2 * taken < limit) limit = null; // far away, it would press the rest to the ground
  const most = round(Math.max(1, 1.02 * Math.max(limit ?? 0, taken)));
  chart.axes(most, number, span(), "now");
  const below = new Map(window.some.map((s) => [s, 0]));
  for (const state of states) {
    const low = (s) => chart.y(below.get(s), most);
    const high = (s) => chart.y(below.get(s) + s[state], most);
    const d = area(chart, window, low, high);
    chart.shape("path", state, { class: "area-" + state, d });
    if (state === "cooling") chart.shape("path", "hatched", { fill: `url(#${hatch()})`, d });
    for (const s of window.some) below.set(s, below.get(s) + s[state]);
    chart.shape("path", state + "-edge", { class: "edge", d: line(chart, window, (s) => chart.y(below.get(s), most)) });
  }
  if (limit !== null) {
    const y = Math.round(chart.y(limit, most)) + 0.5;
    chart.shape("path", "limit", { class: "limit", d: `M0 ${y}H${chart.wide}` });
    chart.text("limited", `${chart.limitIs ?? "limit"} ${number(limit)}`, { x: chart.wide, y: y - 4, "text-anchor": "end" });
  }
  const s = selected(chart, window);
  chart.say(s ? when(s) + states.map((state) => `${number(s[state])} ${state}`).join(", ") : "nothing is known yet");
}

// smooth has means in the place of rates, over as many seconds as a pixel or two stand for:
// seconds alone are noise.
function smooth(some, names) {
  return some.map((s, i) => {
    const near = some.slice(Math.max(0, i + 1 - view.minutes), i + 1);
    const mean = (name) => near.reduce((sum, n) => sum + (n[name] ?? 0), 0) / near.length;
    return { ...s, ...Object.fromEntries(names.map((name) => [name, mean(name)])) };
  });
}

// drawLines returns a painter of one or two quantities, the first one filled.
function drawLines(names, words, unit) {
  return (chart, samples, to) => {
    const window = windowOf(samples, to);
    if (unit === perSecond) window.some = smooth(window.some, names);
    const most = round(Math.max(unit.least, ...window.some.flatMap((s) => names.map((n) => s[n] ?? 0))));
    chart.axes(most, unit.words, span(), "now");
    const high = (n) => (s) => chart.y(s[n] ?? 0, most);
    const known = (n) => (s) => s[n] !== null;
    chart.shape("path", "under", { class: "under", d: area(chart, window, () => chart.y(0, most), high(names[0]), known(names[0])) });
    names.forEach((n, i) => chart.shape("path", n, { class: i ? "line line-2" : "line", d: line(chart, window, high(n), known(n)) }));
    const s = selected(chart, window);
    chart.say(s ? when(s) + words(s) : "nothing is known yet");
  };
}

// drawHoles marks each moment at which a connection was found dead.
function drawHoles(chart, samples, to) {
  const window = windowOf(samples, to);
  const most = round(Math.max(1, ...window.some.map((s) => s.blackholes)));
  chart.axes(most, number, span(), "now");
  const d = window.some.filter((s) => s.blackholes > 0).map((s) => {
    const x = chart.x(window.at(s));
    return `M${point(x - 1.5, chart.y(0, most))}V${chart.y(s.blackholes, most).toFixed(1)}h3V${chart.y(0, most).toFixed(1)}Z`;
  }).join("");
  chart.shape("path", "holes", { class: "hole", d });
  const sum = window.some.reduce((n, s) => n + s.blackholes, 0);
  const s = selected(chart, window);
  chart.say(view.cursor !== null && s ? when(s) + number(s.blackholes) : `${number(sum)} in ${view.minutes} min`);
}

// drawForecast shows how many ports come free in each of the next 24 times 10 s.
function drawForecast(chart, of) {
  const freed = of.freed;
  const most = round(Math.max(1, ...freed));
  chart.axes(most, number, "now", "in 240 s");
  for (const share of chart.wide < 280 ? [0.25, 0.5] : [0.25, 0.5, 0.75]) { // the last would touch the end
    chart.text("in" + share, `${240 * share} s`, { x: chart.x(share), y: chart.high - 4, "text-anchor": "middle" });
  }
  const step = chart.wide / freed.length;
  const d = freed.map((n, i) => {
    if (!n) return "";
    const top = chart.y(n, most);
    return `M${point(i * step + 1, chart.y(0, most))}V${top.toFixed(1)}h${(step - 2).toFixed(1)}V${chart.y(0, most).toFixed(1)}Z`;
  }).join("");
  chart.shape("path", "freed", { class: "area-cooling", d });
  chart.shape("path", "hatched", { fill: `url(#${hatch()})`, d });
  const all = freed.reduce((a, b) => a + b, 0) + of.freed_later;
  const soon = freed.slice(0, 6).reduce((a, b) => a + b, 0);
  const later = of.freed_later ? `, ${number(of.freed_later)} later than shown` : "";
  chart.say(all ? `${number(soon)} of ${number(all)} within a minute${later}` : "none is cooling");
}

// hatch makes the pattern of cooling ports once, and returns its id.
function hatch() {
  if (!byId("hatch")) {
    const pattern = svg("pattern", { id: "hatch", width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
    pattern.append(svg("path", { class: "texture", d: "M3.5 0V7" }));
    const defs = svg("svg", { class: "chart hidden", "aria-hidden": "true" });
    defs.append(pattern);
    document.body.append(defs);
  }
  return "hatch";
}

const seconds = { least: 0.001, words: (s) => duration(s).replace(".0 ", " ") };
const perSecond = { least: 1, words: (n) => `${tidy(n)} / s` };
const count = { least: 1, words: number };

let charts = null;

const key = (name, look) => el("span", { class: "key" }, el("i", { class: "swatch " + look }), name);

function makeCharts() {
  charts = {
    ports: new Chart("Ports", "wide", drawPorts),
    turnover: new Chart("Dials and closes", "", drawLines(["dials_per_second", "closes_per_second"],
      (s) => `${tidy(s.dials_per_second)} and ${tidy(s.closes_per_second)} a second`, perSecond)),
    waiting: new Chart("Waiting", "", drawLines(["waiting"], (s) => number(s.waiting), count)),
    forecast: new Chart("Ports that come free", "wide", drawForecast),
    wait: new Chart("Wait for a connection", "", drawLines(["wait_p99_seconds", "oldest_wait_seconds"], waitsInWords, seconds)),
    holes: new Chart("Black holes", "", drawHoles),
  };
  for (const chart of Object.values(charts)) byId("charts").append(chart.node);
  charts.ports.limitIs = "all limits together";
  charts.ports.keys.append(...states.map((s) => key(s, s)));
  charts.turnover.keys.append(key("dials", "active"), key("closes", "line-2"));
  charts.wait.keys.append(key("p99", "active"), key("so far", "line-2"));
}

// waitsInWords says how long it took who waits no more, and who waits still.
function waitsInWords(s) {
  const said = s.wait_p99_seconds === null ? [] : [`p99 ${duration(s.wait_p99_seconds)}`];
  if (s.oldest_wait_seconds !== null) said.push(`${duration(s.oldest_wait_seconds)} so far`);
  return said.join(", ") || "nobody waited";
}

function drawCharts(state) {
  if (!charts) makeCharts();
  const to = state.at_ms;
  charts.ports.draw(view.past, state.ports.limit, to);
  charts.turnover.draw(view.past, to);
  charts.waiting.draw(view.past, to);
  charts.wait.draw(view.past, to);
  charts.holes.draw(view.past, to);
  charts.forecast.draw(everywhere(state.destinations));
}

// everywhere adds the forecasts of all destinations.
function everywhere(destinations) {
  const sum = { freed: new Array(24).fill(0), freed_later: 0 };
  for (const d of destinations) {
    if (!counted(d)) continue;
    d.freed.forEach((n, i) => (sum.freed[i] += n));
    sum.freed_later += d.freed_later;
  }
  return sum;
}

// ---- what happened ------------------------------------------------------------------------

const kinds = { budget: "nearly full", blackhole: "black hole", leak: "leak", refused: "refused", stale: "stale socket" };

const mild = new Set(["budget", "stale"]);
const good = new Set(["recovered"]);

function drawEvents({ events, problem }) {
  const list = byId("events");
  byId("quiet").hidden = events.length > 0 || Boolean(problem);
  list.hidden = events.length === 0;
  const last = events.length ? events[events.length - 1] : null;
  const known = last ? `${events.length} ${last.at_ms} ${last.kind} ${last.about}` : "";
  if (list.known === known) return;
  list.known = known;
  list.replaceChildren(...events.map(eventItem).reverse());
}

function eventItem(e) {
  const at = el("time", { datetime: new Date(e.at_ms).toISOString() }, clock(e.at_ms));
  const look = good.has(e.kind) ? "kind" : mild.has(e.kind) ? "kind warn" : "kind bad";
  const times = e.times > 1 ? ` (${number(e.times)} times since it was said last)` : "";
  return el("li", {}, at, el("span", { class: look }, kinds[e.kind] ?? e.kind),
    el("span", {}, sentence(visible(e.text)) + times + " ", el("small", {}, el("bdi", {}, visible(e.about)))));
}

// ---- keys and buttons ---------------------------------------------------------------------

function pause() {
  view.paused = !view.paused;
  attr(byId("pause"), "aria-pressed", view.paused);
  put(byId("pause"), view.paused ? "Go on" : "Pause");
  if (!view.paused && view.pending) {
    view.held.forEach(remember);
    view.state = view.pending;
    view.pending = null;
    view.held = [];
    drawSoon();
  }
  tellStatus();
}

function look(minutes) {
  view.minutes = minutes;
  for (const b of document.querySelectorAll(".range button")) attr(b, "aria-pressed", Number(b.dataset.minutes) === minutes);
  drawSoon();
}

function find(text) {
  view.filter = text.trim().toLowerCase();
  view.reorder = true;
  drawSoon();
}

function pressed(e) {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  const filter = byId("filter");
  if (e.key === "Escape") {
    if (document.activeElement === filter && filter.value) {
      filter.value = "";
      find("");
    } else if (view.open) {
      rows.get(view.open)?.button.focus();
      closeDrawer();
    } else {
      document.activeElement?.blur();
    }
  } else if (document.activeElement === filter || !byId("keys").checked) {
    return;
  } else if (e.key === "/") {
    filter.focus();
    filter.select();
    e.preventDefault();
  } else if (e.key === "p" && !frozen) {
    pause();
  }
}

// keepKeys remembers whether letters alone do something, which they should not for who dictates.
function keepKeys() {
  const keys = byId("keys");
  try {
    keys.checked = localStorage.getItem("natwise.keys") !== "off";
    keys.addEventListener("change", () => localStorage.setItem("natwise.keys", keys.checked ? "on" : "off"));
  } catch {
    // Where nothing may be kept, it is so until the page is left.
  }
}

function listen() {
  keepKeys();
  byId("pause").addEventListener("click", pause);
  byId("filter").addEventListener("input", (e) => find(e.target.value));
  byId("all").addEventListener("click", () => {
    view.all = !view.all;
    view.reorder = true;
    drawSoon();
  });
  for (const b of document.querySelectorAll(".range button")) b.addEventListener("click", () => look(Number(b.dataset.minutes)));
  document.addEventListener("keydown", pressed);
  for (const busy of ["pointermove", "pointerdown", "keydown"]) {
    document.addEventListener(busy, () => (view.touched = performance.now()), { passive: true });
  }
}

// ---- where it comes from ------------------------------------------------------------------

// news is what is known of how current the page is. Times are those of performance.now().
const news = {
  mode: "Live", // what the status says while there is news
  at: 0, // when a state came; 0: none has
  event: 0, // when one came as an event
  asked: 0, // when one was asked for, last
  opened: 0, // when the events were, last
  events: null, // their source; null: it has said no
};

const late = 3000; // ms without news, of which there is some each second
const asking = 5000; // from one question to the next, where no events come
const deaf = 20_000; // without events, though the server sends something each second: it is asked for them anew

// lost reports whether what the page shows is older than it should be.
function lost() {
  return !frozen && performance.now() - news.at > (news.at > news.event ? asking + late : late);
}

// tellStatus says how current the page is, to those who do not see it too.
function tellStatus() {
  const gone = lost();
  const is = frozen ? "frozen" : view.paused ? "paused" : gone ? "lost" : news.at > 0 ? "live" : "";
  const latest = view.pending ?? view.state;
  const words = {
    frozen: () => `As it was at ${new Date(frozen.state.at_ms).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" })}`,
    paused: () => `Paused at ${clock(view.state?.at_ms ?? Date.now())}` + (gone && latest ? `; no news since ${clock(latest.at_ms)}` : ""),
    lost: () => (latest ? `No news since ${clock(latest.at_ms)}, trying again` : "No answer yet, trying again"),
    live: () => news.mode,
    "": () => "Connecting",
  };
  const status = byId("status");
  put(status, words[is]());
  attr(status, "data-is", is);
  attr(document.documentElement, "data-lost", gone && latest ? "" : null);
  drawTitle();
}

// connect has the events come. A connection that has died without a word, and a server that
// stands still, are found by tick.
function connect() {
  news.opened = performance.now();
  const events = new EventSource("events");
  news.events = events;
  events.addEventListener("state", (e) => {
    receive(JSON.parse(e.data));
    news.event = news.at;
    news.mode = "Live";
    tellStatus();
  });
  events.addEventListener("error", () => {
    // The browser tries again by itself, unless it was told no: 16 others look already, or what
    // stands before the server has lost it.
    if (events.readyState === EventSource.CLOSED && news.events === events) news.events = null;
  });
}

// tick sees to it, once a second, that there is news.
function tick() {
  const now = performance.now();
  const silent = now - Math.max(news.event, news.opened);
  if ((!news.events || silent > asking) && now - news.asked > asking) ask();
  if (silent > (news.events ? deaf : asking)) {
    news.events?.close();
    connect();
  }
  tellStatus();
}

// ask gets one state, for want of events.
async function ask() {
  news.asked = performance.now();
  const mode = news.events ? "Every 5 s: no events get through" : "Every 5 s: many others look";
  try {
    const answer = await fetch("?format=json", { signal: AbortSignal.timeout(asking - 500) });
    if (!answer.ok) return;
    const state = await answer.json();
    if (news.event > news.asked) return; // an event was faster
    receive(state);
    news.mode = mode;
    tellStatus();
  } catch {
    // It stays lost.
  }
}

const frozen = JSON.parse(byId("frozen")?.textContent ?? "null");

function begin() {
  listen();
  if (!frozen) {
    tellStatus();
    connect();
    setInterval(tick, 1000);
    return;
  }
  view.state = frozen.state;
  remember(frozen.state.history);
  if (!(view.past.at(-1)?.at_ms - view.past[0]?.at_ms > 60_000)) look(1);
  byId("pause").hidden = true;
  byId("twins").hidden = true;
  byId("pause-key").hidden = true;
  tellStatus();
  draw();
}

begin();
