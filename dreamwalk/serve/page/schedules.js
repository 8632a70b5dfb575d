// The schedules: which frame is denoised when, watched row by row.

import { element, open, press, segments } from "./words.js";

const MEANING = {
  "next-frame": "One frame after another, each from pure noise to clean before the next begins. This is how you walk.",
  pyramid: "Each frame starts while the ones before it are still noisy: the near future is sharp, the far future uncertain.",
  chunks: "Four frames together, then the next four.",
  full: "Half of what the model can see at once is denoised together, all frames equally noisy.",
};

/** The dialog; `start` is the place to begin from. */
export function showSchedules(stage, { start = 0, seed = 0 } = {}) {
  const choice = element("div", { className: "segments" });
  choice.role = "group";
  choice.ariaLabel = "Schedule";
  const strip = element("img", { className: "strip" });
  const legend = element("p");
  const watch = (name) => {
    press(choice, name);
    strip.alt = `frames on the schedule ${name}`;
    strip.src = `schedules/${name}?start=${start}&seed=${seed}&again=${Date.now()}`;
    legend.textContent = MEANING[name] ?? "";
  };
  segments(choice, Object.fromEntries(stage.schedules.map((name) => [name, name])), watch);
  const how = element("p", { words: "The latest frames of a stroll, from left to right. The bar under a frame is the noise that "
    + "is left in it; with every row of the schedule some frames lose a little. The weights are the same for all schedules." });
  const dialog = open("schedules", "Schedules", [choice, strip, legend, how]);
  dialog?.addEventListener("close", () => strip.removeAttribute("src"), { once: true });
  if (dialog) watch(stage.schedules[0]);
}
