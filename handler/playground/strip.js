// The strip shows what the server is doing: its queue, its cache and its speed,
// from /metrics, of which it asks for these alone.

import { $ } from "./dom.js";
import { server } from "./server.js";

const names = ["tgi_queue_size", "tgi_batch_current_size", "millrace_kv_usage_ratio", "millrace_prompt_tokens_total",
  "millrace_cache_hit_tokens_total", "millrace_generated_tokens_total"];

let last = null; // {at, tokens} of the poll before

async function poll() {
  const resp = await fetch(`${server.base}/metrics?${new URLSearchParams(names.map((n) => ["name[]", n]))}`);
  if (!resp.ok) throw new Error(resp.statusText);
  const lines = (await resp.text()).split("\n").filter((l) => l && !l.startsWith("#"));
  const value = Object.fromEntries(lines.map((l) => l.split(" ")).map(([name, v]) => [name, Number(v)]));
  const [queue, running, kv, prompts, hits, tokens] = names.map((n) => value[n] ?? 0);
  const now = { at: performance.now(), tokens };
  const rate = last ? Math.max(0, 1000 * (now.tokens - last.tokens) / (now.at - last.at)) : 0;
  last = now;
  const show = (id, text) => { $(id).textContent = text; };
  show("strip-running", running);
  show("strip-queue", queue);
  show("strip-cache", `${Math.round(100 * kv)} %`);
  show("strip-hits", prompts ? `${Math.round(100 * hits / prompts)} %` : "–");
  show("strip-rate", rate.toFixed(rate < 10 ? 1 : 0));
}

// watch shows the strip as long as the page is seen: each second while busy()
// says so, and every five seconds otherwise. Without metrics it is hidden.
export async function watch(busy) {
  for (;;) {
    if (document.visibilityState === "visible") {
      try {
        await poll();
        $("strip").hidden = false;
      } catch {
        $("strip").hidden = true;
        last = null;
      }
    }
    const working = busy();
    for (let i = 0; i < (working ? 1 : 5); i++) {
      await new Promise((done) => { setTimeout(done, 1000); });
      if (busy()) break;
    }
  }
}
