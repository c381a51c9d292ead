// The page: what its buttons do, and how its parts work together.

import { camera, hasCamera } from "./camera.js";
import { ChatList } from "./chats.js";
import { setSent } from "./code.js";
import { $, button, copy, download, grow, tabs } from "./dom.js";
import { Form } from "./form.js";
import { Generation } from "./generate.js";
import { Images } from "./images.js";
import { panel } from "./panel.js";
import { chatGroups, generateGroups } from "./parameters.js";
import { connect, server, setKey } from "./server.js";
import { apply, link } from "./share.js";
import { Store } from "./store.js";
import { watch } from "./strip.js";
import { Thread } from "./thread.js";
import { fromText, toJSON, toMarkdown } from "./transfer.js";

const forms = {
  a: new Form($("fields-a"), chatGroups, "a"),
  b: new Form($("fields-b"), chatGroups, "b"),
  g: new Form($("fields-g"), generateGroups, "g"),
};
const store = new Store(() => list.show());
const list = new ChatList(store, {
  shown: () => a.conversation,
  open: (c) => {
    open(c);
    panels.chats.leave();
  },
  rename: (c, title) => {
    c.title = title;
    keep(c);
  },
  remove,
});
const panels = { chats: panel($("chats"), $("show-chats")), parameters: panel($("parameters"), $("show-parameters")) };

// --- Threads: one, or two to compare ------------------------------------------

const on = { sent: setSent, busy: showBusy, failed: (err) => { if (err.status === 401) askKey(); } };
const a = new Thread($("thread-a"), forms.a, { ...on, changed: keep });
const b = new Thread($("thread-b"), forms.b, { ...on, changed: () => {} });
const generation = new Generation(forms.g, on);
const comparing = () => !$("thread-b").hidden;
const threads = () => (comparing() ? [a, b] : [a]);
const busy = () => a.running || b.running || generation.running;

function showBusy() {
  for (const go of document.querySelectorAll(".composer .go")) go.hidden = !!busy();
  for (const stop of document.querySelectorAll(".stop")) stop.hidden = !busy();
}

function stopAll() {
  for (const t of [a, b, generation]) t.stop();
}

function keep(c) {
  if (c.deleted || store.save(c)) return;
  notice("This browser has no room for more chats, or keeps none. Export what you need, and delete some.");
}

function open(c) {
  if (comparing()) compare(false);
  forms.a.set("system", c.system);
  a.open(c);
  setSent(null);
  list.show();
  try {
    sessionStorage.setItem("millrace:shown", c.id); // a reload comes back here
  } catch { /* storage is turned off */ }
}

function remove(c) {
  c.deleted = true;
  store.delete(c);
  if (a.conversation === c) open(store.create(c.system));
  notice(`“${c.title}” is deleted.`, "Undo", () => {
    delete c.deleted;
    keep(c);
    open(c);
  });
}

function compare(start) {
  $("thread-b").hidden = $("keep-b").hidden = $("sides").hidden = !start;
  $("compare").setAttribute("aria-pressed", start);
  if (start) {
    b.open({ ...store.create(), messages: structuredClone(a.conversation.messages) });
  } else b.stop();
  selectSide(start ? $("tab-b") : $("tab-a"));
  showSettings();
}

// --- The composer -------------------------------------------------------------

async function submit() {
  const text = $("say").value;
  if (busy() || !text.trim() && !images.urls.length) return;
  setText("");
  const pictures = images.take();
  // The same seed on both sides: then only the settings differ.
  const drawn = comparing() && threads().every((t) => !t.form.input("seed").value);
  const extra = drawn ? { seed: crypto.getRandomValues(new Uint32Array(1))[0] } : {};
  const asked = threads();
  const kept = await Promise.all(asked.map((t) => t.send(text, extra, pictures)));
  if (kept.some((k) => k)) return;
  setText($("say").value ? `${text}\n${$("say").value}` : text); // nothing that was typed is lost
  images.put([...pictures, ...images.urls]);
  for (const t of asked) if (t.again) t.again = submit;
}

const images = new Images($("images"), notice);
$("attach").addEventListener("click", () => $("image-file").click());
$("image-file").addEventListener("change", (e) => {
  images.add([...e.target.files]);
  e.target.value = "";
});
$("camera").addEventListener("click", camera((file) => images.add([file]), notice));
$("say").addEventListener("paste", (e) => images.add([...e.clipboardData.files]));
// Anywhere on the page, which the browser would leave for the file; text is dropped as ever.
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (e) => {
    if (!images.on || $("chat").hidden || !e.dataTransfer.types.includes("Files")) return;
    e.preventDefault();
    if (kind === "drop") images.add([...e.dataTransfer.files]);
  });
}

function setText(text) {
  $("say").value = text;
  grow($("say"));
}

$("chat-form").addEventListener("submit", (e) => {
  e.preventDefault();
  submit();
});
$("say").addEventListener("keydown", (e) => {
  if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
  e.preventDefault();
  submit();
});
$("generate-form").addEventListener("submit", (e) => {
  e.preventDefault();
  if (!busy()) generation.start($("prompt").value);
});
$("prompt").addEventListener("keydown", (e) => {
  if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) $("generate-form").requestSubmit();
});
for (const area of [$("say"), $("prompt")]) area.addEventListener("input", () => grow(area));
for (const stop of document.querySelectorAll(".stop")) stop.addEventListener("click", stopAll);
document.addEventListener("keydown", (e) => { if (e.key === "Escape" && busy()) stopAll(); });

$("new-chat").addEventListener("click", () => {
  open(store.create(forms.a.input("system").value));
  panels.chats.leave();
  $("say").focus();
});

// A toggle stands for a field of forms.
function toggle(id, names, field, [off, onValue], opened) {
  const pressed = () => String(forms[names[0]].input(field)[field === "logprobs" ? "checked" : "value"]) === String(onValue);
  $(id).addEventListener("click", () => {
    const value = pressed() ? off : onValue;
    for (const name of names) forms[name].set(field, value);
    if (value === onValue) opened?.();
  });
  return () => $(id).setAttribute("aria-pressed", pressed());
}
const toggles = [
  toggle("probabilities", ["a", "b"], "logprobs", [false, true]),
  toggle("generate-probabilities", ["g"], "logprobs", [false, true]),
  toggle("tools", ["a", "b"], "mode", ["", "tools"], () => {
    panels.parameters.open();
    const field = forms.a.input("tools");
    field.closest("details").open = true;
    field.scrollIntoView({ block: "nearest" });
  }),
];
$("compare").addEventListener("click", () => {
  if (comparing()) return compare(false);
  forms.b.reset(forms.a.changed());
  compare(true);
  panels.parameters.open();
});
$("keep-b").addEventListener("click", () => {
  if (!b.conversation.messages.length) return;
  keep({ ...structuredClone(b.conversation), id: store.create().id, title: `${a.conversation.title} (B)`, updated: Date.now() });
  notice("The conversation with settings B is among the chats.");
});
for (const show of document.querySelectorAll(".show-code")) show.addEventListener("click", () => $("code-dialog").showModal());
for (const close of document.querySelectorAll("dialog .close")) close.addEventListener("click", () => close.closest("dialog").close());

// --- Parameters ---------------------------------------------------------------

const selectSide = tabs([$("tab-a"), $("tab-b")], showForms);
const selectView = tabs([$("tab-chat"), $("tab-generate")], (tab) => {
  for (const name of ["chat", "generate"]) $(name).hidden = tab.id !== `tab-${name}`;
  $("sides").hidden = !comparing() || $("chat").hidden;
  showForms();
  showSettings();
});

// shownForm returns the name of the form that is on the page.
function shownForm() {
  if ($("chat").hidden) return "g";
  return $("tab-b").getAttribute("aria-selected") === "true" ? "b" : "a";
}

function showForms() {
  for (const name of Object.keys(forms)) $(`fields-${name}`).hidden = name !== shownForm();
  $("model-defaults").hidden = shownForm() !== "g" || !server.info?.sampling_defaults;
}

const settingsKey = `millrace:${new URL("..", location.href).pathname}:settings`;
const view = () => ($("chat").hidden ? "generate" : "");

// showSettings tells what is set, and keeps it for the next visit.
function showSettings() {
  for (const show of toggles) show();
  const set = forms[$("chat").hidden ? "g" : "a"].changed().length;
  $("show-parameters").textContent = set ? `Parameters (${set})` : "Parameters";
  const side = (form) => form.changed().map(([k, v]) => (v.length > 20 ? k : `${k} ${v}`)).join(", ") || "default settings";
  a.heading(comparing() && `A: ${side(forms.a)}`);
  b.heading(comparing() && `B: ${side(forms.b)}`);
  try {
    localStorage.setItem(settingsKey, new URL(link(forms, { view: view() })).hash);
  } catch { /* storage is turned off */ }
}
$("parameters").addEventListener("change", showSettings);
$("reset").addEventListener("click", () => {
  forms[shownForm()].reset();
  showSettings();
});
$("model-defaults").addEventListener("click", () => {
  for (const [name, value] of Object.entries(server.info.sampling_defaults)) if (forms.g.input(name)) forms.g.set(name, value);
});

function settingsOfLastVisit() {
  try {
    return localStorage.getItem(settingsKey) ?? "";
  } catch {
    return ""; // storage is turned off
  }
}

const hasLink = () => location.hash.length > 1;

// restore takes the parameters of a link, or of the last visit.
function restore(fragment) {
  const values = apply(forms, fragment);
  history.replaceState(null, "", location.pathname + location.search);
  if (values.say) setText(values.say);
  if (values.prompt) $("prompt").value = values.prompt;
  if (values.compare) compare(true);
  selectView(values.view === "generate" ? $("tab-generate") : $("tab-chat"));
}
addEventListener("hashchange", () => { if (hasLink()) restore(location.hash); });

// --- More ---------------------------------------------------------------------

// notice says something for a moment, or as long as there is something to do.
function notice(text, label, act) {
  const box = $("notice");
  box.replaceChildren(text);
  const close = () => { if (box.firstChild?.data === text) box.replaceChildren(); };
  if (label) {
    box.append(button(label, () => {
      close();
      act();
    }), button("Dismiss", close));
  } else setTimeout(close, 4000);
}

function more(id, act) {
  $(id).addEventListener("click", () => {
    $("more").hidePopover();
    act();
  });
}
$("share").addEventListener("click", () => {
  const shared = link(forms, {
    view: view(),
    compare: comparing() ? "yes" : "",
    say: view() ? "" : $("say").value,
    prompt: view() ? $("prompt").value : "",
  });
  copy($("share"), $("share"), shared);
});

function exportChat(kind, type, text) {
  const c = a.conversation;
  if (!c.messages.length) return notice("This chat is empty.");
  const name = c.title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 40) || "chat";
  download(`${name}.${kind}`, type, text(c));
}
more("export-json", () => exportChat("json", "application/json", (c) => toJSON([c])));
more("export-markdown", () => exportChat("md", "text/markdown", toMarkdown));
more("export-all", () => download("millrace-chats.json", "application/json", toJSON(store.list())));
more("import", () => $("import-file").click());
$("import-file").addEventListener("change", async (e) => {
  const [file] = e.target.files;
  if (!file) return;
  try {
    const read = fromText(await file.text()).map((c) => ({ ...store.create(), ...c }));
    for (const c of read) keep(c);
    if (read.length) open(read[0]);
    notice(read.length === 1 ? "1 chat imported." : `${read.length} chats imported.`);
  } catch (err) {
    notice(`${file.name} cannot be imported: ${err.message}.`);
  }
  e.target.value = ""; // the same file may be chosen again
});

function askKey() {
  $("key").value = server.key;
  if (!$("key-dialog").open) $("key-dialog").showModal();
}
more("change-key", askKey);
$("key-form").addEventListener("submit", (e) => {
  e.preventDefault();
  setKey($("key").value.trim());
  $("key-dialog").close();
  start();
  const t = threads().find((t) => t.failure?.status === 401);
  t?.retry();
});

// --- Start --------------------------------------------------------------------

const samples = {
  demo: ["What is Millrace?", "How do I serve my own model?", "Which models does it support?", "How do I deploy it on Lambda?", "How do I stream tokens?"],
  others: ["Explain recursion with an example in Python.", "Write a haiku about a river.", "What are the pros and cons of electric cars? Answer in a table.", "Suggest three dinners with lentils."],
};

function welcome() {
  images.on = Boolean(server.info.max_images);
  $("attach").hidden = !images.on;
  $("camera").hidden = !images.on || !hasCamera;
  const demo = server.model === "millrace-demo";
  $("greeting").textContent = demo ? "This is the demo model. It is tiny, and knows Millrace only." : "What would you like to ask?";
  $("samples").replaceChildren(...(demo ? samples.demo : samples.others).map((text) => button(text, () => {
    setText(text);
    submit();
    $("say").focus();
  }, "sample")));
  $("prompt").value ||= demo ? "What is Millrace?" : "Once upon a time";
  const preset = server.info.sampling_defaults ?? {};
  forms.a.showDefaults(preset);
  forms.b.showDefaults(preset);
  showForms();
}

function start() {
  connect((name, facts, wantsKey) => {
    $("model-name").textContent = name;
    $("model-facts").textContent = facts;
    if (wantsKey) askKey();
  }, welcome);
}

addEventListener("pagehide", () => { if (a.running && a.conversation.messages.at(-1).versions?.some((v) => v.content)) keep(a.conversation); });

let shown; // the conversation of before the reload; a link begins a new one
try {
  if (!hasLink()) shown = store.all.get(sessionStorage.getItem("millrace:shown"));
} catch { /* storage is turned off */ }
const settings = hasLink() ? location.hash : settingsOfLastVisit();
open(shown ?? store.create());
restore(settings);
if (shown) forms.a.set("system", shown.system);
showBusy();
if (matchMedia("(min-width: 75rem)").matches) panels.chats.open();
if (!matchMedia("(pointer: coarse)").matches) $("say").focus();
start();
watch(busy);
