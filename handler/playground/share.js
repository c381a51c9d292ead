// Links with parameters: the fragment of the page's address has those that are
// not as at the beginning, by their names in a request. It never leaves the
// browser on its own, and has neither the key nor the conversation.

// A form's names have its prefix, except those of the chat's first one.
const prefixes = { a: "", b: "b.", g: "generate." };

// link returns the address of the page with the parameters of forms, {a, b, g},
// and further values such as the message that is being written.
export function link(forms, more) {
  const all = new URLSearchParams(Object.entries(more).filter(([, v]) => v));
  for (const [name, form] of Object.entries(forms)) for (const [k, v] of form.changed()) all.append(prefixes[name] + k, v);
  const to = new URL(location.href);
  to.hash = all.toString();
  return to.href;
}

// apply puts the values of a fragment into forms, and returns them all.
export function apply(forms, fragment) {
  const all = new URLSearchParams(fragment.replace(/^#/, ""));
  for (const [name, form] of Object.entries(forms)) {
    const own = [...all].filter(([k]) => k.startsWith(prefixes[name])).map(([k, v]) => [k.slice(prefixes[name].length), v]);
    form.reset(own);
  }
  return Object.fromEntries(all);
}
