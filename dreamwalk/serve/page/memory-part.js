// A part of the page that shows something of a dream's memory: whether it is wanted is kept, and it is made only for
// those who see it.

export class MemoryPart {
  /** `name` is that of its box, its message and its command; `fit()` hears that it takes room or gives it back. */
  constructor(send, name, { usual = "on", fit = () => {} } = {}) {
    Object.assign(this, { send, name, fit });
    this.box = document.getElementById(name);
    this.wanted = (localStorage.getItem(`dreamwalk.${name}`) ?? usual) === "on";
    this.known = false; // whether this dream has such a thing
  }

  get shown() {
    return Boolean(this.known && this.wanted && !document.body.classList.contains("bare-picture"));
  }

  toggle() {
    this.wanted = !this.wanted;
    localStorage.setItem(`dreamwalk.${this.name}`, this.wanted ? "on" : "off");
    this.tell();
  }

  tell() {
    const { shown } = this;
    this.box.hidden = !shown;
    document.querySelectorAll(`[data-do="${this.name}"]`).forEach((tool) => (tool.ariaPressed = String(Boolean(this.known && this.wanted))));
    this.fit();
    if (this.known) this.send({ type: this.name, shown });
  }
}
