// Which key does what. Everything that a world or the page can do is an action: `button:jump`, `axis:yaw+`,
// `command:pause`, and of a path that is planned `move:forward`. What a hand can press is a code: a key of the keyboard (`KeyW`, or `Shift+KeyW`), a button of the
// mouse (`Mouse0`), a button or a stick of a game pad (`Pad0`, `Pad4+Pad0`, `PadLX-`). Each action has codes of its own.

const STORE = "dreamwalk.keys";

/** Usual codes, the first action that exists gets them. */
const USUAL = {
  "button:forward": "KeyW ArrowUp PadLY-", "button:up": "KeyW ArrowUp PadLY-",
  "button:back": "KeyS ArrowDown PadLY+", "button:down": "KeyS ArrowDown PadLY+",
  "axis:yaw-": "ArrowLeft PadRX-", "axis:yaw+": "ArrowRight PadRX+",
  "axis:pitch+": "PageUp PadRY-", "axis:pitch-": "PageDown PadRY+",
  "button:left": "KeyA ArrowLeft PadLX-", "button:right": "KeyD ArrowRight PadLX+",
  "button:attack": "KeyQ Mouse0 Pad7", "button:fire": "Space Mouse0 Pad7", "button:jump": "Space Pad0",
  "button:sneak": "ShiftLeft Pad1", "button:sprint": "KeyC Pad10", "button:use": "KeyE Mouse2 Pad2",
  "button:place": "KeyE Space Mouse0 Pad0",
  "command:reset": "KeyR Pad9", "command:pause": "KeyP Pad8", "command:step": "Period", "command:toggle": "KeyG Pad3",
  "command:both": "KeyB", "command:fewer": "BracketLeft", "command:more": "BracketRight", "command:record": "KeyV",
  "move:forward": "KeyW ArrowUp PadLY-", "move:back": "KeyS ArrowDown PadLY+", "move:left": "KeyA PadLX-", "move:right": "KeyD PadLX+",
  "move:pan-left": "ArrowLeft PadRX-", "move:pan-right": "ArrowRight PadRX+", "move:orbit-left": "KeyQ Pad4", "move:orbit-right": "KeyE Pad5",
  "move:up": "KeyR PadRY-", "move:down": "KeyF PadRY+",
  "command:undo": "KeyZ Backspace Pad1", "command:go": "Enter Pad0", "command:through": "KeyC Pad3", "command:restart": "KeyN",
  "command:hud": "KeyH", "command:map": "KeyM", "command:memory": "KeyX", "command:strip": "KeyT", "command:cloud": "KeyC", "command:another": "KeyN", "command:fullscreen": "KeyF", "command:panel": "Comma",
};

const LABELS = {
  "move:forward": "Forward", "move:back": "Back", "move:left": "To the left", "move:right": "To the right", "move:pan-left": "Turn left",
  "move:pan-right": "Turn right", "move:orbit-left": "Around to the left", "move:orbit-right": "Around to the right", "move:up": "Up", "move:down": "Down",
  "command:undo": "Take the last move back", "command:go": "Go", "command:through": "Through the camera", "command:restart": "Start again",
  "button:forward": "Walk ahead", "button:back": "Walk back", "button:place": "Put something down",
  "axis:yaw-": "Turn left", "axis:yaw+": "Turn right", "axis:pitch+": "Look up", "axis:pitch-": "Look down",
  "command:reset": "Begin again", "command:pause": "Pause", "command:step": "One frame", "command:toggle": "Dream or real game",
  "command:both": "Both, side by side", "command:fewer": "Fewer denoising steps", "command:more": "More denoising steps",
  "command:map": "Map", "command:memory": "Memory on or off", "command:strip": "Recalled frames", "command:cloud": "Points in space", "command:another": "Another level",
  "command:record": "Record", "command:hud": "Hide everything else", "command:fullscreen": "Full screen", "command:panel": "Settings",
};

/** Buttons that do their thing once for every press, however long it lasts. */
const ONCE = new Set(["place"]);

/** Pairs for axes that are not known by name: less, more. */
const PAIRS = {
  keys: ["ArrowLeft ArrowRight", "ArrowDown ArrowUp", "KeyA KeyD", "KeyS KeyW", "KeyJ KeyL", "KeyK KeyI"],
  pad: ["PadLX- PadLX+", "PadLY+ PadLY-", "PadRX- PadRX+", "PadRY+ PadRY-"],
};

const spread = (form, letters) => [...letters].map((letter) => form + letter);
const PLAIN = [
  ...spread("Digit", "1234567890"), ...spread("Key", "QETYUIOPGHJKLZXCVBNMRFWASD"),
  ..."Space Minus Equal Semicolon Quote Backslash Slash Backquote".split(" "),
  ...spread("Numpad", "1234567890"), ..."NumpadAdd NumpadSubtract NumpadMultiply NumpadDivide Insert Home End".split(" "),
];
const PADS = [0, 1, 2, 3, 7, 6, 5, 12, 13, 14, 15, 10, 11].map((index) => `Pad${index}`);
const POOL = {
  keys: [...PLAIN, ...PLAIN.map((code) => `Shift+${code}`), ...PLAIN.map((code) => `Alt+${code}`)],
  pad: [...PADS, ...PADS.map((code) => `Pad4+${code}`)],
};
const deviceOf = (code) => (code.startsWith("Pad") ? "pad" : code.startsWith("Mouse") ? "mouse" : "keys");

const SIGNS = { Space: "space", ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", PageUp: "page ↑", PageDown: "page ↓",
  ShiftLeft: "shift", ShiftRight: "right shift", Mouse0: "click", Mouse1: "middle click", Mouse2: "right click", Period: ".", Comma: ",", BracketLeft: "[",
  BracketRight: "]", Minus: "-", Equal: "=", Semicolon: ";", Quote: "'", Backslash: "\\", Slash: "/", Backquote: "`" };
const PAD_SIGNS = { 0: "A", 1: "B", 2: "X", 3: "Y", 4: "LB", 5: "RB", 6: "LT", 7: "RT", 8: "back", 9: "start", 10: "left stick",
  11: "right stick", 12: "pad ↑", 13: "pad ↓", 14: "pad ←", 15: "pad →" };
const STICKS = { "X-": "←", "X+": "→", "Y-": "↑", "Y+": "↓" };
let layout = null; // what is printed on the keys, where the browser tells
navigator.keyboard?.getLayoutMap?.().then((map) => (layout = map)).catch(() => {});

/** A code as one reads it on the key. */
export function sign(code) {
  if (code.includes("+", 1) && !code.endsWith("+")) return code.split("+").map(sign).join(" ");
  if (code.startsWith("PadL") || code.startsWith("PadR")) return `${code[3] === "L" ? "left" : "right"} stick ${STICKS[code.slice(4)]}`;
  if (code.startsWith("Pad")) return `pad ${PAD_SIGNS[code.slice(3)] ?? code.slice(3)}`;
  const printed = SIGNS[code] ? null : layout?.get(code);
  return SIGNS[code] ?? printed?.toUpperCase() ?? code.replace(/^(Key|Digit)/, "").replace(/^Numpad/, "num ");
}

/** Keys that are never given to anything else: they move about the page, and leave. */
export const KEPT = new Set(["Escape", "Tab", "MetaLeft", "MetaRight", "ControlLeft", "ControlRight", "AltLeft", "AltRight"]);

const sideways = { "button:left": "Step left", "button:right": "Step right" };

/** An action as the list of keys has it. */
function described(id, { axes }) {
  const [kind, name] = [id.slice(0, id.indexOf(":")), id.slice(id.indexOf(":") + 1)];
  const known = LABELS[id] ?? (axes.includes("yaw") ? sideways[id] : undefined);
  if (kind !== "axis") return { id, kind, name, label: known ?? name, once: ONCE.has(name) };
  const more = name.endsWith("+");
  return { id, kind, name: name.slice(0, -1), more, label: known ?? `${name.slice(0, -1)} ${more ? "more" : "less"}` };
}

/** The codes of every action. Fires `change` when they change. */
export class Bindings extends EventTarget {
  constructor() {
    super();
    this.saved = read();
    this.begin({ buttons: [], axes: [], commands: [] });
  }

  /** A world and what the page can do with it. */
  begin({ buttons, axes, commands, moves = [] }) {
    const ids = [...buttons.map((name) => `button:${name}`), ...axes.flatMap((name) => [`axis:${name}-`, `axis:${name}+`]), ...moves.map((name) => `move:${name}`)];
    this.schema = { buttons, axes, commands, moves };
    this.actions = [...ids, ...commands.map((name) => `command:${name}`)].map((id) => described(id, { axes }));
    this.assign();
  }

  assign() {
    const { saved } = this;
    const ids = new Set(this.actions.map(({ id }) => id));
    this.codes = new Map([...ids].map((id) => [id, []]));
    this.owner = new Map();
    const give = (id, code) => {
      if (!code || !ids.has(id) || this.owner.has(code)) return;
      this.owner.set(code, id);
      this.codes.get(id).push(code);
    };
    for (const id of ids) for (const code of saved[id] ?? []) give(id, code);
    const bound = new Set([...ids].filter((id) => saved[id]));
    for (const [id, codes] of Object.entries(USUAL)) if (!bound.has(id)) codes.split(" ").forEach((code) => give(id, code));
    for (const device of ["keys", "pad"]) {
      const free = (id) => this.on(id, device).length === 0;
      for (const axis of this.schema.axes) {
        const [less, more] = [`axis:${axis}-`, `axis:${axis}+`];
        const pair = PAIRS[device].map((codes) => codes.split(" ")).find((codes) => codes.every((code) => !this.owner.has(code)));
        if (pair && free(less) && free(more)) [less, more].forEach((id, index) => give(id, pair[index]));
      }
      for (const { id, kind, name } of this.actions) {
        if (!free(id) || (device === "pad" && kind === "command")) continue;
        const likely = device === "pad" ? [] : [`Digit${name.match(/(?<!\d)\d$/)}`, `Key${name[0]?.toUpperCase()}`];
        const of = [...likely.filter((code) => POOL.keys.includes(code)), ...POOL[device]];
        give(id, of.find((code) => !this.owner.has(code)));
      }
    }
    this.dispatchEvent(new Event("change"));
  }

  /** The action at a code, or undefined. */
  at(code) {
    return this.actions.find(({ id }) => id === this.owner.get(code));
  }

  /** The codes of an action, of one device or of all: "keys", "mouse", "pad". */
  on(id, device = null) {
    return (this.codes.get(id) ?? []).filter((code) => !device || deviceOf(code) === device);
  }

  /** Give a code to an action in the place of one that it had; whoever had the new one gets the old. */
  bind(id, code, old) {
    const saved = { ...this.saved };
    const other = this.owner.get(code);
    if (other === id) return;
    if (other) saved[other] = this.on(other).map((one) => (one === code ? old : one)).filter(Boolean);
    saved[id] = old ? this.on(id).map((one) => (one === old ? code : one)) : [...this.on(id), code];
    this.keep(saved);
  }

  /** Back to the usual codes. */
  forget() {
    this.keep({});
  }

  get changed() {
    return Object.keys(this.saved).length > 0;
  }

  keep(saved) {
    this.saved = saved;
    try {
      localStorage.setItem(STORE, JSON.stringify(saved));
    } catch {
      // a browser that keeps nothing: they last as long as the page
    }
    this.assign();
  }
}

function read() {
  try {
    const saved = JSON.parse(localStorage.getItem(STORE) ?? "{}");
    const sound = (codes) => Array.isArray(codes) && codes.length > 0 && codes.every((code) => typeof code === "string");
    return Object.fromEntries(Object.entries(saved).filter(([, codes]) => sound(codes)));
  } catch {
    return {};
  }
}
