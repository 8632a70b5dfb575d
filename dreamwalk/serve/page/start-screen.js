// The start screen: what this is, where to wake up, and which seed.

import { toast } from "./words.js";

const MOST_SEED = 2 ** 31 - 1;

/** A seed, or a number of a level up to `most`. */
export const drawSeed = (most = null) => Math.floor(Math.random() * (most === null ? 10000 : most + 1));

/** A seed from what someone typed: digits, within what the server takes; anything else is 0. */
export function readSeed(words) {
  const number = Number.parseInt(String(words).replace(/\D/g, ""), 10);
  return Number.isFinite(number) ? Math.min(number, MOST_SEED) : 0;
}

/** What a field asks for: a seed, or where seeds make levels (up to `most`) the number of one; null for what is none, which is said. */
export function readLevel(field, most) {
  if (most === null) return readSeed(field.value);
  const words = field.value.trim();
  const sound = /^[0-9]{1,10}$/.test(words) && Number(words) <= most;
  field.ariaInvalid = String(!sound);
  if (sound) return Number(words);
  toast(`A level is a whole number from 0 to ${most.toLocaleString("en")}${words ? `, not “${words.slice(0, 20)}”` : ""}.`, { error: true, seconds: 6 });
  field.focus();
  return null;
}

/** Show the level in the address, so that it can be shared; null shows none. */
export function share(level) {
  history.replaceState(history.state, "", level === null ? location.pathname : `?seed=${level}`);
}

export class StartScreen {
  constructor({ begin }) {
    const find = (id) => document.getElementById(id);
    this.begin = begin;
    this.backdrop = [...document.querySelectorAll(".backdrop img")];
    this.front = 0;
    this.chosen = 0;
    this.images = [];
    this.seed = find("start-seed");
    this.most = null;
    this.seed.value = drawSeed();
    find("start-dice").addEventListener("click", () => this.ask(drawSeed(this.most)));
    find("enter").addEventListener("click", () => this.go(this.images.length && this.most === null ? this.chosen : null));
    this.seed.addEventListener("input", () => (this.seed.ariaInvalid = null));
    const strip = find("starts");
    find("earlier").addEventListener("click", () => strip.scrollBy({ left: -strip.clientWidth * 0.7 }));
    find("later").addEventListener("click", () => strip.scrollBy({ left: strip.clientWidth * 0.7 }));
    new ResizeObserver(() => this.fits()).observe(strip);
    this.seed.addEventListener("keydown", (event) => event.key === "Enter" && find("enter").click());
  }

  /** The seed that is asked for. */
  get number() {
    return Math.min(readSeed(this.seed.value), this.most ?? MOST_SEED);
  }

  /** Ask for a seed, or for a level. */
  ask(number) {
    this.seed.value = number;
    this.seed.ariaInvalid = null;
    if (this.most !== null) share(number);
  }

  go(start) {
    if (start !== null) this.choose(start);
    const seed = start === null ? readLevel(this.seed, this.most) : this.number;
    if (seed !== null) this.begin({ start, seed });
  }

  /** Seeds make levels: the field is for their numbers, and the address may name one. */
  levels(most) {
    this.most = most;
    const label = document.getElementById("seed-label");
    label.title = `Each whole number from 0 to ${most.toLocaleString("en")} is another level`;
    label.querySelector("span").textContent = "level";
    document.getElementById("start-dice").title = document.getElementById("start-dice").ariaLabel = "Draw a level";
    const asked = new URLSearchParams(location.search).get("seed");
    this.seed.value = asked ?? drawSeed(most);
    if (asked !== null) readLevel(this.seed, most);
  }

  show(stage) {
    const write = (id, words) => (document.getElementById(id).innerHTML = words);
    document.title = `${stage.title} · dreamwalk`;
    document.body.dataset.view = stage.dream || stage.clips || stage.scenes ? "dream" : "game";
    document.getElementById("kicker").textContent = stage.title;
    write("headline", stage.scenes ? "Step into a <em>picture</em>" : stage.dream ? "Walk into a <em>dream</em>" : "Walk the <em>real game</em>");
    write("lead", stage.scenes
      ? "A neural network dreams what lies along your path, in colours and depth. What it has shown stays where it is, and you go on from there."
      : !stage.dream
      ? "The game itself, in your browser: this is the world that the dreams are learned from."
      : `A neural network imagines every frame while you walk, from what it has just seen and from what you do.${
        stage.memory ? " What it has shown it keeps, and you find it again." : ""}${
        stage.levels !== null ? " Every number is another level, and it was trained on none of them." : ""}${
        stage.game ? " Change over to the real game at any moment, and compare." : ""}`);
    document.getElementById("enter").textContent = stage.dream ? "Fall asleep" : "Begin";
    document.getElementById("enter").disabled = false;
    document.querySelectorAll('[data-do="picture"], .of-pictures').forEach((part) => (part.hidden = !stage.dream));
    document.querySelectorAll('[data-do="picture"]').forEach((button) => (button.title = stage.picture));
    document.querySelector(".of-pictures").textContent = stage.picture;
    document.querySelectorAll('[data-do="schedules"]').forEach((button) => (button.hidden = !stage.schedules.length));
    document.querySelector(".shelf").hidden = !stage.starts.length;
    if (!stage.dream) document.getElementById("shelf-title").textContent = "Choose where to begin";
    if (stage.levels !== null) {
      document.getElementById("shelf-title").textContent = stage.scenes ? "Or begin with one of these pictures" : "Or wake up in one of these places, without the real game";
      this.levels(stage.levels);
    }
    Object.assign(document.getElementById("lacking"), { textContent: stage.lacking, hidden: !stage.lacking });
    const starts = document.getElementById("starts");
    starts.replaceChildren(...stage.starts.map((name, index) => this.card(name, index)));
    this.fits();
    this.crowd(stage);
    if (this.images.length) this.choose(0);
    this.drift = setInterval(() => this.wander(), 7000);
  }

  card(name, index) {
    const card = document.createElement("button");
    card.className = "start";
    const image = new Image();
    image.src = `starts/${index}.jpg`;
    image.alt = "";
    image.draggable = false;
    const words = document.createElement("span");
    words.textContent = name;
    card.append(image, words);
    card.addEventListener("click", () => this.go(index));
    for (const type of ["pointerenter", "focus"]) card.addEventListener(type, () => this.choose(index));
    this.images.push(image);
    return card;
  }

  /** Arrows only where there is something to scroll to. */
  fits() {
    const strip = document.getElementById("starts");
    const all = strip.scrollWidth <= strip.clientWidth + 2;
    document.getElementById("earlier").hidden = document.getElementById("later").hidden = all;
  }

  choose(index) {
    this.chosen = index;
    this.touched = performance.now();
    document.querySelectorAll(".start").forEach((card, i) => card.classList.toggle("chosen", i === index));
    const { src } = this.images[index];
    if (this.backdrop[this.front].src === src) return;
    this.front = 1 - this.front;
    this.backdrop[this.front].src = src;
    this.backdrop.forEach((image, i) => image.classList.toggle("on", i === this.front));
  }

  /** Nobody touches anything: let the backdrop move on. */
  wander() {
    const idle = performance.now() - this.touched > 6000 && document.body.dataset.screen === "start";
    if (idle && this.images.length > 1 && !document.hidden) this.choose((this.chosen + 1) % this.images.length);
  }

  crowd({ sessions, waiting, seats }) {
    const others = sessions ? `${sessions} of ${seats} walking` : "";
    document.getElementById("crowd").textContent = waiting ? `${others}, ${waiting} waiting` : others;
  }
}
