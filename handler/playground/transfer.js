// Conversations as files: JSON, which has all of them and every version of an
// answer, and Markdown, which is for reading and has the text of one.

import { chosen, titleOf } from "./store.js";

const format = "millrace-chats-1";

export const toJSON = (conversations) => JSON.stringify({ format, conversations }, null, 1);

const marker = /^(\\*)## (System|User|Assistant|Tool)$/;
const callsFence = "```json tool_calls";

// toMarkdown writes each message below a heading. A line that looks like one is
// escaped.
export function toMarkdown(c) {
  const parts = [`# ${c.title}`];
  const add = (role, text) => parts.push(`## ${role}`, text.replace(/^\\*## (System|User|Assistant|Tool)$/gm, "\\$&"));
  if (c.system) add("System", c.system);
  for (const m of c.messages) {
    if (m.role === "user") add("User", m.content);
    else if (m.role === "tool") add("Tool", `\`${m.tool_call_id}\` ${m.name}\n\n${m.content}`);
    else {
      const { content, tool_calls } = chosen(m);
      add("Assistant", content);
      if (tool_calls?.length) parts.push(`${callsFence}\n${JSON.stringify(tool_calls)}\n\`\`\``);
    }
  }
  return parts.join("\n\n") + "\n";
}

// fromText reads a file of either kind, and returns what conversations have:
// {title, system, messages}. A text that is neither throws.
export function fromText(text) {
  if (!text.trimStart().startsWith("{")) return [fromMarkdown(text)];
  const o = JSON.parse(text);
  if (o.format === format) return o.conversations.map(check);
  if (Array.isArray(o.messages)) return [fromMessages(o.messages)];
  throw new Error("The file has no conversations");
}

// check keeps what a file of ours has, and refuses another shape.
function check({ title, created, updated, system, messages }) {
  const known = messages.every((m) => m.role === "assistant"
    ? m.versions.every((v) => typeof v.content === "string") && m.versions[m.at]
    : ["user", "tool"].includes(m.role) && typeof m.content === "string");
  if (!known) throw new Error(`The conversation ${JSON.stringify(title)} has a message of an unknown form`);
  return { title: String(title), created: Number(created) || Date.now(), updated: Number(updated) || Date.now(), system: String(system ?? ""), messages };
}

// fromMessages reads the messages of a request.
function fromMessages(all) {
  const messages = [];
  let system = "";
  for (const { role, content, reasoning_content: reasoning, tool_calls, tool_call_id, name } of all) {
    const said = typeof content === "string" ? content : (content ?? []).map((part) => part.text ?? "").join("");
    if (role === "system" || role === "developer") system = said;
    else if (role === "assistant") messages.push({ role, versions: [{ content: said, reasoning, tool_calls }], at: 0 });
    else messages.push(role === "tool" ? { role, content: said, tool_call_id, name } : { role: "user", content: said });
  }
  const title = titleOf(messages.find((m) => m.role === "user")?.content ?? "Imported");
  return { title, system, messages };
}

function fromMarkdown(text) {
  const messages = [];
  let title = "", current = null;
  for (const line of text.split(/\r?\n/)) {
    const [, escaped, role] = line.match(marker) ?? [];
    if (role && !escaped) messages.push(current = { role: role.toLowerCase(), lines: [] });
    else if (current) current.lines.push(role ? line.slice(1) : line);
    else if (line.startsWith("# ")) title = line.slice(2);
  }
  if (!messages.length) throw new Error("The file has no conversation: a heading such as “## User” is missing");
  const read = fromMessages(messages.map(({ role, lines }) => {
    let content = lines.join("\n").trim();
    const at = content.lastIndexOf(callsFence);
    if (role === "assistant" && at >= 0 && content.endsWith("```")) {
      const tool_calls = JSON.parse(content.slice(at + callsFence.length, -3));
      return { role, content: content.slice(0, at).trim(), tool_calls };
    }
    const [head, id, name] = role === "tool" && content.match(/^`(.*)` (.*)\n\n/) || [""];
    content = content.slice(head.length);
    return { role, content, tool_call_id: id, name };
  }));
  return { ...read, title: title || read.title };
}
