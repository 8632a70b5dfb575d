// Thumbs: the left half of the screen is a stick to walk with, the right half looks around, and a button places.

const RADIUS = 52;
const DEAD = 0.32;
const DEGREES_PER_PIXEL = 0.3;

/** Listen to touches on `surface`. `stick` is the element that shows the stick, `place` the button. */
export function listenToTouch(surface, input, { stick, place, walking }) {
  const knob = stick.firstElementChild;
  let walker = null;
  let looker = null;
  const home = () => {
    stick.style.transform = knob.style.transform = "";
    input.hold("stick", {});
  };
  surface.addEventListener("touchstart", (event) => {
    document.body.classList.add("touch");
    if (!walking() || event.target.closest("button, .bar")) return;
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
        input.move((touch.clientX - looker.x) * DEGREES_PER_PIXEL, (looker.y - touch.clientY) * DEGREES_PER_PIXEL);
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
  place.addEventListener("touchstart", (event) => {
    event.preventDefault();
    input.place();
    navigator.vibrate?.(12);
  }, { passive: false });
  place.addEventListener("click", () => input.place());

  function push(dx, dy) {
    const length = Math.hypot(dx, dy);
    const scale = Math.min(1, RADIUS / (length || 1));
    knob.style.transform = `translate(${dx * scale}px, ${dy * scale}px)`;
    const x = (dx * scale) / RADIUS;
    const y = (dy * scale) / RADIUS;
    const held = [];
    if (y < -DEAD) held.push("forward");
    if (y > DEAD) held.push("back");
    if (x < -DEAD) held.push("left");
    if (x > DEAD) held.push("right");
    input.hold("stick", { held });
  }
}

function moveTo(element, x, y) {
  element.style.transform = "";
  const box = element.getBoundingClientRect();
  element.style.transform = `translate(${x - box.x - box.width / 2}px, ${y - box.y - box.height / 2}px)`;
}
