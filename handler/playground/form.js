// Forms of parameters: built from the groups of parameters.js, read as values,
// and saved as the list of what differs from the beginning.

import { make } from "./dom.js";

export class Form {
  // prefix makes the ids of the fields unique in the page.
  constructor(element, groups, prefix) {
    this.element = element;
    this.prefix = prefix;
    this.rows = groups.flatMap((g) => this.#group(g));
    this.mode = this.input("mode");
    this.mode.addEventListener("change", () => this.#show());
    element.addEventListener("submit", (e) => e.preventDefault());
    this.#show();
  }

  #group({ title, open, fields }) {
    const box = make("details", "group");
    box.open = !!open;
    box.append(make("summary", "", title));
    const rows = fields.map((f) => this.#row(f));
    box.append(...rows.map((r) => r.row));
    this.element.append(box);
    return rows;
  }

  #row(f) {
    const row = make("div", `field ${f.kind}`);
    const label = make("label", "", f.label);
    const input = this.#input(f);
    input.id = label.htmlFor = `${this.prefix}-${f.name}`;
    input.name = f.name;
    // The name in a request, where the label does not say it already.
    if (f.label.toLowerCase().replaceAll(" ", "_") !== f.name && f.name !== "mode" && f.name !== "system") label.append(" ", make("code", "", f.name));
    if (f.placeholder) input.placeholder = f.placeholder;
    row.append(label, input);
    if (f.slider) row.append(this.#slider(f, input));
    if (f.help) {
      const help = make("p", "help", f.help);
      help.id = `${input.id}-help`;
      input.setAttribute("aria-describedby", help.id);
      row.append(help);
    }
    return { f, row, input };
  }

  #input(f) {
    if (f.kind === "select") {
      const input = make("select");
      for (const [value, label] of f.options) input.append(new Option(label, value));
      return input;
    }
    if (f.kind === "json" || f.kind === "lines" || f.kind === "area") {
      const input = make("textarea", f.kind === "json" ? "mono" : "");
      input.rows = f.rows || 2;
      input.value = f.value || "";
      input.spellcheck = f.kind === "area";
      return input;
    }
    const input = make("input");
    input.type = f.kind;
    if (f.kind === "checkbox") {
      input.checked = !!f.on;
      return input;
    }
    input.step = f.step ?? "any";
    for (const name of ["min", "max"]) if (f[name] !== undefined) input[name] = f[name];
    input.value = f.value ?? "";
    return input;
  }

  // #slider stands at the default as long as the field is empty.
  #slider(f, input) {
    const [min, max, step, preset] = f.slider;
    const slider = make("input");
    Object.assign(slider, { type: "range", min, max, step, value: preset });
    slider.setAttribute("aria-label", `${f.label}, slider`);
    slider.addEventListener("input", () => {
      input.value = slider.value;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    });
    const follow = () => { slider.value = input.value || input.placeholder || preset; };
    input.addEventListener("input", follow);
    input.addEventListener("change", follow);
    return slider;
  }

  input(name) { return this.element.elements[name]; }

  // set gives one field a value, and says so outside of the form if it is loud.
  set(name, value, loud = true) {
    const input = this.input(name);
    if (input.type === "checkbox") input.checked = value === true || value === "true";
    else input.value = value;
    input.dispatchEvent(new Event("change", { bubbles: loud }));
  }

  #shown({ f }) { return !f.only || f.only.includes(this.mode.value); }

  #show() { for (const r of this.rows) r.row.hidden = !this.#shown(r); }

  // read returns what is set, {name: value}. A wrong value is shown, and throws.
  read() {
    const values = {};
    for (const r of this.rows) {
      if (!this.#shown(r)) continue;
      const { f, input } = r;
      input.classList.remove("bad");
      if (f.kind === "checkbox") values[f.name] = input.checked;
      else if (!input.checkValidity()) this.#refuse(r, input.validationMessage);
      else if (input.value === "") continue;
      else if (f.kind === "number") values[f.name] = Number(input.value);
      else if (f.kind === "lines") values[f.name] = input.value.split("\n").filter((l) => l);
      else if (f.kind === "json") {
        try {
          values[f.name] = JSON.parse(input.value);
        } catch (err) {
          this.#refuse(r, `not JSON: ${err.message}`);
        }
      } else values[f.name] = input.value.trim() === "" ? undefined : input.value;
    }
    return values;
  }

  #refuse({ f, row, input }, why) {
    input.classList.add("bad");
    row.closest("details").open = true;
    throw new Error(`${f.label} (${f.name}): ${why}`);
  }

  // changed lists the fields that are not as at the beginning: [[name, text]].
  changed() {
    return this.rows.flatMap(({ f, input }) => {
      const [now, first] = f.kind === "checkbox" ? [input.checked, !!f.on] : [input.value, f.value ?? (f.kind === "select" ? f.options[0][0] : "")];
      return String(now) === String(first) ? [] : [[f.name, String(now)]];
    });
  }

  // reset puts all fields back, except those in the list given: [[name, text]].
  reset(changed = []) {
    const values = new Map(changed);
    for (const { f } of this.rows) {
      const first = f.kind === "checkbox" ? !!f.on : f.value ?? (f.kind === "select" ? f.options[0][0] : "");
      this.set(f.name, values.get(f.name) ?? first, false);
    }
  }

  // showDefaults tells what the server uses where a field is empty.
  showDefaults(values) {
    for (const { f, input } of this.rows) {
      if (f.kind !== "number" || values[f.name] == null) continue;
      input.placeholder = values[f.name];
      input.dispatchEvent(new Event("change"));
    }
  }
}
