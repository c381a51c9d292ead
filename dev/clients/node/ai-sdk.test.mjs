// The AI SDK with its provider for servers that speak OpenAI's API.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { start, weather } from "./server.mjs";

let model;

before(async () => {
  const provider = createOpenAICompatible({ name: "millrace", baseURL: `${await start()}/v1`, includeUsage: true, supportsStructuredOutputs: true });
  model = provider("tgi");
});

test("text", async () => {
  const { text, usage } = await generateText({ model, prompt: "What is Millrace?", maxOutputTokens: 60, temperature: 0, maxRetries: 0 });
  assert.match(text, /server/);
  assert.ok(usage.outputTokens > 0);
});

test("stream", async () => {
  const { text } = await generateText({ model, prompt: "What is Millrace?", maxOutputTokens: 60, temperature: 0 });
  const stream = streamText({ model, prompt: "What is Millrace?", maxOutputTokens: 60, temperature: 0 });
  let streamed = "";
  for await (const part of stream.textStream) streamed += part;
  assert.equal(streamed, text);
  assert.equal(await stream.finishReason, "stop");
});

test("tools are run", async () => {
  const getWeather = tool({ description: weather.description, inputSchema: jsonSchema(weather.parameters), execute: async ({ city }) => ({ city, temperature: 21, condition: "sunny" }) });
  for (const call of [generateText, streamText]) {
    const out = await call({ model, prompt: "What is the weather in Paris?", tools: { get_weather: getWeather }, stopWhen: stepCountIs(2), maxOutputTokens: 60, temperature: 0 });
    assert.match(await out.text, /21/);
  }
});

test("object", async () => {
  const schema = jsonSchema({ type: "object", properties: { port: { type: "integer", minimum: 1, maximum: 65535 } }, required: ["port"], additionalProperties: false });
  const { object } = await generateObject({ model, schema, prompt: "Give me some JSON.", maxOutputTokens: 60, temperature: 0 });
  assert.ok(object.port >= 1);
});

test("object with a record and a list without repetitions", async () => {
  const schemas = [
    z.object({ ports: z.record(z.string(), z.number().int().min(1).max(65535)), kind: z.enum(["tcp", "udp"]) }),
    z.record(z.enum(["tcp", "udp"]), z.boolean()),
    jsonSchema({ type: "object", properties: { kinds: { type: "array", items: { enum: ["tcp", "udp"] }, uniqueItems: true, maxItems: 2 } }, required: ["kinds"], additionalProperties: false }),
  ];
  for (const schema of schemas) {
    const { object } = await generateObject({ model, schema, prompt: "Give me some JSON.", maxOutputTokens: 200, temperature: 0, maxRetries: 0 });
    assert.ok(object.kind ?? object.kinds ?? object);
  }
});
