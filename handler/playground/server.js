// The server: what it says about itself, and how requests are sent to it.

// server is what is known of it. base holds below the path of a proxy, too.
export const server = {
  base: new URL("..", location.href).href.replace(/\/$/, ""),
  key: "",
  model: "",
  info: null,
};

// The key lasts as long as this tab does.
try {
  server.key = sessionStorage.getItem("millrace:key") ?? "";
} catch { /* storage is turned off */ }

export function setKey(key) {
  server.key = key;
  try {
    sessionStorage.setItem("millrace:key", key);
  } catch { /* storage is turned off */ }
}

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

// describe returns an error as a sentence for the reader.
export function describe(err) {
  if (err instanceof TypeError) return `The server does not answer (${err.message})`;
  const kind = [err.status, err.kind].filter(Boolean).join(" ");
  return kind ? `${kind}: ${err.message}` : err.message;
}

// ask sends body to path and calls take with the object of every event, or with
// the one object of a plain answer. An error throws a Failure.
export async function ask(path, { body, signal } = {}, take) {
  const headers = {};
  if (server.key) headers.Authorization = `Bearer ${server.key}`;
  if (body) headers["Content-Type"] = "application/json";
  const resp = await fetch(server.base + path, { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body) });
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

// connect asks the server about itself until it is ready. said gets a line for
// the reader, and ready is called at the end.
export async function connect(said, ready) {
  try {
    await ask("/info", {}, (o) => { server.info = o; });
    await ask("/v1/models", {}, (o) => { server.model = o.data[0].id; });
    const { max_total_tokens: context, version } = server.info;
    said(server.model, `up to ${context.toLocaleString("en")} tokens · version ${version}`);
    ready();
  } catch (err) {
    if (err.status === 401) {
      said("API key needed", "This server asks for an API key.", true);
      return;
    }
    said("Waiting …", err instanceof Failure ? err.message : "The server does not answer.");
    setTimeout(() => connect(said, ready), 2000);
  }
}
