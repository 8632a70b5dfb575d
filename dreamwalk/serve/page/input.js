// What is held and moved, from every device, as messages to the server: only on change, at most 30 a second.

const INTERVAL = 1000 / 30;

/**
 * Devices report through `hold` (state), `move` (degrees) and `place` (presses). The server adds movement up and drains
 * it once per frame; held buttons and held turning (degrees per frame) are state.
 */
export class Input {
  constructor(send) {
    this.send = send;
    this.schema = { buttons: [], axes: [] };
    this.devices = new Map();
    this.moved = { yaw: 0, pitch: 0 };
    this.presses = 0;
    this.seq = 0;
    this.said = "";
    this.sentAt = -Infinity;
    this.timer = 0;
    this.since = 0;
    this.waiting = new Map();
    this.enabled = false;
  }

  /** A new walk: forget everything. */
  begin(schema) {
    this.schema = schema;
    this.release();
    this.waiting.clear();
    this.seq = 0;
    this.said = this.state().key;
    this.enabled = true;
  }

  /** State of one device: `held` button names, `turn` and `tilt` in degrees per frame. */
  hold(device, { held = [], turn = 0, tilt = 0 }) {
    this.devices.set(device, { held, turn, tilt });
    this.changed();
  }

  move(yaw, pitch) {
    this.moved.yaw += yaw;
    this.moved.pitch += pitch;
    this.changed();
  }

  place() {
    this.presses += 1;
    this.changed();
  }

  release() {
    this.devices.clear();
    this.moved = { yaw: 0, pitch: 0 };
    this.presses = 0;
    this.changed();
  }

  /** Whether the world has such a button. */
  knows(button) {
    return this.schema.buttons.includes(button);
  }

  state() {
    const axis = (name, value) => (this.schema.axes.includes(name) ? value : 0);
    const all = [...this.devices.values()];
    const held = [...new Set(all.flatMap((device) => device.held))].filter((name) => this.knows(name)).sort();
    const turn = axis("yaw", all.reduce((sum, device) => sum + device.turn, 0));
    const tilt = axis("pitch", all.reduce((sum, device) => sum + device.tilt, 0));
    return { held, turn, tilt, key: JSON.stringify([held, turn, tilt]) };
  }

  changed() {
    if (!this.enabled) return;
    this.since ||= performance.now();
    if (this.timer) return;
    const wait = this.sentAt + INTERVAL - performance.now();
    if (wait <= 0) this.flush();
    else this.timer = setTimeout(() => this.flush(), wait);
  }

  flush() {
    clearTimeout(this.timer);
    this.timer = 0;
    const { held, turn, tilt, key } = this.state();
    const yaw = this.schema.axes.includes("yaw") ? this.moved.yaw : 0;
    const pitch = this.schema.axes.includes("pitch") ? this.moved.pitch : 0;
    const place = this.knows("place") ? this.presses : 0;
    this.moved = { yaw: 0, pitch: 0 };
    this.presses = 0;
    const since = this.since;
    this.since = 0;
    if (key === this.said && !yaw && !pitch && !place) return;
    this.seq += 1;
    this.said = key;
    this.sentAt = performance.now();
    this.waiting.set(this.seq, since);
    if (this.waiting.size > 64) this.waiting.delete(this.waiting.keys().next().value);
    this.send({ type: "input", seq: this.seq, held, turn, tilt, yaw, pitch, place });
  }

  /** Milliseconds from the first event in the input that `seq` answers until now, or null if that was known. */
  latency(seq) {
    const since = this.waiting.get(seq);
    for (const old of [...this.waiting.keys()]) if (old <= seq) this.waiting.delete(old);
    return since === undefined ? null : performance.now() - since;
  }
}
