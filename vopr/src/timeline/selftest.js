// With `?selftest` the page checks itself, by the events that a reader's hand makes, and writes what it found
// into an element of that name.

function selftest() {
  const checks = {};
  const check = (name, holds, what = "") => { checks[name] = holds ? "ok" : `FAILED ${what}`; };
  const pixels = () => {
    draw();
    const { data } = canvas.getContext("2d").getImageData(GUTTER, 0, canvas.width - GUTTER, canvas.height);
    let hash = 0;
    for (let i = 0; i < data.length; i++) hash = (Math.imul(hash, 31) + data[i]) | 0;
    return hash;
  };
  const mouse = (type, target, px, py, more = {}) => {
    const box = canvas.getBoundingClientRect();
    const where = { clientX: box.left + px, clientY: box.top + py, bubbles: true, cancelable: true };
    target.dispatchEvent(new (type === "wheel" ? WheelEvent : MouseEvent)(type, { ...where, ...more }));
  };
  const click = (px, py) => {
    mouse("mousedown", canvas, px, py);
    mouse("mouseup", canvas, px, py);
    return element("detail").textContent;
  };
  const span = () => state.end - state.start;

  const whole = pixels();
  check("every lane has a row", rows.length === DATA.members + DATA.clients && rows.every((row) => row.size > 8));
  check("lanes fill the page", Math.abs(rows[rows.length - 1].top + rows[rows.length - 1].size - height) < 2);
  const started = performance.now();
  for (let i = 0; i < 5; i++) draw();
  const milliseconds = (performance.now() - started) / 5;
  check("the whole run is drawn in time", milliseconds < 400, `${milliseconds} ms`);

  // The wheel keeps what is under it where it is.
  const px = Math.round(GUTTER + (width - GUTTER) / 3);
  const [before, under] = [span(), time(px)];
  for (let i = 0; i < 8; i++) mouse("wheel", canvas, px, height / 2, { deltaY: -240 });
  check("the wheel zooms", span() < before / 4, `${before} to ${span()}`);
  check("what is under the wheel stays", Math.abs(x(under) - px) < 2, `${x(under) - px} pixels off`);
  const near = pixels();
  check("zoom changes what is shown", near !== whole);
  const start = state.start;
  mouse("mousedown", canvas, px, height / 2);
  mouse("mousemove", window, px + 120, height / 2);
  mouse("mouseup", window, px + 120, height / 2);
  check("dragging pans", state.start < start && pixels() !== near);

  // A message: near enough to be an arrow of its own.
  const index = Math.floor(M.count / 2);
  state.hidden.clear();
  look(M.sent[index] - 5000, M.sent[index] + Math.max(M.way[index], 0) + 5000);
  draw();
  const [x1, y1, x2, y2] = segment(index);
  click((x1 + x2) / 2, (y1 + y2) / 2);
  const chosen = state.chosen;
  check("messages are arrows when near", state.arrows);
  check("a click on a message chooses it", chosen && chosen.kind === "message");
  if (chosen && chosen.kind === "message") {
    const text = M.texts[M.text[chosen.index]];
    check("its detail is shown", element("detail").textContent.includes(text), text);
  }

  check("bars of clients are requests", lanes.every((lane) => lane.replica || lane.bars.every((bar) => bar.text !== undefined)));
  const first = P.mark.findIndex((mark, i) => P.lane[i] >= 0 && mark !== failed);
  look(P.at[first] - 2000, P.at[first] + 2000);
  draw();
  const detail = click(x(P.at[first]), pointY(first));
  const point = state.chosen;
  check("a click on a mark chooses it", point && point.kind === "point" && detail.includes(P.text[point.index]));

  check("all states are in order", lanes.every((lane) => lane.bars.every((bar) => bar.start <= bar.end)));
  look(0, DATA.end);
  const [lane, bar] = lanes.map((it, i) => [i, it.bars.find((bar) => bar.end - bar.start > DATA.end / 50)])
    .find(([, bar]) => bar) || [0, null];
  if (bar) check("a state has a detail", facts({ kind: "bar", lane, bar })[1].length > 2);

  check("a failure is marked", Boolean(DATA.failure) === failure >= 0);
  if (DATA.failure) {
    window.dispatchEvent(new KeyboardEvent("keydown", { key: "f" }));
    const shown = element("detail").textContent;
    check("f shows the failure", state.start <= P.at[failure] && P.at[failure] <= state.end
      && shown.includes(DATA.failure[1]));
  }
  choose(null);
  check("a text is found", find(P.text[P.count - 1]) && state.chosen !== null);
  check("what is not there is not found", !find("no such text anywhere"));
  const names = lanes.map((it) => it.name);
  return { checks, lanes: names, messages: M.count, dropped: M.dropped, points: P.count, milliseconds };
}

if (location.search === "?selftest") {
  const result = document.createElement("pre");
  result.id = "selftest";
  try {
    result.textContent = JSON.stringify({ ...selftest(), errors });
  } catch (error) {
    result.textContent = JSON.stringify({ errors: [...errors, String(error.stack)] });
  }
  document.body.append(result);
}
