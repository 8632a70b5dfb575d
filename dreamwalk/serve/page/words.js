// Dialogs and toasts: what this is, and short sentences.

const close = '<button class="close" aria-label="Close"><svg><use href="#i-close"/></svg></button>';

/** Shows a dialog and gives it; closes it when it is open already. */
export function open(id, title, content) {
  const dialog = document.getElementById(id);
  if (dialog.open) return void dialog.close();
  document.exitPointerLock?.();
  dialog.innerHTML = `<header><h2 id="${id}-title">${title}</h2>${close}</header>`;
  dialog.setAttribute("aria-labelledby", `${id}-title`);
  dialog.append(...content);
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  const outside = (event) => event.target === dialog && dialog.close();
  dialog.addEventListener("click", outside);
  dialog.addEventListener("close", () => dialog.removeEventListener("click", outside), { once: true });
  dialog.tabIndex = -1;
  dialog.showModal();
  dialog.focus();
  return dialog;
}

export function element(tag, { words = "", className = "" } = {}) {
  const made = document.createElement(tag);
  made.textContent = words;
  made.className = className;
  return made;
}

/** A row of buttons of which one is pressed; `choose(name)` hears which. */
export function segments(box, labels, choose) {
  box.replaceChildren(...Object.entries(labels).map(([name, words]) => {
    const button = element("button", { words });
    button.dataset.name = name;
    button.ariaPressed = "false";
    button.addEventListener("click", () => choose(name));
    return button;
  }));
}

/** Show which of them is pressed. */
export function press(box, name) {
  for (const button of box.children) button.ariaPressed = String(button.dataset.name === name);
}

export function showAbout(stage) {
  const notes = element("dl", { className: "notes" });
  for (const [name, words] of Object.entries(stage.notes)) {
    notes.append(element("dt", { words: name }), element("dd", { words }));
  }
  const how = element("p", { words: stage.clips
    ? "The clip begins as noise in all of its frames. With every step the network takes a little of it away, told your words, "
      + "until a clip is left."
    : stage.scenes
    ? "The picture becomes points in space. What they show from every camera of your path the network is told, and it dreams the rest, "
      + "colours and depth, a clip at a time. That becomes points too, and is seen again when you come back."
    : stage.dream
    ? `There is no game engine behind the dream. Each frame is drawn by a network from the frames before it and from your keys.${
      stage.game ? " The real game runs beside it only so that you can compare." : ""}`
    : "This is the real game. It renders on the server, and every frame travels to this page as a small picture." });
  open("about", stage.title, [notes, how]);
}

/** A sentence that goes away by itself; the same one is not shown twice at a time. */
export function toast(words, { error = false, link = null, seconds = 4.5 } = {}) {
  const box = document.getElementById("toasts");
  if ([...box.children].some((old) => old.dataset.words === words)) return;
  while (box.children.length > 2) box.firstChild.remove();
  const line = element("div", { words, className: error ? "toast error" : "toast" });
  line.dataset.words = words;
  if (link) {
    const anchor = element("a", { words: link.words });
    anchor.href = link.href;
    anchor.download = "";
    line.append(anchor);
  }
  box.append(line);
  setTimeout(() => line.classList.add("gone"), seconds * 1000);
  setTimeout(() => line.remove(), seconds * 1000 + 500);
}
