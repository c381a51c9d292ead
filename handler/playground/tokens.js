// TokenText shows a text that grows token by token. Each token has the colour
// of its probability; the tip tells its alternatives.

import { $, make } from "./dom.js";

export class TokenText {
  constructor(element) {
    this.element = element;
    this.entries = new WeakMap();
    element.classList.add("tokens");
    for (const on of ["mouseover", "focusin"]) element.addEventListener(on, (e) => this.#show(e.target));
    for (const off of ["mouseout", "focusout"]) element.addEventListener(off, () => { $("tip").hidden = true; });
    element.addEventListener("keydown", (e) => this.#move(e));
  }

  addText(text) { this.element.append(text); }

  // addToken shows a token {text, logprob, special}; top are {text, logprob}.
  addToken(token, top) {
    const span = make("span", "token", token.text);
    if (token.logprob != null) span.classList.add(`p${Math.min(9, Math.floor(10 * Math.exp(token.logprob)))}`);
    if (token.special) span.classList.add("special");
    span.tabIndex = this.begun ? -1 : 0; // arrows lead to the others
    this.begun = true;
    this.entries.set(span, { token, top });
    this.element.append(span);
  }

  #show(span) {
    const entry = this.entries.get(span);
    if (!entry) return;
    const table = make("table");
    const all = entry.top?.length ? [...entry.top] : [];
    if (!all.some((t) => t.text === entry.token.text)) all.push(entry.token);
    all.sort((a, b) => b.logprob - a.logprob);
    for (const t of all) {
      const row = table.insertRow();
      if (t.text === entry.token.text) row.className = "chosen";
      row.insertCell().textContent = JSON.stringify(t.text).slice(1, -1).replaceAll(" ", "␣") || "∅";
      row.insertCell().textContent = t.logprob == null ? "" : `${(100 * Math.exp(t.logprob)).toFixed(1)} %`;
      row.insertCell().textContent = t.logprob == null ? "" : t.logprob.toFixed(3);
    }
    const tip = $("tip");
    tip.replaceChildren(table);
    tip.hidden = false;
    const at = span.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const below = at.bottom + 4 + own.height < innerHeight;
    tip.style.left = `${Math.max(4, Math.min(at.left, innerWidth - own.width - 8))}px`;
    tip.style.top = `${below ? at.bottom + 4 : at.top - own.height - 4}px`;
  }

  #move(e) {
    const step = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[e.key];
    const to = step && e.target[step];
    if (!to?.classList.contains("token")) return;
    e.preventDefault();
    e.target.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  }
}
