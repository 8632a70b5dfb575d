// Points in space, of a scene or of a walk, and the cameras along its path. Cameras are those of OpenCV: x right, y down, z ahead.

import { BufferAttribute, BufferGeometry, Group, LineBasicMaterial, LineSegments, MathUtils, Matrix4, PerspectiveCamera, Points, Scene,
  ShaderMaterial, Spherical, Vector3, WebGLRenderer } from "./vendor/three.module.min.js";
import { OrbitControls } from "./vendor/OrbitControls.js";

const MOST = 300000; // points that are drawn of a scene
const ROOF = 0.15; // how far above the eyes of a walker points are drawn, in reaches
const SLOTS = 100000; // slots of the points of a walk
const SHOWN = 12; // cameras that are drawn of a path, besides its ends
const GLOW = 1.4; // seconds for which new points shine
const REST = 10; // how much longer than a picture takes there is none of a walk, unless it is turned
const TINTS = { walked: 0x8f88a8, planned: 0xbda6ff, now: 0x6fd3ff };
const UPRIGHT = new Matrix4().makeRotationX(Math.PI); // the axes of OpenCV to those of three.js, and back
const STANDING = new Matrix4().makeRotationX(-Math.PI / 2); // those of a world whose z is up
const TURNS = { // what keys do: angles around and over what is looked at, and a factor of the distance
  ArrowLeft: [-0.1, 0, 1], ArrowRight: [0.1, 0, 1], ArrowUp: [0, 0.1, 1], ArrowDown: [0, -0.1, 1],
  Equal: [0, 0, 0.9], NumpadAdd: [0, 0, 0.9], Minus: [0, 0, 1.1], NumpadSubtract: [0, 0, 1.1],
};

const VERTEX = `
  attribute vec4 paint;
  uniform float pixels;
  uniform float roof;
  uniform float spread;
  varying vec3 tint;
  void main() {
    vec4 at = modelViewMatrix * vec4(position, 1.0);
    bool shown = paint.a > 0.0 && (modelMatrix * vec4(position, 1.0)).y < roof;
    gl_Position = shown ? projectionMatrix * at : vec4(0.0, 0.0, 2.0, 1.0);
    float wide = exp2((paint.a * 255.0 - 128.0) / 8.0);
    gl_PointSize = clamp(1.6 * spread * wide * pixels / -at.z, 1.0, 48.0);
    tint = paint.rgb;
  }`;
const FRAGMENT = `
  uniform float glow;
  varying vec3 tint;
  void main() {
    gl_FragColor = vec4(mix(tint, vec3(0.74, 0.65, 1.0), 0.75 * glow), 1.0);
  }`;

export class Space {
  /** Of a scene, whose first camera is upright; or, `standing`, of a world whose z is up. */
  constructor(canvas, { width, height, fps = 1, standing = false }) {
    this.canvas = canvas;
    this.renderer = new WebGLRenderer({ canvas, alpha: true, antialias: true });
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    [this.aspect, this.fps] = [width / height, fps];
    this.camera = new PerspectiveCamera(55);
    this.controls = new OrbitControls(this.camera, canvas);
    this.controls.enableDamping = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.controls.addEventListener("change", () => this.draw());
    canvas.addEventListener("keydown", (event) => this.turn(event));
    canvas.addEventListener("mousedown", (event) => {
      event.preventDefault(); // whoever has a mouse needs no keys here
      document.activeElement?.blur();
    });
    this.world = new Group();
    this.axes = standing ? STANDING : UPRIGHT;
    this.world.applyMatrix4(this.axes);
    this.scene = new Scene().add(this.world);
    this.paths = {};
    this.through = false;
    [this.drawn, this.cost] = [0, 100]; // when, and for how long, in ms: more than most, until the first is measured
    new ResizeObserver(() => this.fit()).observe(canvas.parentElement);
    this.clear();
  }

  /** A new scene. */
  clear() {
    for (const child of [...this.world.children]) this.drop(child);
    this.paths = {};
    [this.count, this.newest, this.planned, this.slots, this.stood, this.moved] = [0, null, null, null, null, null];
    this.reach = 1; // how far one sees from the first camera
  }

  drop(child) {
    child.geometry.dispose();
    child.material.dispose();
    this.world.remove(child);
  }

  /** Fetch and show the points of frames from number `since` on; gives the number of the next frame. */
  async add(address, since) {
    const answer = await fetch(`${address}?since=${since}`);
    if (!answer.ok) throw new Error(await answer.text());
    const buffer = await answer.arrayBuffer();
    const [count, following] = new Uint32Array(buffer, 0, 2);
    if (since && this.count + count > MOST) {
      this.world.children.filter((child) => child.isPoints).forEach((child) => this.drop(child));
      this.count = 0;
      return this.add(address, 0);
    }
    if (!count) return following;
    const points = this.points(new BufferAttribute(new Float32Array(buffer, 8, 3 * count), 3), new Uint8Array(buffer, 8 + 12 * count));
    points.born = since && this.controls.enableDamping ? performance.now() : -Infinity;
    this.count += count;
    if (!since) this.reach = median(points.geometry.attributes.position.array, 3);
    this.draw();
    return following;
  }

  /** Points to be drawn, by their places, and colour and size of each. */
  points(places, paint) {
    const geometry = new BufferGeometry().setAttribute("position", places).setAttribute("paint", new BufferAttribute(paint, 4, true));
    const uniforms = { pixels: { value: 1 }, glow: { value: 0 }, roof: { value: Infinity }, spread: { value: 1 } };
    const points = new Points(geometry, new ShaderMaterial({ vertexShader: VERTEX, fragmentShader: FRAGMENT, uniforms }));
    points.frustumCulled = false;
    points.born = -Infinity;
    this.world.add(points);
    return points;
  }

  /** What has changed of the points of a walk, as `readCloud` gives it. */
  change({ forget, thirds, all, unit, middle, numbers, places, paint }) {
    if (forget) {
      if (this.slots) this.drop(this.slots);
      this.slots = this.points(new BufferAttribute(new Int16Array(4 * SLOTS), 4), new Uint8Array(4 * SLOTS));
      this.slots.position.set(...middle);
      this.slots.scale.setScalar(unit);
    }
    const { position, paint: tints } = this.slots.geometry.attributes;
    const [ours, theirs] = [[position.array, tints.array], [places, paint]].map(([at, tint]) =>
      [new BigUint64Array(at.buffer, at.byteOffset, at.length / 4), new Uint32Array(tint.buffer, tint.byteOffset, tint.length / 4)]);
    for (let k = 0; k < thirds; k += 1) for (const rows of ours) rows.set(rows.filter((_, slot) => slot % 3 === 0).subarray(0, SLOTS / 3));
    for (const [part, rows] of ours.entries()) {
      numbers.forEach((slot, k) => (rows[slot] = theirs[part][k]));
      rows.fill(part ? 0 : 0n, all);
    }
    this.slots.material.uniforms.spread.value *= 3 ** (thirds / 2); // of fewer points each covers more
    position.needsUpdate = tints.needsUpdate = true;
    this.slots.geometry.setDrawRange(0, all);
    this.count = ours[1].reduce((sum, tint) => sum + (tint > 0), 0);
    if (forget) this.reach = unit * median(places, 4);
    this.drawLater();
  }

  /** Who walks. */
  walker(pose, focal) {
    this.moved = { pose, focal };
    this.drawLater();
  }

  /** Draw after a rest, since a walk changes all the time, and without a graphics card each picture holds it up. */
  drawLater() {
    this.later ??= setTimeout(() => this.draw(), this.drawn + REST * this.cost - performance.now());
  }

  /** The view goes along with who walks, and what is higher is left out, for whoever looks from above. */
  accompany({ pose, focal }) {
    this.trace("now", [pose], [focal]);
    const at = eye(pose).applyMatrix4(this.axes);
    if (!this.stood) this.behind(at, new Vector3(pose[2], pose[6], pose[10]).applyMatrix4(this.axes));
    else for (const part of [this.camera.position, this.controls.target]) part.add(at).sub(this.stood);
    this.stood = at;
  }

  /** Stand behind and above someone who looks ahead. */
  behind(at, ahead) {
    const { reach } = this;
    this.controls.target.copy(at);
    this.camera.position.copy(at).addScaledVector(ahead.setY(0).normalize(), -1.5 * reach).add(new Vector3(0, 1.5 * reach, 0));
    this.lens(null);
    this.range();
  }

  /** The cameras of all frames so far, of which those from `newest` on are the newest path. */
  walked({ poses, focal }, newest) {
    this.newest = { poses: poses.slice(newest), focal: focal.slice(newest) };
    this.trace("walked", poses, focal);
    this.trace("now", poses.slice(-1), focal.slice(-1));
  }

  /** The cameras of the path that is planned, or null. */
  plan(path) {
    this.planned = path;
    this.trace("planned", path?.poses ?? [], path?.focal ?? []);
    this.played = performance.now();
  }

  /** Draw cameras and the line through them. */
  trace(name, poses, focal) {
    if (this.paths[name]) this.drop(this.paths[name]);
    this.paths[name] = null;
    if (poses.length) {
      const every = Math.max(1, Math.ceil((poses.length - 1) / SHOWN));
      const corners = poses.flatMap((pose, k) => {
        const line = k ? [eye(poses[k - 1]), eye(pose)] : [];
        return k % every === 0 || k === poses.length - 1 ? [...line, ...this.pyramid(pose, focal[k])] : line;
      });
      const geometry = new BufferGeometry().setFromPoints(corners);
      const opacity = name === "walked" ? 0.5 : 0.95;
      this.paths[name] = new LineSegments(geometry, new LineBasicMaterial({ color: TINTS[name], transparent: true, opacity, depthTest: false }));
      this.paths[name].frustumCulled = false;
      this.paths[name].renderOrder = name === "walked" ? 1 : 2;
      this.world.add(this.paths[name]);
    }
    this.draw();
  }

  /** The edges of a camera's view. */
  pyramid(pose, focal) {
    const far = 0.12 * this.reach;
    const [y, x] = [(0.5 * far) / focal, (0.5 * far * this.aspect) / focal];
    const at = matrix(pose);
    const corners = [[-x, -y], [x, -y], [x, y], [-x, y]].map(([a, b]) => new Vector3(a, b, far).applyMatrix4(at));
    return corners.flatMap((corner, k) => [eye(pose), corner, corner, corners[(k + 1) % 4]]);
  }

  /** Stand behind the first camera, and look past it. */
  stand() {
    const { reach } = this;
    this.camera.position.set(0.4 * reach, 0.4 * reach, 0.95 * reach);
    this.controls.target.set(0.1 * reach, 0.05 * reach, -0.6 * reach);
    this.range();
    this.fit();
    this.controls.update();
  }

  /** How near and how far one sees. */
  range() {
    [this.camera.near, this.camera.far] = [this.reach / 200, this.reach * 200];
    this.camera.updateProjectionMatrix();
  }

  /** Keys turn the view as the mouse does. */
  turn(event) {
    const turn = TURNS[event.code];
    if (!turn || event.ctrlKey || event.metaKey || event.altKey || !this.controls.enabled) return;
    event.preventDefault();
    const { target } = this.controls;
    const from = new Spherical().setFromVector3(this.camera.position.clone().sub(target));
    from.set(from.radius * turn[2], from.phi - turn[1], from.theta + turn[0]).makeSafe();
    this.camera.position.setFromSpherical(from).add(target);
    this.controls.update();
  }

  /** "outside", or "through" the camera along the path that is planned, or else the newest one. */
  look(name) {
    if (this.through === (name === "through")) return;
    if (name === "through") this.place = { position: this.camera.position.clone(), target: this.controls.target.clone() };
    this.through = name === "through";
    this.controls.enabled = !this.through;
    this.played = performance.now();
    if (!this.through) {
      this.camera.position.copy(this.place.position);
      this.controls.target.copy(this.place.target);
      this.controls.update();
    }
    this.fit();
  }

  fit() {
    const { clientWidth: w, clientHeight: h } = this.canvas.parentElement;
    if (!w || !h) return;
    this.renderer.setSize(w, h, false);
    this.camera.aspect = w / h;
    this.lens(this.through ? this.focal ?? 1 : null);
    if (this.frame(performance.now())) this.draw(); // at once: a canvas of another size is empty
  }

  /** The focal length in heights of a picture that has to be wholly seen; null: that of looking around. */
  lens(focal) {
    const wider = Math.max(1, this.aspect / this.camera.aspect);
    this.camera.fov = focal === null ? 55 : 2 * MathUtils.radToDeg(Math.atan((0.5 * wider) / focal));
    this.camera.updateProjectionMatrix();
  }

  /** Draw soon. */
  draw() {
    this.asked ??= requestAnimationFrame((now) => {
      const again = this.frame(now);
      this.asked = null;
      if (again) this.draw();
    });
  }

  /** Draw now; whether there is more to be seen soon. */
  frame(now) {
    this.later = clearTimeout(this.later) ?? null;
    if (!this.canvas.offsetParent) return false;
    if (this.moved) this.accompany(this.moved);
    this.moved = null;
    let again = this.through ? this.follow(now) : this.controls.update();
    const pixels = (this.renderer.domElement.height / 2) * this.camera.projectionMatrix.elements[5];
    for (const child of this.world.children.filter((one) => one.isPoints)) {
      const glow = Math.max(0, 1 - (now - child.born) / 1000 / GLOW);
      child.material.uniforms.glow.value = glow * glow;
      child.material.uniforms.pixels.value = pixels;
      child.material.uniforms.roof.value = this.stood ? this.stood.y + ROOF * this.reach : Infinity;
      again ||= glow > 0;
    }
    for (const path of Object.values(this.paths)) if (path) path.visible = !this.through;
    this.renderer.render(this.scene, this.camera);
    this.drawn = performance.now();
    const measure = (later) => (this.cost = later - this.drawn); // the browser is not ready again before it has drawn
    requestAnimationFrame(() => requestAnimationFrame(measure));
    return again;
  }

  /** Put the camera where the path is now; whether it moves on. */
  follow(now) {
    const path = this.planned ?? this.newest;
    if (!path) return false;
    const k = Math.floor((Math.max(0, now - this.played) / 1000) * this.fps) % path.poses.length;
    const at = this.axes.clone().multiply(matrix(path.poses[k])).multiply(UPRIGHT);
    at.decompose(this.camera.position, this.camera.quaternion, new Vector3());
    this.focal = path.focal[k];
    this.lens(this.focal);
    return path.poses.length > 1;
  }
}

/** The matrix of a pose, of which the server tells three rows. */
const matrix = (rows) => new Matrix4().set(...rows, 0, 0, 0, 1);
const eye = (rows) => new Vector3(rows[3], rows[7], rows[11]);

/** How far points are from the origin that lies in the middle of them by distance. */
function median(positions, stride) {
  const far = [];
  const every = stride * Math.max(1, Math.floor(positions.length / stride / 2000));
  for (let k = 0; k + 2 < positions.length; k += every) far.push(Math.hypot(positions[k], positions[k + 1], positions[k + 2]));
  return far.sort((a, b) => a - b)[far.length >> 1] || 1;
}
