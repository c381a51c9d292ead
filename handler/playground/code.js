// The request that was sent last, as code.

import { $, copy, tabs } from "./dom.js";
import { server } from "./server.js";
import { boto3, curl, openAI } from "./snippets.js";

let sent = null, write = curl;

function show() {
  $("code").textContent = sent ? write({ ...sent, base: server.base, url: server.base + sent.path, model: server.model, key: server.key !== "" }) :
    "Send a message: its request is shown here.";
  $("copy").disabled = !sent;
}

// setSent takes {path, body}, or null for none.
export function setSent(request) {
  sent = request && { ...request, streamed: !!request.body.stream || request.path === "/generate_stream" };
  show();
}

const writers = { "tab-curl": curl, "tab-boto3": boto3, "tab-openai": openAI };
tabs(Object.keys(writers).map($), (tab) => {
  write = writers[tab.id];
  $("code").setAttribute("aria-labelledby", tab.id);
  show();
});
$("copy").addEventListener("click", () => copy($("copy"), $("code")));
show();
