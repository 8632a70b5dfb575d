// Keys and mouse. Codes, not letters, so that WASD is where it should be on every layout.

const TURN = 8;
const HOLD = {
  KeyW: "forward", ArrowUp: "forward", KeyS: "back", ArrowDown: "back", KeyA: "left", KeyD: "right",
  Space: "jump", ShiftLeft: "sneak", KeyC: "sprint", KeyQ: "attack",
};
const COMMANDS = {
  KeyR: "reset", KeyP: "pause", Period: "step", KeyG: "toggle", Tab: "toggle", KeyB: "both", KeyV: "record",
  KeyH: "hud", KeyF: "fullscreen", BracketLeft: "fewer", BracketRight: "more", Comma: "panel",
};

export const LINES = [
  ["Walk", "W", "S", "↑", "↓"], ["Step sideways", "A", "D"], ["Turn", "←", "→"], ["Look around", "mouse"],
  ["Put down", "E", "space", "click"], ["Dream or real game", "G", "tab"], ["Both, side by side", "B"],
  ["Begin again", "R"], ["Pause", "P"], ["One frame", "."], ["Fewer or more steps", "[", "]"], ["Record", "V"],
  ["Where one can: jump", "space"], ["Sneak, sprint", "shift", "C"], ["Attack", "Q", "click"],
  ["Hide everything else", "H"], ["Full screen", "F"], ["Settings", ","], ["This list", "?"],
];

/** Listen to keys: holding goes to `input`, everything else to `command(name)` while `walking()`. */
export function listenToKeys(input, { command, walking }) {
  const down = new Set();
  const report = () => {
    const held = [...down].map((code) => HOLD[code]).filter(Boolean);
    const turn = (down.has("ArrowRight") ? TURN : 0) - (down.has("ArrowLeft") ? TURN : 0);
    input.hold("keys", { held, turn });
  };
  addEventListener("keydown", (event) => {
    if (event.key === "?" && !isTyping(event)) return command("help");
    if (!walking() || isTyping(event) || event.ctrlKey || event.metaKey || event.altKey) return;
    const { code } = event;
    const known = HOLD[code] || COMMANDS[code] || ["ArrowLeft", "ArrowRight", "KeyE"].includes(code);
    if (!known || (code === "Tab" && document.querySelector("#panel.open"))) return;
    event.preventDefault();
    if (event.repeat && code !== "Period") return;
    if (COMMANDS[code]) return command(COMMANDS[code]);
    if (code === "KeyE" || (code === "Space" && !input.knows("jump"))) return input.place();
    down.add(code);
    report();
  });
  addEventListener("keyup", (event) => down.delete(event.code) && report());
  addEventListener("blur", () => {
    down.clear();
    input.release();
  });
}

function isTyping(event) {
  return event.target instanceof Element && event.target.matches("input, textarea, select");
}

/**
 * Mouse look: a click takes the pointer, and from then on a click places; where one can attack, it attacks, and the right
 * button places. Without a lock, dragging looks around.
 */
export function listenToMouse(surface, input, { walking, degrees }) {
  const locked = () => document.pointerLockElement === surface;
  let dragging = false;
  let refused = false;
  surface.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch" || (event.button !== 0 && !locked()) || !walking()) return;
    if (event.target.closest("button")) return;
    if (locked() && event.button === 0 && input.knows("attack")) return input.hold("mouse", { held: ["attack"] });
    if (locked()) return event.button === 1 ? undefined : input.place();
    dragging = true;
    if (!refused) {
      const asked = surface.requestPointerLock?.();
      asked?.catch?.(() => (refused = true));
    }
  });
  addEventListener("pointerup", () => {
    dragging = false;
    input.hold("mouse", {});
  });
  addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch" || !walking() || !(locked() || dragging)) return;
    input.move(event.movementX * degrees(), -event.movementY * degrees());
  });
  surface.addEventListener("contextmenu", (event) => event.preventDefault());
}
