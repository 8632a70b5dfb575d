// What is held and moved, from every device, as messages to the server: only on change, at most 30 a second.

const INTERVAL = 1000 / 30;

/** Units per frame of an axis whose key is held; other axes go to their limit. */
const SPEED = { yaw: 8, pitch: 5 };
const HALF = 0.4; // how far a stick goes before it counts as a button

/**
 * Devices report through `hold` (actions and how far they are pressed) and `move` (distance on an axis). The server adds
 * movement up and drains it once per frame; what is held is state. A press that ends before it could be sent is sent.
 */
export class Input {
  constructor(send) {
    this.send = send;
    this.schema = { buttons: [], axes: [], limits: [] };
    this.devices = new Map();
    this.fresh = new Map(); // pressed since the last message
    this.moved = {};
    this.presses = {};
    this.seq = 0;
    this.said = "";
    this.sentAt = -Infinity;
    this.timer = 0;
    this.since = 0;
    this.waiting = new Map();
    this.enabled = false;
    this.blocked = () => false; // whether a button or an axis does nothing now
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

  /** State of one device: pairs of an action and how far it is pressed, from 0 to 1. */
  hold(device, pressed) {
    const before = this.devices.get(device) ?? new Map();
    const now = new Map(pressed.filter(([action]) => action && action.kind !== "command").map(([action, value]) => [action.id, { action, value }]));
    this.devices.set(device, now);
    for (const [id, { action, value }] of now) {
      if (before.has(id) || this.blocked(action.name) || (action.kind === "button" && value < HALF)) continue;
      if (action.once) this.presses[action.name] = (this.presses[action.name] ?? 0) + 1;
      else this.fresh.set(id, { action, value });
    }
    this.changed();
  }

  /** A press and its end. */
  tap(device, action) {
    this.hold(device, [[action, 1]]);
    this.hold(device, []);
  }

  /** Movement on an axis, in its units. */
  move(axis, distance) {
    if (!this.schema.axes.includes(axis) || this.blocked(axis)) return;
    this.moved[axis] = (this.moved[axis] ?? 0) + distance;
    this.changed();
  }

  release() {
    this.devices.clear();
    this.fresh.clear();
    this.moved = {};
    this.presses = {};
    this.changed();
  }

  limit(axis) {
    return this.schema.limits[this.schema.axes.indexOf(axis)] || 1;
  }

  state() {
    const held = new Set();
    const turning = {};
    const all = new Map([...this.fresh]);
    for (const device of this.devices.values()) for (const [id, one] of device) {
      if (one.value >= (all.get(id)?.value ?? 0)) all.set(id, one);
    }
    for (const { action, value } of all.values()) {
      if (this.blocked(action.name)) continue;
      if (action.kind === "axis") {
        const limit = this.limit(action.name);
        const far = Math.min(SPEED[action.name] ?? limit, limit) * value * (action.more ? 1 : -1);
        turning[action.name] = Math.max(-limit, Math.min(limit, (turning[action.name] ?? 0) + far));
      } else if (!action.once && value >= HALF) held.add(action.name);
    }
    for (const axis of Object.keys(turning)) if (!turning[axis]) delete turning[axis];
    const names = [...held].sort();
    return { held: names, turning, key: JSON.stringify([names, Object.entries(turning).sort()]) };
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
    const { held, turning, key } = this.state();
    const { moved, presses: pressed, since } = this;
    const tapped = this.fresh.size > 0;
    [this.moved, this.presses, this.since] = [{}, {}, 0];
    this.fresh.clear();
    if (key === this.said && !Object.keys(moved).length && !Object.keys(pressed).length) return;
    this.seq += 1;
    this.said = key;
    this.sentAt = performance.now();
    this.waiting.set(this.seq, since);
    if (this.waiting.size > 64) this.waiting.delete(this.waiting.keys().next().value);
    this.send({ type: "input", seq: this.seq, held, pressed, moved, turning });
    if (tapped && this.state().key !== key) this.changed();
  }

  /** Milliseconds from the first event in the input that `seq` answers until now, or null if that was known. */
  latency(seq) {
    const since = this.waiting.get(seq);
    for (const old of [...this.waiting.keys()]) if (old <= seq) this.waiting.delete(old);
    return since === undefined ? null : performance.now() - since;
  }
}
