// Keys and mouse. Codes, not letters, so that WASD is where it should be on every layout.

const AGAIN = new Set(["step", "fewer", "more"]); // commands that a key held down gives again and again

/** What a key that is typed at `target` means there, so that it is left to it. */
function isTheirs(target, code) {
  if (!(target instanceof Element)) return false;
  if (target.matches("textarea, select, input:not([type=range])")) return true;
  if (target.matches("input[type=range]")) return /^(Arrow|Page|Home|End)/.test(code);
  if (target.matches("canvas")) return /^(Arrow|Equal|Minus|NumpadAdd|NumpadSubtract)/.test(code);
  return target.matches("button, a, [role]") && ["Enter", "Space"].includes(code);
}

/** Listen to keys: holding goes to `input`, what the page can do to `command(name)`, while `walking()`. */
export function listenToKeys(input, bindings, { command, walking }) {
  const down = new Map(); // code of the key to the code that it was taken for
  const report = () => input.hold("keys", [...down.values()].map((code) => [bindings.at(code), 1]));
  addEventListener("keydown", (event) => {
    const { code } = event;
    if (isTheirs(event.target, code)) return;
    if (event.key === "?") return command("help");
    if (!walking() || event.ctrlKey || event.metaKey) return;
    const forms = [event.shiftKey && `Shift+${code}`, event.altKey && `Alt+${code}`, event.altKey ? null : code];
    const form = forms.find((one) => one && bindings.at(one));
    if (!form) return;
    event.preventDefault();
    const action = bindings.at(form);
    if (action.kind === "command") return !event.repeat || AGAIN.has(action.name) ? command(action.name) : undefined;
    if (event.repeat) return;
    command("pressed", action);
    down.set(code, form);
    report();
  });
  addEventListener("keyup", (event) => down.delete(event.code) && report());
  bindings.addEventListener("change", () => {
    down.clear();
    input.release();
  });
  addEventListener("blur", () => {
    down.clear();
    input.release();
  });
}

/**
 * Mouse look: a click takes the pointer, and from then on the buttons of the mouse are keys like any other. Without a
 * lock, dragging looks around. Only worlds in which one can look around take the pointer.
 */
export function listenToMouse(surface, input, bindings, { command, walking, degrees }) {
  const locked = () => document.pointerLockElement === surface;
  const down = new Set();
  let dragging = false;
  let refused = false;
  const report = () => input.hold("mouse", [...down].map((code) => [bindings.at(code), 1]));
  surface.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch" || !walking() || event.target.closest("button, #cloud")) return;
    const looks = input.schema.axes.includes("yaw");
    if (locked() || !looks) {
      const action = bindings.at(`Mouse${event.button}`);
      if (action?.kind === "command") return command(action.name);
      if (action) command("pressed", action);
      down.add(`Mouse${event.button}`);
      return report();
    }
    if (event.button !== 0) return;
    dragging = true;
    if (!refused) {
      const asked = surface.requestPointerLock?.();
      asked?.catch?.(() => (refused = true));
    }
  });
  addEventListener("pointerup", () => {
    dragging = false;
    if (!down.size) return;
    down.clear();
    report();
  });
  addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch" || !walking() || !(locked() || dragging)) return;
    input.move("yaw", event.movementX * degrees());
    input.move("pitch", -event.movementY * degrees());
  });
  surface.addEventListener("contextmenu", (event) => event.preventDefault());
}
