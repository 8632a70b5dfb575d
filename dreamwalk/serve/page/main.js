// The page: from the start screen into a walk and back.

import { Bindings, sign } from "./bindings.js";
import { ClipForm } from "./clips.js";
import { CloudPart } from "./cloud.js";
import { drawSeed, readLevel, share, StartScreen } from "./start-screen.js";
import { Hud } from "./hud.js";
import { Input } from "./input.js";
import { listenToKeys, listenToMouse } from "./keyboard.js";
import { heard, showKeys, unlearntWords } from "./keys.js";
import { LevelMap } from "./map.js";
import { Link } from "./net.js";
import { listenToPad } from "./pad.js";
import { Panel } from "./panel.js";
import { listenToFiles, pickPicture, pickWalk } from "./pictures.js";
import { showSchedules } from "./schedules.js";
import { MOVES, SceneScreen } from "./scenes.js";
import { Strip } from "./strip.js";
import { listenToTouch } from "./touch.js";
import { View } from "./view.js";
import { press, segments, showAbout, toast } from "./words.js";

const find = (id) => document.getElementById(id);
const body = document.body;
const link = new Link();
const send = (message) => link.send(message);
const input = new Input(send);
const bindings = new Bindings();
const view = new View();
const hud = new Hud(bindings);
const startScreen = new StartScreen({ begin });
const map = new LevelMap(send);
const strip = new Strip(send, () => view.fit());
const cloud = new CloudPart(send, () => view.fit());
const clipForm = new ClipForm();
const scenes = new SceneScreen({ enter, home: () => COMMANDS.leave() });
const panel = new Panel({ send, begin: again });
const app = { stage: null, hello: null, status: {}, first: null, begun: null, hiddenPause: false, recordedSince: 0 };
window.dreamwalk = { app, link, input, bindings, view, hud, panel, map, strip, cloud, clipForm, scenes }; // for the curious, and for the tests

const inWalk = () => body.dataset.screen === "walk";
const inScene = () => body.dataset.screen === "scene";
const walking = () => (inScene() || (inWalk() && Boolean(app.hello))) && !document.querySelector("dialog[open]");

/** From the start screen to another one. */
function enter(screen) {
  if (body.dataset.screen === "start") history.pushState({ walk: true }, "");
  find("start-screen").inert = true;
  find(screen).inert = false;
  body.dataset.screen = screen;
  find(screen).hidden = false;
  scrollTo(0, 0);
}

/** Into a walk. `first` is a message to send as soon as the world is awake, such as a replay. */
function begin({ start = null, seed = 0, first = null }) {
  if (app.stage.scenes && start === null && app.stage.levels === null) return pickPicture();
  if (app.stage.scenes) return scenes.begin(start === null ? { level: seed } : { start });
  Object.assign(app, { hello: null, status: {}, first, begun: { start, seed, first } });
  enter("walk");
  find("where").textContent = app.stage.title;
  view.poster(startScreen.images[start ?? startScreen.chosen]);
  view.veil(app.stage.dream ? "Falling asleep" : "Opening the game");
  find("hint").textContent = "";
  find("theatre").focus({ preventScroll: true });
  link.open({ start, seed });
}

/** Begin again where we are, with another seed or start. */
function again(change) {
  view.dissolve();
  if (!send({ type: "reset", ...change })) begin({ ...app.begun, ...change, first: null });
}

function leave() {
  link.close();
  if (app.stage.levels !== null) startScreen.ask(app.status.level ?? startScreen.number);
  input.enabled = false;
  document.exitPointerLock?.();
  panel.toggle(false);
  find("start-screen").inert = false;
  find("walk").inert = find("scene").inert = true;
  body.dataset.screen = "start";
  body.dataset.view = app.stage.dream || app.stage.scenes ? "dream" : "game";
  body.classList.remove("bare-picture");
  setTimeout(() => inWalk() || (find("walk").hidden = true), 500);
  setTimeout(() => inScene() || (find("scene").hidden = true), 500);
  focusWhenSeen(find("enter"));
  loadStage().then((stage) => startScreen.crowd(stage)).catch(() => {});
}

/** What cannot be seen yet takes no focus, and on a busy machine that lasts. */
function focusWhenSeen(button) {
  button.focus({ preventScroll: true });
  if (document.activeElement !== button && body.dataset.screen === "start") requestAnimationFrame(() => focusWhenSeen(button));
}

const COMMANDS = {
  leave: () => history.state?.walk ? history.back() : leave(),
  help: () => app.stage.clips || showKeys(bindings, { unlearnt: app.hello ? unlearnt() : app.stage?.unlearnt, game: app.stage?.game }),
  about: () => showAbout(app.stage),
  schedules: () => showSchedules(app.stage, { start: startScreen.chosen ?? 0, seed: startScreen.number }),
  picture: pickPicture,
  replay: pickWalk,
  panel: () => panel.toggle(),
  hud: () => {
    body.classList.toggle("bare-picture");
    map.tell();
    strip.tell();
    cloud.tell();
  },
  map: () => map.toggle(),
  strip: () => strip.toggle(),
  cloud: () => cloud.toggle(),
  memory: () => send({ type: "memory", recalling: !app.status.memory }),
  another: () => again({ seed: drawSeed(app.stage.levels) }),
  reset: () => again({}),
  pause: () => send({ type: "pause", paused: (app.status.paused = !app.status.paused) }),
  step: () => send({ type: "step" }),
  record: () => send({ type: "record", on: !app.status.recording }),
  toggle: () => look(app.status.view === "dream" ? "game" : "dream"),
  both: () => look(app.status.view === "both" ? "dream" : "both"),
  fewer: () => steps(-1),
  more: () => steps(1),
  undo: () => scenes.undo(),
  go: () => scenes.go(),
  through: () => scenes.toggle(),
  restart: () => scenes.again(),
  takeover: () => send({ type: "replay", walk: null }),
  fullscreen: () => document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen(),
};

/** Do what a key, a button on the page or a game pad asks for; `pressed` says which action of the world was. */
function command(name, action) {
  if (name === "pressed") return action.kind === "move" ? scenes.press(action.name) : tellUnlearnt(action);
  if (app.stage) COMMANDS[name]();
}

/** What the page can do with a world like this; what it cannot do has no key either. */
function commandsFor({ views, steps, memory, strip: recalls, cloud: keeps }) {
  const some = { toggle: views.length > 1, both: views.length > 1, fewer: steps !== null, more: steps !== null };
  Object.assign(some, { memory, map: memory, strip: recalls, cloud: keeps, another: app.stage.levels !== null });
  const all = ["toggle", "both", "reset", "another", "memory", "strip", "cloud", "map", "pause", "step", "fewer", "more", "record", "panel", "hud", "fullscreen"];
  return all.filter((one) => some[one] ?? true);
}

const unlearnt = () => app.hello?.unlearnt ?? [];
input.blocked = (name) => app.status.view === "dream" && unlearnt().includes(name);

function tellUnlearnt({ kind, name, label }) {
  if (kind !== "command" && unlearnt().includes(name) && app.status.view !== "game") toast(`${label}: ${unlearntWords(app.stage.game)}`);
}

function look(name) {
  if (app.hello?.views.includes(name)) send({ type: "view", view: name });
}

function steps(change) {
  const now = app.status.steps;
  if (now === null || now === undefined) return;
  const wanted = Math.max(1, Math.min(app.hello.most_steps, now + change));
  app.status.steps = wanted; // so that a quick second press counts from here
  send({ type: "steps", steps: wanted });
  toast(`${wanted} denoising ${wanted === 1 ? "step" : "steps"} per frame`, { seconds: 1.6 });
}

// ---- what the server says

const hear = (type, listener) => link.addEventListener(type, (event) => listener(event.detail));

hear("queue", ({ position, seats }) => view.veil("Everyone is walking", {
  more: `All ${seats} places are taken. You are ${position === 1 ? "next" : `number ${position}`}, and will wake up here by yourself.`,
}));

hear("hello", (hello) => {
  app.hello = hello;
  view.begin(hello);
  hud.begin(hello);
  panel.hello(hello);
  input.begin(hello);
  bindings.begin({ ...hello, commands: commandsFor(hello) });
  map.begin(hello.memory);
  strip.begin(hello);
  cloud.begin(hello);
  segments(find("views"), hello.views.length > 1 ? { dream: "Dream", game: "Real game", both: "Both" } : {}, look);
  if (app.first) send(app.first);
  app.first = null;
});

hear("status", (status) => {
  if (status.state === "warming") return view.veil(app.stage.dream ? "Falling asleep" : "Opening the game", { more: status.message });
  if (status.recording && !app.status.recording) app.recordedSince = performance.now();
  if (status.memory !== (app.status.memory ?? status.memory)) tellMemory(status.memory);
  app.status = status;
  panel.status(status);
  showMemory(status);
  if (app.stage.levels !== null && inWalk()) share(status.level);
  press(find("views"), status.view);
  hud.grey(status.view === "game" ? [] : unlearnt());
  document.querySelectorAll('[data-do="record"]').forEach((tool) => tool.classList.toggle("on", status.recording));
  find("pause-icon").setAttribute("href", status.paused ? "#i-play" : "#i-pause");
  find("progress").hidden = status.replay === null;
  if (status.state === "ended" || status.state === "stopped") {
    const words = status.state === "ended" ? "This episode is over" : "The world has stopped";
    view.veil(words, { more: "", button: "Begin again", still: true });
  } else {
    view.veil("");
    if (status.message) toast(status.message);
  }
  hint();
});

hear("frame", (frame) => {
  hud.arrived.tick();
  view.show(frame);
});

hear("map", (drawn) => map.take(drawn));
hear("strip", (told) => strip.take(told));
hear("cloud", (news) => cloud.take(news));

/** Whether the dream is told what it has shown, wherever that is seen. */
function showMemory({ memory, view: name }) {
  hud.memory = memory;
  strip.recalls(memory !== false);
  map.recalls(memory !== false);
  find("memory-off").hidden = memory !== false || name === "game";
  document.querySelectorAll('[data-do="memory"]').forEach((tool) => (tool.ariaPressed = String(memory)));
}

function tellMemory(on) {
  toast(on ? "Memory on: what the dream has shown comes back." : "Memory off: what you look away from is made up anew.");
}

hear("recorded", (film) => {
  panel.film(film);
  toast(`Recorded ${film.seconds.toFixed(1)} seconds`, { link: { href: film.mp4, words: "Save the film" }, seconds: 9 });
});

hear("error", ({ message }) => toast(message, { error: true, seconds: 6 }));

hear("closed", ({ reason }) => {
  input.enabled = false;
  app.hello = null;
  if (inWalk()) view.veil("You woke up", { more: reason || "The connection was lost.", button: "Walk again", still: true });
});

view.onDrawn = (frame) => {
  hud.rtt = link.rtt;
  hud.seed = app.status.seed;
  hud.level = app.status.level ?? null;
  hud.frame(frame, input.latency(frame.seq));
  map.walk(frame.pose);
  cloud.walk(frame.pose);
  if (frame.recording) {
    const seconds = Math.floor((performance.now() - app.recordedSince) / 1000);
    find("rec-time").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }
  if (app.status.replay) {
    find("progress").style.setProperty("--done", frame.frame / app.status.replay);
    find("progress").querySelector("span").textContent = `${frame.frame} / ${app.status.replay}`;
  }
};

// ---- what the person does

/** The first key of each of these actions. */
function caps(...ids) {
  return ids.map((id) => bindings.on(id, "keys")[0]).filter(Boolean).map((code) => `<kbd>${sign(code).replace(/[&<]/g, "")}</kbd>`).join("");
}

function walkKeys() {
  const keys = caps("button:forward", "button:left", "button:back", "button:right");
  return keys && bindings.schema.buttons.includes("forward") ? `${keys} walk, ` : "";
}

function hint() {
  const locked = document.pointerLockElement;
  const touch = body.classList.contains("touch");
  const words = app.status.paused && app.status.state === "ready" ? `Paused: ${caps("command:pause")} goes on, ${caps("command:step")} makes one frame`
    : `${walkKeys()}${bindings.schema.axes.includes("yaw") ? "a click takes the mouse, " : ""}<kbd>?</kbd> lists the keys`;
  const quiet = touch || app.status.replay || (!app.status.paused && (locked || app.knows));
  find("hint").innerHTML = !inWalk() || quiet ? "" : words;
}

/** One step back: out of the settings, or out of the walk. What is full screen or holds the mouse leaves that first. */
function stepBack() {
  if (document.querySelector("dialog[open]") || document.fullscreenElement || document.pointerLockElement) return;
  if (panel.isOpen) panel.toggle(false);
  else if (inScene()) scenes.stop();
  else if (inWalk()) COMMANDS.leave();
}

addEventListener("keydown", (event) => {
  if (event.key === "Enter" && body.dataset.screen === "start" && app.stage && !app.stage.clips && event.target === body) find("enter").click();
  if (event.key === "Escape" && !event.defaultPrevented) stepBack();
  if (!walking() || app.knows) return;
  app.knows = true;
  setTimeout(hint, 2500);
});

document.addEventListener("pointerlockchange", hint);

document.addEventListener("click", (event) => {
  const button = event.target.closest("button, a.tool");
  if (!button) return;
  if (button.dataset.do) command(button.dataset.do);
  if (event.detail > 0 && button.closest("#walk, #scene, #panel")) button.blur(); // a mouse moved on: the space bar is for the world
});

find("level").addEventListener("input", () => (find("level").ariaInvalid = null));
find("level").addEventListener("keydown", (event) => {
  const { key } = event;
  if (key !== "Enter" && key !== "Escape") return;
  event.preventDefault();
  const number = key === "Enter" ? readLevel(find("level"), app.stage.levels) : null;
  if (key === "Enter" && number === null) return;
  if (number !== null) again({ seed: number });
  find("level").value = "";
  find("level").ariaInvalid = null;
  find("theatre").focus({ preventScroll: true });
});

find("leave").addEventListener("click", () => COMMANDS.leave());
find("veil-button").addEventListener("click", () => (app.hello ? again({}) : begin(app.begun)));
addEventListener("popstate", () => body.dataset.screen === "start" || leave());
document.addEventListener("visibilitychange", () => {
  if (!app.hello || app.status.state !== "ready") return;
  if (document.hidden ? app.status.paused : !app.hiddenPause) return;
  app.hiddenPause = document.hidden;
  send({ type: "pause", paused: document.hidden });
});

/** Tools that not every world has. */
const OPTIONAL = new Set(["another", "memory", "map", "strip", "cloud"]);

if (matchMedia("(pointer: coarse)").matches) body.classList.add("touch");
bindings.addEventListener("change", () => {
  for (const tool of document.querySelectorAll(".tool")) {
    tool.ariaLabel ??= tool.title;
    const key = tool.dataset.do === "help" ? "?" : sign(bindings.on(`command:${tool.dataset.do}`, "keys")[0] ?? "");
    tool.title = key ? `${tool.ariaLabel} (${key})` : tool.ariaLabel;
    if (OPTIONAL.has(tool.dataset.do)) tool.hidden = !bindings.schema.commands.includes(tool.dataset.do);
  }
});

listenToKeys(input, bindings, { command, walking });
listenToMouse(find("theatre"), input, bindings, { command, walking, degrees: () => panel.degrees });
listenToTouch(find("walk"), input, bindings, { stick: find("stick"), command, walking });
listenToPad(input, bindings, { command, walking, heard: (code) => heard(code, bindings) });
bindings.addEventListener("change", () => hud.grey());
listenToFiles({
  isDream: () => app.stage.dream || app.stage.clips || app.stage.scenes,
  says: () => app.stage.picture,
  fills: () => app.stage.memory || app.stage.scenes,
  size: () => app.hello || app.stage.clips || app.stage.scenes || { width: 320, height: 240 },
  deliver,
});

function deliver(message) {
  if (app.stage.clips || app.stage.scenes) return requested(message);
  if (!send(message)) begin({ start: app.stage.starts.length ? 0 : null, seed: startScreen.number, first: message });
  if (message.image && app.stage.picture) toast(app.stage.picture, { seconds: 9 });
}

/** A file for a clip or a scene: its first picture. */
function requested({ image }) {
  if (image && app.stage.scenes) scenes.begin({ image });
  else if (image) clipForm.begin(image);
  else toast("That file is not a picture.", { error: true });
}

async function loadStage() {
  return (await fetch("api/stage")).json();
}

loadStage().then((stage) => {
  app.stage = stage;
  startScreen.show(stage);
  if (stage.levels !== null) panel.levels(stage.levels);
  find("level").hidden = stage.levels === null;
  const views = [...(stage.dream ? ["dream"] : []), ...(stage.game ? ["game"] : [])];
  const { buttons, axes } = stage.actions ?? { buttons: [], axes: [] };
  const commands = stage.scenes ? ["undo", "go", "through", "restart"]
    : commandsFor({ views, steps: stage.dream ? 1 : null, memory: stage.memory, strip: stage.strip, cloud: stage.cloud });
  if (!app.hello) bindings.begin({ buttons, axes, commands, moves: stage.scenes ? Object.keys(MOVES) : [] });
  if (stage.scenes) scenes.offer(stage, bindings);
  if (stage.clips) clipForm.show(stage);
  panel.gallery(stage.starts);
}).catch(() => toast("This page cannot reach its server: is it still running?", { error: true, seconds: 3600 }));
