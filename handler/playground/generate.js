// Text generation without a chat template: a prompt, and what the model makes
// of it.

import { Clock } from "./clock.js";
import { $, make } from "./dom.js";
import { Follow } from "./follow.js";
import { generateBody } from "./parameters.js";
import { ask, describe } from "./server.js";
import { TokenText } from "./tokens.js";

export class Generation {
  // on has the functions sent(request), busy() and failed(error).
  constructor(form, on) {
    this.form = form;
    this.on = on;
    this.running = null;
    this.follow = new Follow($("generate-scroller"), $("output"), $("output-to-end"));
  }

  stop() { this.running?.abort(); }

  #complain(err) {
    $("generate-problem").hidden = !err;
    if (!err) return;
    $("generate-problem").textContent = describe(err);
    this.on.failed(err);
  }

  #box(label, coloured) {
    const box = make("article", "message"), content = make("div", "raw");
    box.append(make("h2", "", label), content);
    $("output").append(box);
    content.classList.toggle("plain", !coloured);
    return { box, view: new TokenText(content) };
  }

  async start(prompt) {
    let values;
    try {
      values = this.form.read();
    } catch (err) {
      this.#complain(err);
      return;
    }
    const body = generateBody(prompt, values), path = values.stream ? "/generate_stream" : "/generate";
    $("output").replaceChildren();
    $("generate-note").textContent = "";
    this.#complain(null);
    const { box, view } = this.#box("Output", values.logprobs);
    box.classList.add("running");
    this.follow.toEnd();
    this.on.sent({ path, body });
    const { signal } = this.running = new AbortController();
    this.on.busy();

    const clock = new Clock();
    let details = null, failure = null;
    try {
      await ask(path, { body, signal }, (o) => {
        if (o.token) {
          clock.token();
          view.addToken(o.token, o.top_tokens);
        }
        details = o.details ?? details;
        if (!o.token) this.#show(o, view, values.logprobs);
      });
    } catch (err) {
      failure = err;
    }
    this.running = null;
    box.classList.remove("running");
    const stopped = failure?.name === "AbortError";
    if (failure && !stopped) this.#complain(failure);
    if (failure && !view.begun) box.remove();
    else {
      const usage = details && { prompt_tokens: details.input_length, completion_tokens: details.generated_tokens };
      $("generate-note").textContent = `${clock.describe(usage, values.stream)} · ${details?.finish_reason ?? (stopped ? "stopped" : "failed")}`;
    }
    this.on.busy();
  }

  // #show shows an answer that came in one piece.
  #show({ generated_text, details: d }, view, coloured) {
    if (!d) {
      view.addText(generated_text);
      return;
    }
    if (d.prefill.length) {
      const prompt = this.#box("Prompt", true);
      for (const t of d.prefill) prompt.view.addToken(t);
      $("output").prepend(prompt.box);
    }
    for (const [i, t] of d.tokens.entries()) view.addToken(t, d.top_tokens?.[i]);
    for (const s of d.best_of_sequences ?? []) {
      const other = this.#box("Less likely", coloured);
      for (const t of s.tokens) other.view.addToken(t);
    }
  }
}
