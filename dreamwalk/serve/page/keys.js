// The list of keys: what a world and the page can do, with which key, and another key for whoever wants one.

import { KEPT, sign } from "./bindings.js";
import { element, open } from "./words.js";

let listening = null; // {id, old, cap} while a key is waited for

/** Someone pressed `code` on a pad while a key is waited for; whether it was taken. */
export function heard(code, bindings) {
  if (!listening) return false;
  take(code, bindings);
  return true;
}

function take(code, bindings) {
  const { id, old } = listening;
  listening = null;
  bindings.bind(id, code, old);
  document.querySelector(`#help [data-action="${CSS.escape(id)}"] .cap`)?.focus();
}

/** The dialog. `unlearnt` are names of buttons, `game` whether there is a real one. */
export function showKeys(bindings, { unlearnt = [], game = false } = {}) {
  const lines = element("div", { className: "lines" });
  const plans = bindings.schema.moves.length > 0;
  const usual = element("button", { words: "Back to the usual keys", className: "soft" });
  const draw = () => {
    const [world, page] = [false, true].map((ours) => bindings.actions.filter(({ kind }) => (kind === "command") === ours));
    const looks = world.some(({ kind, name }) => kind === "axis" && name === "yaw") ? [fixed("Look around", "mouse")] : [];
    lines.replaceChildren(...(world.length ? [element("h3", { words: plans ? "The path" : "In this world" })] : []),
      ...world.map((action) => line(action, bindings, { unlearnt, game })), ...looks, element("h3", { words: "On this page" }),
      ...page.map((action) => line(action, bindings, { unlearnt, game })), fixed(plans ? "Stop dreaming" : "Leave the walk", "esc"), fixed("This list", "?"));
    usual.hidden = !bindings.changed;
  };
  usual.addEventListener("click", () => bindings.forget());
  const how = element("p", { words: plans ? "Choose a key to change it. Each move is a button, too. The mouse or a finger turns the points, the wheel or "
    + "two fingers come nearer." : "Choose a key to change it. On a phone the left thumb moves, the right thumb looks around, and "
    + "all the rest has a button. A game pad works too." });
  const dialog = open("help", "Controls", [lines, how, usual]);
  if (!dialog) return;
  draw();
  const capture = (event) => listen(event, bindings, draw);
  bindings.addEventListener("change", draw);
  addEventListener("keydown", capture, { capture: true });
  dialog.addEventListener("close", () => {
    listening = null;
    bindings.removeEventListener("change", draw);
    removeEventListener("keydown", capture, { capture: true });
  }, { once: true });
}

function listen(event, bindings, draw) {
  if (!listening) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  if (event.code === "Escape") {
    const { id } = listening;
    listening = null;
    draw();
    return document.querySelector(`#help [data-action="${CSS.escape(id)}"] .cap`)?.focus();
  }
  if (!KEPT.has(event.code) && event.key !== "?" && !event.repeat) take(event.code, bindings);
}

function line(action, bindings, { unlearnt, game }) {
  const { id, label, name, kind } = action;
  const made = element("div");
  made.dataset.action = id;
  const caps = element("span", { className: "caps" });
  const shown = bindings.on(id).filter((code) => !code.startsWith("Pad") || document.body.classList.contains("pad"));
  caps.append(...(shown.length ? shown : [null]).map((code) => cap(action, code)));
  const words = element("span", { words: label });
  if (kind !== "command" && unlearnt.includes(name)) {
    made.classList.add("unlearnt");
    words.append(element("small", { words: unlearntWords(game) }));
  }
  made.append(words, caps);
  return made;
}

/** What to say of a thing that the dream cannot do. */
export const unlearntWords = (game) => `This dream has not learnt it yet${game ? "; the real game has it" : ""}.`;

function cap({ id, label }, code) {
  const made = element("button", { words: code ? sign(code) : "none", className: "cap" });
  made.ariaLabel = code ? `${label}: ${sign(code)}. Change this key` : `${label}: no key. Choose one`;
  made.addEventListener("click", () => {
    document.querySelector(".cap.waits")?.classList.remove("waits");
    listening = { id, old: code };
    made.classList.add("waits");
    made.textContent = "press a key";
  });
  return made;
}

function fixed(what, key) {
  const made = element("div");
  const caps = element("span", { className: "caps" });
  caps.append(element("kbd", { words: key }));
  made.append(element("span", { words: what }), caps);
  return made;
}
