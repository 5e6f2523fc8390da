// Draws DATA: lanes from top to bottom, time from left to right. Times are microseconds. Only what is in
// view is drawn; when that is too much for arrows, it is drawn as a density.

const errors = [];
window.addEventListener("error", (event) => errors.push(event.message));

const GUTTER = 176;
const AXIS = 26;
const ARROWS_MAX = 5000;
const SPAN_MIN = 200;
const LABEL = "11px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif";

const STATUS_COLORS = ["#e3e6ea", "#f6e7b8", "#cfc4e6", "#f3b88f", "#f7d64a", "#8fd3c3", "#b9d6f2", "#3d7cc0"];
const GROUPS = [
  { name: "clients", color: "#1e8a63", commands: ["request", "reply", "eviction", "forward", "relay"] },
  { name: "log", color: "#3b6fb6", commands: ["prepare", "prepare_ok", "commit"] },
  { name: "views", color: "#8a3fb0", commands: ["start_view_change", "do_view_change", "start_view", "request_start_view"] },
  { name: "repair", color: "#c2760a", commands: ["request_headers", "headers", "request_prepare", "request_block", "block", "request_reply", "stored_reply"] },
  { name: "recovery", color: "#c2410c", commands: ["recover", "recovery"] },
  { name: "pings", color: "#9aa7b4", commands: [] },
];
const LOST = "#d23440";
const MARKS = {
  "phase": ["phases", "#5a6b7d"], "script": ["script", "#5a6b7d"], "failure": ["failure", "#c62f3b"],
  "start": ["processes", "#2b8a57"], "stop": ["processes", "#22303f"],
  "checkpoint": ["checkpoints", "#2563a8"], "view": ["view numbers", "#8a3fb0"],
  "fault": ["faults", "#e0571b"], "vetoed fault": ["faults", "#b9c2cb"],
  "request": ["requests", "#1e8a63"], "answer": ["requests", "#1e8a63"],
};

// The data, unpacked.
const sums = (differences) => {
  let sum = 0;
  return Float64Array.from(differences, (difference) => (sum += difference));
};
const M = DATA.messages;
M.sent = sums(M.sent);
M.count = M.sent.length;
M.groups = DATA.commands.map((name) => {
  const found = GROUPS.findIndex((group) => group.commands.includes(name));
  return found < 0 ? GROUPS.length - 1 : found;
});
M.group = Uint8Array.from(M.command, (command) => (command < 0 ? GROUPS.length - 1 : M.groups[command]));
M.wayMax = M.way.reduce((max, way) => Math.max(max, way), 0);
const P = DATA.points;
P.at = sums(P.at);
P.count = P.at.length;
const lanes = [];
for (let i = 0; i < DATA.members; i++) {
  const name = i < DATA.replicas ? `replica ${i}` : `standby ${i}`;
  lanes.push({ name, replica: true, bars: [], progress: [] });
}
for (let i = 0; i < DATA.clients; i++) {
  const name = i === DATA.clients - 1 ? `client ${i}, reads back` : `client ${i}`;
  lanes.push({ name, replica: false, bars: [], progress: [] });
}
for (const [at, replica, status, view] of DATA.states) {
  const bars = lanes[replica].bars;
  if (bars.length) bars[bars.length - 1].end = at;
  bars.push({ start: at, end: DATA.end, status, view });
}
for (const [at, replica, checkpoint, commit, head] of DATA.progress) {
  lanes[replica].progress.push({ at, checkpoint, commit, head });
}
for (const lane of lanes) lane.progressAt = Float64Array.from(lane.progress, (it) => it.at);
for (let i = 0; i < P.count; i++) {
  if (P.lane[i] < DATA.members) continue;
  const bars = lanes[P.lane[i]].bars;
  const kind = DATA.marks[P.mark[i]];
  if (kind === "request") bars.push({ start: P.at[i], end: DATA.end, text: P.text[i] });
  if (kind === "answer" && bars.length) bars[bars.length - 1].end = P.at[i];
}
const failed = DATA.marks.indexOf("failure");
const failure = P.mark.indexOf(failed);
const phases = [];
for (let i = 0; i < P.count; i++) {
  if (DATA.marks[P.mark[i]] === "phase") phases.push({ at: P.at[i], name: P.text[i].replace("phase ", "") });
}

// What is in view, and what is chosen.
const element = (id) => document.getElementById(id);
const canvas = element("view");
const state = { start: 0, end: DATA.end, chosen: null, cursor: null, hidden: new Set(["pings"]), arrows: true };
let width = 0, height = 0, rows = [];

const x = (time) => GUTTER + ((time - state.start) / (state.end - state.start)) * (width - GUTTER);
const time = (px) => state.start + ((px - GUTTER) / (width - GUTTER)) * (state.end - state.start);
const seconds = (micro, digits = 6) => `${(micro / 1e6).toFixed(digits)} s`;
const count = (number) => number.toLocaleString("en");

// The first index whose number is not below.
function lower(numbers, value) {
  let low = 0, high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] < value) low = middle + 1; else high = middle;
  }
  return low;
}

function layout() {
  const scale = window.devicePixelRatio || 1;
  const box = element("main").getBoundingClientRect();
  [width, height] = [box.width, box.height];
  for (const [target, area] of [[canvas, element("main")], [element("overview"), element("map")]]) {
    const size = area.getBoundingClientRect();
    target.width = Math.round(size.width * scale);
    target.height = Math.round(size.height * scale);
    target.getContext("2d").setTransform(scale, 0, 0, scale, 0, 0);
  }
  const clients = lanes.length - DATA.members;
  const unit = (height - AXIS - 34) / (DATA.members * 2 + clients);
  let top = AXIS + 34;
  rows = lanes.map((lane) => {
    const size = lane.replica ? unit * 2 : unit;
    const row = { top, size, y: top + size / 2 };
    top += size;
    return row;
  });
}

const laneY = (lane) => (lane < 0 ? AXIS + 17 : rows[lane].y);
const shows = (name) => !state.hidden.has(name);

// Steps of 1, 2 or 5 that leave room for their labels.
function tickStep() {
  const least = ((state.end - state.start) / (width - GUTTER)) * 90;
  let step = 1;
  for (let i = 0; step < least; i++) step *= [2, 2.5, 2][i % 3];
  return step;
}

function drawAxis(g) {
  const step = tickStep();
  const digits = Math.max(0, 6 - Math.floor(Math.log10(step)));
  g.font = LABEL;
  g.textAlign = "center";
  for (let at = Math.ceil(state.start / step) * step; at <= state.end; at += step) {
    g.fillStyle = "#eef1f4";
    g.fillRect(x(at), AXIS, 1, height);
    g.fillStyle = "#5a6b7d";
    if (x(at) > GUTTER + 18) g.fillText(seconds(at, digits), x(at), 17);
  }
  g.fillStyle = "#dde4eb";
  g.fillRect(0, AXIS, width, 1);
}

function drawPhases(g) {
  g.font = LABEL;
  g.textAlign = "left";
  phases.forEach((phase, index) => {
    const [left, right] = [x(phase.at), x(index + 1 < phases.length ? phases[index + 1].at : DATA.end)];
    if (right < GUTTER || left > width) return;
    const from = Math.max(left, GUTTER);
    g.fillStyle = index % 2 ? "#f8fafc" : "#f2f5f8";
    g.fillRect(from, AXIS + 1, right - from, 33);
    if (right - from > g.measureText(phase.name).width + 12) {
      g.fillStyle = "#5a6b7d";
      g.fillText(phase.name, from + 6, AXIS + 14);
    }
  });
}

function drawBars(g) {
  g.font = LABEL;
  g.textAlign = "left";
  lanes.forEach((lane, index) => {
    const { y, top } = rows[index];
    g.fillStyle = "#eef1f4";
    g.fillRect(0, top, width, 1);
    const half = Math.min(lane.replica ? 9 : 5, rows[index].size / 3);
    for (const bar of lane.bars) {
      const [left, right] = [Math.max(x(bar.start), GUTTER), Math.min(x(bar.end), width)];
      if (right < GUTTER || left > width) continue;
      g.fillStyle = lane.replica ? STATUS_COLORS[bar.status] : "#cdeadd";
      g.fillRect(left, y - half, Math.max(right - left, 1), half * 2);
    }
  });
}

// What replicas are at and have, in words, over the arrows.
function drawWords(g) {
  g.font = LABEL;
  g.textAlign = "left";
  g.lineWidth = 3;
  g.lineJoin = "round";
  lanes.forEach((lane, index) => {
    if (!lane.replica) return;
    const { y, size } = rows[index];
    for (const bar of lane.bars) {
      const [left, right] = [Math.max(x(bar.start), GUTTER), Math.min(x(bar.end), width)];
      const name = DATA.statuses[bar.status].replace("normal, ", "");
      const label = bar.status === 0 ? name : `${name}, view ${bar.view}`;
      if (right - left < g.measureText(label).width + 10) continue;
      g.strokeStyle = STATUS_COLORS[bar.status];
      g.fillStyle = bar.status === 7 ? "#fff" : "#26323f";
      g.strokeText(label, left + 5, y + 4);
      g.fillText(label, left + 5, y + 4);
    }
    drawProgress(g, lane, y + Math.min(9, size / 3));
  });
}

// The highest op and commit, where they change, as far as there is room for their numbers.
function drawProgress(g, lane, y) {
  const from = Math.max(0, lower(lane.progressAt, state.start) - 1);
  let free = GUTTER;
  g.fillStyle = "#52606e";
  g.strokeStyle = "rgba(255, 255, 255, .85)";
  for (let i = from; i < lane.progress.length && lane.progress[i].at <= state.end; i++) {
    const { at, head, commit } = lane.progress[i];
    const [left, label] = [x(at), `${head}/${commit}`];
    if (left < free) continue;
    g.fillRect(left, y, 1, 4);
    g.strokeText(label, left + 3, y + 12);
    g.fillText(label, left + 3, y + 12);
    free = left + g.measureText(label).width + 14;
  }
}

// Messages in view, by index.
function* visible() {
  const last = lower(M.sent, state.end);
  for (let i = lower(M.sent, state.start - M.wayMax); i < last; i++) {
    const end = M.sent[i] + Math.max(M.way[i], 0);
    if (end >= state.start && shows(GROUPS[M.group[i]].name)) yield i;
  }
}

// Where a message is drawn. One that is lost ends on its way.
function segment(i) {
  const [fromY, toY] = [rows[M.from[i]].y, rows[M.to[i]].y];
  if (M.way[i] < 0) {
    const part = Math.min(26, Math.abs(toY - fromY) / 3) * Math.sign(toY - fromY);
    return [x(M.sent[i]), fromY, x(M.sent[i]) + 5, fromY + part];
  }
  return [x(M.sent[i]), fromY, x(M.sent[i] + M.way[i]), toY];
}

function drawArrow(g, i, thick) {
  const [x1, y1, x2, y2] = segment(i);
  const lost = M.way[i] < 0;
  g.strokeStyle = g.fillStyle = lost ? LOST : GROUPS[M.group[i]].color;
  g.lineWidth = thick ? 2.5 : 1;
  g.beginPath();
  g.moveTo(x1, y1);
  g.lineTo(x2, y2);
  if (lost) {
    g.moveTo(x2 - 3, y2 - 3); g.lineTo(x2 + 3, y2 + 3);
    g.moveTo(x2 + 3, y2 - 3); g.lineTo(x2 - 3, y2 + 3);
  }
  g.stroke();
  if (lost) return;
  const angle = Math.atan2(y2 - y1, x2 - x1);
  g.beginPath();
  g.moveTo(x2, y2);
  for (const side of [-0.35, 0.35]) g.lineTo(x2 - 7 * Math.cos(angle + side), y2 - 7 * Math.sin(angle + side));
  g.fill();
}

function drawMessages(g) {
  let total = 0;
  for (const _ of visible()) total++;
  state.arrows = total <= ARROWS_MAX;
  if (state.arrows) {
    g.globalAlpha = total > 800 ? 0.55 : 0.85;
    for (const i of visible()) drawArrow(g, i, false);
    g.globalAlpha = 1;
  } else {
    drawDensity(g);
  }
  const what = state.arrows ? "" : ": as a density; zoom in for arrows";
  element("note").textContent = `${count(total)} messages in view${what}`;
}

// What each lane sends in each three pixels, by group, as stacked bars above its band.
function drawDensity(g) {
  const columns = Math.ceil((width - GUTTER) / 3);
  const sent = lanes.map(() => GROUPS.map(() => new Uint32Array(columns)));
  let most = 1;
  for (const i of visible()) {
    const column = Math.floor((x(M.sent[i]) - GUTTER) / 3);
    if (column < 0 || column >= columns) continue;
    most = Math.max(most, ++sent[M.from[i]][M.group[i]][column]);
  }
  sent.forEach((groups, lane) => {
    const { y, size } = rows[lane];
    const base = y - Math.min(lanes[lane].replica ? 9 : 5, size / 3) - 1;
    const room = base - rows[lane].top - 2;
    for (let column = 0; column < columns; column++) {
      let top = base;
      groups.forEach((numbers, group) => {
        if (!numbers[column]) return;
        const bar = Math.max(1, (Math.sqrt(numbers[column] / most) * room) / 2);
        g.fillStyle = GROUPS[group].color;
        g.fillRect(GUTTER + column * 3, top - bar, 2, bar);
        top -= bar;
      });
    }
  });
}

const markOf = (i) => MARKS[DATA.marks[P.mark[i]]];

function pointY(i) {
  const lane = P.lane[i];
  if (lane < 0) return AXIS + 25;
  const half = lanes[lane].replica ? 9 : 5;
  return rows[lane].y - Math.min(half, rows[lane].size / 3) - 5;
}

function drawPoint(g, i, thick) {
  const kind = DATA.marks[P.mark[i]];
  const [px, py, r] = [x(P.at[i]), pointY(i), thick ? 7 : 4.5];
  g.fillStyle = g.strokeStyle = markOf(i)[1];
  g.lineWidth = 1.5;
  g.beginPath();
  if (kind === "checkpoint") {
    g.moveTo(px, py - r); g.lineTo(px + r, py); g.lineTo(px, py + r); g.lineTo(px - r, py);
    g.fill();
  } else if (kind === "stop") {
    g.moveTo(px - r + 1, py - r + 1); g.lineTo(px + r - 1, py + r - 1);
    g.moveTo(px + r - 1, py - r + 1); g.lineTo(px - r + 1, py + r - 1);
    g.stroke();
  } else if (kind === "start") {
    g.moveTo(px - r + 1, py - r); g.lineTo(px + r, py); g.lineTo(px - r + 1, py + r);
    g.fill();
  } else if (kind === "view") {
    g.moveTo(px, py + r); g.lineTo(px, py - r); g.lineTo(px + r, py - r / 2); g.lineTo(px, py);
    g.fill(); g.stroke();
  } else if (kind.endsWith("fault")) {
    g.moveTo(px, py + r); g.lineTo(px - r, py - r + 1); g.lineTo(px + r, py - r + 1);
    if (kind === "fault") g.fill(); else { g.closePath(); g.stroke(); }
  } else {
    g.arc(px, py, r - 1.5, 0, 7);
    if (kind === "request") g.stroke(); else g.fill();
  }
}

function drawPoints(g) {
  const last = lower(P.at, state.end);
  // Of equal ones on one pixel, one is enough.
  const seen = new Set();
  for (let i = lower(P.at, state.start); i < last; i++) {
    if (!shows(markOf(i)[0]) || P.mark[i] === failed) continue;
    const place = `${P.lane[i]} ${P.mark[i]} ${Math.round(x(P.at[i]))}`;
    if (!seen.has(place)) drawPoint(g, i, false);
    seen.add(place);
  }
}

function drawFailure(g) {
  if (failure < 0) return;
  const px = x(P.at[failure]);
  if (px < GUTTER || px > width + 1) return;
  g.fillStyle = "#c62f3b";
  g.fillRect(Math.min(px, width - 2) - 1, AXIS, 2, height);
  g.font = `600 ${LABEL}`;
  g.textAlign = "right";
  const text = `FAIL ${DATA.failure[0]}`;
  const left = px - GUTTER < 90;
  if (left) g.textAlign = "left";
  g.fillText(text, left ? px + 5 : px - 5, AXIS + 14);
}

// Names, and what each replica has at the cursor, or at the right edge.
function drawGutter(g) {
  const at = state.cursor === null ? state.end : state.cursor;
  g.fillStyle = "#fff";
  g.fillRect(0, 0, GUTTER, height);
  g.fillStyle = "#dde4eb";
  g.fillRect(GUTTER - 1, 0, 1, height);
  g.textAlign = "left";
  g.font = LABEL;
  g.fillStyle = "#5a6b7d";
  g.fillText(`at ${seconds(at)}`, 10, 17);
  g.fillText("the whole run", 10, AXIS + 21);
  lanes.forEach((lane, index) => {
    const { y, top, size } = rows[index];
    g.fillStyle = "#dde4eb";
    g.fillRect(0, top, GUTTER, 1);
    g.fillStyle = "#1d2733";
    g.font = lane.replica ? `600 12px ${LABEL.slice(5)}` : LABEL;
    const known = lane.replica && size > 40;
    g.fillText(lane.name, 10, known ? y - 8 : y + 4);
    if (!known) return;
    const [bar, has] = [barAt(lane, at), progressAt(lane, at)];
    g.font = LABEL;
    g.fillStyle = "#5a6b7d";
    g.fillText(bar ? `${DATA.statuses[bar.status].replace("normal, ", "")}, view ${bar.view}` : "no file yet", 10, y + 7);
    g.fillText(`op ${has.head}, commit ${has.commit}, cp ${has.checkpoint}`, 10, y + 21);
  });
}

const barAt = (lane, at) => lane.bars.findLast((bar) => bar.start <= at && at <= bar.end);
const progressAt = (lane, at) =>
  lane.progress.findLast((it) => it.at <= at) || { checkpoint: 0, commit: 0, head: 0 };

function draw() {
  const g = canvas.getContext("2d");
  g.clearRect(0, 0, width, height);
  drawPhases(g);
  drawAxis(g);
  drawBars(g);
  drawMessages(g);
  drawWords(g);
  drawPoints(g);
  drawFailure(g);
  const chosen = state.chosen;
  if (chosen && chosen.kind === "message") drawArrow(g, chosen.index, true);
  if (chosen && chosen.kind === "point") drawPoint(g, chosen.index, true);
  if (state.cursor !== null) {
    g.fillStyle = "rgba(34, 48, 63, .35)";
    g.fillRect(x(state.cursor), AXIS, 1, height);
  }
  drawGutter(g);
  drawOverview();
}

// The whole run: how much is sent, faults, the failure, and what is in view.
let profile = null;
function drawOverview() {
  const target = element("overview");
  const g = target.getContext("2d");
  const box = target.getBoundingClientRect();
  const columns = Math.max(1, Math.floor(box.width - GUTTER));
  const at = (micro) => GUTTER + (micro / DATA.end) * columns;
  if (!profile || profile.length !== columns) {
    profile = new Uint32Array(columns);
    for (let i = 0; i < M.count; i++) profile[Math.min(columns - 1, Math.floor((M.sent[i] / DATA.end) * columns))]++;
  }
  const most = profile.reduce((max, it) => Math.max(max, it), 1);
  g.clearRect(0, 0, box.width, box.height);
  g.fillStyle = "#b9d6f2";
  profile.forEach((it, column) => {
    const bar = it ? Math.max(1, Math.sqrt(it / most) * (box.height - 18)) : 0;
    g.fillRect(GUTTER + column, box.height - bar, 1, bar);
  });
  const fault = DATA.marks.indexOf("fault");
  g.fillStyle = "rgba(224, 87, 27, .5)";
  for (let i = 0; i < P.count; i++) if (P.mark[i] === fault) g.fillRect(at(P.at[i]), 5, 1, 7);
  if (failure >= 0) {
    g.fillStyle = "#c62f3b";
    g.fillRect(at(P.at[failure]) - 1, 0, 2, box.height);
  }
  g.fillStyle = "rgba(61, 124, 192, .13)";
  g.strokeStyle = "#3d7cc0";
  const [left, right] = [at(state.start), Math.max(at(state.end), at(state.start) + 3)];
  g.fillRect(left, 1, right - left, box.height - 2);
  g.strokeRect(left + 0.5, 1.5, right - left - 1, box.height - 3);
  g.fillStyle = "#5a6b7d";
  g.font = LABEL;
  g.fillText("messages and faults", 10, 28);
  g.fillText(`of ${seconds(DATA.end, 3)}`, 10, 43);
}
