// Elements, numbers, axes and marks. Every text enters by textContent or as a text node: none becomes markup.

function element(name, properties, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (key in made) made[key] = value; else made.setAttribute(key, value);
  }
  made.append(...children.filter(child => child !== null && child !== undefined));
  return made;
}

function shape(parent, name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

// As the report writes numbers: 11,376 or 145 or 10.57 or 0.0042.
function numberText(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size >= 1e12) return value.toPrecision(3);
  if (size >= 99.95) return Math.round(value).toLocaleString("en-US");
  if (size >= 0.1 || size === 0) return value.toFixed(2);
  return value.toPrecision(2);
}

function tickText(value) {
  return Math.abs(value) >= 1e15 ? value.toPrecision(3) : Number(value.toPrecision(10)).toLocaleString("en-US", { maximumFractionDigits: 8 });
}

function estimateText(value) {
  if (!value) return "";
  const half = value[1] === null ? "" : " ± " + numberText((value[2] - value[1]) / 2);
  return numberText(value[0]) + half + (value[3] > 1 ? ` (n=${value[3]})` : "");
}

function ticksOf(low, high, most) {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(times => times * power).find(each => each >= rough * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return found;
}

// An axis of numbers, or of names where `names` is given; `log` where the highest is more than 30 times the lowest.
function axisOf(title, values, { names, fromZero, noLog } = {}) {
  if (names) return { title, names, low: -0.5, high: names.length - 0.5, log: false };
  let low = Math.min(...values), high = Math.max(...values);
  if (!noLog && low > 0 && high / low > 30) return { title: title + ", logarithmic", low: low / 1.25, high: high * 1.25, log: true };
  if (fromZero && low >= 0) low = 0;
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  return { title, low: low === 0 && fromZero ? 0 : low - room, high: high + room, log: false };
}

function placeOf(axis, from, to) {
  const low = axis.log ? Math.log10(axis.low) : axis.low, high = axis.log ? Math.log10(axis.high) : axis.high;
  return value => from + ((axis.log ? Math.log10(value) : value) - low) / (high - low) * (to - from);
}

function axisTicks(axis, most) {
  if (axis.names) return axis.names.map((name, at) => [at, name]);
  if (!axis.log) return ticksOf(axis.low, axis.high, most).map(at => [at, tickText(at)]);
  const found = [];
  for (let power = Math.ceil(Math.log10(axis.low)); 10 ** power <= axis.high; power += 1) found.push([10 ** power, tickText(10 ** power)]);
  if (found.length < 2) for (const times of [2, 5]) for (let power = Math.floor(Math.log10(axis.low)); power <= Math.log10(axis.high); power += 1) {
    const at = times * 10 ** power;
    if (at >= axis.low && at <= axis.high) found.push([at, tickText(at)]);
  }
  return found;
}

function cut(text, most) { return text.length <= most ? text : text.slice(0, most - 1) + "…"; }

// A plot with its axes. Where numbers are simulated the picture says so itself, wherever it is copied to.
function plotOf({ width, height, x, y, left = 62, right = 14, top = 10, bottom = 44, turned = false }) {
  const head = DATA.band ? 18 : 0;
  const root = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  root.setAttribute("viewBox", `0 0 ${width} ${height + head}`);
  root.setAttribute("role", "img");
  banded(root, width);
  const base = head + height - bottom, ceiling = head + top;
  const X = placeOf(x, left, width - right), Y = placeOf(y, base, ceiling);
  const across = Math.max(2, Math.floor((width - left - right) / (x.log ? 60 : 78)));
  for (const [at, text] of axisTicks(x, across)) {
    shape(root, "line", { x1: X(at), x2: X(at), y1: ceiling, y2: base, stroke: LOOK.grid, "stroke-width": x.names ? 0 : 1 });
    const room = x.names ? Math.max(4, Math.floor((width - left - right) / x.names.length / 6.4)) : 99;
    if (turned) shape(root, "text", { x: X(at), y: base + 12, "font-size": 11, "text-anchor": "end", transform: `rotate(-38 ${X(at)} ${base + 12})` }, cut(text, 20));
    else shape(root, "text", { x: X(at), y: base + 15, "font-size": 11, "text-anchor": "middle" }, cut(text, room));
  }
  for (const [at, text] of axisTicks(y, 5)) {
    shape(root, "line", { x1: left, x2: width - right, y1: Y(at), y2: Y(at), stroke: LOOK.grid, "stroke-width": y.names ? 0 : 1 });
    shape(root, "text", { x: left - 6, y: Y(at) + 4, "font-size": 11, "text-anchor": "end" }, cut(text, Math.floor((left - 24) / 5.6) + 2));
  }
  shape(root, "line", { x1: left, x2: width - right, y1: base, y2: base, stroke: LOOK.faint });
  shape(root, "line", { x1: left, x2: left, y1: ceiling, y2: base, stroke: LOOK.faint });
  // A long one moves to the left, where labels leave room under them.
  const below = cut(x.title, Math.floor((width - 20) / 6.4)), middle = Math.min((left + width - right) / 2, width - 6 - 3.2 * below.length);
  shape(root, "text", { x: middle, y: head + height - 6, "font-size": 12, "text-anchor": "middle" }, below);
  if (y.title) shape(root, "text", { x: 12, y: (base + ceiling) / 2, "font-size": 12, "text-anchor": "middle", transform: `rotate(-90 12 ${(base + ceiling) / 2})` }, cut(y.title, Math.floor((base - ceiling) / 6)));
  return { root, X, Y, left, right: width - right, base, ceiling };
}

function banded(root, width) {
  if (!DATA.band) return;
  shape(root, "rect", { x: 0, y: 0, width, height: 15, fill: "#ffe9b8" });
  shape(root, "text", { x: width / 2, y: 11.5, "font-size": 10, "font-weight": 700, "text-anchor": "middle" }, DATA.band);
}

// What a mark looks like says how its setting stands, in shape as well as in colour.
function markOf(plot, x, y, setting, tip, size = 4.5) {
  const stand = setting.standing;
  let made;
  if (stand === "breaks a bound") {
    shape(plot.root, "path", { d: `M${x - size},${y - size}l${2 * size},${2 * size}m0,${-2 * size}l${-2 * size},${2 * size}`, stroke: "#7c8792", "stroke-width": 1.7, fill: "none" });
    // A cross is too thin to point at.
    made = shape(plot.root, "circle", { cx: x, cy: y, r: size + 2, fill: "transparent" });
  } else if (stand) {
    const big = size + 2;
    made = shape(plot.root, "path", { d: `M${x},${y - big}l${big},${big}l${-big},${big}l${-big},${-big}z`, fill: "#D55E00", stroke: "#fff", "stroke-width": 1 });
  } else made = shape(plot.root, "circle", { cx: x, cy: y, r: size, fill: "#0072B2", stroke: "#fff", "stroke-width": 0.8 });
  pointed(made, tip);
  return made;
}

function pointed(made, tip) {
  made.classList.add("mark");
  made.addEventListener("pointerenter", event => showTip(tip(), event));
  made.addEventListener("pointermove", event => showTip(tip(), event));
  made.addEventListener("pointerleave", () => { document.getElementById("tip").hidden = true; });
}

function showTip(text, event) {
  const tip = document.getElementById("tip");
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 4)) + "px";
  tip.style.top = (event.clientY + box.height + 20 > innerHeight ? Math.max(4, event.clientY - box.height - 10) : event.clientY + 14) + "px";
}

// Texts of points at places where none covers another; one that finds no place is left out: pointing shows it.
function namer(plot, points) {
  const taken = points.map(([x, y]) => [x - 5, y - 5, x + 5, y + 5]);
  return (x, y, text) => {
    const width = text.length * 6.6 + 2, height = 12;
    for (const far of [8, 14, 22]) for (const [dx, dy] of [[1, -1], [1, 1], [-1, -1], [-1, 1], [0, -1], [0, 1], [1, 0], [-1, 0]]) {
      const left = x + dx * far - (dx < 0 ? width : dx === 0 ? width / 2 : 0), up = y + dy * far - height / 2;
      const box = [left, up, left + width, up + height];
      if (box[0] < plot.left || box[2] > plot.right + 8 || box[1] < plot.ceiling - 6 || box[3] > plot.base) continue;
      if (taken.some(t => box[0] < t[2] && t[0] < box[2] && box[1] < t[3] && t[1] < box[3])) continue;
      taken.push(box);
      shape(plot.root, "text", { x: left, y: up + 10, "font-size": 11, "font-weight": 600, "pointer-events": "none" }, text);
      return;
    }
  };
}
