// A game pad: its sticks and buttons are keys like any other, but that a stick knows how far it is pushed.

const DEAD = 0.22;
const REACH = 1.75; // a stick turns faster than a key
const STICKS = ["PadLX", "PadLY", "PadRX", "PadRY"];

/** Poll the first connected pad once per display frame for as long as there is one. */
export function listenToPad(input, bindings, { command, walking, heard }) {
  let before = new Set();
  let running = false;
  const bent = (value) => Math.round(16 * REACH * value * value) / 16;
  const tick = () => {
    const pad = [...navigator.getGamepads()].find(Boolean);
    running = Boolean(pad);
    if (!pad) return input.hold("pad", []);
    read(pad);
    requestAnimationFrame(tick);
  };
  function read(pad) {
    const buttons = pad.buttons.flatMap((button, index) => (button.pressed ? [`Pad${index}`] : []));
    const form = (code) => [buttons.includes("Pad4") && `Pad4+${code}`, code].find((one) => one && bindings.at(one)) ?? code;
    const now = new Map(buttons.map((code) => [form(code), 1]));
    STICKS.forEach((stick, index) => {
      const value = pad.axes[index] ?? 0;
      if (Math.abs(value) > DEAD) now.set(stick + (value < 0 ? "-" : "+"), value);
    });
    for (const code of now.keys()) if (!before.has(code) && heard(code)) now.delete(code);
    const fresh = [...now.keys()].filter((code) => !before.has(code));
    before = new Set(now.keys());
    if (!walking()) return;
    for (const action of fresh.map((code) => bindings.at(code)).filter(Boolean)) {
      command(...(action.kind === "command" ? [action.name] : ["pressed", action]));
    }
    input.hold("pad", [...now].map(([code, value]) => {
      const action = bindings.at(code);
      return [action, action?.kind === "axis" && /^Pad[LR]/.test(code) ? bent(value) : Math.abs(value)];
    }));
  }
  addEventListener("gamepadconnected", () => {
    document.body.classList.add("pad");
    if (!running) requestAnimationFrame(tick);
  });
}
