// Markdown as elements: parsed by marked, cleaned by DOMPurify. HTML in an
// answer is shown as text. No image is loaded: links stand in their place.

import { Marked } from "./lib/marked.esm.js";
import "./lib/purify.min.js";
import { button, copy, make } from "./dom.js";

const escape = (s) => s.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

let shift = 0; // of the levels of headings, to those of the page

const marked = new Marked({
  breaks: true,
  gfm: true,
  renderer: {
    html: ({ text }) => escape(text),
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
    heading({ tokens, depth }) {
      const level = Math.min(6, depth + shift);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
  },
});

const clean = {
  ALLOWED_TAGS: ["a", "blockquote", "br", "code", "del", "em", "h3", "h4", "h5", "h6", "hr", "input", "li", "ol", "p", "pre",
    "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"],
  ALLOWED_ATTR: ["align", "checked", "class", "disabled", "href", "start", "title", "type"],
  RETURN_DOM_FRAGMENT: true,
};

// finish gives code its copy button, and makes links open apart from this page.
function finish(fragment) {
  for (const pre of fragment.querySelectorAll("pre")) {
    const code = pre.firstElementChild;
    const language = code?.className.match(/^language-(\S+)/)?.[1] ?? "";
    const box = make("div", "code"), bar = make("div", "code-bar");
    bar.append(make("span", "", language), button("Copy", (e) => copy(e.target, pre)));
    pre.replaceWith(box);
    pre.tabIndex = 0; // a long line is scrolled by keys, too
    box.append(bar, pre);
  }
  for (const table of fragment.querySelectorAll("table")) {
    const box = make("div", "wide-table");
    box.tabIndex = 0;
    table.replaceWith(box);
    box.append(table);
  }
  for (const a of fragment.querySelectorAll("a")) {
    a.target = "_blank";
    a.rel = "noopener noreferrer";
  }
  for (const box of fragment.querySelectorAll("input")) box.setAttribute("aria-label", "Done");
  return fragment;
}

// Markdown shows a text that grows. Blocks that stay as they are keep their
// elements, and with them what the reader has selected.
export class Markdown {
  constructor(element) {
    this.element = element;
    this.blocks = []; // {raw, nodes}
  }

  show(text) {
    const tokens = marked.lexer(text).filter((t) => t.type !== "space" && t.type !== "def");
    const top = Math.min(...tokens.filter((t) => t.type === "heading").map((t) => t.depth));
    if (top !== this.top) this.#cut(0); // a higher heading moves the others
    this.top = top;
    let same = 0;
    while (same < this.blocks.length && this.blocks[same].raw === tokens[same]?.raw) same++;
    this.#cut(same);
    for (const token of tokens.slice(same)) {
      shift = 3 - top;
      const fragment = finish(globalThis.DOMPurify.sanitize(marked.parser([token]), clean));
      this.blocks.push({ raw: token.raw, nodes: [...fragment.childNodes] });
      this.element.append(fragment);
    }
  }

  // #cut removes the blocks from one on.
  #cut(from) {
    for (const block of this.blocks.splice(from)) for (const node of block.nodes) node.remove();
  }
}
