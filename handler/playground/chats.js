// The list of conversations, with what can be done to each.

import { $, button, make } from "./dom.js";

const day = (t) => new Date(t).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

export class ChatList {
  // on has the functions open(c), rename(c, title), remove(c) and shown(), which
  // returns the conversation on the page.
  constructor(store, on) {
    this.store = store;
    this.on = on;
    $("search").addEventListener("input", () => this.show());
  }

  show() {
    const all = this.store.list($("search").value);
    $("chat-list").replaceChildren(...all.map((c) => this.#item(c)));
    $("no-chats").hidden = all.length > 0;
    $("no-chats").textContent = $("search").value ? "No chat has these words." : "Chats are kept here, in this browser only.";
  }

  #item(c) {
    const item = make("li");
    const open = button(c.title || "Untitled", () => this.on.open(c), "title");
    open.title = `${c.title}\n${day(c.updated)}`;
    if (c.id === this.on.shown()?.id) open.setAttribute("aria-current", "true");
    const rename = button("Rename", () => this.#rename(item, c), "small");
    const remove = button("Delete", () => this.on.remove(c), "small");
    rename.setAttribute("aria-label", `Rename ${c.title}`);
    remove.setAttribute("aria-label", `Delete ${c.title}`);
    const tools = make("span", "tools");
    tools.append(rename, remove);
    item.append(open, tools);
    return item;
  }

  #rename(item, c) {
    const form = make("form"), input = make("input");
    input.value = c.title;
    input.required = true;
    input.setAttribute("aria-label", "New title");
    form.append(input);
    form.addEventListener("submit", (e) => {
      e.preventDefault();
      this.on.rename(c, input.value.trim() || c.title);
    });
    input.addEventListener("keydown", (e) => {
      if (e.key !== "Escape") return;
      e.preventDefault(); // the list stays open
      this.show();
    });
    input.addEventListener("blur", () => { if (form.isConnected) form.requestSubmit(); });
    item.replaceChildren(form);
    input.select();
  }
}
