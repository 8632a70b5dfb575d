// What a dream with a bank of frames recalls for the newest frame: one slot for each, with why, and how many are kept.

import { MemoryPart } from "./memory-part.js";
import { element } from "./words.js";

/** Colours of the slots, here and on the map. */
export const TINTS = ["#8be0b0", "#f2c86b", "#f08fb5", "#6fd3ff"];
const LOW = matchMedia("(max-height: 500px)"); // no room for it

export class Strip extends MemoryPart {
  constructor(send, fit) {
    super(send, "strip", { fit });
    this.told = true; // whether the dream is told what was kept
    LOW.addEventListener("change", () => this.tell());
  }

  /** A new walk, in a dream that has a bank or has not. */
  begin({ strip: known, fps }) {
    [this.known, this.fps, this.newest] = [known, fps, null];
    this.show();
    this.tell();
  }

  get shown() {
    return super.shown && !LOW.matches;
  }

  /** What the server tells of the newest frame. */
  take(newest) {
    this.newest = newest;
    this.show();
  }

  /** The memory is switched: nothing is recalled while it is off. */
  recalls(told) {
    if (this.told === told) return;
    this.told = told;
    this.show();
  }

  show() {
    const { recalled = [null, null, null, null], kept = 0, budget = null } = this.newest ?? {};
    const [line, list] = this.box.children;
    const room = budget === null ? "kept, without bound" : `of at most ${budget} kept`;
    line.textContent = `${this.told ? "Recalled" : "Memory off"} · ${kept} frames ${room}`;
    while (list.children.length < recalled.length) list.append(slot(list.children.length));
    while (list.children.length > recalled.length) list.lastChild.remove();
    recalled.forEach((one, index) => this.fill(list.children[index], this.told ? one : null));
  }

  fill(item, one) {
    const [picture, , why] = item.children;
    item.classList.toggle("empty", !one);
    if (!one) {
      picture.removeAttribute("src");
      picture.alt = "";
      return why.replaceChildren(element("b", { words: "empty" }));
    }
    const source = `data:image/jpeg;base64,${one.jpeg}`;
    if (picture.src !== source) picture.src = source;
    const seconds = (one.age / this.fps).toFixed(1);
    picture.alt = `A frame of ${seconds} seconds ago`;
    why.replaceChildren(element("b", { words: `${seconds} s ago` }), ...[`${one.age} frames`, `covers ${Math.round(100 * one.covers)} %`,
      one.dreamed ? "dreamed" : "true"].map((words) => element("span", { words, className: words === "true" ? "true" : "" })));
  }
}

function slot(index) {
  const item = element("li");
  item.style.setProperty("--tint", TINTS[index % TINTS.length]);
  item.append(new Image(), element("i", { words: String(index + 1) }), element("div"));
  return item;
}
