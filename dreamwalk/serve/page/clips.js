// Clips from words: the request, the clip getting clearer, and what one does with it.

import { drawSeed, readSeed } from "./start-screen.js";
import { events } from "./net.js";
import { pickPicture } from "./pictures.js";
import { element, toast } from "./words.js";

const find = (id) => document.getElementById(id);
const bytes = (words) => new TextEncoder().encode(words.trim()).length;
const wordsOf = (phrase) => phrase.toLowerCase().match(/[\p{L}\p{M}\p{N}]+/gu) ?? [];
export const seconds = (left) => (left < 90 ? `${Math.ceil(left)} s left` : `${Math.round(left / 60)} min left`);

export class ClipForm {
  constructor() {
    this.offer = null;
    this.image = null; // data URL of the first picture, in the clip's size
    this.film = null; // object URL of the clip that is shown
    this.last = null; // data URL of the last frame of the newest clip
    this.under = null; // AbortController of the clip under way
    this.prompt = find("prompt");
    this.canvas = find("clip-canvas");
    this.video = find("clip-video");
    find("clip-request").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.under) this.cancel();
      else this.dream();
    });
    find("clip-request").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing || !event.target.matches("input, textarea")) return;
      event.preventDefault();
      if (!this.under) this.dream();
    });
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.under && !document.querySelector("dialog[open]")) this.cancel();
    });
    this.prompt.addEventListener("input", () => this.count());
    find("request-dice").addEventListener("click", () => (find("request-seed").value = drawSeed()));
    find("own-picture").addEventListener("click", pickPicture);
    find("no-picture").addEventListener("click", () => this.begin(null));
    find("once-more").addEventListener("click", () => {
      find("request-seed").value = drawSeed();
      this.dream();
    });
    find("go-on").addEventListener("click", () => {
      this.begin(this.last);
      this.dream();
    });
  }

  /** The form of a stage that makes clips. */
  show({ clips, starts }) {
    this.offer = clips;
    find("clip-form").hidden = false;
    document.querySelectorAll(".hero, .shelf").forEach((part) => (part.hidden = true));
    document.querySelectorAll('[data-do="replay"], [data-do="help"], [data-do="picture"]').forEach((part) => (part.hidden = true));
    document.documentElement.style.setProperty("--clip", clips.width / clips.height);
    find("clip-request").before(find("kicker"), find("headline"), find("lead"));
    find("headline").innerHTML = "Say a <em>dream</em>";
    find("lead").textContent = "A neural network imagines a whole clip from your words, all of its frames at once, out of noise.";
    find("request-seed").value = drawSeed();
    Object.assign(find("request-steps"), { value: clips.steps, max: clips.most_steps });
    find("examples").replaceChildren(...clips.examples.map((words) => {
      const chip = element("button", { words });
      chip.type = "button";
      chip.addEventListener("click", () => this.write(words));
      return chip;
    }));
    this.teach(clips.vocabulary);
    find("firsts").replaceChildren(...starts.map((name, index) => this.card(name, index)));
    this.begin(null);
    this.count();
    this.prompt.focus({ preventScroll: true });
  }

  card(name, index) {
    const card = element("button");
    card.type = "button";
    card.ariaLabel = `Begin with ${name}`;
    const image = new Image();
    Object.assign(image, { src: `starts/${index}.jpg`, alt: "", draggable: false });
    card.append(image);
    card.addEventListener("click", () => (this.chosen === card ? this.begin(null) : this.begin(drawn(image, this.offer), card)));
    return card;
  }

  /** Begin the next clip with this picture, a data URL in the clip's size, or with none. */
  begin(image, card = null) {
    [this.image, this.chosen] = [image, card];
    for (const one of find("firsts").children) one.ariaPressed = String(one === card);
    find("no-picture").hidden = !image;
    find("own-picture").ariaPressed = String(Boolean(image) && !card);
    find("own-picture").replaceChildren(image && !card ? Object.assign(new Image(), { src: image, alt: "Your first picture" })
      : document.importNode(find("picture-sign").content, true));
    if (this.under || this.film) return;
    if (image) this.still(image);
    else this.state("idle");
  }

  async still(url) {
    this.state("still");
    this.paint(await decoded(url));
  }

  write(words) {
    this.prompt.value = words;
    this.count();
    this.prompt.focus();
  }

  /** The words that the model was trained on, where that is known: by kind, to choose from. */
  teach(vocabulary) {
    this.known = new Set(Object.values(vocabulary).flat().flatMap(wordsOf));
    find("vocabulary").hidden = !this.known.size;
    find("vocabulary").lastElementChild.replaceChildren(...Object.entries(vocabulary).flatMap(([title, phrases]) => {
      const chips = element("div", { className: "chips small" });
      chips.role = "group";
      chips.ariaLabel = title;
      chips.append(...phrases.map((words) => {
        const chip = element("button", { words });
        chip.type = "button";
        chip.addEventListener("click", () => this.write(`${this.prompt.value.trimEnd()} ${words}`.trimStart()));
        return chip;
      }));
      return [element("h3", { words: title }), chips];
    }));
  }

  /** Underline what the model has never seen, and say so. */
  mark() {
    const strange = new Set();
    const marks = this.prompt.value.split(/([\p{L}\p{M}\p{N}]+)/u).map((piece, index) => {
      if (index % 2 === 0 || !this.known?.size || this.known.has(piece.toLowerCase())) return piece;
      strange.add(piece.toLowerCase());
      return element("mark", { words: piece });
    });
    find("marks").replaceChildren(...marks, "\n");
    const words = [...strange];
    const last = words.length > 1 ? ` and ${words.at(-1)}` : "";
    const list = (last ? words.slice(0, -1) : words).join(", ") + last;
    find("strange").hidden = !words.length;
    find("strange").textContent = words.length ? `It was never shown ${list}, and dreams of what it knows instead.` : "";
  }

  count() {
    const size = bytes(this.prompt.value);
    const most = this.offer?.longest ?? Infinity;
    find("request-room").textContent = size > most * 0.75 ? `${size} / ${most}` : "";
    find("request-room").classList.toggle("over", size > most);
    this.mark();
    find("dream").disabled = !this.under && (size === 0 || size > most);
  }

  state(name) {
    find("clip-form").dataset.state = name;
    const on = { dreaming: name === "dreaming", done: name === "done" };
    find("clip-empty").hidden = name !== "idle";
    this.canvas.hidden = name === "idle" || on.done;
    this.video.hidden = !on.done;
    find("clip-bar").hidden = find("clip-step").hidden = !on.dreaming;
    find("clip-after").hidden = !on.done;
    find("dream").textContent = on.dreaming ? "Stop" : "Dream";
    this.count();
  }

  cancel() {
    this.under?.abort();
  }

  async dream() {
    const prompt = this.prompt.value.trim();
    if (!prompt || this.under || find("dream").disabled) return;
    const under = (this.under = new AbortController());
    const steps = Math.max(1, Math.min(this.offer.most_steps, Number.parseInt(find("request-steps").value, 10) || this.offer.steps));
    const seed = readSeed(find("request-seed").value);
    [find("request-seed").value, find("request-steps").value] = [seed, steps];
    this.film = null;
    this.video.pause();
    this.quarter = 0;
    this.state("dreaming");
    this.paint(this.image ? await decoded(this.image) : null);
    this.progress(0, "Falling asleep");
    find("clip-said").textContent = "Dreaming";
    if (matchMedia("(max-width: 860px)").matches) find("screen").scrollIntoView({ behavior: "smooth", block: "center" });
    try {
      for await (const event of events("clips", { prompt, seed, steps, image: this.image }, under.signal)) this.hear(event);
      if (!this.film) throw new Error("The connection was lost.");
    } catch (error) {
      if (!under.signal.aborted) toast(error.message, { error: true, seconds: 6 });
      find("clip-said").textContent = under.signal.aborted ? "Stopped" : error.message;
    }
    this.under = null;
    clearInterval(this.playing);
    this.state(this.film ? "done" : "idle");
    if (!this.film && this.image) this.still(this.image);
  }

  hear(event) {
    if (event.type === "error") throw new Error(event.message);
    if (event.type === "queued") {
      this.progress(0, event.position === 1 ? "Your clip is next" : `${event.position - 1} clips before yours`);
      find("clip-said").textContent = `Another clip is being made. Yours is number ${event.position} in line.`;
    } else if (event.type === "progress") {
      const { step, steps, left } = event;
      this.progress(step / steps, step ? `step ${step} of ${steps} · ${step < steps ? seconds(left) : "developing"}` : "Falling asleep");
      const quarter = Math.floor((4 * step) / steps);
      if (quarter > this.quarter) find("clip-said").textContent = `Step ${step} of ${steps}`;
      this.quarter = quarter;
      if (event.pictures.length) this.play(event.pictures);
    } else if (event.type === "done") this.done(event);
  }

  progress(done, words) {
    find("clip-form").style.setProperty("--done", done);
    find("clip-bar").ariaValueNow = Math.round(100 * done);
    find("clip-step").textContent = words;
  }

  /** Show what is imagined so far, to and fro. */
  async play(urls) {
    const frames = await Promise.all(urls.map(decoded));
    clearInterval(this.playing);
    if (!this.under) return;
    const around = [...frames, ...frames.slice(1, -1).reverse()];
    let shown = 0;
    this.playing = setInterval(() => this.paint(around[shown++ % around.length]), 1000 / this.offer.fps);
  }

  paint(image) {
    const { canvas } = this;
    const { width, height } = this.offer;
    [canvas.width, canvas.height] = [width * 4, height * 4];
    const pen = canvas.getContext("2d");
    pen.imageSmoothingQuality = "high";
    if (image) pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  }

  done({ film, last, seconds: took, seed, frames, fps }) {
    this.last = last;
    URL.revokeObjectURL(this.film);
    const data = Uint8Array.from(atob(film.slice(film.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
    this.film = this.video.src = URL.createObjectURL(new Blob([data], { type: "video/mp4" }));
    this.video.ariaLabel = this.prompt.value.trim();
    this.video.play().catch(() => {});
    const name = this.prompt.value.trim().toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 40) || "clip";
    Object.assign(find("clip-save"), { href: this.film, download: `${name}-seed${seed}.mp4` });
    find("clip-said").textContent = `Your clip is here: ${(frames / fps).toFixed(1)} seconds, made in ${Math.round(took)}.`;
  }
}

async function decoded(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

/** An image of the page in the clip's size, as a PNG data URL. */
function drawn(image, { width, height }) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").drawImage(image, 0, 0, width, height);
  return canvas.toDataURL("image/png");
}
