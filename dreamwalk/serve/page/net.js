// The WebSocket of one walk. What is said over it is described in dreamwalk/serve/protocol.py; the frame messages
// (little-endian, 40 bytes of header, a JSON note, one or two JPEGs) in dreamwalk/serve/frames.py.

const HEADER = 40;
const CLOUD = 3; // the first byte of a message of points, which those of frames do not have
const CLOUD_HEADER = 32;
const VIEWS = ["dream", "game", "both"];
const text = new TextDecoder();

/** Header and note of a binary frame message, and its pictures as Blobs. */
export function readFrame(buffer) {
  const at = new DataView(buffer);
  if (at.getUint8(0) !== 2) throw new Error("this page is older or newer than its server: reload it");
  const noteBytes = at.getUint32(28, true);
  const lengths = [at.getUint32(32, true), at.getUint32(36, true)].slice(0, at.getUint8(1));
  const note = JSON.parse(text.decode(new Uint8Array(buffer, HEADER, noteBytes)));
  let offset = HEADER + noteBytes;
  const pictures = lengths.map((length) => {
    const blob = new Blob([new Uint8Array(buffer, offset, length)], { type: "image/jpeg" });
    offset += length;
    return blob;
  });
  const flags = at.getUint8(3);
  return {
    view: VIEWS[at.getUint8(2)],
    recording: Boolean(flags & 1),
    replaying: Boolean(flags & 2),
    paused: Boolean(flags & 4),
    serial: at.getUint32(4, true),
    frame: at.getUint32(8, true),
    seq: at.getUint32(12, true),
    modelMs: at.getFloat32(16, true),
    encodeMs: at.getFloat32(20, true),
    periodMs: at.getFloat32(24, true),
    held: note.held,
    stages: note.stages,
    axes: note.axes,
    pose: note.pose,
    pictures,
  };
}

/** A binary message of points, see dreamwalk/serve/cloud_stream.py. */
export function readCloud(buffer) {
  const at = new DataView(buffer);
  const count = at.getUint32(4, true);
  return {
    forget: Boolean(at.getUint8(1)),
    thirds: at.getUint16(2, true),
    all: at.getUint32(8, true),
    unit: at.getFloat32(12, true),
    middle: [16, 20, 24].map((offset) => at.getFloat32(offset, true)),
    focal: at.getFloat32(28, true),
    numbers: new Uint32Array(buffer, CLOUD_HEADER, count),
    places: new Int16Array(buffer.slice(CLOUD_HEADER + 4 * count, CLOUD_HEADER + 12 * count)),
    paint: new Uint8Array(buffer.slice(CLOUD_HEADER + 12 * count)),
  };
}

/** The events of a request over HTTP, a line of JSON each, as they come. */
export async function* events(address, request, signal) {
  const answer = await posted(address, request, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

/** The answer to a request in JSON; an Error with the server's sentence where there is none. */
export async function posted(address, request, signal) {
  return answered(address, { method: "POST", body: JSON.stringify(request), signal });
}

export async function answered(address, settings = {}) {
  const answer = await fetch(address, settings).catch((error) => {
    throw settings.signal?.aborted ? error : new Error("This page cannot reach its server: is it still running?");
  });
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}

/**
 * Events, each with its content in `detail`: every JSON message of the server under its type, `frame` (decoded, with
 * `bitmaps`), `cloud` (changed points), and `closed` ({reason, code}). `rtt` is the newest round trip in ms.
 */
export class Link extends EventTarget {
  constructor() {
    super();
    this.socket = null;
    this.rtt = 0;
    this.newest = 0;
  }

  open({ start, seed }) {
    this.close();
    const address = new URL("walk", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.hash = "";
    if (start !== null && start !== undefined) address.searchParams.set("start", start);
    if (seed !== null && seed !== undefined) address.searchParams.set("seed", seed);
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.newest = 0;
    let lastWord = "";
    socket.onmessage = (event) => {
      if (socket !== this.socket) return;
      if (typeof event.data !== "string") return void this.decode(socket, event.data);
      const { type, ...content } = JSON.parse(event.data);
      if (type === "pong") this.rtt = performance.now() - content.t;
      if (type === "error") lastWord = content.message;
      this.tell(type, content);
    };
    socket.onclose = (event) => {
      if (socket !== this.socket) return;
      this.stop();
      this.tell("closed", { code: event.code, reason: event.reason || lastWord });
    };
    this.pings = setInterval(() => this.send({ type: "ping", t: performance.now() }), 2000);
    socket.onopen = () => this.send({ type: "ping", t: performance.now() });
  }

  async decode(socket, buffer) {
    if (new Uint8Array(buffer, 0, 1)[0] === CLOUD) return this.tell("cloud", readCloud(buffer));
    const frame = readFrame(buffer);
    frame.bitmaps = await Promise.all(frame.pictures.map((blob) => createImageBitmap(blob)));
    if (socket !== this.socket) return;
    this.send({ type: "ack", serial: frame.serial });
    if (frame.serial > this.newest) {
      this.newest = frame.serial;
      this.tell("frame", frame);
    }
  }

  /** Send a message if there is someone to take it; whether there was. */
  send(message) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  close() {
    const socket = this.socket;
    this.stop();
    socket?.close();
  }

  stop() {
    this.socket = null;
    clearInterval(this.pings);
  }

  tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
