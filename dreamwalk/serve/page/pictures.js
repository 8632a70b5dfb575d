// Files: any picture to dream from, made the world's size here, and walks to replay. Chosen, or dropped on the page.

import { toast } from "./words.js";

const MOST_WALK = 4 * 2 ** 20;

export const pickPicture = () => document.getElementById("pick-picture").click();
export const pickWalk = () => document.getElementById("pick-walk").click();

/** A picture in the world's size as a PNG data URL: whole, between black bars where its shape is another one, or cut to `fill` it. */
async function fit(file, { width, height }, fill) {
  const bitmap = await createImageBitmap(file);
  const scale = (fill ? Math.max : Math.min)(width / bitmap.width, height / bitmap.height);
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.fillRect(0, 0, width, height);
  const [w, h] = [bitmap.width * scale, bitmap.height * scale];
  pen.drawImage(bitmap, (width - w) / 2, (height - h) / 2, w, h);
  bitmap.close();
  return canvas.toDataURL("image/png");
}

/** `deliver(message)` gets a reset with an image, or a replay; `size()` is the world's, `isDream()` whether it dreams, `says()` what will
 * become of a picture, `fills()` whether it has to fill the frame. */
export function listenToFiles({ deliver, size, isDream, says, fills }) {
  async function picture(file) {
    try {
      deliver({ type: "reset", image: await fit(file, size(), fills()) });
    } catch {
      toast("That file is not a picture that this browser can read.", { error: true });
    }
  }
  async function walk(file) {
    if (file.size > MOST_WALK) return toast("That walk is too long: at most 4 MB are read.", { error: true });
    try {
      deliver({ type: "replay", walk: JSON.parse(await file.text()) });
    } catch {
      toast("That file is not a walk: it is not valid JSON.", { error: true });
    }
  }
  const take = (file) => (file.type.startsWith("image/") ? picture(file) : walk(file));
  for (const id of ["pick-picture", "pick-walk"]) {
    const field = document.getElementById(id);
    field.addEventListener("change", () => {
      if (field.files[0]) take(field.files[0]);
      field.value = "";
    });
  }
  const drop = document.getElementById("drop");
  const carries = (event) => [...event.dataTransfer.types].includes("Files");
  addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    drop.classList.add("on");
    drop.querySelector("p").textContent = isDream() ? "Let go to dream from this picture" : "Let go to replay this walk";
    drop.querySelector("small").textContent = says();
  });
  addEventListener("dragleave", (event) => event.relatedTarget === null && drop.classList.remove("on"));
  addEventListener("drop", (event) => {
    drop.classList.remove("on");
    if (!carries(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
}
