// OpenAI's client in a browser, on a page of another origin: the server allows
// the headers that the client sends.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { start } from "./server.mjs";

const chromium = ["chromium", "chromium-browser", "google-chrome"].find((name) => !spawnSync(name, ["--version"]).error);

const page = (baseURL) => `<!doctype html><script type="module">
  const out = {};
  try {
    const { default: OpenAI } = await import("/openai/index.mjs");
    const client = new OpenAI({ baseURL: "${baseURL}", apiKey: "secret", dangerouslyAllowBrowser: true, maxRetries: 0, timeout: 20_000 });
    const request = { model: "tgi", messages: [{ role: "user", content: "What is Millrace?" }], max_tokens: 60, temperature: 0 };
    out.whole = (await client.chat.completions.create(request)).choices[0].message.content;
    out.streamed = "";
    for await (const chunk of await client.chat.completions.create({ ...request, stream: true })) out.streamed += chunk.choices[0]?.delta.content ?? "";
    out.models = (await client.models.list()).data.length;
    out.refused = await client.chat.completions.create({ ...request, temperature: -1 }).catch((e) => e.status);
  } catch (e) {
    out.error = String(e);
  }
  await fetch("/result", { method: "POST", body: JSON.stringify(out) });
</script>`;

test("chat in a browser", { skip: !chromium && "there is no chromium", timeout: 90_000 }, async (t) => {
  const baseURL = `${await start("--api-key", "secret")}/v1`;
  let done;
  const result = new Promise((resolve) => (done = resolve));
  const site = createServer(async (request, response) => {
    if (request.method === "POST") {
      let text = "";
      for await (const part of request) text += part;
      response.end();
      done(JSON.parse(text));
    } else if (request.url === "/") {
      response.setHeader("Content-Type", "text/html").end(page(baseURL));
    } else {
      const file = await readFile(join("node_modules", new URL(request.url, "http://x").pathname)).catch(() => null); // the client as npm has it
      response.writeHead(file ? 200 : 404, { "Content-Type": "text/javascript" }).end(file);
    }
  }).listen(0, "127.0.0.1");
  await once(site, "listening");
  const profile = await mkdtemp(join(tmpdir(), "chromium-"));
  const browser = spawn(chromium, ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--remote-debugging-pipe", `--user-data-dir=${profile}`, `http://127.0.0.1:${site.address().port}/`],
    { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
  t.after(async () => {
    const ended = once(browser, "exit");
    browser.kill();
    await ended;
    site.closeAllConnections();
    site.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 10 });
  });
  const got = await result;
  assert.equal(got.error, undefined);
  assert.match(got.whole, /server/);
  assert.equal(got.streamed, got.whole);
  assert.equal(got.models, 1);
  assert.equal(got.refused, 422);
});
