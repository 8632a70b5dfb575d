// Thumbs: the left half of the screen is the left stick of a game pad, the right half looks around, and everything
// that no stick does has a button on the screen.

const RADIUS = 52;
const DEAD = 0.32;
const LOOK = 0.3; // degrees per pixel; of other axes, limits per 100 pixels

/** Listen to touches on `surface`. `stick` is the element that shows the stick. */
export function listenToTouch(surface, input, bindings, { stick, command, walking }) {
  const knob = stick.firstElementChild;
  let walker = null;
  let looker = null;
  const home = () => {
    stick.style.transform = knob.style.transform = "";
    input.hold("stick", []);
  };
  surface.addEventListener("touchstart", (event) => {
    document.body.classList.add("touch");
    if (!walking() || event.target.closest("button, a, .bar, #pads, #cloud")) return;
    event.preventDefault();
    for (const touch of event.changedTouches) {
      if (touch.clientX < innerWidth / 2 && walker === null) {
        walker = { id: touch.identifier, x: touch.clientX, y: touch.clientY };
        moveTo(stick, touch.clientX, touch.clientY);
      } else if (touch.clientX >= innerWidth / 2 && looker === null) {
        looker = { id: touch.identifier, x: touch.clientX, y: touch.clientY };
      }
    }
  }, { passive: false });
  surface.addEventListener("touchmove", (event) => {
    if (walker || looker) event.preventDefault();
    for (const touch of event.changedTouches) {
      if (touch.identifier === walker?.id) push(touch.clientX - walker.x, touch.clientY - walker.y);
      if (touch.identifier === looker?.id) {
        look("PadRX+", touch.clientX - looker.x);
        look("PadRY+", touch.clientY - looker.y);
        looker = { id: looker.id, x: touch.clientX, y: touch.clientY };
      }
    }
  }, { passive: false });
  const end = (event) => {
    for (const touch of event.changedTouches) {
      if (touch.identifier === looker?.id) looker = null;
      if (touch.identifier === walker?.id) {
        walker = null;
        home();
      }
    }
  };
  surface.addEventListener("touchend", end);
  surface.addEventListener("touchcancel", end);

  function look(code, pixels) {
    const action = bindings.at(code);
    if (action?.kind !== "axis") return;
    const each = ["yaw", "pitch"].includes(action.name) ? LOOK : input.limit(action.name) / 100;
    input.move(action.name, pixels * each * (action.more ? 1 : -1));
  }

  function push(dx, dy) {
    const length = Math.hypot(dx, dy);
    const scale = Math.min(1, RADIUS / (length || 1));
    knob.style.transform = `translate(${dx * scale}px, ${dy * scale}px)`;
    const ways = [["PadLX", (dx * scale) / RADIUS], ["PadLY", (dy * scale) / RADIUS]].filter(([, way]) => Math.abs(way) > DEAD);
    input.hold("stick", ways.map(([code, way]) => {
      const action = bindings.at(code + (way < 0 ? "-" : "+"));
      return [action, action?.kind === "axis" ? Math.abs(way) : 1];
    }));
  }

  bindings.addEventListener("change", () => showButtons(input, bindings, command));
}

/** A button on the screen for whatever the sticks do not do. */
function showButtons(input, bindings, command) {
  const sticks = new Set(["PadLX-", "PadLX+", "PadLY-", "PadLY+"].map((code) => bindings.at(code)?.id));
  for (const code of ["PadRX-", "PadRX+", "PadRY-", "PadRY+"]) {
    if (bindings.at(code)?.kind === "axis") sticks.add(bindings.at(code).id);
  }
  const rest = bindings.actions.filter(({ id, kind }) => kind !== "command" && !sticks.has(id));
  const pads = document.getElementById("pads");
  pads.classList.toggle("many", rest.length > 1);
  document.getElementById("stick").hidden = !["PadLX-", "PadLY-", "PadLX+", "PadLY+"].some((code) => bindings.at(code));
  pads.replaceChildren(...rest.map((action) => {
    const button = document.createElement("button");
    Object.assign(button.dataset, { action: action.id, name: action.name });
    button.ariaLabel = action.label;
    if (action.name === "place") button.innerHTML = '<svg><use href="#i-place"/></svg>';
    else button.textContent = action.kind === "axis" ? `${action.name} ${action.more ? "+" : "−"}` : action.name;
    const hold = (pressed) => input.hold(`touch ${action.id}`, pressed ? [[action, 1]] : []);
    button.addEventListener("pointerdown", (event) => {
      button.setPointerCapture(event.pointerId);
      navigator.vibrate?.(12);
      command("pressed", action);
      hold(true);
    });
    for (const type of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(type, () => hold(false));
    button.addEventListener("click", (event) => {
      if (event.detail > 0) return; // a pointer has pressed already
      command("pressed", action);
      input.tap(`touch ${action.id}`, action);
    });
    return button;
  }));
}

function moveTo(element, x, y) {
  element.style.transform = "";
  const box = element.getBoundingClientRect();
  element.style.transform = `translate(${x - box.x - box.width / 2}px, ${y - box.y - box.height / 2}px)`;
}
