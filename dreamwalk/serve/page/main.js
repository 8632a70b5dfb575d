// The page: from the start screen into a walk and back.

import { Studio } from "./clips.js";
import { Gate } from "./gate.js";
import { Hud } from "./hud.js";
import { Input } from "./input.js";
import { listenToKeys, listenToMouse } from "./keyboard.js";
import { Link } from "./net.js";
import { listenToPad } from "./pad.js";
import { Panel } from "./panel.js";
import { listenToFiles, pickPicture, pickWalk } from "./pictures.js";
import { showSchedules } from "./schedules.js";
import { listenToTouch } from "./touch.js";
import { View } from "./view.js";
import { showAbout, showHelp, toast } from "./words.js";

const find = (id) => document.getElementById(id);
const body = document.body;
const link = new Link();
const send = (message) => link.send(message);
const input = new Input(send);
const view = new View();
const hud = new Hud();
const gate = new Gate({ begin });
const studio = new Studio();
const panel = new Panel({ send, begin: again });
const app = { stage: null, hello: null, status: {}, first: null, begun: null, hiddenPause: false, recordedSince: 0 };
window.dreamwalk = { app, link, input, view, hud, panel, studio }; // for the curious, and for the tests

const inWalk = () => body.dataset.screen === "walk";
const walking = () => inWalk() && Boolean(app.hello) && !document.querySelector("dialog[open]");

/** Into a walk. `first` is a message to send as soon as the world is awake, such as a replay. */
function begin({ start = null, seed = 0, first = null }) {
  Object.assign(app, { hello: null, status: {}, first, begun: { start, seed, first } });
  if (!inWalk()) history.pushState({ walk: true }, "");
  body.dataset.screen = "walk";
  find("walk").hidden = false;
  find("where").textContent = app.stage.title;
  view.poster(gate.images[start ?? 0]);
  view.veil(app.stage.dream ? "Falling asleep" : "Opening the game");
  find("hint").textContent = "";
  scrollTo(0, 0);
  link.open({ start, seed });
}

/** Begin again where we are, with another seed or start. */
function again(change) {
  view.dissolve();
  if (!send({ type: "reset", ...change })) begin({ ...app.begun, ...change, first: null });
}

function leave() {
  link.close();
  input.enabled = false;
  document.exitPointerLock?.();
  panel.toggle(false);
  body.dataset.screen = "gate";
  body.dataset.view = app.stage.dream ? "dream" : "game";
  body.classList.remove("bare-picture");
  setTimeout(() => inWalk() || (find("walk").hidden = true), 500);
  loadStage().then((stage) => gate.crowd(stage)).catch(() => {});
}

const COMMANDS = {
  leave: () => history.state?.walk ? history.back() : leave(),
  help: showHelp,
  about: () => showAbout(app.stage),
  schedules: () => showSchedules(app.stage, { start: gate.chosen ?? 0, seed: gate.seed.value | 0 }),
  picture: pickPicture,
  replay: pickWalk,
  panel: () => panel.toggle(),
  hud: () => body.classList.toggle("bare-picture"),
  reset: () => again({}),
  pause: () => send({ type: "pause", paused: (app.status.paused = !app.status.paused) }),
  step: () => send({ type: "step" }),
  record: () => send({ type: "record", on: !app.status.recording }),
  toggle: () => look(app.status.view === "dream" ? "game" : "dream"),
  both: () => look(app.status.view === "both" ? "dream" : "both"),
  fewer: () => steps(-1),
  more: () => steps(1),
  takeover: () => send({ type: "replay", walk: null }),
  fullscreen: () => document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen(),
};

function command(name) {
  if (name === "help" || name === "about" || app.stage) COMMANDS[name]();
}

function look(name) {
  if (app.hello?.views.includes(name)) send({ type: "view", view: name });
  else toast(`this stage shows ${app.stage.dream ? "a dream" : "the game"} only`);
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
  const names = { dream: "Dream", game: "Real game", both: "Both" };
  find("views").replaceChildren(...(hello.views.length > 1 ? hello.views : []).map((name) => {
    const button = document.createElement("button");
    button.textContent = names[name];
    button.dataset.name = name;
    button.role = "tab";
    button.onclick = () => look(name);
    return button;
  }));
  find("place").hidden = !hello.buttons.includes("place");
  if (app.first) send(app.first);
  app.first = null;
});

hear("status", (status) => {
  if (status.state === "warming") return view.veil(app.stage.dream ? "Falling asleep" : "Opening the game", { more: status.message });
  if (status.recording && !app.status.recording) app.recordedSince = performance.now();
  app.status = status;
  panel.status(status);
  for (const button of find("views").children) button.ariaSelected = String(button.dataset.name === status.view);
  document.querySelectorAll('[data-do="record"]').forEach((tool) => tool.classList.toggle("on", status.recording));
  find("pause-icon").setAttribute("href", status.paused ? "#i-play" : "#i-pause");
  find("progress").hidden = status.replay === null;
  if (status.state === "ended" || status.state === "stopped") {
    const words = status.state === "ended" ? "This episode is over" : "The world has stopped";
    view.veil(words, { more: "Press R to begin again.", button: "Begin again", still: true });
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
  hud.frame(frame, input.latency(frame.seq));
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

function hint() {
  const locked = document.pointerLockElement;
  const touch = body.classList.contains("touch");
  const words = app.status.paused && app.status.state === "ready" ? "Paused: <kbd>P</kbd> goes on, <kbd>.</kbd> makes one frame"
    : "<kbd>W</kbd><kbd>A</kbd><kbd>S</kbd><kbd>D</kbd> and arrows walk, a click takes the mouse, <kbd>?</kbd> tells more";
  const quiet = touch || app.status.replay || (!app.status.paused && (locked || app.knows));
  find("hint").innerHTML = !inWalk() || quiet ? "" : words;
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape") panel.toggle(false);
  if (!walking() || app.knows) return;
  app.knows = true;
  setTimeout(hint, 2500);
});

document.addEventListener("pointerlockchange", hint);

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.do) command(button.dataset.do);
  if (button.closest("#walk, #panel")) button.blur(); // so that the space bar places
});

find("leave").onclick = () => COMMANDS.leave();
find("veil-button").onclick = () => (app.hello ? again({}) : begin(app.begun));
addEventListener("popstate", () => inWalk() && leave());
document.addEventListener("visibilitychange", () => {
  if (!app.hello || app.status.state !== "ready") return;
  if (document.hidden ? app.status.paused : !app.hiddenPause) return;
  app.hiddenPause = document.hidden;
  send({ type: "pause", paused: document.hidden });
});

if (matchMedia("(pointer: coarse)").matches) body.classList.add("touch");
listenToKeys(input, { command, walking });
listenToMouse(find("theatre"), input, { walking, degrees: () => panel.degrees });
listenToTouch(find("walk"), input, { stick: find("stick"), place: find("place"), walking });
listenToPad(input, { command, walking });
listenToFiles({
  isDream: () => app.stage.dream || app.stage.clips,
  size: () => app.hello || app.stage.clips || { width: 320, height: 240 },
  deliver: (message) => app.stage.clips ? wished(message) : send(message) || begin({ start: app.stage.starts.length ? 0 : null, seed: gate.seed.value | 0, first: message }),
});

/** A file for a clip: its first picture. */
function wished({ image }) {
  if (image) studio.begin(image);
  else toast("That file is not a picture.", { error: true });
}

async function loadStage() {
  return (await fetch("api/stage")).json();
}

loadStage().then((stage) => {
  app.stage = stage;
  gate.show(stage);
  if (stage.clips) studio.show(stage);
  panel.gallery(stage.starts);
}).catch(() => toast("This page cannot reach its server: is it still running?", { error: true, seconds: 3600 }));
