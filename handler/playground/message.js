// How messages look: questions as they were written, answers as Markdown or
// token by token.

import { button, copy, grow, make } from "./dom.js";
import { picture } from "./images.js";
import { Markdown } from "./markdown.js";
import { TokenText } from "./tokens.js";

// AnswerView shows one version of an answer, which may still grow.
export class AnswerView {
  constructor(version) {
    this.version = version;
    this.element = make("div", "answer");
    this.prose = make("div", "prose");
    this.markdown = new Markdown(this.prose);
    this.element.append(this.prose);
    this.end();
  }

  // think takes the next part of the reasoning, which is unfolded until the answer begins.
  think(text) {
    this.version.reasoning = (this.version.reasoning ?? "") + text;
    this.#showReasoning();
    this.reasoning.open = true;
    this.thought.append(text);
  }

  #showReasoning() {
    if (this.reasoning) return;
    this.reasoning = make("details", "reasoning");
    this.thought = make("div", "text");
    this.reasoning.append(make("summary", "", "Reasoning"), this.thought);
    this.element.prepend(this.reasoning);
  }

  // add takes the next part of the answer: text, and its tokens if they are known.
  add(text, tokens) {
    if (tokens?.length && !this.tokens) this.#showTokens();
    if (text && !this.version.content && this.reasoning) this.reasoning.open = false;
    this.version.content += text;
    // A token whose chunk has no text, as that of the end, is not part of the answer.
    if (tokens?.length) for (const t of tokens) this.tokens.addToken({ ...read(t), special: !text }, t.top_logprobs?.map(read));
    else if (this.tokens) this.tokens.addText(text);
    this.soon ||= requestAnimationFrame(() => this.#draw());
  }

  addCall(delta, i) {
    const calls = this.version.tool_calls ??= [];
    const call = calls[delta.index ?? i] ??= { id: delta.id, type: "function", function: { name: "", arguments: "" } };
    call.function.name += delta.function.name ?? "";
    const given = delta.function.arguments ?? "";
    call.function.arguments += typeof given === "string" ? given : JSON.stringify(given);
  }

  #draw() {
    this.soon = 0;
    this.markdown.show(this.version.content);
  }

  // end shows the whole, with the calls.
  end() {
    cancelAnimationFrame(this.soon);
    this.#draw();
    if (this.version.reasoning) {
      this.#showReasoning();
      this.thought.textContent = this.version.reasoning;
      if (this.version.content) this.reasoning.open = false;
    }
    for (const old of this.element.querySelectorAll(":scope > .call")) old.remove();
    for (const c of this.version.tool_calls ?? []) {
      const card = make("div", "call");
      card.append(make("code", "", `${c.function.name}(${c.function.arguments})`));
      this.element.append(card);
    }
  }

  // #showTokens adds the view of single tokens, and the switch to the text.
  #showTokens() {
    const raw = make("div", "raw");
    this.tokens = new TokenText(raw);
    this.tokens.addText(this.version.content);
    this.prose.hidden = true;
    const toggle = button("Show text", () => {
      this.prose.hidden = !this.prose.hidden;
      raw.hidden = !raw.hidden;
      toggle.textContent = raw.hidden ? "Show tokens" : "Show text";
    }, "small");
    this.prose.before(toggle, raw);
  }
}

const read = (t) => ({ text: t.token, logprob: t.logprob });

// MessageView shows a message with what can be done to it: `can` has the
// functions edit, regenerate, continue, pick and results of its thread.
export class MessageView {
  constructor(message, can, versionView) {
    this.message = message;
    this.can = can;
    const { role } = message;
    this.element = make("article", `message ${role}`);
    this.head = make("h2", "", { user: "You", assistant: "Assistant", tool: "Tool" }[role]);
    this.body = make("div", "body");
    this.foot = make("div", "foot");
    this.element.append(this.head, this.body, this.foot);
    this.versionView = versionView;
    if (role === "assistant") this.refresh();
    else {
      if (message.images?.length) {
        const images = make("div", "images");
        images.append(...message.images.map(picture));
        this.body.append(images);
      }
      this.body.append(make("div", "text", message.content));
      if (role === "user") this.foot.append(button("Edit", () => this.#edit(), "small"), button("Copy", (e) => copy(e.target, this.body, message.content), "small"));
    }
  }

  // refresh shows the chosen version, its figures and its buttons.
  refresh() {
    const { versions, at } = this.message;
    const version = versions[at];
    const view = this.versionView(version);
    if (this.body.firstChild !== view.element) this.body.replaceChildren(view.element);
    const running = !version.end;
    this.element.classList.toggle("running", running);
    this.foot.replaceChildren();
    if (versions.length > 1) {
      const pager = make("span", "pager");
      const turn = (label, by, sign) => {
        const b = button(sign, () => this.can.pick(this.message, at + by), "small");
        b.setAttribute("aria-label", label);
        b.disabled = !versions[at + by];
        return b;
      };
      pager.append(turn("Previous answer", -1, "‹"), `${at + 1} / ${versions.length}`, turn("Next answer", 1, "›"));
      this.foot.append(pager);
    }
    if (running) return;
    this.foot.append(button("Copy", (e) => copy(e.target, this.body, version.content), "small"), button("Edit", () => this.#edit(), "small"));
    const last = make("span", "last"); // only shown on the last message
    last.append(button("Regenerate", () => this.can.regenerate(), "small"));
    if (version.content && !version.tool_calls?.length) last.append(button("Continue", () => this.can.continue(), "small"));
    this.foot.append(last);
    if (version.note) this.foot.append(make("span", "note", `${version.note} · ${version.end}`));
    if (!version.content && !version.tool_calls?.length) view.prose.replaceChildren(make("p", "empty", "(The answer is empty.)"));
    if (version.tool_calls?.length) this.#askResults(view, version.tool_calls);
  }

  // #edit puts a text area in the message's place.
  #edit() {
    const user = this.message.role === "user";
    const form = make("form", "edit");
    const area = make("textarea");
    area.value = user ? this.message.content : this.message.versions[this.message.at].content;
    area.setAttribute("aria-label", user ? "Edit message" : "Edit answer");
    const close = () => {
      form.remove();
      this.body.hidden = this.foot.hidden = false;
      this.foot.querySelector("button")?.focus();
    };
    const bar = make("div", "buttons");
    const save = make("button", "go", user ? "Send" : "Save");
    bar.append(save, button("Cancel", close));
    if (user) bar.append(make("span", "help", "Replaces this message and all that follows."));
    form.append(area, bar);
    form.addEventListener("submit", (e) => {
      e.preventDefault();
      if (!area.value.trim() && !this.message.images?.length) return;
      close();
      this.can.edit(this.message, area.value);
    });
    area.addEventListener("input", () => grow(area));
    area.addEventListener("keydown", (e) => {
      if (e.key === "Escape") close();
      if (user && e.key === "Enter" && !e.shiftKey && !e.isComposing) {
        e.preventDefault();
        form.requestSubmit();
      }
    });
    this.body.hidden = this.foot.hidden = true;
    this.element.append(form);
    grow(area);
    area.focus();
  }

  // #askResults lets the reader play the tools: the results go back to the model.
  #askResults(view, calls) {
    view.element.querySelector("form.call")?.remove();
    const form = make("form", "call results last");
    const inputs = calls.map((c) => {
      const label = make("label", "", `Result of ${c.function.name} `);
      const input = make("input", "mono");
      input.required = true;
      input.placeholder = '{"temperature": 21}';
      label.append(input);
      form.append(label);
      return input;
    });
    form.append(make("button", "", "Send results"));
    form.addEventListener("submit", (e) => {
      e.preventDefault();
      this.can.results(calls.map((c, i) => ({ role: "tool", tool_call_id: c.id, name: c.function.name, content: inputs[i].value })));
    });
    view.element.append(form);
  }
}
