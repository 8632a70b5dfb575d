// A game pad: left stick walks, right stick looks, A places, Y changes between dream and game, Start begins again.

const DEAD = 0.22;
const TURN = 14;
const COMMANDS = { 3: "toggle", 9: "reset", 8: "pause" };

/** Poll the first connected pad once per display frame for as long as there is one. */
export function listenToPad(input, { command, walking }) {
  let pressed = new Set();
  let running = false;
  const bent = (value) => (Math.abs(value) < DEAD ? 0 : Math.sign(value) * value * value);
  const tick = () => {
    const pad = [...navigator.getGamepads()].find(Boolean);
    running = Boolean(pad);
    if (!pad) return input.hold("pad", {});
    if (walking()) read(pad);
    requestAnimationFrame(tick);
  };
  function read(pad) {
    const [x, y, lookX = 0, lookY = 0] = pad.axes;
    const held = [];
    if (y < -0.4) held.push("forward");
    if (y > 0.4) held.push("back");
    if (x < -0.4) held.push("left");
    if (x > 0.4) held.push("right");
    const round = (value) => Math.round(value * 4) / 4;
    input.hold("pad", { held, turn: round(bent(lookX) * TURN), tilt: round(-bent(lookY) * TURN * 0.5) });
    const now = new Set(pad.buttons.flatMap((button, index) => (button.pressed ? [index] : [])));
    for (const index of now) {
      if (pressed.has(index)) continue;
      if (index === 0) input.place();
      else if (COMMANDS[index]) command(COMMANDS[index]);
    }
    pressed = now;
  }
  addEventListener("gamepadconnected", () => !running && requestAnimationFrame(tick));
}
