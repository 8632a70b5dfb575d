// The numbers in the corner and the keys that the server saw.

import { sign } from "./bindings.js";

const TINTS = ["var(--accent)", "var(--accent-2)", "#8be0b0", "#f2c86b", "#f08fb5", "#9aa7ff"];
const EVERY = 250; // ms between two writings of the numbers

/** Events of the last seconds as a rate. */
class Rate {
  constructor() {
    this.times = [];
  }

  tick() {
    this.times.push(performance.now());
    while (this.times.length > 240 || this.times[0] < performance.now() - 2000) this.times.shift();
  }

  get perSecond() {
    const { times } = this;
    if (times.length < 2 || performance.now() - times.at(-1) > 1500) return 0;
    return ((times.length - 1) * 1000) / (times.at(-1) - times[0]);
  }
}

export class Hud {
  constructor(bindings) {
    this.bindings = bindings;
    bindings.addEventListener("change", () => this.caps());
    this.keys = document.getElementById("keys");
    this.stats = document.getElementById("stats");
    this.arrived = new Rate();
    this.drawn = new Rate();
    this.model = [];
    this.latencies = [];
    this.rtt = 0;
    this.seed = 0;
    this.level = null; // where seeds make levels
    this.memory = null; // whether the dream is told what it has shown; null where it keeps nothing
    this.written = 0;
    [this.axes, this.limits, this.greyed] = [[], [], []];
  }

  begin({ axes, limits }) {
    [this.axes, this.limits] = [axes, limits];
    this.model = [];
    this.latencies = [];
    this.arrived = new Rate();
    this.drawn = new Rate();
    this.caps();
  }

  /** The keys of the world: a cross of those that walk, the others after it, and a needle for each axis. */
  caps() {
    const { bindings } = this;
    const cap = ({ name, id, label }, more = "") => {
      const key = sign(bindings.on(id, "keys")[0] ?? bindings.on(id)[0] ?? "");
      const words = more === "long" ? `${key} ${name}` : key;
      return `<div class="key ${more}" data-key="${escape(name)}" title="${escape(label)}">${escape(words)}</div>`;
    };
    const buttons = bindings.actions.filter(({ kind }) => kind === "button");
    const [up, left, down, right] = ["PadLY-", "PadLX-", "PadLY+", "PadLX+"].map((code) => bindings.at(code)).map((action) =>
      (action?.kind === "button" ? action : null));
    const cross = [null, up, null, left, down, right];
    const rest = buttons.filter((action) => !cross.includes(action));
    const needles = this.axes.map((name) => `<div class="turn" data-axis="${escape(name)}"><i></i></div>`);
    this.keys.innerHTML = `${cross.some(Boolean) ? `<div class="caps-of">${cross.map((action) => (action ? cap(action) : "<div></div>")).join("")}</div>` : ""}
      <div class="caps-of rest">${rest.map((action) => cap(action, rest.length > 3 ? "" : "long")).join("")}</div>
      <div class="needles">${needles.join("")}</div>`;
    this.grey();
  }

  /** Grey out what the dream has not learnt. */
  grey(names = this.greyed) {
    this.greyed = names;
    for (const one of document.querySelectorAll("#keys [data-key], #keys [data-axis], #pads button")) {
      const { key, axis, name } = one.dataset;
      one.classList.toggle("unlearnt", names.includes(key ?? axis ?? name));
    }
  }

  /** A frame was drawn; `latency` in ms if it answers an input, else null. */
  frame(frame, latency) {
    this.drawn.tick();
    if (frame.modelMs > 0) this.model.push(frame.modelMs);
    if (this.model.length > 30) this.model.shift();
    if (latency !== null) this.latencies.push(latency);
    if (this.latencies.length > 15) this.latencies.shift();
    this.lit(frame);
    if (performance.now() - this.written > EVERY) this.write(frame);
  }

  lit(frame) {
    for (const key of this.keys.querySelectorAll("[data-key]")) key.classList.toggle("on", frame.held.includes(key.dataset.key));
    for (const [index, needle] of this.keys.querySelectorAll(".turn").entries()) {
      const far = Math.max(-1, Math.min(1, (frame.axes[index] || 0) / (this.limits[index] || 1)));
      needle.classList.toggle("on", far !== 0);
      needle.firstElementChild.style.transform = `translateX(${far * 44}px)`;
    }
  }

  get numbers() {
    const mean = this.model.reduce((sum, ms) => sum + ms, 0) / (this.model.length || 1);
    const sorted = [...this.latencies].sort((a, b) => a - b);
    return {
      model: mean ? 1000 / mean : 0,
      stream: this.arrived.perSecond,
      page: this.drawn.perSecond,
      latency: sorted.length ? sorted[sorted.length >> 1] : 0,
      rtt: this.rtt,
    };
  }

  write(frame) {
    this.written = performance.now();
    const { model, stream, page, latency, rtt } = this.numbers;
    const fps = (value) => (value >= 100 ? value.toFixed(0) : value.toFixed(1));
    const rows = [["model fps", fps(model)], ["page fps", fps(page)]];
    rows.push(["stream fps", fps(stream), "more"]);
    rows.push(["key to pixel", latency ? `${latency.toFixed(0)} ms` : "–", "ms"]);
    rows.push(["round trip", `${rtt.toFixed(rtt < 10 ? 1 : 0)} ms`, "more"], [this.level === null ? "seed" : "level", this.level ?? this.seed, "more"]);
    rows.push(["frame", frame.frame, "more"]);
    if (this.memory !== null) rows.push(["recall", this.memory ? "on" : "off", "more"]);
    const stages = [...Object.entries(frame.stages), ["jpeg", frame.encodeMs]];
    const bars = stages.map(([, ms], index) => `<i style="flex:${Math.max(ms, 0.01)};background:${TINTS[index % 6]}"></i>`);
    const lines = stages.map(([name, ms], index) =>
      `<div class="stage"><dt><i style="background:${TINTS[index % 6]}"></i>${escape(name)}</dt><dd>${ms.toFixed(1)} ms</dd></div>`);
    this.stats.innerHTML = `<dl>${
      rows.map(([name, value, more = ""]) => `<div class="${more}"><dt>${name}</dt><dd>${value}</dd></div>`).join("")}</dl>
      <div class="rule">${bars.join("")}</div><dl>${lines.join("")}</dl>`;
  }
}

function escape(words) {
  return String(words).replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`);
}
