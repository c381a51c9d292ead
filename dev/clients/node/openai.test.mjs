// OpenAI's client for Node.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { start, weather } from "./server.mjs";

const model = "tgi";
const messages = [{ role: "user", content: "What is Millrace?" }];
let client;

before(async () => {
  client = new OpenAI({ baseURL: `${await start()}/v1`, apiKey: "-", maxRetries: 0 });
});

test("chat", async () => {
  const out = await client.chat.completions.create({ model, messages, max_tokens: 60, temperature: 0 });
  assert.match(out.choices[0].message.content, /server/);
  assert.equal(out.choices[0].finish_reason, "stop");
});

test("chat stream", async () => {
  const whole = (await client.chat.completions.create({ model, messages, max_tokens: 60, temperature: 0 })).choices[0].message.content;
  const stream = client.chat.completions.stream({ model, messages, max_tokens: 60, temperature: 0, stream_options: { include_usage: true } });
  assert.equal((await stream.finalChatCompletion()).choices[0].message.content, whole);
  assert.ok((await stream.totalUsage()).completion_tokens > 0);
});

test("tools are run", async () => {
  const runner = client.chat.completions.runTools({
    model,
    max_tokens: 60, temperature: 0,
    messages: [{ role: "user", content: "What is the weather in Paris?" }],
    tools: [{ type: "function", function: { ...weather, parse: JSON.parse, function: ({ city }) => ({ city, temperature: 21, condition: "sunny" }) } }],
  });
  assert.match(await runner.finalContent(), /21/);
});

test("parse", async () => {
  const port = z.object({ name: z.string().max(20), port: z.number().int().min(1).max(65535) });
  const out = await client.chat.completions.parse({ model, messages: [{ role: "user", content: "Give me some JSON." }], max_tokens: 80, temperature: 0, response_format: zodResponseFormat(port, "port") });
  assert.ok(out.choices[0].message.parsed.port);
});

test("completions", async () => {
  const out = await client.completions.create({ model, prompt: "What is Millrace?", max_tokens: 40, temperature: 0 });
  assert.match(out.choices[0].text, /server/);
});

test("errors", async () => {
  await assert.rejects(client.chat.completions.create({ model, messages, temperature: -1 }), (error) => error instanceof OpenAI.UnprocessableEntityError);
});
