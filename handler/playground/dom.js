// Small helpers for elements.

export const $ = (id) => document.getElementById(id);

// make returns a new element with a class and a text.
export function make(tag, className = "", text = "") {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text) e.textContent = text;
  return e;
}

// button returns a button that does something when pressed.
export function button(label, press, className = "") {
  const b = make("button", className, label);
  b.type = "button";
  b.addEventListener("click", press);
  return b;
}

// tabs makes a tablist work with pointer and arrow keys. choose gets the tab,
// and so does the function that is returned, which selects one.
export function tabs(all, choose) {
  const select = (tab) => {
    for (const t of all) {
      t.setAttribute("aria-selected", t === tab);
      t.tabIndex = t === tab ? 0 : -1;
    }
    choose(tab);
  };
  all.forEach((tab, i) => {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (e) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
      if (!step) return;
      const next = all[(i + step + all.length) % all.length];
      select(next);
      next.focus();
    });
  });
  return select;
}

// copy puts the text of an element, or the one given, into the clipboard and
// says so on the button that was pressed.
export async function copy(pressed, element, text = element.textContent) {
  const label = pressed.dataset.label ??= pressed.textContent;
  try {
    await navigator.clipboard.writeText(text);
    pressed.textContent = "Copied";
  } catch { // browsers have no clipboard without HTTPS: let the reader press the keys
    getSelection().selectAllChildren(element);
    pressed.textContent = "Press Ctrl+C";
  }
  setTimeout(() => { pressed.textContent = label; }, 1500);
}

// download offers a text as a file.
export function download(name, type, text) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// grow makes a text area as high as its text, up to the limit of its style.
export function grow(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
}
