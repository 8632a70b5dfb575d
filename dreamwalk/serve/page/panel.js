// Settings: where, which seed, how many steps, how fast, what to record and what to replay.

import { drawSeed, readLevel } from "./start-screen.js";

const icon = (name) => `<svg><use href="#i-${name}"/></svg>`;

const BODY = `
<header><h2>Settings</h2><button class="close" aria-label="Close" data-do="panel">${icon("close")}</button></header>
<section id="p-places"><h3>Where</h3><div class="places"></div></section>
<section><h3 id="p-seed-title">Seed</h3>
  <div class="row"><input type="text" id="p-seed" inputmode="numeric" maxlength="10" autocomplete="off" aria-label="Seed">
    <button class="soft" id="p-dice" aria-label="Draw a seed">${icon("dice")}</button>
    <button class="soft" id="p-again">${icon("reset")}Begin</button></div></section>
<section id="p-steps-box"><h3>Denoising steps per frame <output id="p-steps-said"></output></h3>
  <input type="range" id="p-steps" min="1" max="1" step="1" aria-label="Denoising steps per frame">
  <small class="fine">More steps are sharper and slower, and go astray more often.</small></section>
<section>
  <div class="row"><span>Run as fast as it can<small id="p-rate"></small></span>
    <button class="switch" role="switch" id="p-pace" aria-checked="false" aria-label="Run as fast as it can"></button></div>
</section>
<section id="p-mouse-box"><h3>Mouse <output id="p-mouse-said"></output></h3>
  <input type="range" id="p-mouse" min="0.03" max="0.4" step="0.01" aria-label="Degrees per pixel of mouse movement"></section>
<section><h3>Record and replay</h3>
  <button class="soft full" data-do="record" id="p-record">${icon("record")}<span>Record</span></button>
  <button class="soft full" data-do="replay">${icon("walk")}Replay a walk</button>
  <button class="soft full" data-do="picture">${icon("picture")}Dream from a picture</button>
  <small class="fine of-pictures"></small>
  <div class="films" id="films"></div></section>
<section><button class="bare" data-do="about">${icon("info")}About this ${"world"}</button></section>`;

export class Panel {
  constructor({ send, begin }) {
    this.box = document.getElementById("panel");
    this.box.innerHTML = BODY;
    this.send = send;
    const find = (id) => document.getElementById(id);
    this.degrees = Number(localStorage.getItem("dreamwalk.mouse")) || 0.12;
    const mouse = find("p-mouse");
    mouse.addEventListener("input", () => {
      this.degrees = Number(mouse.value);
      localStorage.setItem("dreamwalk.mouse", mouse.value);
      this.slide(mouse, `${this.degrees.toFixed(2)}°/px`);
    });
    mouse.value = this.degrees;
    this.slide(mouse, `${this.degrees.toFixed(2)}°/px`);
    this.most = null; // number of the last level, where seeds make levels
    const again = () => {
      const seed = readLevel(find("p-seed"), this.most);
      if (seed !== null) begin({ seed });
    };
    find("p-seed").addEventListener("input", () => (find("p-seed").ariaInvalid = null));
    find("p-dice").addEventListener("click", () => {
      find("p-seed").value = drawSeed(this.most);
      again();
    });
    find("p-again").addEventListener("click", again);
    find("p-seed").addEventListener("keydown", (event) => event.key === "Enter" && again());
    find("p-steps").addEventListener("input", () => {
      this.slide(find("p-steps"), find("p-steps").value);
      send({ type: "steps", steps: Number(find("p-steps").value) });
    });
    find("p-pace").addEventListener("click", () => send({ type: "pace", unlocked: find("p-pace").ariaChecked !== "true" }));
    this.begin = begin;
  }

  get isOpen() {
    return this.box.classList.contains("open");
  }

  toggle(open = !this.isOpen) {
    this.box.classList.toggle("open", open);
    this.box.inert = !open;
    if (open) document.exitPointerLock?.();
    if (open) this.box.focus({ preventScroll: true });
    else if (document.activeElement === document.body || this.box.contains(document.activeElement)) document.getElementById("theatre").focus();
  }

  /** Seeds make levels, up to this one. */
  levels(most) {
    this.most = most;
    document.getElementById("p-seed-title").textContent = document.getElementById("p-seed").ariaLabel = "Level";
    document.getElementById("p-dice").ariaLabel = "Draw a level";
  }

  /** The gallery, small. */
  gallery(starts) {
    document.getElementById("p-places").hidden = !starts.length;
    const places = this.box.querySelector(".places");
    places.replaceChildren(...starts.map((name, start) => {
      const place = document.createElement("button");
      place.title = name;
      place.innerHTML = `<img src="starts/${start}.jpg" alt="" draggable="false">`;
      place.ariaLabel = `Begin at ${name}`;
      place.addEventListener("click", () => this.begin({ start }));
      return place;
    }));
  }

  hello({ fps, axes, most_steps: most }) {
    document.getElementById("p-steps").max = most;
    document.getElementById("p-mouse-box").hidden = !axes.includes("yaw");
    document.getElementById("p-rate").textContent = `this world is made for ${fps.toFixed(1)} frames a second`;
    document.getElementById("films").replaceChildren();
  }

  status({ seed, start, steps, unlocked, recording }) {
    const find = (id) => document.getElementById(id);
    if (document.activeElement !== find("p-seed")) find("p-seed").value = seed;
    find("p-steps-box").hidden = steps === null;
    find("p-steps").value = steps ?? 1;
    this.slide(find("p-steps"), steps ?? "");
    find("p-pace").ariaChecked = String(unlocked);
    find("p-record").lastChild.textContent = recording ? "Stop recording" : "Record";
    this.box.querySelectorAll(".places button").forEach((place, k) => place.classList.toggle("chosen", k === start));
  }

  film({ mp4, walk, seconds, steps, exact }) {
    const line = document.createElement("div");
    line.className = "film";
    line.innerHTML = `<span>${seconds.toFixed(1)} s<small class="fine">${steps} steps since its start${
      exact ? "" : ", not exact: steps were changed"}</small></span>
      <a href="${mp4}" download>${icon("down")}mp4</a><a href="${walk}" download>${icon("down")}walk</a>`;
    document.getElementById("films").prepend(line);
  }

  slide(range, said) {
    range.style.setProperty("--at", `${(100 * (range.value - range.min)) / (range.max - range.min)}%`);
    document.getElementById(`${range.id}-said`).textContent = said;
  }
}
