// Drawing: the picture as large and as smooth as the window allows, a glow of it behind, and what lies over it.

const MOST = 4; // canvas pixels per picture pixel, at most: the rest is scaled where it costs nothing
const GLOW_EVERY = 120; // ms
const SIDE = 158; // pixels that the numbers need beside the picture

export class View {
  constructor() {
    const find = (id) => document.getElementById(id);
    this.theatre = find("theatre");
    this.frames = [find("first"), find("second")];
    this.canvases = [find("picture-1"), find("picture-2")];
    this.ghost = find("ghost");
    this.glow = find("ambient").getContext("2d");
    this.dot = new OffscreenCanvas(12, 9).getContext("2d");
    this.shade = this.dot.createRadialGradient(6, 4.5, 2, 6, 4.5, 6.6);
    this.shade.addColorStop(0, "rgba(7, 7, 12, 0)");
    this.shade.addColorStop(1, "rgba(7, 7, 12, 1)");
    this.waiting = null;
    this.glowed = 0;
    this.size = { width: 4, height: 3 };
    this.onDrawn = () => {};
    new ResizeObserver(() => this.fit()).observe(this.theatre);
  }

  /** The picture's size in pixels. */
  begin({ width, height }) {
    this.size = { width, height };
    document.documentElement.style.setProperty("--ratio", width / height);
    this.fit();
  }

  /** Show two pictures or one, and say which is which. */
  look(view) {
    if (document.body.dataset.view !== view) this.dissolve();
    document.body.dataset.view = view;
    this.frames[1].hidden = view !== "both";
    this.frames[1].querySelector("figcaption").textContent = "real game"; // which not every dream has
    this.fit();
  }

  /** Numbers go beside the picture where there is room for them, else below. */
  side() {
    const { clientWidth: width, clientHeight: height } = document.getElementById("walk");
    const strip = document.getElementById("strip").offsetHeight;
    const picture = Math.min(width - 36, (height - strip - 80) * (this.size.width / this.size.height));
    const alone = document.body.dataset.view !== "both" && !document.getElementById("cloud").offsetWidth;
    const beside = alone && (width - picture) / 2 >= SIDE;
    document.body.dataset.numbers = beside ? "side" : "foot";
  }

  fit() {
    this.side();
    for (const [index, frame] of this.frames.entries()) {
      const box = frame.getBoundingClientRect();
      if (!box.width) continue;
      const scale = Math.min(MOST, (box.width * devicePixelRatio) / this.size.width);
      const canvas = this.canvases[index];
      const width = Math.round(this.size.width * scale);
      const height = Math.round(this.size.height * scale);
      if (canvas.width === width && canvas.height === height) continue;
      canvas.width = width;
      canvas.height = height;
      if (this.newest?.bitmaps[index]) this.paint(canvas, this.newest.bitmaps[index]);
    }
  }

  /** Draw this frame at the next refresh of the screen, unless a newer one comes first. */
  show(frame) {
    const first = this.waiting === null;
    if (!first) this.waiting.bitmaps.forEach((bitmap) => bitmap.close());
    this.waiting = frame;
    if (first) requestAnimationFrame(() => this.draw());
  }

  draw() {
    const frame = this.waiting;
    this.waiting = null;
    if (!frame) return;
    if (document.body.dataset.view !== frame.view) this.look(frame.view);
    frame.bitmaps.forEach((bitmap, index) => this.paint(this.canvases[index], bitmap));
    this.newest?.bitmaps.forEach((bitmap) => bitmap.close());
    this.newest = frame;
    if (performance.now() - this.glowed > GLOW_EVERY) this.paintGlow(frame.bitmaps);
    this.onDrawn(frame);
  }

  paint(canvas, bitmap) {
    const pen = canvas.getContext("2d", { alpha: false });
    pen.imageSmoothingEnabled = true;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  }

  /** The picture's colours, very soft: down to a few pixels and up again. */
  paintGlow(bitmaps) {
    this.glowed = performance.now();
    const share = 12 / bitmaps.length;
    bitmaps.forEach((bitmap, index) => this.dot.drawImage(bitmap, index * share, 0, share, 9));
    this.dot.fillStyle = this.shade;
    this.dot.fillRect(0, 0, 12, 9);
    this.glow.imageSmoothingQuality = "high";
    this.glow.globalAlpha = 0.35;
    this.glow.drawImage(this.dot.canvas, 0, 0, 96, 72);
  }

  /** Let what is seen now dissolve into what comes next. */
  dissolve() {
    const [canvas] = this.canvases;
    if (!this.newest || !canvas.width) return;
    const box = this.frames[0].getBoundingClientRect();
    const around = this.theatre.getBoundingClientRect();
    const { ghost } = this;
    ghost.width = canvas.width;
    ghost.height = canvas.height;
    ghost.getContext("2d").drawImage(canvas, 0, 0);
    Object.assign(ghost.style, {
      left: `${box.x - around.x}px`, top: `${box.y - around.y}px`, width: `${box.width}px`, height: `${box.height}px`,
    });
    ghost.classList.remove("on");
    void ghost.offsetWidth;
    ghost.classList.add("on");
  }

  /** Words over the picture; an empty text lifts the veil. */
  veil(text, { more = "", button = "", still = false } = {}) {
    const veil = document.getElementById("veil");
    if (text) {
      document.getElementById("veil-text").textContent = text;
      document.getElementById("veil-more").textContent = more;
    }
    const lift = document.getElementById("veil-button");
    lift.hidden = !button;
    lift.textContent = button;
    veil.classList.toggle("still", still);
    veil.classList.toggle("off", !text);
    this.theatre.classList.toggle("dim", Boolean(text));
  }

  /** A still picture until the first frame comes. */
  poster(image) {
    this.newest = null;
    if (image?.complete && image.naturalWidth) {
      this.begin({ width: image.naturalWidth, height: image.naturalHeight });
      this.canvases.forEach((canvas) => this.paint(canvas, image));
      this.paintGlow([image]);
    }
  }
}
