// The page: what is said, the leaderboard with its filters, the charts, failures and commands.

const FIRST_SHOWN = 10;
const state = { sort: null, down: false, all: false, kept: false, values: DATA.knobs.map(() => new Set()), words: "", open: new Set(), loads: new Map() };
const byId = id => document.getElementById(id);

// A browser breaks lines after any hyphen, so "--flag" too.
function unbroken(word) {
  return word.startsWith("-") && word.length <= 36 ? element("span", { className: "unbroken" }, word) : word;
}

function commandBox(line) {
  const copy = element("button", { type: "button" }, "Copy");
  copy.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(line); copy.textContent = "Copied"; } catch { copy.textContent = "Select it"; }
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  });
  return element("div", { className: "command" }, element("pre", {}, ...line.split(/( )/).map(unbroken)), copy);
}

function say() {
  byId("provenance").textContent = DATA.provenance;
  byId("facts").replaceChildren(...DATA.facts.map(fact => element("li", {}, fact)));
  byId("best").hidden = !DATA.best.length;
  for (const name of ["board", "charts"]) byId(name).hidden = !DATA.settings.length;
  byId("provenances").hidden = !DATA.environment.length;
  byId("repeat").hidden = !DATA.commands.length;
  byId("best").replaceChildren(element("h2", {}, DATA.objectives.length > 1 ? "Best settings" : "Best setting"), ...DATA.best.flatMap(answer => [element("p", {}, answer.text), ...answer.commands.flatMap(({ text, line }) => [text ? element("p", { className: "note" }, text) : null, line ? commandBox(line) : null].filter(Boolean))]));
  byId("same").textContent = (DATA.against ? DATA.against + " " : "") + (DATA.bounds.length ? "×: breaks that bound. " : "") + (DATA.same.length ? "The same for all: " + DATA.same.map(([name, value]) => `${name}=${value}`).join(", ") : "");
  byId("environment").replaceChildren(...DATA.environment.map(([name, value]) => element("tr", {}, element("th", {}, name), element("td", {}, value))));
  byId("failures").hidden = !DATA.failures.length;
  byId("failures").replaceChildren(element("h2", {}, "Trials without numbers"), ...DATA.failures.map(failureBox));
  byId("repeat").replaceChildren(element("h2", {}, "Commands"), ...DATA.commands.flatMap(({ what, line }) => [element("p", { className: "note" }, what), commandBox(line)]));
}

function failureBox(failure) {
  const head = [failure.state, failure.class].filter(Boolean).join(": ");
  const settings = element("details", {}, element("summary", {}, failure.settings.length === 1 ? "1 setting" : `${failure.settings.length} settings, for reasons like this one`), element("ul", {}, ...failure.settings.map(name => element("li", {}, name))));
  const log = failure.lines ? [element("p", { className: "note" }, `Last lines of ${failure.log}`), element("pre", {}, failure.lines)] : failure.log ? [element("p", { className: "note" }, `Log: ${failure.log}`)] : [];
  return element("div", { className: failure.state === "stopped early" ? "failure early" : "failure" }, element("strong", {}, head), element("p", {}, failure.message), ...(failure.remedy ? [element("p", { className: "note" }, `What to do: ${failure.remedy}.`)] : []), ...log, settings);
}

// ---- filters ----

function chosenPlaces() {
  const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
  return DATA.settings.map((_, place) => place).filter(place => {
    const setting = DATA.settings[place];
    if (state.kept && (setting.breaks || !setting.values.some(Boolean))) return false;
    if (!state.values.every((values, at) => !values.size || values.has(String(setting.knobs[at])))) return false;
    const text = `#${place + 1} ${setting.name} ${setting.breaks} ${setting.state}`.toLowerCase();
    return words.every(word => text.includes(word));
  });
}

function drawFilters() {
  const made = DATA.knobs.map((knob, at) => {
    const counts = new Map();
    for (const setting of DATA.settings) counts.set(setting.knobs[at], (counts.get(setting.knobs[at]) || 0) + 1);
    const values = [...counts.keys()].sort((a, b) => typeof a === typeof b ? (a < b ? -1 : 1) : typeof a === "string" ? -1 : 1);
    const box = element("details", {});
    const head = element("summary", {}, knob);
    const tell = () => { const chosen = state.values[at]; box.classList.toggle("on", chosen.size > 0); head.textContent = chosen.size ? `${knob}: ${[...chosen].join(", ")}` : knob; };
    const list = element("div", {}, ...values.map(value => {
      const tick = element("input", { type: "checkbox", checked: state.values[at].has(String(value)) });
      tick.addEventListener("change", () => { if (tick.checked) state.values[at].add(String(value)); else state.values[at].delete(String(value)); tell(); refresh(); });
      return element("label", {}, tick, ` ${value} (${counts.get(value)})`);
    }));
    tell();
    box.append(head, list);
    return box;
  });
  if (DATA.bounds.length) {
    const tick = element("input", { type: "checkbox", checked: state.kept });
    tick.addEventListener("change", () => { state.kept = tick.checked; refresh(); });
    made.push(element("label", { title: DATA.bounds.join("; ") }, tick, " only what keeps the bounds"));
  }
  const search = element("input", { type: "search", placeholder: "words to find", value: state.words, ariaLabel: "Words to find" });
  search.addEventListener("input", () => { state.words = search.value; refresh(); });
  made.push(search);
  byId("filters").replaceChildren(...made);
}

// ---- leaderboard ----

function columnsOf() {
  const isFront = DATA.objectives.length > 1, isTied = DATA.settings.some(setting => setting.isTied);
  const columns = [{ title: "#", number: true, key: place => place + 1, text: place => String(place + 1) }];
  if (isFront || isTied) columns.push({ title: isFront ? "front" : "place", number: true, key: place => DATA.settings[place].place, text: place => DATA.settings[place].place === null ? "" : DATA.settings[place].place + (DATA.settings[place].isTied ? "=" : "") });
  if (DATA.settings.some(setting => setting.series)) columns.push({ title: "setting", words: true, key: place => DATA.settings[place].series || "", text: place => DATA.settings[place].series || "" });
  DATA.objectives.forEach((goal, at) => columns.push({ title: goal.title, number: true, down: goal.higher, key: place => (DATA.settings[place].values[at] || [null])[0], text: place => estimateText(DATA.settings[place].values[at]) || (at ? "" : DATA.settings[place].state) }));
  DATA.columns.forEach((further, at) => columns.push({ title: further.title, number: true, key: place => DATA.settings[place].further[at][0], text: place => DATA.settings[place].further[at][1] }));
  DATA.knobs.forEach((knob, at) => columns.push({ title: knob, number: DATA.settings.every(setting => typeof setting.knobs[at] === "number"), key: place => DATA.settings[place].knobs[at], text: place => String(DATA.settings[place].knobs[at]) }));
  return columns;
}

// A long name of a knob may break after an underscore.
function broken(title) { return title.split(/(?<=_)/).flatMap(part => [part, element("wbr", {})]); }

function sorted(places, columns) {
  if (state.sort === null) return places;
  const column = columns[state.sort], missing = value => value === null || value === undefined || value === "";
  return [...places].sort((a, b) => {
    const one = column.key(a), two = column.key(b);
    if (missing(one) || missing(two)) return missing(one) - missing(two) || a - b;
    const order = typeof one === "number" && typeof two === "number" ? one - two : typeof one === typeof two ? String(one).localeCompare(String(two)) : typeof one === "string" ? -1 : 1;
    return (state.down ? -order : order) || a - b;
  });
}

function drawBoard(places) {
  const columns = columnsOf();
  const head = element("tr", {}, ...columns.map((column, at) => {
    const arrow = state.sort === at ? (state.down ? " ▾" : " ▴") : "";
    const button = element("button", { type: "button" }, ...broken(column.title), arrow);
    button.addEventListener("click", () => {
      if (state.sort === at) state.down = !state.down; else { state.sort = at; state.down = Boolean(column.down); }
      refresh();
    });
    return element("th", { className: column.number ? "number" : "", ariaSort: state.sort === at ? (state.down ? "descending" : "ascending") : "none" }, button);
  }));
  const ordered = sorted(places, columns);
  const shown = state.all ? ordered : ordered.slice(0, FIRST_SHOWN);
  const rows = shown.flatMap(place => {
    const setting = DATA.settings[place];
    const look = setting.breaks ? "broken" : setting.standing;
    const row = element("tr", { className: `row ${look} ${state.open.has(place) ? "open" : ""}` }, ...columns.map(column => element("td", { className: column.number ? "number" : column.words ? "words" : "" }, column.text(place))));
    row.addEventListener("click", () => { if (state.open.has(place)) state.open.delete(place); else state.open.add(place); drawBoard(chosenPlaces()); });
    if (!state.open.has(place)) return [row];
    return [row, element("tr", {}, element("td", { colSpan: columns.length }, detailsOf(place)))];
  });
  byId("table").replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
  const simulated = DATA.band ? `${DATA.band}. ` : "";
  byId("shown").textContent = `${simulated}${shown.length} of ${DATA.settings.length} settings${places.length < DATA.settings.length ? `, ${places.length} of which the filters leave` : ""}. A row opens to its numbers and its command; a heading sorts.`;
  byId("all").hidden = places.length <= FIRST_SHOWN;
  byId("all").textContent = state.all ? `Show the first ${FIRST_SHOWN}` : `Show all ${places.length}`;
}

function detailsOf(place) {
  const lines = DATA.metrics.map(metric => {
    const own = metric.points.filter(point => point.s === place).sort((a, b) => a.l - b.l);
    return own.length ? `${metric.title}: ${own.map(point => `${metric.loads[point.l]}: ${estimateText(point.v)}`).join(";  ")}` : "";
  }).filter(Boolean);
  const setting = DATA.settings[place];
  return element("div", {}, ...lines.map(line => element("p", { className: "note" }, line)), setting.command ? commandBox(setting.command) : null, element("p", { className: "note" }, `trial ${setting.trial}`));
}

// ---- charts ----

function drawCharts() {
  const chosen = new Set(chosenPlaces()), whole = byId("figures").clientWidth || 640;
  const columns = Math.max(1, Math.floor((whole + 22) / (Math.min(whole, 540) + 22)));
  const width = Math.max(280, (whole - 22 * (columns - 1)) / columns);
  const made = [...DATA.curves.map(told => curve(told, chosen, whole)), ...DATA.tradeoffs.map(pair => tradeoff(pair, chosen, width)), heat(chosen, width), history(chosen, width), importances(chosen, width), ...DATA.metrics.map(metric => metricChart(metric, chosen, width, state.loads)), slices(chosen, whole), parallel(chosen, whole)];
  byId("figures").replaceChildren(...made.filter(Boolean));
}

function refresh() {
  drawBoard(chosenPlaces());
  drawCharts();
}

let resizing = 0;
addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(drawCharts, 120); });
byId("all").addEventListener("click", () => { state.all = !state.all; drawBoard(chosenPlaces()); });
addEventListener("beforeprint", () => { for (const box of document.querySelectorAll(".failure details")) box.open = false; });

// ---- while a study runs ----

const STATES = { running: "The sweep runs.", over: "The sweep is over.", gone: "The sweep's process has ended without a word; the same command goes on from here." };

function durationText(seconds) {
  const whole = Math.max(0, Math.round(seconds)), two = number => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

function drawLive(live) {
  byId("live").hidden = !live;
  if (!live) return;
  const now = Date.now() / 1000, isRunning = live.state === "running";
  const busy = live.running.reduce((sum, trial) => sum + trial.devices.length, 0);
  const counts = Object.entries(live.counts).filter(([, count]) => count).map(([name, count]) => `${count} ${name}`).join(", ");
  const lines = [
    STATES[live.state] + (live.total === null ? "" : ` ${live.total} trials in all.`) + (counts ? ` So far: ${counts}.` : ""),
    isRunning ? `${busy} of ${live.devices} devices busy.` + (live.left_s === null ? "" : ` About ${durationText(live.left_s - (now - live.written_at))} left.`) : "",
    live.leader && live.value !== null ? `Best so far: ${live.leader}: ${numberText(live.value)}` : "",
  ].filter(Boolean);
  const rows = isRunning ? live.running.map(trial => element("tr", {}, element("td", {}, `${trial.node} ${trial.devices.join(", ")}`), element("td", {}, trial.label), element("td", {}, trial.stage), element("td", { className: "number" }, durationText(now - trial.since)))) : [];
  const head = element("tr", {}, ...["devices", "trial", "now", "for"].map(title => element("th", {}, title)));
  byId("now").replaceChildren(...lines.map(line => element("p", {}, line)), ...(rows.length ? [element("div", { className: "wide" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)))] : []));
}

function takeResults(results) {
  const filters = told => JSON.stringify([told.knobs, told.settings.map(setting => setting.knobs)]);
  const isOther = filters(results) !== filters(DATA), knobs = JSON.stringify(results.knobs) !== JSON.stringify(DATA.knobs);
  DATA = results;
  if (knobs) { state.values = DATA.knobs.map(() => new Set()); state.sort = null; state.open.clear(); }
  byId("band").textContent = DATA.band;
  say();
  if (isOther) drawFilters();
  refresh();
}

let known = -1;
async function ask() {
  try {
    const news = await (await fetch(`${SOURCE}?known=${known}`)).json();
    known = news.number;
    if (news.results) takeResults(news.results);
    drawLive(news.live);
  } catch { byId("now").replaceChildren(element("p", {}, "The program that serves this page does not answer; shown is what was known last.")); }
  setTimeout(ask, 2000);
}

say();
drawFilters();
refresh();
drawLive(DATA.live);
if (SOURCE) ask();
