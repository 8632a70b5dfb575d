// The map of what the dream knows, from above, with the walker on it: a new one comes now and then, its place with
// every frame. Of a bank of frames it shows where they were kept, and from where those were seen that are recalled.

import { MemoryPart } from "./memory-part.js";
import { TINTS } from "./strip.js";

const REACH = 0.17; // how far the walker's view is drawn, in widths of the map

export class LevelMap extends MemoryPart {
  constructor(send) {
    super(send, "map");
    this.canvas = this.box.querySelector("canvas");
    this.drawn = null; // {bitmap, left, top, scale, places, recalled}
    this.told = true; // whether the dream is told what was kept
    new ResizeObserver(() => this.paint()).observe(this.box);
  }

  /** A new walk, in a dream that has a map or has not. */
  begin(known) {
    [this.known, this.drawn, this.place] = [known, null, null];
    this.tell();
  }

  /** What the server has drawn. */
  async take({ png, ...where }) {
    const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    this.drawn?.bitmap.close();
    this.drawn = { bitmap, ...where };
    this.paint();
  }

  /** Where the walker is, of which the map takes x, y and heading in degrees, 90 being up. */
  walk(pose) {
    if (!pose.length || this.box.hidden) return;
    this.place = [pose[3], pose[7], (Math.atan2(pose[6], pose[2]) * 180) / Math.PI];
    this.paint();
  }

  /** The memory is switched: nothing is recalled while it is off. */
  recalls(told) {
    this.told = told;
    this.paint();
  }

  paint() {
    const side = Math.round(this.box.clientWidth * devicePixelRatio);
    if (!side || !this.drawn) return;
    if (this.canvas.width !== side) this.canvas.width = this.canvas.height = side;
    const { bitmap, left, top, scale } = this.drawn;
    const pen = this.canvas.getContext("2d");
    pen.clearRect(0, 0, side, side);
    pen.imageSmoothingEnabled = side < bitmap.width;
    pen.drawImage(bitmap, 0, 0, side, side);
    const unit = side / (bitmap.width * scale);
    const at = ([x, y, heading], draw) => {
      pen.save();
      pen.translate((x - left) * unit, (top - y) * unit);
      pen.rotate((-heading * Math.PI) / 180);
      draw();
      pen.restore();
    };
    for (const place of this.drawn.places ?? []) at(place, () => this.paintKept(pen));
    if (this.place) at(this.place, () => this.paintWalker(pen, side));
    const recalled = this.told ? this.drawn.recalled ?? [] : [];
    for (const [slot, place] of [...recalled.entries()].reverse()) if (place) at(place, () => this.paintRecalled(pen, slot, side));
  }

  /** At the origin a frame that was kept: a dot, and a stroke to where it looks. */
  paintKept(pen) {
    const size = 1.5 * devicePixelRatio;
    pen.strokeStyle = pen.fillStyle = "rgba(255, 214, 140, 0.6)";
    pen.lineWidth = 0.7 * devicePixelRatio;
    pen.beginPath();
    pen.moveTo(0, 0);
    pen.lineTo(3.5 * size, 0);
    pen.stroke();
    pen.fillRect(-size / 2, -size / 2, size, size);
  }

  /** At the origin a frame that is recalled, in the colour of its slot. */
  paintRecalled(pen, slot, side) {
    const size = Math.max(9 * devicePixelRatio, side / 16);
    pen.fillStyle = TINTS[slot % TINTS.length];
    pen.strokeStyle = "#07070c";
    pen.lineWidth = devicePixelRatio;
    pen.beginPath();
    pen.moveTo(0, 0);
    pen.arc(0, 0, size, -Math.PI / 5, Math.PI / 5);
    pen.closePath();
    pen.stroke();
    pen.globalAlpha = 0.75;
    pen.fill();
  }

  /** At the origin, looking along the first axis. */
  paintWalker(pen, side) {
    const accent = getComputedStyle(this.box).color;
    const glow = pen.createRadialGradient(0, 0, 0, 0, 0, REACH * side);
    const thin = (share) => accent.replace("rgb(", "rgba(").replace(")", `, ${share})`);
    glow.addColorStop(0, thin(0.55));
    glow.addColorStop(1, thin(0));
    pen.fillStyle = glow;
    pen.beginPath();
    pen.moveTo(0, 0);
    pen.arc(0, 0, REACH * side, -Math.PI / 4, Math.PI / 4);
    pen.fill();
    const size = Math.max(5 * devicePixelRatio, side / 30);
    pen.fillStyle = accent;
    pen.strokeStyle = "#07070c";
    pen.lineWidth = 1.5 * devicePixelRatio;
    pen.beginPath();
    pen.moveTo(size, 0);
    pen.lineTo(-0.75 * size, 0.7 * size);
    pen.lineTo(-0.4 * size, 0);
    pen.lineTo(-0.75 * size, -0.7 * size);
    pen.closePath();
    pen.stroke();
    pen.fill();
  }
}
