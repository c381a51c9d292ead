// Answers: asking for them, reading their events, and showing their tokens.

// Failure is an answer that is an error, or an error within a stream.
export class Failure extends Error {
  constructor(status, kind, message) {
    super(message);
    this.status = status;
    this.kind = kind;
  }
}

// failureOf reads both forms of errors: {error, error_type} and OpenAI's.
function failureOf(status, o) {
  const e = o.error;
  if (typeof e === "string") return new Failure(status, o.error_type, e);
  return new Failure(e.http_status_code || status, e.type, e.message);
}

// ask sends body and calls take with every event's object, or with the one
// object of a plain answer. An answer that is no success throws a Failure.
export async function ask(url, { key, body, signal }, take) {
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  const resp = await fetch(url, { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body) });
  if (!resp.ok) {
    const said = await resp.text();
    let o;
    try {
      o = JSON.parse(said);
    } catch {
      throw new Failure(resp.status, "", said || resp.statusText);
    }
    throw failureOf(resp.status, o);
  }
  if (!resp.headers.get("Content-Type").startsWith("text/event-stream")) {
    take(await resp.json());
    return;
  }
  let rest = "";
  const reader = resp.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((l) => l.startsWith("data:")).map((l) => l.slice(5).trim()).join("\n");
      if (!data || data === "[DONE]") continue;
      const o = JSON.parse(data);
      if (o.error) throw failureOf(resp.status, o);
      take(o);
    }
  }
}

// TokenText shows a text that grows, token by token where they are known. Each
// token has its probability's colour; the tip tells its alternatives.
export class TokenText {
  constructor(element, tip) {
    this.element = element;
    this.tip = tip;
    element.classList.add("text");
    for (const on of ["mouseover", "focusin"]) element.addEventListener(on, (e) => this.#show(e.target));
    for (const off of ["mouseout", "focusout"]) element.addEventListener(off, () => { tip.hidden = true; });
    element.addEventListener("keydown", (e) => this.#move(e));
    this.entries = new WeakMap();
  }

  addText(text) { this.element.append(text); }

  // addToken shows a token {text, logprob, special}; top are {text, logprob}.
  addToken(token, top) {
    const span = document.createElement("span");
    span.className = "token";
    if (token.logprob != null) span.classList.add(`p${Math.min(9, Math.floor(10 * Math.exp(token.logprob)))}`);
    if (token.special) span.classList.add("special");
    span.textContent = token.text;
    span.tabIndex = this.element.querySelector(".token") ? -1 : 0; // arrows lead to the others
    this.entries.set(span, { token, top });
    this.element.append(span);
  }

  #show(span) {
    const entry = this.entries.get(span);
    if (!entry) return;
    const table = document.createElement("table");
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
    this.tip.replaceChildren(table);
    this.tip.hidden = false;
    const at = span.getBoundingClientRect(), own = this.tip.getBoundingClientRect();
    const left = Math.max(4, Math.min(at.left, document.documentElement.clientWidth - own.width - 8));
    this.tip.style.left = `${left + window.scrollX}px`;
    this.tip.style.top = `${at.bottom + 4 + window.scrollY}px`;
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

// Clock measures an answer as its reader sees it.
export class Clock {
  constructor() { this.begun = performance.now(); }

  token(n = 1) {
    const now = performance.now();
    this.first ??= now;
    this.last = now;
    this.tokens = (this.tokens || 0) + n;
  }

  // describe tells the times; usage has the server's counts, where there are any.
  describe(usage, streamed) {
    const tokens = usage?.completion_tokens ?? this.tokens ?? 0;
    const total = (performance.now() - this.begun) / 1000;
    const parts = [];
    if (streamed && this.first) parts.push(`first token ${Math.round(this.first - this.begun)} ms`);
    if (usage?.prompt_tokens) parts.push(`${usage.prompt_tokens} prompt tokens`);
    parts.push(`${tokens} tokens`);
    // A short answer may come in one piece: then only the whole can be timed.
    const span = streamed ? (this.last - this.first) / 1000 : 0;
    const rate = span > 0.05 ? (tokens - 1) / span : tokens / total;
    if (tokens > 0) parts.push(`${rate.toFixed(1)} tokens/s`);
    parts.push(`${total.toFixed(2)} s`);
    return parts.join(" · ");
  }
}
