"use strict";
/* Charts: Vega draws, this reads values under the pointer or the arrow keys, and zooms all charts over rounds together. */
const zoom = {from: null, to: null, listeners: new Set(),
  set(from, to) { this.from = from; this.to = to; for (const f of this.listeners) f(); }};

function unfold(groups) {
  const rows = [];
  for (const group of groups || []) {
    const columns = Object.entries(group).filter(([, v]) => Array.isArray(v));
    const n = columns.length ? columns[0][1].length : 0;
    for (let i = 0; i < n; i++) {
      const row = {c: group.c};
      for (const [name, values] of columns) row[name] = values[i];
      rows.push(row);
    }
  }
  return rows;
}

const shown = v => v === null || v === undefined ? "not finite"
  : String(Number(v.toPrecision(5))).replace("-", "\u2212");

class Chart {
  constructor(figure, spec, kind, data, signals) {
    this.figure = figure; this.plot = figure.querySelector(".plot");
    this.readout = figure.querySelector(".readout"); this.kind = kind;
    this.zoomed = /^(rounds|many)/.test(kind); this.readable = this.zoomed || kind === "profile";
    this.at = null; this.view = null; this.data = data;
    this.follow = () => this.rezoom();
    const own = structuredClone(spec);
    for (const set of own.data) if (set.name in data) set.values = unfold(data[set.name]);
    for (const signal of own.signals || []) {
      if (signal.name in zoom) signal.value = zoom[signal.name];
      if (signals && signal.name in signals) signal.value = signals[signal.name];
    }
    const plain = {mode: "vega", renderer: "svg", actions: false, ast: true, tooltip: false, hover: false, defaultStyle: false, logLevel: 1};
    this.ready = window.seEmbed(this.plot, own, plain).then(made => {
      this.view = made.view;
      this.close = () => { zoom.listeners.delete(this.follow); made.finalize(); };
      this.fill(this.data);
      if (this.zoomed) zoom.listeners.add(this.follow);
      if (this.readable) this.listen();
    });
  }
  close() { this.ready.then(() => this.close()); }
  fill(data) {
    this.xs = [...new Set((data.line || []).flatMap(one => one.x))].sort((a, b) => a - b);
    if (data === this.data) return;
    this.data = data;
    if (!this.view) return;
    for (const name of ["line", "band", "dots", "marks", "bars", "cells", "points", "arrows"])
      if (name in data) this.view.data(name, unfold(data[name]));
    this.view.run();
  }
  rezoom() { this.view.signal("from", zoom.from).signal("to", zoom.to).run(); this.point(null); }
  close() { zoom.listeners.delete(this.follow); this.view.finalize(); }
  scale() { return this.view.scale("x"); }
  origin() { return this.view.origin()[0]; }
  round(event) {
    const left = this.plot.getBoundingClientRect().left + this.origin(), scale = this.scale(), [a, b] = scale.range();
    return scale.invert(Math.min(b, Math.max(a, event.clientX - left)));
  }
  visible() {
    const [a, b] = this.scale().domain();
    return this.xs.filter(x => x >= a && x <= b);
  }
  point(x) {
    if (this.cursor) { this.cursor.remove(); this.cursor = null; }
    const xs = this.visible();
    if (x === null || !xs.length) { this.at = null; this.readout.textContent = ""; return; }
    this.at = xs.reduce((best, one) => Math.abs(one - x) < Math.abs(best - x) ? one : best);
    const parts = this.data.line.map(one => [one.s, one.y[one.x.indexOf(this.at)]]).filter(([, y]) => y !== undefined);
    const band = (this.data.band || []).length === 1 ? this.data.band[0] : null, k = band ? band.x.indexOf(this.at) : -1;
    const of = parts.slice(0, 4).map(([s, y]) => (s ? s + " " : "") + shown(y)).join(", ");
    this.readout.textContent = `${this.kind === "profile" ? "x" : "round"} ${shown(this.at)}: ${of}`
      + (parts.length > 4 ? `, and ${parts.length - 4} more` : "")
      + (k >= 0 ? ` (${shown(band.low[k])} to ${shown(band.high[k])})` : "");
    this.cursor = document.createElement("div");
    this.cursor.className = "cursor";
    this.cursor.style.left = `${this.origin() + this.scale()(this.at)}px`;
    this.cursor.style.height = `${this.view.height() + this.view.origin()[1]}px`;
    this.plot.append(this.cursor);
  }
  step(by) {
    const xs = this.visible();
    if (!xs.length) return;
    const i = this.at === null ? (by > 0 ? -1 : xs.length) : xs.indexOf(this.at);
    this.point(xs[Math.min(xs.length - 1, Math.max(0, i + by))]);
  }
  listen() {
    const plot = this.plot;
    let start = null, box = null;
    const end = () => { start = null; if (box) box.remove(); box = null; };
    plot.addEventListener("pointermove", event => {
      this.point(this.round(event));
      if (start === null) return;
      if (!box) { box = document.createElement("div"); box.className = "drag"; plot.append(box); }
      const [a, b] = [start, this.round(event)].sort((p, q) => p - q), scale = this.scale();
      box.style.left = `${this.origin() + scale(a)}px`; box.style.width = `${scale(b) - scale(a)}px`;
      box.style.height = `${this.view.height()}px`;
    });
    plot.addEventListener("pointerdown", event => {
      if (this.zoomed && event.button === 0) { start = this.round(event); plot.setPointerCapture(event.pointerId); }
    });
    plot.addEventListener("pointerup", event => {
      if (start === null) return;
      const [a, b] = [start, this.round(event)].sort((p, q) => p - q), scale = this.scale();
      const wide = scale(b) - scale(a) > 8;
      end();
      if (wide) zoom.set(Math.floor(a), Math.ceil(b));
    });
    plot.addEventListener("pointercancel", end);
    plot.addEventListener("pointerleave", () => { if (start === null) this.point(null); });
    plot.addEventListener("dblclick", () => { if (this.zoomed) zoom.set(null, null); });
    plot.addEventListener("blur", () => this.point(null));
    plot.addEventListener("keydown", event => {
      const by = {ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10}[event.key];
      if (by) { this.step(by); event.preventDefault(); }
      if (event.key === "Escape") this.point(null);
    });
  }
}
