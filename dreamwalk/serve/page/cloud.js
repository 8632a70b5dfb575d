// The points that a dream keeps, in space beside the picture, and whoever walks among them.

import { MemoryPart } from "./memory-part.js";
import { toast } from "./words.js";

/** The view of space on a canvas; null, and a toast, where the browser draws none. */
export async function openSpace(canvas, settings, otherwise = "") {
  try {
    const { Space } = await import("./space.js");
    return new Space(canvas, settings);
  } catch (error) {
    console.warn(error);
    toast(`This browser shows no points in space${otherwise}.`, { error: true, seconds: 8 });
    return null;
  }
}

export class CloudPart extends MemoryPart {
  constructor(send, fit) {
    super(send, "cloud", { usual: "off", fit });
    this.space = null;
    this.opening = null; // a promise of the space, from the first time on
  }

  /** A new walk, in a dream that keeps points or does not. */
  begin({ cloud: known, width, height }) {
    Object.assign(this, { known, size: { width, height }, pose: null, focal: null });
    this.space?.clear();
    this.tell();
  }

  async tell() {
    if (this.shown) this.space = await (this.opening ??= openSpace(this.box.querySelector("canvas"), { ...this.size, standing: true }));
    this.wanted &&= !this.opening || Boolean(this.space);
    super.tell();
  }

  /** What the server tells of the points. */
  take({ focal, ...news }) {
    this.focal = focal;
    this.space.change(news);
    this.box.querySelector("figcaption").textContent = `${this.space.count.toLocaleString("en")} points`;
    this.follow();
  }

  walk(pose) {
    this.pose = pose.length ? pose : null;
    this.follow();
  }

  follow() {
    if (this.pose && this.focal && !this.box.hidden) this.space.walker(this.pose, this.focal);
  }
}
