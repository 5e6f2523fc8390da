// What the reader does: zoom, pan, choose, filter, find.

let asked = false;
function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; draw(); });
}

function look(start, end) {
  const span = Math.min(Math.max(end - start, SPAN_MIN), DATA.end);
  const middle = (start + end) / 2;
  state.start = Math.min(Math.max(middle - span / 2, 0), DATA.end - span);
  state.end = state.start + span;
  redraw();
}

function zoom(factor, around) {
  const span = Math.min(Math.max((state.end - state.start) * factor, SPAN_MIN), DATA.end);
  const part = (around - state.start) / (state.end - state.start);
  const start = Math.min(Math.max(around - part * span, 0), DATA.end - span);
  look(start, start + span);
}

const pan = (micro) => look(state.start + micro, state.end + micro);
const middle = () => (state.start + state.end) / 2;

// Shows a moment, as near as it is looked at already.
function center(at, spanMax) {
  const half = Math.min(state.end - state.start, spanMax) / 2;
  look(at - half, at + half);
}

// What is at a pixel: a point, a message, or what a lane is at; null if nothing is.
function pick(px, py) {
  if (px < GUTTER) return null;
  let [best, distance] = [null, 8];
  for (let i = lower(P.at, time(px - 8)), last = lower(P.at, time(px + 8)); i < last; i++) {
    if (!shows(markOf(i)[0])) continue;
    const line = P.mark[i] === failed;
    const away = Math.hypot(x(P.at[i]) - px, line ? 0 : pointY(i) - py);
    if (away < distance) [best, distance] = [{ kind: "point", index: i }, away];
  }
  if (best) return best;
  if (state.arrows) {
    distance = 5;
    for (const i of visible()) {
      const away = distanceTo(segment(i), px, py);
      if (away < distance) [best, distance] = [{ kind: "message", index: i }, away];
    }
    if (best) return best;
  }
  const lane = rows.findIndex((row) => row.top <= py && py < row.top + row.size);
  const bar = lane < 0 ? null : barAt(lanes[lane], time(px));
  return bar ? { kind: "bar", lane, bar } : null;
}

function distanceTo([x1, y1, x2, y2], px, py) {
  const length = (x2 - x1) ** 2 + (y2 - y1) ** 2;
  const part = length ? Math.min(1, Math.max(0, ((px - x1) * (x2 - x1) + (py - y1) * (y2 - y1)) / length)) : 0;
  return Math.hypot(x1 + part * (x2 - x1) - px, y1 + part * (y2 - y1) - py);
}

const nameOf = (lane) => (lane < 0 ? "the whole run" : lanes[lane].name);

// What is known of something, as pairs.
function facts(chosen) {
  if (chosen.kind === "message") {
    const i = chosen.index;
    const way = M.way[i];
    return [DATA.commands[M.command[i]] || "frame", [
      ["what", M.texts[M.text[i]]],
      ["from", nameOf(M.from[i])],
      ["to", nameOf(M.to[i])],
      ["sent", seconds(M.sent[i])],
      ["arrives", way < 0 ? "never: it is lost, or the link is cut" : `${seconds(M.sent[i] + way)}, after ${way / 1000} ms`],
    ]];
  }
  if (chosen.kind === "point") {
    const i = chosen.index;
    return [DATA.marks[P.mark[i]], [["what", P.text[i]], ["where", nameOf(P.lane[i])], ["at", seconds(P.at[i])]]];
  }
  const { bar, lane } = chosen;
  const length = `${seconds(bar.start)} to ${seconds(bar.end)}, ${(bar.end - bar.start) / 1000} ms`;
  if (!lanes[lane].replica) return ["request in flight", [["what", bar.text], ["who", nameOf(lane)], ["from", length]]];
  const has = progressAt(lanes[lane], bar.end);
  return [DATA.statuses[bar.status], [
    ["who", nameOf(lane)],
    ["view", bar.view],
    ["from", length],
    ["in the end", `op ${has.head}, commit ${has.commit}, checkpoint ${has.checkpoint}`],
  ]];
}

function choose(chosen) {
  state.chosen = chosen;
  const detail = element("detail");
  detail.replaceChildren();
  const title = document.createElement("h2");
  detail.append(title);
  if (!chosen) {
    title.textContent = "Nothing chosen";
  } else {
    const [name, pairs] = facts(chosen);
    title.textContent = name;
    const list = document.createElement("dl");
    for (const [key, value] of pairs) {
      const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
      [dt.textContent, dd.textContent] = [key, value];
      list.append(dt, dd);
    }
    detail.append(list);
  }
  redraw();
}

// The next or previous thing in the lane of what is chosen.
function step(direction) {
  const chosen = state.chosen;
  if (!chosen || chosen.kind === "bar") return;
  const [list, lane] = chosen.kind === "message" ? [M, M.from] : [P, P.lane];
  for (let i = chosen.index + direction; i >= 0 && i < list.count; i += direction) {
    const shown = shows(chosen.kind === "message" ? GROUPS[M.group[i]].name : markOf(i)[0]);
    if (lane[i] !== lane[chosen.index] || !shown) continue;
    const at = chosen.kind === "message" ? M.sent[i] : P.at[i];
    if (at < state.start || at > state.end) center(at, DATA.end);
    choose({ kind: chosen.kind, index: i });
    return;
  }
}

// The next point or message after what is chosen, or after the left edge, that has a text in it.
function find(text) {
  const chosen = state.chosen && state.chosen.kind !== "bar" ? state.chosen : null;
  const after = (kind, list) => (chosen && chosen.kind === kind ? chosen.index + 1 : lower(list, timeOf(chosen)));
  const wanted = text.toLowerCase();
  const has = (it) => it.toLowerCase().includes(wanted);
  const fitting = M.texts.map(has);
  let [point, message] = [after("point", P.at), after("message", M.sent)];
  while (point < P.count && !has(P.text[point])) point++;
  while (message < M.count && !fitting[M.text[message]]) message++;
  const pointFirst = point < P.count && (message >= M.count || P.at[point] <= M.sent[message]);
  if (!pointFirst && message >= M.count) return false;
  const at = pointFirst ? P.at[point] : M.sent[message];
  center(at, 200_000);
  choose(pointFirst ? { kind: "point", index: point } : { kind: "message", index: message });
  return true;
}

function timeOf(chosen) {
  if (!chosen) return state.start;
  return chosen.kind === "point" ? P.at[chosen.index] : M.sent[chosen.index];
}

function showFailure() {
  if (failure < 0) return;
  center(P.at[failure], DATA.end / 20);
  choose({ kind: "point", index: failure });
}

// A button that shows or hides one kind of thing.
function chip(name, color) {
  const button = document.createElement("button");
  const swatch = document.createElement("i");
  swatch.style.background = color;
  button.className = shows(name) ? "chip" : "chip off";
  button.append(swatch, name);
  button.onclick = () => {
    if (!state.hidden.delete(name)) state.hidden.add(name);
    button.classList.toggle("off", !shows(name));
    redraw();
  };
  element("chips").append(button, " ");
}

function fillIn() {
  document.title = `${DATA.title}: vopr timeline`;
  element("title").textContent = DATA.title;
  element("badge").textContent = DATA.failure ? `failed: ${DATA.failure[0]}` : "passed";
  element("badge").classList.toggle("failed", Boolean(DATA.failure));
  element("why").textContent = DATA.failure ? DATA.failure[1] : "";
  element("facts").textContent = `${DATA.replicas} replicas, ${DATA.clients} clients, ${count(DATA.op)} ops, `
    + `${count(DATA.events)} events in ${seconds(DATA.end, 3)}, commit ${DATA.commit}, config ${DATA.config}`;
  element("repeat").textContent = DATA.repeat;
  element("fail").hidden = failure < 0;
  GROUPS.forEach((group) => chip(group.name, group.color));
  new Map(Object.values(MARKS)).forEach((_, name) => {
    const color = Object.values(MARKS).find((mark) => mark[0] === name)[1];
    if (!["phases", "failure"].includes(name)) chip(name, color);
  });
  STATUS_COLORS.forEach((color, index) => {
    const [line, swatch] = [document.createElement("span"), document.createElement("i")];
    swatch.style.background = color;
    line.append(swatch, DATA.statuses[index]);
    element("legend").append(line);
  });
  const dropped = (list, what) => (list.dropped
    ? `Only the newest ${count(list.count)} ${what} are here; ${count(list.dropped)} came before. ` : "");
  element("limits").textContent = dropped(M, "messages") + dropped(P, "marks")
    + `${count(M.count)} messages, ${count(P.count)} marks.`;
}

function listen() {
  let drag = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const [px] = place(event);
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      pan(((event.deltaX || event.deltaY) / width) * (state.end - state.start));
    } else {
      zoom(Math.exp(event.deltaY * 0.002), time(Math.max(px, GUTTER)));
    }
  }, { passive: false });
  canvas.addEventListener("mousedown", (event) => {
    drag = { px: place(event)[0], start: state.start, end: state.end, moved: false };
  });
  window.addEventListener("mousemove", (event) => {
    const [px, py] = place(event);
    if (drag) {
      drag.moved ||= Math.abs(px - drag.px) > 3;
      canvas.classList.toggle("drag", drag.moved);
      const by = ((drag.px - px) / (width - GUTTER)) * (drag.end - drag.start);
      if (drag.moved) look(drag.start + by, drag.end + by);
    }
    const inside = px >= GUTTER && px <= width && py >= 0 && py <= height;
    state.cursor = inside ? time(px) : null;
    redraw();
  });
  window.addEventListener("mouseup", (event) => {
    if (drag && !drag.moved) choose(pick(...place(event)));
    drag = null;
    canvas.classList.remove("drag");
  });
  const overview = element("overview");
  const move = (event) => {
    const box = overview.getBoundingClientRect();
    const at = ((event.clientX - box.left - GUTTER) / (box.width - GUTTER)) * DATA.end;
    center(at, DATA.end);
  };
  overview.addEventListener("mousedown", move);
  overview.addEventListener("mousemove", (event) => { if (event.buttons) move(event); });
  element("in").onclick = () => zoom(0.5, middle());
  element("out").onclick = () => zoom(2, middle());
  element("all").onclick = () => look(0, DATA.end);
  element("fail").onclick = showFailure;
  element("repeat").onclick = () => navigator.clipboard && navigator.clipboard.writeText(DATA.repeat);
  element("find").addEventListener("keydown", (event) => {
    if (event.key === "Enter") event.target.style.borderColor = find(event.target.value) ? "" : LOST;
    event.stopPropagation();
  });
  const keys = {
    "+": () => zoom(0.5, middle()), "=": () => zoom(0.5, middle()), "-": () => zoom(2, middle()),
    "0": () => look(0, DATA.end), "f": showFailure, "n": () => step(1), "p": () => step(-1),
    "ArrowLeft": () => pan((state.start - state.end) / 8), "ArrowRight": () => pan((state.end - state.start) / 8),
  };
  window.addEventListener("keydown", (event) => {
    if (keys[event.key] && !event.ctrlKey && !event.metaKey) keys[event.key]();
  });
  window.addEventListener("resize", () => { layout(); redraw(); });
}

fillIn();
listen();
layout();
choose(null);
if (failure >= 0) choose({ kind: "point", index: failure });
draw();
