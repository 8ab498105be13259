// The page: it applies the server's messages to two maps, and brings the document up to date once a
// frame. Every text of a hypervisor goes in as text, never as markup.

const sources = new Map(); // by URI
const rows = new Map(); // by key: the data, and its table row
const element = (id) => document.getElementById(id);

// States: a word, and a shape that does not need colour.

const STATES = {
  running: ["running", "M2 1l9 5-9 5z"],
  blocked: ["blocked", "M2 1l9 5-9 5z"],
  paused: ["paused", "M2 1h3v10H2zM7 1h3v10H7z"],
  shutting_down: ["shutting down", "M5 1h2v6h2.500L6 11 2.500 7H5z"],
  shutoff: ["shut off", "M1 1h10v10H1zM3 3v6h6V3z"],
  crashed: ["crashed", "M2.500 1L6 4.500 9.500 1 11 2.500 7.500 6 11 9.500 9.500 11 6 7.500 2.500 11 1 9.500 4.500 6 1 2.500z"],
  pm_suspended: ["asleep", "M7 1a5 5 0 1 0 4 7A4 4 0 0 1 7 1z"],
  no_state: ["no state", "M1 5h10v2H1z"],
  unknown: ["unknown", "M1 5h10v2H1z"],
};
const ORDER = Object.keys(STATES);
const word = (state) => (STATES[state] ?? STATES.unknown)[0];

function svg(name, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function shape(state) {
  const image = svg("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" });
  image.append(svg("path", { d: (STATES[state] ?? STATES.unknown)[1], "fill-rule": "evenodd" }));
  return image;
}

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// Writes only what differs: the browser lays out nothing for the rest.
function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Times.

function ago(millis) {
  if (millis === null || millis === undefined) return "";
  const seconds = Math.max(0, Math.round((Date.now() - millis) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

// Messages.

let isOrderStale = true;
let frame = 0;

function apply(message) {
  if (message.message === "all") {
    for (const key of [...rows.keys()]) remove(key);
    sources.clear();
  }
  const news = (message.sources ?? []).map(applySource).filter(Boolean);
  // One text for all of them: a screen reader hears only the last of several.
  if (news.length > 0) announce(news.join(", "));
  if (message.sources) {
    const uris = new Set(message.sources.map((source) => source.uri));
    for (const uri of [...sources.keys()]) if (!uris.has(uri)) sources.delete(uri);
  }
  for (const row of message.rows) applyRow(row, message.message === "changes");
  for (const key of message.gone ?? []) remove(key);
  for (const activity of message.activity ?? []) addActivity(activity);
  draw();
}

function remove(key) {
  rows.get(key)?.node.remove();
  rows.delete(key);
}

function applyRow(data, isChange) {
  let row = rows.get(data.key);
  if (!row) {
    row = { node: makeRow(), data };
    rows.set(data.key, row);
  }
  // A domain that only became unreachable, or reachable again, did not change.
  if (isChange && (row.data.state !== data.state || row.data.since !== data.since)) {
    row.node.classList.remove("is-new");
    requestAnimationFrame(() => row.node.classList.add("is-new"));
  }
  row.data = data;
  row.text = [data.name, data.host, data.source, word(data.state), data.change, data.uuid,
    data.is_transient ? "transient" : "", data.is_uncertain ? "last known" : ""].join("\n").toLowerCase();
  fillRow(row);
  isOrderStale = true;
}

const isFailure = (change) => /^crashed|\((crashed|failed)\)/.test(change);

function makeRow() {
  const node = document.createElement("tr");
  node.append(make("td", "cell-state"), make("td", "name"), make("td", "host"), make("td", "change"), make("td", "num"));
  node.firstChild.append(make("span", "state"));
  node.children[1].append(make("span", "label"), make("span", "note"));
  return node;
}

function fillRow({ node, data }) {
  const [state, name, host, change, since] = node.children;
  const mark = state.firstChild;
  if (mark.dataset.state !== data.state) {
    mark.dataset.state = data.state;
    mark.replaceChildren(shape(data.state), make("span", "", word(data.state)));
  }
  node.classList.toggle("is-uncertain", data.is_uncertain);
  set(name.firstChild, data.name);
  name.title = `${data.uuid}${data.id === null ? "" : `, id ${data.id}`}`;
  const notes = [data.is_transient ? "transient" : "", data.is_uncertain ? "last known" : ""];
  set(name.lastChild, notes.filter(Boolean).join(" · "));
  set(host, data.host);
  host.title = data.source;
  change.classList.toggle("is-bad", isFailure(data.change));
  const said = [data.change, data.is_inferred ? "inferred" : ""];
  set(change, said.filter(Boolean).join(" · "));
  since.dataset.since = data.since ?? "";
  since.title = data.since === null ? "already so when it was first seen" : full.format(data.since);
  set(since, data.since === null ? "–" : ago(data.since));
}

// Hosts.

const KEPT = 60; // seconds of a host's rate

function applySource(data) {
  const before = sources.get(data.uri);
  const source = before ?? { data, node: makeCard(), rates: [], counted: data.events, at: Date.now() };
  const news = before ? reachability(before.data, data) : "";
  source.data = data;
  sources.set(data.uri, source);
  return news;
}

const isLost = (data) => data.status === "disconnected";

const lost = new Set(); // URIs whose return is to be announced

function reachability({ status }, now) {
  if (isLost(now)) {
    lost.add(now.uri);
    return status === now.status ? "" : `${now.uri} is unreachable`;
  }
  return now.status === "synced" && lost.delete(now.uri) ? `${now.uri} is reachable again` : "";
}

const announce = (text) => set(element("announce"), text);

function makeCard() {
  const node = make("li", "card");
  const head = make("div", "card-head");
  head.append(make("span", "card-name"), make("span", "badge"));
  const foot = make("div", "card-foot");
  const spark = svg("svg", { class: "spark", viewBox: `0 0 ${KEPT} 20`, preserveAspectRatio: "none", "aria-hidden": "true" });
  spark.append(svg("line", { x1: 0, x2: KEPT, y1: 19.5, y2: 19.5 }), svg("path", { d: "" }));
  foot.append(make("span"), spark);
  const facts = make("p", "card-line");
  facts.append(make("span"), make("span"));
  node.append(head, facts, make("p", "card-fault"), foot);
  return node;
}

function fillCard(source, counts) {
  const { data, node } = source;
  const [head, domains, fault, foot] = node.children;
  const [badge, tone] = {
    synced: data.unreachable > 0 ? ["partly unreachable", "is-warn"] : ["live", "is-good"],
    disconnected: ["unreachable", "is-bad"],
    shutdown: ["ended", ""],
    ended: ["ended", ""],
  }[data.status] ?? [data.status, "is-warn"];
  set(head.firstChild, data.uri);
  head.firstChild.title = data.uri;
  set(head.lastChild, badge);
  head.lastChild.className = `badge ${tone}`;
  node.classList.toggle("is-lost", isLost(data));
  const facts = [`${counts.running} of ${counts.all} running`, counts.crashed ? `${counts.crashed} crashed` : "",
    data.unreachable ? `${data.unreachable} parts unreachable` : "", isLost(data) ? "last known" : ""];
  set(domains.firstChild, facts.filter(Boolean).join(", "));
  set(domains.lastChild, data.gaps === 1 ? "1 outage" : `${data.gaps} outages`);
  // In an outage its cause stands in the place of the rate: what is below does not move.
  set(fault, isLost(data) ? `for ${ago(data.since)}: ${data.fault}` : "");
  fault.title = fault.textContent;
  fault.hidden = !isLost(data);
  foot.classList.toggle("is-away", isLost(data));
  const rate = source.rates.slice(-10).reduce((sum, one) => sum + one, 0) / Math.max(1, Math.min(10, source.rates.length));
  const missed = data.missed ? `, ${data.missed} missed` : "";
  set(foot.firstChild, `${rate < 10 ? rate.toFixed(1) : Math.round(rate)} events/s${missed}`);
}

function sampleRates() {
  for (const source of sources.values()) {
    const now = Date.now();
    const seconds = (now - source.at) / 1000;
    if (seconds < 0.5) continue;
    source.rates.push(Math.max(0, source.data.events - source.counted) / seconds);
    source.rates.splice(0, source.rates.length - KEPT);
    source.counted = source.data.events;
    source.at = now;
    const most = Math.max(1, ...source.rates);
    const left = KEPT - source.rates.length;
    const point = (rate, index) => `${index === 0 ? "M" : "L"}${left + index} ${(19 - (rate / most) * 17).toFixed(1)}`;
    source.node.querySelector(".spark path").setAttribute("d", source.rates.map(point).join(""));
  }
}

// Activity.

const LISTED = 100;
const TONES = { started: "is-good", resumed: "is-good", crashed: "is-bad", stopped: "", suspended: "is-warn", pm_suspended: "is-warn", shutting_down: "is-warn" };

function addActivity(activity) {
  const node = document.createElement("li");
  const time = make("time", "", activity.at === null ? "" : clock.format(activity.at));
  if (activity.at !== null) time.dateTime = new Date(activity.at).toISOString();
  const text = document.createElement("span");
  const tone = isFailure(activity.change) ? "is-bad" : (TONES[activity.kind] ?? "");
  text.append(make("strong", "", activity.name), make("span", "where", ` on ${activity.host} `), make("span", `what ${tone}`, activity.change + (activity.is_inferred ? ", inferred" : "")));
  text.title = activity.source;
  node.append(time, text);
  const list = element("activity");
  list.prepend(node);
  while (list.childElementCount > LISTED) list.lastChild.remove();
  element("quiet").hidden = true;
}

// Filter, order, drawing.

const shownStates = new Set();
let query = "";
let sort = { by: "name", down: false };

const byText = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
const KEYS = {
  name: (a, b) => byText.compare(a.name, b.name),
  host: (a, b) => byText.compare(a.host, b.host),
  state: (a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state),
  // What is longest ago first; what is not known is longest ago.
  since: (a, b) => (a.since ?? 0) - (b.since ?? 0),
};

function isShown(row) {
  if (shownStates.size > 0 && !shownStates.has(row.data.state)) return false;
  return query.split(/\s+/).every((part) => row.text.includes(part));
}

function order() {
  const sorted = [...rows.values()].sort((a, b) => {
    const first = KEYS[sort.by](a.data, b.data) * (sort.down ? -1 : 1);
    return first || KEYS.name(a.data, b.data) || KEYS.host(a.data, b.data);
  });
  const body = element("rows");
  // Only what is out of place moves.
  let at = body.firstChild;
  for (const { node } of sorted) {
    if (node === at) at = at.nextSibling;
    else body.insertBefore(node, at);
  }
  isOrderStale = false;
}

function draw() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    if (isOrderStale) order();
    let shown = 0;
    const states = new Map();
    const counts = new Map([...sources.keys()].map((uri) => [uri, { all: 0, running: 0, crashed: 0 }]));
    for (const row of rows.values()) {
      const { state, source } = row.data;
      states.set(state, (states.get(state) ?? 0) + 1);
      const count = counts.get(source);
      if (count) {
        count.all += 1;
        count.running += state === "running" || state === "blocked" ? 1 : 0;
        count.crashed += state === "crashed" ? 1 : 0;
      }
      const visible = isShown(row);
      shown += visible ? 1 : 0;
      if (row.node.hidden === visible) row.node.hidden = !visible;
    }
    drawChips(states);
    drawHosts(counts);
    set(element("shown"), shown === rows.size ? `${rows.size}` : `${shown} of ${rows.size}`);
    const empty = element("empty");
    empty.hidden = shown > 0;
    const isWaiting = [...sources.values()].some(({ data }) => data.status !== "synced");
    const none = isWaiting ? "No domain is known yet." : "There is no domain.";
    set(empty, rows.size > 0 ? "No domain matches the search." : none);
  });
}

function drawHosts(counts) {
  const list = element("hosts");
  const nodes = [...sources.values()].map((source) => {
    fillCard(source, counts.get(source.data.uri));
    return source.node;
  });
  if (nodes.length !== list.childElementCount || nodes.some((node, index) => list.children[index] !== node)) {
    list.replaceChildren(...nodes);
  }
}

const chips = new Map();

function drawChips(states) {
  for (const state of ORDER) {
    const count = states.get(state) ?? 0;
    let chip = chips.get(state);
    if (!chip && count === 0) continue;
    if (!chip) {
      chip = make("button", "chip");
      chip.type = "button";
      chip.append(shape(state), make("span"));
      chip.firstChild.setAttribute("class", "glyph");
      chip.addEventListener("click", () => {
        if (!shownStates.delete(state)) shownStates.add(state);
        draw();
      });
      chips.set(state, chip);
      const next = ORDER.slice(ORDER.indexOf(state) + 1).find((later) => chips.has(later));
      element("states").insertBefore(chip, next ? chips.get(next) : null);
    }
    set(chip.lastChild, `${word(state)} ${count}`);
    chip.setAttribute("aria-pressed", String(shownStates.has(state)));
    chip.hidden = count === 0 && !shownStates.has(state);
  }
}

// The connection to the server.

function link(state, text) {
  element("link").dataset.state = state;
  set(element("link-text"), text);
  document.body.classList.toggle("is-stale", state === "lost");
}

function connect() {
  const stream = new EventSource("/events");
  stream.onmessage = ({ data }) => {
    if (element("link").dataset.state === "lost") announce("the dashboard is connected again");
    link("live", "live");
    apply(JSON.parse(data));
  };
  stream.onerror = () => {
    announce("no connection to the dashboard");
    link("lost", "no connection to the dashboard: what you see is old");
    // The browser reconnects by itself, but for an answer that is no stream.
    if (stream.readyState === EventSource.CLOSED) {
      stream.close();
      setTimeout(connect, 2000);
    }
  };
}

// What the user does.

const search = element("search");
search.addEventListener("input", () => {
  query = search.value.trim().toLowerCase();
  draw();
});
document.addEventListener("keydown", (event) => {
  const isTyping = event.target instanceof HTMLInputElement;
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.select();
    search.focus();
  } else if (event.key === "Escape" && event.target === search) {
    search.value = "";
    query = "";
    search.blur();
    draw();
  }
});

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const by = button.dataset.sort;
    sort = { by, down: sort.by === by ? !sort.down : by === "since" };
    for (const other of document.querySelectorAll("th button")) {
      const isThis = other.dataset.sort === by;
      other.parentNode.setAttribute("aria-sort", !isThis ? "none" : sort.down ? "descending" : "ascending");
    }
    isOrderStale = true;
    draw();
  });
}

const THEMES = ["system", "light", "dark"];
let theme = "system";
try {
  theme = localStorage.getItem("theme") ?? theme;
} catch {
  // Storage may be forbidden: the theme is then that of this visit.
}

function setTheme(name) {
  theme = THEMES.includes(name) ? name : "system";
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  set(element("theme"), `Theme: ${theme}`);
}

setTheme(theme);
element("theme").addEventListener("click", () => {
  setTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // As above.
  }
});

setInterval(() => {
  sampleRates();
  for (const cell of document.querySelectorAll("td.num")) {
    if (cell.dataset.since) set(cell, ago(Number(cell.dataset.since)));
  }
  draw();
}, 1000);

connect();
