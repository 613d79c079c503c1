// The charts: each takes the places of the settings that the filters leave, and the width it may have.

const MOST_BARS = 15, MOST_LINES = 10, MOST_PALE = 200;
const DASHES = ["", "7 3", "2 3", "7 3 2 3", "", "9 4", "1 4", "4 2", "", "7 3"];

function nameOf(place) { return DATA.settings[place].series || "#" + (place + 1); }

function knobsText(setting) {
  return DATA.knobs.map((knob, at) => `${knob}: ${setting.knobs[at]}`).join("\n");
}

function tipOf(place, lines) {
  const setting = DATA.settings[place];
  const stand = setting.breaks ? "breaks " + setting.breaks : setting.standing;
  return [`#${place + 1}${setting.series ? " " + setting.series : ""}`, ...lines, knobsText(setting), stand, setting.state, DATA.band].filter(Boolean).join("\n");
}

function goalOf(place) { const value = DATA.settings[place].values[0]; return value ? value[0] : null; }

function framed(title, note, root, { whole = false, controls = [] } = {}) {
  const made = element("figure", whole ? { className: "whole" } : {}, element("h3", {}, title), ...controls, root);
  if (note) made.append(note instanceof Node ? note : element("figcaption", {}, note));
  return made;
}

const MARKS_NOTE = () => "Diamond: best or on the front. Circle: other settings" + (DATA.bounds.length ? " that keep the bounds. Cross: breaks a bound." : ".");

function history(chosen, width) {
  if (!DATA.search) return null;
  const goal = DATA.objectives[0], order = DATA.search.order;
  const points = order.map((place, at) => [at + 1, goalOf(place), place]).filter(([, value, place]) => value !== null && chosen.has(place));
  if (points.length < 2) return null;
  const plot = plotOf({ width, height: 290, x: axisOf("Trial, in the order in which they ended", [1, order.length], { noLog: true }), y: axisOf(goal.title, points.map(p => p[1])) });
  let best = null, path = "";
  order.forEach((place, at) => {
    const value = goalOf(place), setting = DATA.settings[place];
    if (value === null || setting.breaks || !chosen.has(place)) return;
    if (best === null || (goal.higher ? value > best : value < best)) {
      path += (best === null ? `M${plot.X(at + 1)},${plot.Y(value)}` : `H${plot.X(at + 1)}V${plot.Y(value)}`);
      best = value;
    }
  });
  if (path) shape(plot.root, "path", { d: path + `H${plot.X(order.length)}`, fill: "none", stroke: "#D55E00", "stroke-width": 1.8 });
  for (const [at, value, place] of points) markOf(plot, plot.X(at), plot.Y(value), DATA.settings[place], () => tipOf(place, [`${goal.title}: ${numberText(value)}`]));
  return framed("History of the search", `Line: the best so far${DATA.bounds.length ? " that keeps the bounds" : ""}. ${MARKS_NOTE()} Trials without a number have no mark.`, plot.root);
}

function importances(chosen, width) {
  if (!DATA.search || !DATA.search.importance.length) return null;
  const shown = DATA.search.importance.slice(0, MOST_BARS);
  const left = Math.min(width * 0.45, 40 + 6.2 * Math.max(...shown.map(([name]) => name.length)));
  const plot = plotOf({ width, height: 70 + 25 * shown.length, left, x: axisOf("Share of what makes a setting one of the best tenth", [0, 1], { fromZero: true }), y: axisOf("", [], { names: shown.map(([name]) => name).reverse() }) });
  shown.forEach(([name, share], at) => {
    const y = plot.Y(shown.length - 1 - at);
    pointed(shape(plot.root, "rect", { x: plot.left, y: y - 8, width: Math.max(1, plot.X(share) - plot.left), height: 16, fill: "#0072B2" }), () => [`${name}: ${(share * 100).toFixed(1)} %`, DATA.band].filter(Boolean).join("\n"));
    shape(plot.root, "text", { x: plot.X(share) + 5, y: y + 4, "font-size": 11 }, share < 0.005 ? "< 1 %" : (share * 100).toFixed(0) + " %");
  });
  const counted = DATA.settings.filter(setting => setting.values[0]).length;
  return framed("Importance of knobs", `PED-ANOVA (Optuna) for ${DATA.objectives[0].title}, from all ${counted} settings with a number, bounds aside; filters do not act here. Of few settings it is a hint, not a proof.`, plot.root);
}

function knobAxis(at, places, title) {
  const values = [...new Set(places.map(place => DATA.settings[place].knobs[at]))];
  const numbers = values.filter(value => typeof value === "number").sort((a, b) => a - b);
  const texts = values.filter(value => typeof value !== "number").sort();
  const names = [...texts, ...numbers];
  const place = new Map(names.map((name, index) => [name, index]));
  if (names.length > 9 && !texts.length) { const axis = axisOf(title, numbers); return { axis, at: value => value }; }
  return { axis: axisOf(title, [], { names: names.map(String) }), at: value => place.get(value), names };
}

function slices(chosen, width) {
  const goal = DATA.objectives[0];
  const places = [...chosen].filter(place => goalOf(place) !== null);
  if (places.length < 4 || DATA.settings.some(setting => setting.series)) return null;
  const grid = element("div", {});
  const across = Math.max(1, Math.min(DATA.knobs.length, Math.floor(width / 290)));
  grid.style.cssText = `display:grid;grid-template-columns:repeat(${across},1fr);gap:10px`;
  let drawn = 0;
  DATA.knobs.forEach((knob, at) => {
    const knobs = knobAxis(at, places, knob);
    if (knobs.names && knobs.names.length < 2) return;
    const plot = plotOf({ width: width / across - 10, height: 210, left: 46, x: knobs.axis, y: { ...axisOf(goal.title, places.map(goalOf)), title: "" } });
    places.forEach((place, turn) => {
      const aside = knobs.names ? ((turn * 7) % 11 - 5) * Math.min(3, (plot.right - plot.left) / knobs.names.length / 16) : 0;
      markOf(plot, plot.X(knobs.at(DATA.settings[place].knobs[at])) + aside, plot.Y(goalOf(place)), DATA.settings[place], () => tipOf(place, [`${goal.title}: ${numberText(goalOf(place))}`]), 3.6);
    });
    grid.append(plot.root);
    drawn += 1;
  });
  return drawn ? framed(`Slices: ${goal.title} over each knob`, `${MARKS_NOTE()} Points of one value are spread a little sideways.`, grid, { whole: true }) : null;
}

function parallel(chosen, width) {
  const goal = DATA.objectives[0];
  const places = [...chosen].filter(place => goalOf(place) !== null);
  if (places.length < 4 || DATA.knobs.length < 2 || DATA.settings.some(setting => setting.series) || width < 520) return null;
  const columns = DATA.knobs.map((knob, at) => ({ title: knob, ...knobAxis(at, places, knob), of: setting => setting.knobs[at] })).filter(column => !column.names || column.names.length > 1);
  columns.push({ title: goal.title, axis: axisOf(goal.title, places.map(goalOf)), at: value => value, of: null });
  const head = DATA.band ? 18 : 0, height = 330, root = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  root.setAttribute("viewBox", `0 0 ${width} ${height + head}`);
  banded(root, width);
  const xs = columns.map((_, at) => 60 + at * (width - 130) / (columns.length - 1));
  columns.forEach((column, at) => {
    column.Y = placeOf(column.axis, height + head - 22, head + 46);
    shape(root, "line", { x1: xs[at], x2: xs[at], y1: head + 46, y2: height + head - 22, stroke: LOOK.faint });
    shape(root, "text", { x: xs[at], y: head + (at % 2 ? 16 : 32), "font-size": 11, "font-weight": 600, "text-anchor": at === 0 ? "start" : at === columns.length - 1 ? "end" : "middle", dx: at === 0 ? -50 : at === columns.length - 1 ? 60 : 0 }, cut(column.title, 34));
  });
  // The best are drawn last, on top of the others.
  const worstFirst = [...places].sort((a, b) => b - a), middle = worstFirst.length / 2;
  worstFirst.forEach((place, turn) => {
    const setting = DATA.settings[place];
    const d = columns.map((column, at) => `${at ? "L" : "M"}${xs[at]},${column.Y(column.of ? column.at(column.of(setting)) : goalOf(place))}`).join("");
    const look = setting.breaks ? { stroke: "#aab4be", "stroke-dasharray": "3 3", "stroke-width": 1 } : setting.standing ? { stroke: "#D55E00", "stroke-width": 3 } : { stroke: turn >= middle ? "#0072B2" : "#56B4E9", "stroke-width": 1.4, "stroke-opacity": 0.75 };
    shape(root, "path", { d, fill: "none", ...look });
    pointed(shape(root, "path", { d, fill: "none", stroke: "transparent", "stroke-width": 7 }), () => tipOf(place, [`${goal.title}: ${numberText(goalOf(place))}`]));
  });
  columns.forEach((column, at) => {
    for (const [value, text] of axisTicks(column.axis, 6)) {
      const said = cut(text, 12), last = at === columns.length - 1;
      const x = xs[at] + (last ? 5 : -5), y = column.Y(value) + 4;
      shape(root, "text", { x, y, "font-size": 10.5, "text-anchor": last ? "start" : "end", stroke: "#fff", "stroke-width": 3, "paint-order": "stroke" }, said);
    }
  });
  return framed("Parallel coordinates: a line per setting", `Thick orange: best or on the front; dark blue: the better half; pale blue: the others${DATA.bounds.length ? "; dashed grey: breaks a bound" : ""}.`, root, { whole: true });
}

function tradeoff(pair, chosen, width) {
  const points = pair.points.filter(([place]) => chosen.has(place));
  if (points.length < 2) return null;
  const xs = points.map(p => p[1]);
  const plot = plotOf({ width, height: 320, x: axisOf(pair.x, pair.bound === null ? xs : [...xs, pair.bound]), y: axisOf(pair.y, points.map(p => p[2])) });
  if (pair.bound !== null) {
    shape(plot.root, "line", { x1: plot.X(pair.bound), x2: plot.X(pair.bound), y1: plot.ceiling, y2: plot.base, stroke: LOOK.failed, "stroke-width": 1.6, "stroke-dasharray": "6 3" });
  }
  if (pair.isFront) {
    const front = points.filter(([place]) => DATA.settings[place].standing === "front").sort((a, b) => a[1] - b[1]);
    const d = front.map(([, x, y], at) => {
      if (!at) return `M${plot.X(x)},${plot.Y(y)}`;
      // Between two points of the front nothing better than the worse of both in each respect is known.
      return pair.xHigher ? `V${plot.Y(y)}H${plot.X(x)}` : `H${plot.X(x)}V${plot.Y(y)}`;
    }).join("");
    shape(plot.root, "path", { d, fill: "none", stroke: "#D55E00", "stroke-width": 1.4, "stroke-dasharray": "5 3" });
  }
  const at = points.map(([, x, y]) => [plot.X(x), plot.Y(y)]);
  const name = namer(plot, at);
  points.forEach(([place, x, y]) => markOf(plot, plot.X(x), plot.Y(y), DATA.settings[place], () => tipOf(place, [`${pair.y}: ${numberText(y)}`, `${pair.x}: ${numberText(x)}`])));
  points.forEach(([place], index) => { if (DATA.settings[place].standing && DATA.settings[place].standing !== "breaks a bound") name(...at[index], cut(nameOf(place), 18)); });
  const better = `Better is ${pair.yHigher ? "up" : "down"} and ${pair.xHigher ? "right" : "left"}.`;
  const bound = pair.bound === null ? "" : ` Red line: the bound, ${numberText(pair.bound)}.`;
  return framed(pair.isFront ? "Pareto front" : `${pair.y} against ${pair.x}`, `${better}${bound} ${MARKS_NOTE()} Numbers are places in the leaderboard.`, plot.root);
}

// What a GPU gives against what a user gets: a line per setting over its users, a panel for each way to count a speed.
function curve(told, chosen, width) {
  const points = told.points.filter(point => chosen.has(point.s));
  const shown = told.panels.map((_, at) => points.filter(point => point.speeds[at] !== null));
  const edges = shown.map((own, at) => frontOf(own.filter(point => point.counts), at));
  const first = new Set([...edges.flat(), ...points.filter(point => point.named)].map(point => point.s));
  const places = [...new Set(points.map(point => point.s))].sort((a, b) => a - b);
  if (!places.length) return null;
  const ranked = [...places].sort((a, b) => first.has(b) - first.has(a) || a - b);
  const coloured = ranked.slice(0, MOST_LINES).sort((a, b) => a - b), drawn = new Set(ranked.slice(0, MOST_LINES + MOST_PALE));
  const across = width < 680 ? 1 : told.panels.length, grid = element("div", {});
  grid.style.cssText = `display:grid;grid-template-columns:repeat(${across},1fr);gap:14px`;
  told.panels.forEach((panel, at) => grid.append(curvePanel(told, panel, at, { points: shown[at].filter(point => drawn.has(point.s)), edge: edges[at], coloured, width: width / across - 8 })));
  const legend = element("figcaption", {}, ...coloured.map((place, turn) => element("div", {}, swatch(turn), DATA.settings[place].series || `#${place + 1} ${DATA.settings[place].name}`)));
  const notes = ["Up and to the right is better. Numbers at the points: users at once. Broad and pale: the frontier of the settings shown."];
  if (drawn.size > coloured.length) notes.push(`Thin and pale: ${drawn.size - coloured.length} other settings${drawn.size < places.length ? `; ${places.length - drawn.size} more are not drawn` : ""}.`);
  if (told.least !== null || told.panels.some(panel => panel.least !== null)) notes.push("Shaded: outside the bounds.");
  if (points.some(point => point.breaks)) notes.push("Hollow: breaks a bound.");
  if (points.some(point => point.named)) notes.push("Ring: the most within the bounds.");
  if (told.note) notes.push(told.note);
  legend.append(element("div", {}, notes.join(" ")));
  const figure = framed(told.title, legend, grid, { whole: true });
  if (told.sentence) figure.querySelector("h3").after(element("p", {}, told.sentence));
  return figure;
}

function outOf(point) { return point.out.v[0]; }

function speedOf(at) { return point => point.speeds[at].v[0]; }

// The points that no other is better than in both, from the slowest to the fastest for a user.
function frontOf(points, at) {
  const speed = speedOf(at);
  let most = -Infinity;
  const front = [];
  for (const point of [...points].sort((a, b) => speed(b) - speed(a) || outOf(b) - outOf(a))) {
    if (outOf(point) < most || (outOf(point) === most && speed(front[0]) !== speed(point))) continue;
    most = outOf(point);
    front.unshift(point);
  }
  return front;
}

function curvePanel(told, panel, at, { points, edge, coloured, width }) {
  const speed = speedOf(at);
  // With the intervals: one that is cut off looks narrower.
  const xs = points.flatMap(point => [speed(point), point.speeds[at].v[2]]).filter(value => value !== null);
  const ys = told.points.flatMap(point => [outOf(point), point.out.v[2]]).filter(value => value !== null);
  const plot = plotOf({ width, height: 380, top: 30, x: axisOf(panel.axis, [0, ...xs], { fromZero: true, noLog: true }), y: axisOf(told.output, [0, ...ys], { fromZero: true, noLog: true }) });
  shape(plot.root, "text", { x: plot.left, y: plot.ceiling - 12, "font-size": 13, "font-weight": 600 }, panel.title);
  for (const [x, y] of [[panel.least, null], [null, told.least]]) {
    if (x === null && y === null) continue;
    const right = x === null ? plot.right : Math.min(plot.X(x), plot.right), top = y === null ? plot.ceiling : Math.max(plot.Y(y), plot.ceiling);
    shape(plot.root, "rect", { x: plot.left, y: top, width: right - plot.left, height: plot.base - top, fill: LOOK.failed, "fill-opacity": 0.09 });
    const line = x === null ? { x1: plot.left, x2: right, y1: top, y2: top } : { x1: right, x2: right, y1: plot.ceiling, y2: plot.base };
    shape(plot.root, "line", { ...line, stroke: LOOK.failed, "stroke-width": 1.2 });
  }
  const pathOf = own => own.map((point, turn) => `${turn ? "L" : "M"}${plot.X(speed(point))},${plot.Y(outOf(point))}`).join("");
  shape(plot.root, "path", { d: pathOf(edge), fill: "none", stroke: LOOK.pale, "stroke-width": 11, "stroke-linecap": "round", "stroke-linejoin": "round", "stroke-opacity": 0.8 });
  if (!points.length) shape(plot.root, "text", { x: (plot.left + plot.right) / 2, y: (plot.ceiling + plot.base) / 2, "font-size": 12, "text-anchor": "middle" }, "not known: answers of one token, or in bunches");
  // Pale ones first: they lie under the others.
  const order = [...new Set(points.map(point => point.s))].sort((a, b) => coloured.includes(a) - coloured.includes(b) || b - a);
  for (const place of order) {
    const own = points.filter(point => point.s === place).sort((a, b) => a.users - b.users), turn = coloured.indexOf(place);
    const stroke = turn < 0 ? { stroke: LOOK.pale, "stroke-width": 1.2 } : { stroke: LOOK.colours[turn], "stroke-width": 2, "stroke-dasharray": DASHES[turn] };
    shape(plot.root, "path", { d: pathOf(own), fill: "none", ...stroke });
    for (const point of own) {
      const [x, y] = [plot.X(speed(point)), plot.Y(outOf(point))], [, low, high] = point.out.v, [, slow, fast] = point.speeds[at].v;
      if (low !== null) shape(plot.root, "line", { x1: x, x2: x, y1: plot.Y(Math.max(low, 0)), y2: plot.Y(high), stroke: stroke.stroke, "stroke-width": 1.2 });
      if (slow !== null) shape(plot.root, "line", { x1: plot.X(Math.max(slow, 0)), x2: plot.X(fast), y1: y, y2: y, stroke: stroke.stroke, "stroke-width": 1.2 });
      if (point.named) shape(plot.root, "circle", { cx: x, cy: y, r: 9, fill: "none", stroke: LOOK.ink, "stroke-width": 1.5 });
      const mark = turn < 0 ? shape(plot.root, "circle", { cx: x, cy: y, r: 3, fill: LOOK.pale }) : signOf(plot.root, x, y, turn);
      if (point.breaks) { mark.setAttribute("fill", "#fff"); mark.setAttribute("stroke", stroke.stroke); mark.setAttribute("stroke-width", 1.5); }
      pointed(mark, () => tipOf(place, [point.said, ...curveTexts(told, point), point.breaks && `breaks ${point.breaks}`]));
    }
  }
  const labelled = [...points].filter(point => coloured.includes(point.s)).sort((a, b) => edge.includes(b) - edge.includes(a) || a.s - b.s);
  const name = namer(plot, points.map(point => [plot.X(speed(point)), plot.Y(outOf(point))]));
  const written = [];
  for (const point of labelled) {
    const [x, y] = [plot.X(speed(point)), plot.Y(outOf(point))];
    // Points of settings that hardly differ share one number.
    if (written.some(other => other.users === point.users && Math.hypot(other.x - x, other.y - y) < 10)) continue;
    written.push({ users: point.users, x, y });
    name(x, y, String(point.users));
  }
  return plot.root;
}

function curveTexts(told, point) {
  const numbers = [[told.output, point.out], ...told.panels.map((panel, at) => [`Per user, ${panel.title.toLowerCase()}`, point.speeds[at]])];
  return numbers.filter(([, number]) => number !== null).map(([title, { v, expected }]) => `${title}: ${estimateText(v)}${expected ? ` (${numberText(expected[0])} to ${numberText(expected[1])} in four of five)` : ""}`);
}

function heat(chosen, width) {
  if (DATA.knobs.length !== 2 || DATA.settings.some(setting => setting.series)) return null;
  const goal = DATA.objectives[0], places = [...chosen].filter(place => goalOf(place) !== null);
  if (places.length < 4) return null;
  const sorted = at => [...new Set(places.map(place => DATA.settings[place].knobs[at]))].sort((a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "string" ? -1 : 1);
  const names = [sorted(0), sorted(1)];
  if (names[0].length < 2 || names[1].length < 2) return null;
  const plot = plotOf({ width, height: Math.min(460, 90 + 34 * names[1].length), left: 90, x: axisOf(DATA.knobs[0], [], { names: names[0].map(String) }), y: axisOf(DATA.knobs[1], [], { names: names[1].map(String) }) });
  const values = places.map(goalOf), low = Math.min(...values), high = Math.max(...values);
  const w = (plot.right - plot.left) / names[0].length, h = (plot.base - plot.ceiling) / names[1].length;
  for (const place of places) {
    const setting = DATA.settings[place], x = plot.X(names[0].indexOf(setting.knobs[0])), y = plot.Y(names[1].indexOf(setting.knobs[1]));
    const share = high > low ? (goalOf(place) - low) / (high - low) : 1;
    const marked = setting.standing && !setting.breaks;
    pointed(shape(plot.root, "rect", { x: x - w / 2 + 1, y: y - h / 2 + 1, width: w - 2, height: h - 2, fill: `hsl(208 70% ${94 - 62 * share}%)`, stroke: marked ? "#D55E00" : "none", "stroke-width": 3 }), () => tipOf(place, [`${goal.title}: ${numberText(goalOf(place))}`]));
    if (w > 42 && h > 14) shape(plot.root, "text", { x, y: y + 4, "font-size": 11, "text-anchor": "middle", "pointer-events": "none", style: share > 0.5 ? "fill:#fff" : "" }, numberText(goalOf(place)) + (setting.breaks ? " ×" : ""));
  }
  return framed(`${goal.title}: ${DATA.knobs[0]} and ${DATA.knobs[1]}`, `Darker is more. Orange frame: best${DATA.bounds.length ? "; ×: breaks a bound" : ""}.`, plot.root);
}

function metricChart(metric, chosen, width, remembered) {
  const points = metric.points.filter(point => chosen.has(point.s));
  const places = [...new Set(points.map(point => point.s))].sort((a, b) => a - b);
  if (!places.length) return null;
  if (metric.loads.length > 1 && places.length <= MOST_LINES) return metricLines(metric, points, places, width);
  return metricBars(metric, points, places, width, remembered);
}

function swatch(turn) {
  const root = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  root.setAttribute("viewBox", "0 0 30 10");
  root.style.cssText = "width:30px;height:10px;display:inline-block;margin-right:6px;vertical-align:middle";
  shape(root, "line", { x1: 0, x2: 30, y1: 5, y2: 5, stroke: LOOK.colours[turn], "stroke-width": 2.2, "stroke-dasharray": DASHES[turn] });
  signOf(root, 15, 5, turn);
  return root;
}

function signOf(root, x, y, turn) {
  const colour = LOOK.colours[turn];
  if (turn % 3 === 0) return shape(root, "circle", { cx: x, cy: y, r: 4, fill: colour, stroke: "#fff", "stroke-width": 0.7 });
  if (turn % 3 === 1) return shape(root, "rect", { x: x - 3.7, y: y - 3.7, width: 7.4, height: 7.4, fill: colour, stroke: "#fff", "stroke-width": 0.7 });
  return shape(root, "path", { d: `M${x},${y - 5}l5,8.5h-10z`, fill: colour, stroke: "#fff", "stroke-width": 0.7 });
}

function metricLines(metric, points, places, width) {
  const all = points.flatMap(point => [point.v[0], point.v[2] === null ? point.v[0] : point.v[2], ...(point.published === null ? [] : [point.published])]);
  const highest = Math.max(...all), isShown = point => point.bound !== null && point.bound <= highest * 1.05;
  const values = axisOf(metric.title, [...all, ...points.filter(isShown).map(point => point.bound)], { fromZero: true });
  const names = metric.loads.map(load => metric.axis ? load.replace(/ (QPS|users?)$/, "") : load);
  const turned = names.some(name => name.length * 6.6 > (width - 80) / names.length);
  const plot = plotOf({ width, height: turned ? 360 : 300, bottom: turned ? 104 : 44, turned, x: axisOf(metric.axis || "Load point", [], { names }), y: values });
  places.forEach((place, turn) => {
    const own = points.filter(point => point.s === place).sort((a, b) => a.l - b.l);
    const d = own.map((point, at) => `${at && own[at - 1].l === point.l - 1 ? "L" : "M"}${plot.X(point.l)},${plot.Y(point.v[0])}`).join("");
    shape(plot.root, "path", { d, fill: "none", stroke: LOOK.colours[turn], "stroke-width": 2, "stroke-dasharray": DASHES[turn] });
    for (const point of own) {
      if (point.v[1] !== null) shape(plot.root, "line", { x1: plot.X(point.l), x2: plot.X(point.l), y1: plot.Y(Math.max(point.v[1], values.low)), y2: plot.Y(point.v[2]), stroke: LOOK.colours[turn], "stroke-width": 1.2 });
      const told = () => tipOf(place, [`${metric.loads[point.l]}: ${estimateText(point.v)}`, point.published === null ? "" : `published: ${numberText(point.published)}`]);
      if (point.published !== null) pointed(shape(plot.root, "circle", { cx: plot.X(point.l), cy: plot.Y(point.published), r: 4.2, fill: "#fff", stroke: LOOK.colours[turn], "stroke-width": 1.4 }), told);
      pointed(signOf(plot.root, plot.X(point.l), plot.Y(point.v[0]), turn), told);
      if (isShown(point)) shape(plot.root, "line", { x1: plot.X(point.l) - 18, x2: plot.X(point.l) + 18, y1: plot.Y(point.bound), y2: plot.Y(point.bound), stroke: LOOK.failed, "stroke-width": 2 });
    }
  });
  const legend = element("figcaption", {}, ...places.map((place, turn) => element("div", {}, swatch(turn), DATA.settings[place].series || `#${place + 1} ${DATA.settings[place].name}`, DATA.settings[place].breaks ? " (breaks a bound)" : "")));
  const notes = [metric.higher ? "Higher is better." : "Lower is better."];
  if (points.some(point => point.published !== null)) notes.push("Hollow: published.");
  if (points.some(isShown)) notes.push("Red stroke: the bound at that load.");
  legend.append(element("div", {}, notes.join(" ")));
  return framed(metric.title, legend, plot.root);
}

function metricBars(metric, points, places, width, remembered) {
  let load = remembered.get(metric.title);
  if (load === undefined) {
    // Where a bound holds it is what one looks for first.
    const bounded = metric.points.find(point => point.bound !== null);
    load = bounded ? bounded.l : metric.loads.length - 1;
  }
  const controls = [];
  if (metric.loads.length > 1) {
    const choice = element("select", { ariaLabel: "Load point of " + metric.title }, ...metric.loads.map((name, at) => element("option", { value: at, selected: at === load }, name)));
    choice.addEventListener("change", () => { remembered.set(metric.title, Number(choice.value)); drawCharts(); });
    controls.push(choice);
  }
  const here = points.filter(point => point.l === load).sort((a, b) => a.s - b.s);
  const shown = here.slice(0, MOST_BARS);
  if (!shown.length) return framed(metric.title, "No setting that is chosen has a number at this load.", element("div", {}), { controls });
  const names = shown.map(point => cut(nameOf(point.s), 26));
  const left = Math.min(width * 0.42, 26 + 6.4 * Math.max(...names.map(name => name.length)));
  const highest = shown.flatMap(point => [point.v[0], point.v[2], point.published].filter(value => value !== null));
  const bound = shown.map(point => point.bound).find(value => value !== null);
  const isNear = bound !== undefined && bound < Math.max(...highest.map(Math.abs)) * 1.6;
  // Zero is always there: bars begin at it, to the left where answers were won.
  const values = axisOf(metric.title + (metric.loads.length > 1 ? `, ${metric.loads[load]}` : ""), isNear ? [0, ...highest, bound] : [0, ...highest], { fromZero: true, noLog: true });
  const plot = plotOf({ width, height: 66 + 21 * shown.length, left, right: 58, x: values, y: axisOf("", [], { names: [...names].reverse() }) });
  shown.forEach((point, at) => {
    const y = plot.Y(shown.length - 1 - at), setting = DATA.settings[point.s];
    const fill = setting.breaks ? "#d3dae1" : setting.standing ? "#D55E00" : "#56B4E9";
    const told = () => tipOf(point.s, [`${metric.title}, ${metric.loads[load]}: ${estimateText(point.v)}`, point.published === null ? "" : `published: ${numberText(point.published)}`]);
    pointed(shape(plot.root, "rect", { x: plot.X(Math.min(0, point.v[0])), y: y - 7, width: Math.max(1, Math.abs(plot.X(point.v[0]) - plot.X(0))), height: 14, fill }), told);
    if (point.v[1] !== null) shape(plot.root, "line", { x1: plot.X(Math.max(point.v[1], values.low)), x2: plot.X(point.v[2]), y1: y, y2: y, stroke: LOOK.ink, "stroke-width": 1.2 });
    if (point.published !== null) pointed(shape(plot.root, "circle", { cx: plot.X(point.published), cy: y, r: 4, fill: "#fff", stroke: LOOK.ink }), told);
  });
  if (isNear) shape(plot.root, "line", { x1: plot.X(bound), x2: plot.X(bound), y1: plot.ceiling, y2: plot.base, stroke: LOOK.failed, "stroke-width": 1.6, "stroke-dasharray": "6 3" });
  shown.forEach((point, at) => shape(plot.root, "text", { x: plot.X(Math.max(0, point.v[0], point.v[2] || 0)) + 6, y: plot.Y(shown.length - 1 - at) + 4, "font-size": 11, stroke: "#fff", "stroke-width": 3, "paint-order": "stroke" }, numberText(point.v[0]) + (DATA.settings[point.s].breaks ? " ×" : "")));
  const notes = [here.length > shown.length ? `The first ${shown.length} of ${here.length} settings, in the leaderboard's order; filter to see others.` : "In the leaderboard's order.", metric.higher ? "Higher is better." : "Lower is better."];
  if (shown.some(point => DATA.settings[point.s].breaks)) notes.push("Pale with ×: breaks a bound.");
  if (bound !== undefined) notes.push(isNear ? `Red line: the bound, ${numberText(bound)}.` : `The bound, ${numberText(bound)}, lies beyond the chart.`);
  if (shown.some(point => point.published !== null)) notes.push("Hollow: published.");
  return framed(metric.title, notes.join(" "), plot.root, { controls });
}
