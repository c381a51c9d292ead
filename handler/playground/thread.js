// Thread is one conversation on the page, with the requests that make it grow.
// The list of its messages is replaced, never changed: a request that fails
// leaves the one of before.

import { Clock } from "./clock.js";
import { make } from "./dom.js";
import { Follow } from "./follow.js";
import { AnswerView, MessageView } from "./message.js";
import { chatBody } from "./parameters.js";
import { ask, describe, server } from "./server.js";
import { chosen, titleOf, wire } from "./store.js";

export class Thread {
  // form has the parameters. on has functions: changed(conversation) when there
  // is something to keep, sent(request), busy(), failed(error).
  constructor(element, form, on) {
    this.element = element;
    this.form = form;
    this.on = on;
    const find = (name) => element.querySelector(`.${name}`);
    this.log = find("messages");
    this.problem = find("problem");
    this.follow = new Follow(find("scroller"), find("column"), find("to-end"));
    this.views = new WeakMap(); // of messages and of versions
    this.running = null; // AbortController of the request under way
    find("retry").addEventListener("click", () => this.retry());
    find("dismiss").addEventListener("click", () => this.complain(null));
    this.can = {
      edit: (m, text) => this.#edit(m, text),
      regenerate: () => this.#regenerate(),
      continue: () => this.#continue(),
      pick: (m, at) => this.#pick(m, at),
      results: (messages) => this.#results(messages),
    };
  }

  open(conversation) {
    this.stop();
    this.conversation = conversation;
    this.complain(null);
    this.render();
    this.follow.toEnd();
  }

  stop() { this.running?.abort(); }

  render() {
    this.log.replaceChildren(...this.conversation.messages.map((m) => this.#view(m).element));
    this.element.classList.toggle("blank", !this.conversation.messages.length);
  }

  #view(m) { return this.#kept(m, () => new MessageView(m, this.can, (v) => this.#versionView(v))); }

  #versionView(v) { return this.#kept(v, () => new AnswerView(v)); }

  #kept(key, create) {
    if (!this.views.has(key)) this.views.set(key, create());
    return this.views.get(key);
  }

  // complain shows an error, and how to go on: retry is what has failed.
  complain(err, retry) {
    this.failure = err;
    this.again = retry;
    this.problem.hidden = !err;
    if (!err) return;
    this.problem.querySelector(".why").textContent = describe(err);
    this.follow.toEnd();
    this.on.failed(err);
  }

  retry() {
    if (!this.running) this.again?.();
  }

  // send asks a question. It returns whether the question is now part of the
  // conversation: not if there is no answer.
  send(text, extra, images) {
    const question = { role: "user", content: text, ...(images.length ? { images } : {}) };
    return this.#ask([...this.conversation.messages, question], null, extra, () => this.send(text, extra, images));
  }

  #edit(m, text) {
    if (this.running) return;
    const at = this.conversation.messages.indexOf(m);
    if (m.role === "user") {
      const prior = [...this.conversation.messages.slice(0, at), { ...m, content: text }];
      this.#ask(prior, null, {}, () => this.#edit(m, text));
      return;
    }
    const versions = m.versions.with(m.at, { ...chosen(m), content: text });
    this.#replace({ ...m, versions }, at);
  }

  #pick(m, at) {
    m.at = at;
    this.#view(m).refresh();
    this.on.changed(this.conversation);
  }

  #replace(m, at) {
    this.conversation.messages = this.conversation.messages.with(at, m);
    this.render();
    this.on.changed(this.conversation);
  }

  #regenerate() {
    if (!this.running) this.#ask(this.conversation.messages.slice(0, -1), this.conversation.messages.at(-1), {}, () => this.#regenerate());
  }

  #results(messages) {
    if (!this.running) this.#ask([...this.conversation.messages, ...messages], null, {}, () => this.#results(messages));
  }

  // #continue asks for more of the last answer, which is part of the prompt.
  #continue() {
    if (this.running) return;
    const prior = this.conversation.messages, last = prior.at(-1);
    const version = { ...chosen(last), end: "" };
    const answer = { ...last, versions: last.versions.with(last.at, version) };
    this.#request(wire(prior), { n: undefined }, [...prior.slice(0, -1), answer], [version], () => this.#continue());
  }

  // #ask asks for an answer to messages: a new one, or one more version of old.
  #ask(prior, old, extra, again) {
    let n;
    try {
      n = this.form.read().n ?? 1;
    } catch (err) {
      this.complain(err, again);
      return false;
    }
    const versions = Array.from({ length: n }, () => ({ content: "", end: "" }));
    const all = [...(old?.versions ?? []), ...versions];
    const answer = { role: "assistant", versions: all, at: all.length - n };
    return this.#request(wire(prior), extra, [...prior, answer], versions, again);
  }

  // #request sends messages and lets the versions grow, which are of the last of
  // the messages that show the whole.
  async #request(messages, extra, whole, versions, again) {
    const { conversation } = this, before = conversation.messages, answer = whole.at(-1);
    let body;
    try {
      body = chatBody(server.model || "tgi", messages, { ...this.form.read(), ...extra });
    } catch (err) {
      this.complain(err, again);
      return false;
    }
    const begun = versions.map((v) => v.content.length);
    conversation.messages = whole;
    this.complain(null);
    this.render();
    this.follow.toEnd();
    this.on.sent({ path: "/v1/chat/completions", body });
    const { signal } = this.running = new AbortController();
    this.on.busy();

    const clock = new Clock();
    let usage = null, failure = null;
    try {
      await ask("/v1/chat/completions", { body, signal }, (o) => {
        usage = o.usage ?? usage;
        for (const c of o.choices) {
          const part = c.delta ?? c.message, view = this.#versionView(versions[c.index]);
          if (part.content || part.reasoning || part.tool_calls) clock.token(c.logprobs?.content?.length || 1);
          if (part.reasoning) view.think(part.reasoning);
          if (part.content || !part.reasoning) view.add(part.content ?? "", c.logprobs?.content);
          for (const [i, call] of [part.tool_calls ?? []].flat().entries()) view.addCall(call, i);
          versions[c.index].reason = c.finish_reason ?? versions[c.index].reason;
        }
      });
    } catch (err) {
      failure = err;
    }
    this.running = null;
    const stopped = failure?.name === "AbortError";
    for (const v of versions) {
      if (failure) delete v.tool_calls; // half a call would spoil every later request
      v.end = v.reason ?? (stopped ? "stopped" : "failed");
      delete v.reason;
      v.note = clock.describe(usage, !!body.stream);
      this.#versionView(v).end();
    }
    const kept = !failure || versions.some((v, i) => v.reasoning || v.content.length > begun[i]);
    if (!kept) conversation.messages = before;
    if (this.conversation === conversation) { // still the one on the page
      if (kept) this.#view(answer).refresh();
      else this.render();
      this.log.querySelector(".message:last-child .results input")?.focus();
      if (failure && !stopped) this.complain(failure, again);
    }
    if (kept) {
      conversation.system = body.messages[0].role === "system" ? body.messages[0].content : "";
      conversation.title ||= titleOf(conversation.messages.find((m) => m.role === "user")?.content ?? "") || "Image";
      conversation.updated = Date.now();
      this.on.changed(conversation);
    }
    this.on.busy();
    return kept;
  }

  // heading names the thread when there are two.
  heading(text) {
    this.element.querySelector(".side")?.remove();
    if (text) this.element.prepend(make("h2", "side", text));
  }
}
