// The numbers in the corner and the keys that the server saw.

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
  constructor() {
    this.keys = document.getElementById("keys");
    this.stats = document.getElementById("stats");
    this.arrived = new Rate();
    this.drawn = new Rate();
    this.model = [];
    this.latencies = [];
    this.rtt = 0;
    this.seed = 0;
    this.written = 0;
    this.buttons = [];
  }

  begin({ buttons, axes, limits }) {
    this.buttons = buttons;
    this.limit = limits[axes.indexOf("yaw")] || 1;
    this.model = [];
    this.latencies = [];
    this.arrived = new Rate();
    this.drawn = new Rate();
    const cap = (name, label, more = "") => `<div class="key ${more}" data-key="${name}">${label}</div>`;
    const known = (name, label, more) => (buttons.includes(name) ? cap(name, label, more) : "<div></div>");
    this.keys.innerHTML = `<div></div>${known("forward", "W")}<div></div>${known("left", "A")}${known("back", "S")}${
      known("right", "D")}${buttons.includes("place") ? cap("place", "E place", "long") : ""}${
      axes.includes("yaw") ? '<div class="turn"><i></i></div>' : ""}`;
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
    for (const key of this.keys.querySelectorAll("[data-key]")) {
      const index = this.buttons.indexOf(key.dataset.key);
      key.classList.toggle("on", Boolean(frame.held & (1 << index)));
    }
    const turn = this.keys.querySelector(".turn");
    if (!turn) return;
    const yaw = Math.max(-1, Math.min(1, (frame.axes[0] || 0) / this.limit));
    turn.classList.toggle("on", yaw !== 0);
    turn.firstElementChild.style.transform = `translateX(${yaw * 44}px)`;
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
    if (stream > page * 1.15) rows.push(["stream fps", fps(stream), "more"]);
    rows.push(["key to pixel", latency ? `${latency.toFixed(0)} ms` : "–"]);
    rows.push(["round trip", `${rtt.toFixed(rtt < 10 ? 1 : 0)} ms`, "more"], ["seed", this.seed, "more"]);
    rows.push(["frame", frame.frame, "more"]);
    const stages = [...Object.entries(frame.stages), ["jpeg", frame.encodeMs]];
    const bars = stages.map(([, ms], index) => `<i style="flex:${Math.max(ms, 0.01)};background:${TINTS[index % 6]}"></i>`);
    const lines = stages.map(([name, ms], index) =>
      `<dt class="stage"><i style="background:${TINTS[index % 6]}"></i>${escape(name)}</dt><dd class="stage">${ms.toFixed(1)} ms</dd>`);
    this.stats.innerHTML = `<dl>${
      rows.map(([name, value, more = ""]) => `<dt class="${more}">${name}</dt><dd class="${more}">${value}</dd>`).join("")}
      <div class="rule">${bars.join("")}</div>${lines.join("")}</dl>`;
  }
}

function escape(words) {
  return String(words).replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`);
}
