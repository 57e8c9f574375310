/* The page: mounts charts, sliders, sorting, heat maps and symbols; a live page asks for what is new and keeps the rest. */
(() => {
let data = JSON.parse(document.getElementById("page-data").textContent);
const charts = new Map(), sorted = new Map(), at = new Map();
const state = document.getElementById("state");

function mountCharts(root) {
  for (const figure of root.querySelectorAll("[data-chart]")) {
    const key = figure.dataset.chart, chart = data.charts[key];
    if (!chart) continue;
    charts.set(key, new Chart(figure, data.specs[chart.kind], chart.kind, chart.data, chart.signals));
  }
}

function mountFrames(root) {
  for (const box of root.querySelectorAll("[data-frames]")) {
    const key = box.dataset.frames, image = box.querySelector("img"), range = box.querySelector("input");
    const out = box.querySelector("output"), button = box.querySelector("button");
    let timer = null;
    const show = () => {
      const frame = data.frames[key][Number(range.value)];
      image.src = frame.uri; image.alt = `${range.getAttribute("aria-label")} ${frame.round}`;
      out.textContent = String(frame.round); range.setAttribute("aria-valuetext", `round ${frame.round}`);
      at.set(key, Number(range.value) === Number(range.max) ? "last" : frame.round);
    };
    const stop = () => { clearInterval(timer); timer = null; button.textContent = "Play"; button.setAttribute("aria-pressed", "false"); };
    range.addEventListener("input", () => { stop(); show(); });
    button.addEventListener("click", () => {
      if (timer) return stop();
      if (range.value === range.max) range.value = "0";
      button.textContent = "Pause"; button.setAttribute("aria-pressed", "true");
      timer = setInterval(() => {
        if (!box.isConnected || range.value === range.max) return stop();
        range.value = String(Number(range.value) + 1); show();
      }, 450);
      show();
    });
    const before = at.get(key);
    if (before !== undefined && before !== "last") {
      const i = data.frames[key].findIndex(frame => frame.round >= before);
      if (i >= 0) range.value = String(i);
    }
    show();
  }
}

function sortBy(table, column, direction) {
  const body = table.tBodies[0], heads = table.tHead.rows[0].cells;
  const value = row => {
    const cell = row.cells[column], given = cell.dataset.value;
    return given === undefined ? cell.textContent.trim() : Number(given);
  };
  const known = v => typeof v === "string" ? v !== "" : !Number.isNaN(v);
  const rows = [...body.rows].map(row => [value(row), row]);
  rows.sort(([a], [b]) => {
    if (known(a) !== known(b)) return known(a) ? -1 : 1;
    const less = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", {numeric: true});
    return direction === "ascending" ? less : -less;
  });
  for (const [, row] of rows) body.append(row);
  for (let i = 0; i < heads.length; i++) heads[i].setAttribute("aria-sort", i === column ? direction : "none");
  sorted.set(table.caption.textContent, [column, direction]);
}

function mountTables(root) {
  for (const table of root.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, i) => head.querySelector("button").addEventListener("click", () =>
      sortBy(table, i, head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending")));
    const before = sorted.get(table.caption.textContent);
    if (before) sortBy(table, ...before);
  }
}

function mountSymbols(root) {
  for (const row of root.querySelectorAll("tr[data-symbol]")) {
    const light = on => document.querySelectorAll(`[data-symbol="${CSS.escape(row.dataset.symbol)}"]`)
      .forEach(part => part.classList.toggle("lit", on));
    for (const kind of ["pointerenter", "focus"]) row.addEventListener(kind, () => light(true));
    for (const kind of ["pointerleave", "blur"]) row.addEventListener(kind, () => light(false));
  }
}

function readZoom(form) {
  const part = name => form.elements[name].value === "" ? null : Number(form.elements[name].value);
  const [from, to] = [part("from"), part("to")];
  if (from === null || to === null || from < to) zoom.set(from, to);
}

function writeZoom() {
  for (const form of document.querySelectorAll("form.zoom"))
    for (const name of ["from", "to"])
      if (document.activeElement !== form.elements[name] || zoom[name] === null)
        form.elements[name].value = zoom[name] === null ? "" : String(zoom[name]);
}

function mountZoom(root) {
  for (const form of root.querySelectorAll("form.zoom")) {
    form.addEventListener("submit", event => event.preventDefault());
    for (const name of ["from", "to"]) form.elements[name].addEventListener("change", () => readZoom(form));
    form.elements.reset.addEventListener("click", () => zoom.set(null, null));
  }
  writeZoom();
}

function mount(root) {
  for (const part of [mountCharts, mountFrames, mountTables, mountSymbols, mountZoom]) part(root);
  mountHeat(root, () => data, at);
}

function refresh(found) {
  const before = data.stamps;
  data = found;
  for (const [key, html] of Object.entries(found.sections)) {
    let box = document.querySelector(`[data-section="${CSS.escape(key)}"]`);
    if (!box) {
      box = document.createElement("div"); box.dataset.section = key;
      document.getElementById("main").append(box);
    } else if (before[key] === found.stamps[key]) {
      continue;
    }
    const open = new Map([...box.querySelectorAll("details")].map(one => [one.dataset.key, one.open]));
    for (const figure of box.querySelectorAll("[data-chart]")) {
      const old = charts.get(figure.dataset.chart);
      if (old && old.figure === figure) { old.close(); charts.delete(figure.dataset.chart); }
    }
    box.innerHTML = html;
    for (const one of box.querySelectorAll("details")) if (open.has(one.dataset.key)) one.open = open.get(one.dataset.key);
    mount(box);
  }
  for (const [key, chart] of charts) {
    if (!chart.figure.isConnected) { chart.close(); charts.delete(key); continue; }
    const own = data.charts[chart.figure.dataset.chart];
    if (own) chart.fill(own.data);
  }
}

async function poll() {
  let wait = 2000;
  try {
    const answer = await fetch(`page.json?have=${encodeURIComponent(data.stamp || "")}`, {cache: "no-store"});
    if (answer.status === 200) refresh(await answer.json());
    else if (answer.status !== 204) throw new Error(String(answer.status));
    state.textContent = `Live; looked at ${new Date().toLocaleTimeString()}.`;
  } catch {
    state.textContent = "The server does not answer: this is what was last known.";
    wait = 5000;
  }
  setTimeout(poll, wait);
}

zoom.listeners.add(writeZoom);
mount(document);
Promise.all([...charts.values()].map(chart => chart.ready)).then(() => {
  document.documentElement.dataset.ready = "true";
  if (document.body.hasAttribute("data-live")) poll();
});
})();
