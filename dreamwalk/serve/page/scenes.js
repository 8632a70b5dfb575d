// Scenes: a picture, the path that one presses or writes, and what is dreamed along it, in films and in space.

import { sign } from "./bindings.js";
import { seconds } from "./clips.js";
import { openSpace } from "./cloud.js";
import { answered, events, posted } from "./net.js";
import { drawSeed, readSeed } from "./start-screen.js";
import { element, press, segments, toast } from "./words.js";

const find = (id) => document.getElementById(id);
const PAUSE = 150; // ms after a key before the path is asked for
const LOOKS = { outside: "From outside", through: "Through the camera" };

/** What a key or a button adds to the path, and how it is drawn. */
export const MOVES = {
  forward: [0.5, "↑"], back: [0.5, "↓"], left: [0.5, "←"], right: [0.5, "→"], "pan-left": [15, "↰"], "pan-right": [15, "↱"],
  "orbit-left": [15, "↻"], "orbit-right": [15, "↺"], up: [0.25, "⇡"], down: [0.25, "⇣"],
};

/** A path with one more move, or with more of its last one. */
export function lengthened(path, name, amount) {
  const parts = path.split(",").map((part) => part.trim()).filter(Boolean);
  const last = parts.at(-1)?.match(/^([a-z-]+):(-?[\d.]+)$/);
  if (last?.[1] === name) parts.splice(-1, 1, `${name}:${Number((Number(last[2]) + amount).toFixed(4))}`);
  else parts.push(`${name}:${amount}`);
  return parts.join(", ");
}

export class SceneScreen {
  constructor({ enter, home }) {
    this.enter = enter;
    this.home = home;
    this.name = null; // of the scene that the server keeps for this page
    this.began = null; // what it began with
    this.under = null; // AbortController of the path under way
    this.path = ""; // as the field has it
    this.past = []; // what it had before
    this.followed = 0; // points of frames before this one are here
    this.look = "outside";
    this.field = find("path");
    this.video = find("scene-film");
    this.field.addEventListener("input", () => this.write(this.field.value, { typed: true }));
    find("path-form").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.under) this.stop();
      else this.go();
    });
    find("path-form").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing || !event.target.matches("input")) return;
      event.preventDefault(); // it would press Stop, too
      this.go();
    });
    find("scene-leave").addEventListener("click", home);
    find("scene-resume").addEventListener("click", () => this.show());
    segments(find("scene-looks"), LOOKS, (look) => this.toggle(look));
    press(find("scene-looks"), this.look);
    addEventListener("pagehide", ({ persisted }) => persisted || this.end());
  }

  /** The screen for a stage of scenes. */
  offer(stage, bindings) {
    this.stage = stage;
    document.querySelectorAll('[data-do="replay"]').forEach((part) => (part.hidden = true));
    find("own-scene").hidden = false;
    find("scene").style.setProperty("--clip", (2 * stage.scenes.width) / stage.scenes.height);
    find("scene-where").textContent = stage.title;
    Object.assign(find("scene-seed"), { value: drawSeed() });
    Object.assign(find("scene-steps"), { value: stage.scenes.steps });
    const draw = () => find("moves").replaceChildren(...Object.entries(MOVES).map(([name, [, drawn]]) => {
      const button = element("button");
      button.type = "button";
      button.dataset.move = name;
      const key = sign(bindings.on(`move:${name}`, "keys")[0] ?? "");
      button.append(element("i", { words: drawn }), element("span", { words: name.replace("-", " ").replace("pan", "turn") }), element("kbd", { words: key }));
      button.addEventListener("click", () => this.press(name));
      return button;
    }));
    bindings.addEventListener("change", draw);
    draw();
  }

  /** Begin a scene with `{start}`, `{level}` or `{image}`. What was planned stays for whoever starts again. */
  async begin(began, { keep = false } = {}) {
    if (this.opening) return;
    this.opening = true;
    this.stop();
    this.show();
    find("scene").dataset.state = "opening";
    find("space-said").textContent = "Looking at the picture";
    try {
      this.space ??= await openSpace(find("space").querySelector("canvas"), this.stage.scenes, ": you see the films alone");
      const state = await (await posted("scenes", { ...began, instead: this.name ?? "" })).json();
      Object.assign(this, { name: state.scene, began, cameras: { poses: [], focal: [] }, followed: 0 });
      this.space?.clear();
      if (!keep) this.write("", { forget: true });
      this.still(state.still);
      await this.take(state);
      this.space?.stand();
      this.ask();
    } catch (error) {
      toast(error.message, { error: true, seconds: 8 });
      if (!this.name) this.home();
    }
    this.opening = false;
    find("scene").dataset.state = "idle";
    find("scene-resume").hidden = !this.name;
    this.tell();
  }

  again() {
    if (this.began) this.begin(this.began, { keep: true });
  }

  show() {
    this.enter("scene");
    this.space?.fit();
    document.activeElement?.blur();
  }

  // ---- the path

  press(name) {
    this.write(lengthened(this.path, name, MOVES[name][0]));
  }

  undo() {
    if (this.past.length) this.write(this.past.pop(), { forget: true });
  }

  write(path, { typed = false, forget = false } = {}) {
    if (path === this.path) return;
    if (!forget && !(typed && this.typing)) this.past.push(this.path);
    [this.typing, this.path] = [typed, path];
    if (!typed) this.field.value = path;
    this.field.scrollLeft = this.field.scrollWidth;
    find("path-undo").disabled = !this.past.length;
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.ask(), PAUSE);
  }

  /** What cameras the path has, or what is wrong with it. */
  async ask() {
    const path = this.path.trim();
    const asked = path && this.name ? posted(`scenes/${this.name}/path`, { path }).then((answer) => answer.json()) : {};
    const { wrong = null, ...plan } = await Promise.resolve(asked).catch((error) => ({ wrong: error.message }));
    if (path !== this.path.trim()) return; // written on meanwhile: another answer is on its way
    [this.wrong, this.planned] = [wrong, plan.poses ? plan : null];
    this.space?.plan(this.planned);
    this.tell();
  }

  /** One line below the path, and the button. */
  tell() {
    const frames = this.planned ? this.planned.poses.length - 1 : 0;
    const words = this.wrong ?? (frames ? `${frames} frames, ${(frames / this.stage.scenes.fps).toFixed(1)} s` : "");
    if (!this.under) find("path-said").textContent = words;
    this.field.ariaInvalid = String(Boolean(this.wrong));
    find("path-form").classList.toggle("wrong", Boolean(this.wrong));
    find("go").disabled = !this.under && (!this.path.trim() || Boolean(this.wrong));
    find("go").textContent = this.under ? "Stop" : "Go";
    find("scene-bar").hidden = !this.under;
    find("path-undo").disabled = !this.past.length;
    const { points = 0, frames: all = 0 } = this.state ?? {};
    if (this.name && !this.opening) find("space-said").textContent = `${points.toLocaleString("en")} points, ${all} ${all === 1 ? "frame" : "frames"}`;
  }

  // ---- dreaming

  async go() {
    const path = this.path.trim();
    if (!path || this.under || !this.name || this.wrong) return;
    const under = (this.under = new AbortController());
    const steps = Number.parseInt(find("scene-steps").value, 10) || this.stage.scenes.steps;
    const seed = readSeed(find("scene-seed").value);
    [find("scene-seed").value, find("scene-steps").value] = [seed, steps];
    find("scene").dataset.state = "dreaming";
    this.progress(0, "Falling asleep");
    this.tell();
    let done = false;
    try {
      const request = { path, seed, steps, prompt: find("scene-prompt").value };
      for await (const event of events(`scenes/${this.name}/walk`, request, under.signal)) done = (await this.hear(event)) || done;
      if (!done) throw new Error("The connection was lost.");
    } catch (error) {
      if (!under.signal.aborted) toast(error.message, { error: true, seconds: 8 });
    }
    this.progress(1, done ? "developing" : "stopping");
    await this.refresh({ film: done });
    this.under = null;
    find("scene").dataset.state = "idle";
    if (done && this.path.trim() === path) {
      this.past = [];
      this.write("", { forget: true });
    }
    this.ask();
  }

  stop() {
    this.under?.abort();
  }

  async hear(event) {
    if (event.type === "error") throw new Error(event.message);
    if (event.type === "queued") this.progress(0, event.position === 1 ? "Your path is next" : `${event.position - 1} paths before yours`);
    if (event.type === "progress") {
      const { step, steps, left, points } = event;
      this.progress(step / steps, step ? `step ${step} of ${steps} · ${step < steps ? seconds(left) : "developing"}` : "Falling asleep");
      if (points !== this.state.points) await this.points(points);
    }
    return event.type === "done";
  }

  progress(done, words) {
    find("path-form").style.setProperty("--done", done);
    find("scene-bar").ariaValueNow = Math.round(100 * done);
    find("path-said").textContent = words;
  }

  /** What the scene is now, however it came to that. */
  async refresh({ film }) {
    try {
      const state = await (await answered(`scenes/${this.name}`)).json();
      const grown = state.frames > this.state.frames;
      await this.take(state);
      this.still(state.still);
      if (film || grown) await this.play();
    } catch (error) {
      toast(error.message, { error: true, seconds: 8 });
    }
  }

  async take(state) {
    const before = this.state?.scene === state.scene ? this.state.frames : 1;
    this.state = state;
    this.space?.walked(state, before - 1);
    await this.points(state.points);
    find("scene-save").href = `scenes/${state.scene}/scene.zip`;
  }

  /** Fetch the points that are not here yet. */
  async points(count) {
    this.state.points = count;
    this.followed = (await this.space?.add(`scenes/${this.name}/points`, this.followed)) ?? 0;
    this.tell();
  }

  async play() {
    const film = await (await answered(`scenes/${this.name}/film`)).blob();
    URL.revokeObjectURL(this.film);
    this.film = this.video.src = URL.createObjectURL(film);
    this.video.hidden = false;
    this.video.play().catch(() => {});
  }

  still(url) {
    find("scene-still").src = url;
    this.video.hidden = true;
    this.video.pause();
  }

  // ---- looking

  toggle(look = this.look === "outside" ? "through" : "outside") {
    this.look = find("space").dataset.look = look;
    press(find("scene-looks"), look);
    this.space?.look(look);
  }

  /** Let the server forget this page's scene. */
  end() {
    if (this.name) navigator.sendBeacon(`scenes/${this.name}/end`);
    this.name = null;
  }
}
