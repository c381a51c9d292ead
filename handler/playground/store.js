// The conversations that this browser keeps: one item of localStorage each.
//
// A conversation is {id, title, created, updated, system, messages}. A message
// is {role, content}, a user's with images, data URIs, too, for tools with
// tool_call_id and name, or an answer,
// {role: "assistant", versions, at}, of which the version at that place counts:
// {content, reasoning, tool_calls, note, end}.

// Pages below other paths of this host are other servers.
const prefix = `millrace:${new URL("..", location.href).pathname}:chat:`;

// storage throws where the browser's settings forbid it.
function storage() {
  try {
    return localStorage;
  } catch {
    return null;
  }
}

export class Store {
  // changed is called when the list is not what it was.
  constructor(changed) {
    this.changed = changed;
    this.all = new Map();
    const kept = storage();
    for (let i = 0; i < (kept?.length ?? 0); i++) this.#take(kept.key(i), kept.getItem(kept.key(i)));
    for (const c of this.all.values()) for (const m of c.messages) for (const v of m.versions ?? []) v.end ||= "stopped"; // with their page
    addEventListener("storage", (e) => { // another tab has written
      if (!e.key?.startsWith(prefix)) return;
      if (e.newValue === null) this.all.delete(e.key.slice(prefix.length));
      else this.#take(e.key, e.newValue);
      changed();
    });
  }

  #take(key, text) {
    if (!key.startsWith(prefix)) return;
    try {
      const c = JSON.parse(text);
      const known = this.all.get(c.id);
      if (known) Object.assign(known, c); // the one that is open stays the same object
      else this.all.set(c.id, c);
    } catch { /* not ours */ }
  }

  // list returns those whose title or text has the words, the newest first.
  list(words = "") {
    const wanted = words.toLowerCase();
    return [...this.all.values()].filter((c) => !wanted || JSON.stringify([c.title, c.messages], (key, value) => (key === "images" ? undefined : value)).toLowerCase().includes(wanted))
      .sort((a, b) => b.updated - a.updated);
  }

  // create returns an empty conversation, which is kept once it is saved.
  create(system = "") {
    const now = Date.now();
    return { id: crypto.randomUUID?.() ?? `${now}-${Math.random()}`, title: "", created: now, updated: now, system, messages: [] };
  }

  // save keeps a conversation, and reports whether the browser has done it.
  save(c) {
    this.all.set(c.id, c);
    this.changed();
    try {
      storage().setItem(prefix + c.id, JSON.stringify(c));
      return true;
    } catch {
      return false;
    }
  }

  delete(c) {
    this.all.delete(c.id);
    storage()?.removeItem(prefix + c.id);
    this.changed();
  }
}

// titleOf makes a title of the first question.
export function titleOf(text) {
  const line = text.trim().split("\n")[0];
  return line.length > 60 ? `${line.slice(0, 59)}…` : line;
}

// chosen returns the version of an answer that counts.
export const chosen = (m) => m.versions[m.at];

// wire returns messages as a request has them.
export function wire(messages) {
  return messages.map((m) => {
    if (m.role === "user" && m.images?.length) {
      const chunks = m.images.map((url) => ({ type: "image_url", image_url: { url } }));
      return { role: m.role, content: m.content ? [...chunks, { type: "text", text: m.content }] : chunks };
    }
    if (m.role !== "assistant") return m;
    const { content, reasoning, tool_calls } = chosen(m);
    const thought = reasoning ? { reasoning_content: reasoning } : {};
    return tool_calls?.length ? { role: m.role, content: content || null, ...thought, tool_calls } : { role: m.role, content, ...thought };
  });
}
