// The page: chat and generation, what was sent as code, and how long it took.

import { Clock, Failure, TokenText, ask } from "./answer.js";
import { build, chatBody, chatFields, generateBody, generateFields } from "./fields.js";
import { boto3, curl, openAI } from "./snippets.js";

const $ = (id) => document.getElementById(id);
const base = new URL("..", location.href).href.replace(/\/$/, ""); // works below a proxy's path, too
const key = () => $("key").value.trim();
const readChat = build($("chat-fields"), chatFields);
const readGenerate = build($("generate-fields"), generateFields);

let model = "";
let running = null; // AbortController of the request under way
let history = []; // messages of the chat, as they are sent
let sent = null; // the last request, for the snippets

// make returns a new element with a class and a text.
function make(tag, className = "", text = "") {
  const e = document.createElement(tag);
  e.className = className;
  e.textContent = text;
  return e;
}

// --- The server ---------------------------------------------------------------

async function connect() {
  try {
    let info;
    await ask(`${base}/info`, { key: key() }, (o) => { info = o; });
    await ask(`${base}/v1/models`, { key: key() }, (o) => { model = o.data[0].id; });
    $("model").textContent = `${model} · up to ${info.max_total_tokens} tokens · ${info.version}`;
  } catch (err) {
    if (err.status === 401) {
      $("model").textContent = "This server asks for an API key.";
      return;
    }
    $("model").textContent = err instanceof Failure ? err.message : "The server does not answer.";
    setTimeout(connect, 2000);
  }
}
$("key").addEventListener("change", connect);

// --- Asking -------------------------------------------------------------------

function complain(err) {
  $("error").hidden = !err;
  if (!err) return;
  const kind = [err.status, err.kind].filter(Boolean).join(" ");
  let text = err.message;
  if (err.status === 401) text += ". Its field is at the top of this page";
  if (err instanceof TypeError) text = `The server does not answer (${err.message})`;
  $("error").textContent = kind ? `${kind}: ${text}` : text;
}

// request sends body to path and shows what goes with any answer; take gets
// its objects. It returns whether the answer came to its end.
async function request(path, body, streamed, clock, take) {
  sent = { base, path, url: base + path, body, streamed, model, key: key() !== "" };
  showCode();
  complain(null);
  $("stats").textContent = "…";
  running = new AbortController();
  busy(true);
  let usage = null, why = "";
  try {
    await ask(base + path, { key: key(), body, signal: running.signal }, (o) => {
      usage = o.usage ?? usage;
      if (o.details) usage = { prompt_tokens: o.details.input_length, completion_tokens: o.details.generated_tokens };
      why = o.choices?.[0]?.finish_reason || o.details?.finish_reason || why;
      take(o);
    });
  } catch (err) {
    if (err.name !== "AbortError") complain(err);
    why = err.name === "AbortError" ? "stopped here" : "error";
    return false;
  } finally {
    running = null;
    busy(false);
    $("stats").textContent = why === "error" && !clock.tokens ? "" : clock.describe(usage, streamed) + (why && ` · ${why}`);
  }
  return true;
}

function busy(on) {
  for (const b of document.querySelectorAll(".go")) b.disabled = on;
  for (const b of document.querySelectorAll(".stop")) b.disabled = !on;
}

for (const b of document.querySelectorAll(".stop")) b.addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (e) => { if (e.key === "Escape") running?.abort(); });

// --- Chat ---------------------------------------------------------------------

function addMessage(role, text = "") {
  const box = make("article", `message ${role}`);
  box.append(make("h2", "", role));
  const content = make("div", "text", text);
  box.append(content);
  $("messages").append(box);
  return { box, content };
}

// Choice is one answer of a chat as it comes.
class Choice {
  constructor(many, index, coloured) {
    const { box, content } = addMessage("assistant");
    if (many) box.firstChild.textContent = `assistant, answer ${index + 1}`;
    Object.assign(this, { box, content, view: new TokenText(content, $("tip")), text: "", calls: [] });
    content.classList.toggle("logprobs", coloured);
    content.classList.add("running");
  }

  add(part, logprobs) {
    if (part.content) this.text += part.content;
    const tokens = logprobs?.content;
    // A token whose chunk has no text, as that of the end, is none of the answer's.
    const special = !part.content;
    if (tokens?.length) for (const t of tokens) this.view.addToken({ ...read(t), special }, t.top_logprobs?.map(read));
    else if (part.content) this.view.addText(part.content);
    for (const [i, c] of [part.tool_calls ?? []].flat().entries()) {
      const call = this.calls[c.index ?? i] ??= { id: c.id, type: "function", function: { name: "", arguments: "" } };
      call.function.name += c.function.name ?? "";
      const given = c.function.arguments ?? "";
      call.function.arguments += typeof given === "string" ? given : JSON.stringify(given);
    }
  }

  // end shows the calls, with fields for their results.
  end() {
    this.content.classList.remove("running");
    for (const c of this.calls) {
      const card = make("div", "call");
      card.append(make("code", "", `${c.function.name}(${c.function.arguments})`));
      this.box.append(card);
    }
    if (this.calls.length && !this.text) this.content.remove();
  }

  message() {
    const m = { role: "assistant", content: this.text };
    if (this.calls.length) Object.assign(m, { content: this.text || null, tool_calls: this.calls });
    return m;
  }
}

const read = (t) => ({ text: t.token, logprob: t.logprob });

async function chat() {
  let body;
  try {
    const system = $("system").value.trim();
    const messages = system ? [{ role: "system", content: system }, ...history] : history;
    body = chatBody(model || "tgi", structuredClone(messages), readChat());
  } catch (err) {
    complain(err);
    return;
  }
  const choices = [], clock = new Clock();
  const choice = (i) => choices[i] ??= new Choice(body.n > 1, i, body.logprobs);
  choice(0);
  const complete = await request("/v1/chat/completions", body, !!body.stream, clock, (o) => {
    for (const c of o.choices) {
      const part = c.delta ?? c.message;
      if (part.content || part.tool_calls) clock.token(c.logprobs?.content?.length || 1);
      choice(c.index).add(part, c.logprobs);
    }
  });
  for (const c of choices) c.end();
  const [first] = choices;
  if (!complete && !first.text && !first.calls.length) {
    first.box.remove();
    return;
  }
  history.push(first.message());
  if (complete && first.calls.length) askResults(first);
}

// askResults lets the reader play the tools: the results go back to the model.
function askResults(choice) {
  const form = make("form");
  const inputs = choice.calls.map((c) => {
    const label = make("label", "", `Result of ${c.function.name} `);
    const input = make("input", "mono");
    input.required = true;
    input.placeholder = '{"temperature": 21}';
    label.append(input);
    form.append(label);
    return input;
  });
  form.className = "call";
  form.append(make("button", "", "Send results"));
  form.addEventListener("submit", (e) => {
    e.preventDefault();
    if (running) return;
    choice.calls.forEach((c, i) => {
      history.push({ role: "tool", tool_call_id: c.id, name: c.function.name, content: inputs[i].value });
      addMessage("tool", inputs[i].value);
    });
    form.remove();
    chat();
  });
  choice.box.append(form);
  inputs[0].focus();
}

$("chat-form").addEventListener("submit", (e) => {
  e.preventDefault();
  const text = $("say").value;
  if (running || !text.trim()) return;
  history.push({ role: "user", content: text });
  addMessage("user", text);
  $("say").value = "";
  chat();
});
$("say").addEventListener("keydown", (e) => {
  if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
  e.preventDefault();
  $("chat-form").requestSubmit();
});
$("again").addEventListener("click", () => {
  running?.abort();
  history = [];
  $("messages").replaceChildren();
  $("stats").textContent = "";
  complain(null);
  $("say").focus();
});

// --- Generate -----------------------------------------------------------------

$("generate-form").addEventListener("submit", (e) => {
  e.preventDefault();
  if (!running) generate();
});
$("prompt").addEventListener("keydown", (e) => {
  if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) $("generate-form").requestSubmit();
});

async function generate() {
  let values;
  try {
    values = readGenerate();
  } catch (err) {
    complain(err);
    return;
  }
  const body = generateBody($("prompt").value, values);
  const output = $("output");
  output.replaceChildren();
  const add = (label) => {
    const box = make("article", "message");
    const content = make("div");
    box.append(make("h2", "", label), content);
    output.append(box);
    content.classList.toggle("logprobs", values.logprobs);
    return { content, view: new TokenText(content, $("tip")) };
  };
  const { content, view } = add("output");
  content.classList.add("running");
  const clock = new Clock();
  const complete = await request(values.stream ? "/generate_stream" : "/generate", body, values.stream, clock, (o) => {
    if (o.token) {
      clock.token();
      view.addToken(o.token, o.top_tokens);
      return;
    }
    const d = o.details;
    if (!d) {
      view.addText(o.generated_text);
      return;
    }
    if (d.prefill.length) {
      const prompt = add("prompt");
      for (const t of d.prefill) prompt.view.addToken(t);
      output.prepend(output.lastChild);
    }
    for (const [i, t] of d.tokens.entries()) view.addToken(t, d.top_tokens?.[i]);
    for (const s of d.best_of_sequences ?? []) {
      const other = add("less likely");
      for (const t of s.tokens) other.view.addToken(t);
    }
  });
  content.classList.remove("running");
  if (!complete && !content.hasChildNodes()) output.replaceChildren();
}

// --- Tabs and code ------------------------------------------------------------

// tabs makes a tablist work with pointer and arrow keys; choose gets the tab.
function tabs(ids, choose) {
  const all = ids.map($);
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
}

tabs(["tab-chat", "tab-generate"], (tab) => {
  for (const name of ["chat", "generate"]) {
    $(name).hidden = $(`${name}-fields`).hidden = tab.id !== `tab-${name}`;
  }
});

let writeCode = curl;

function showCode() {
  if (!sent) return;
  $("sent").hidden = false;
  $("code").textContent = writeCode(sent);
}

tabs(["tab-curl", "tab-boto3", "tab-openai"], (tab) => {
  writeCode = { "tab-curl": curl, "tab-boto3": boto3, "tab-openai": openAI }[tab.id];
  $("code").setAttribute("aria-labelledby", tab.id);
  showCode();
});

$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("code").textContent);
    $("copy").textContent = "Copied";
  } catch { // no clipboard without HTTPS: let the reader press the keys
    getSelection().selectAllChildren($("code"));
    $("copy").textContent = "Press Ctrl+C";
  }
  setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
});

if (matchMedia("(max-width: 52rem)").matches) $("settings").open = false;
connect();
