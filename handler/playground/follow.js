// Follow keeps the end of a scrolled element in view while it grows, until the
// reader scrolls up; a button leads back.
export class Follow {
  constructor(scroller, content, button) {
    this.scroller = scroller;
    this.button = button;
    this.on = true;
    scroller.addEventListener("scroll", () => this.#look());
    button.addEventListener("click", () => this.toEnd());
    const grown = new ResizeObserver(() => (this.on ? this.toEnd() : this.#look()));
    grown.observe(content);
    grown.observe(scroller);
  }

  #look() {
    const left = this.scroller.scrollHeight - this.scroller.clientHeight - this.scroller.scrollTop;
    // The height may have grown since the last scroll: only going up lets go.
    if (left < 30) this.on = true;
    else if (this.scroller.scrollTop < this.top) this.on = false;
    this.top = this.scroller.scrollTop;
    this.button.hidden = this.on;
  }

  toEnd() {
    this.on = true;
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.top = this.scroller.scrollTop;
    this.button.hidden = true;
  }
}
