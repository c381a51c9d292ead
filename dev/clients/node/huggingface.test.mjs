// @huggingface/inference on a server of one's own.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { InferenceClient } from "@huggingface/inference";
import { start } from "./server.mjs";

// It asks /v1/completions, which draws unless it is told not to.
const parameters = { max_new_tokens: 40, return_full_text: false, temperature: 0 };
let client, endpointUrl;

before(async () => {
  endpointUrl = await start();
  client = new InferenceClient("-");
});

test("text generation", async () => {
  const { generated_text: whole } = await client.textGeneration({ endpointUrl, inputs: "What is Millrace?", parameters });
  assert.match(whole, /server/);
  let streamed = "";
  for await (const event of client.textGenerationStream({ endpointUrl, inputs: "What is Millrace?", parameters })) {
    streamed += event.choices[0].text;
  }
  assert.equal(streamed, whole);
});

test("chat", async () => {
  const messages = [{ role: "user", content: "What is Millrace?" }];
  const out = await client.chatCompletion({ endpointUrl, messages, max_tokens: 60, temperature: 0 });
  assert.match(out.choices[0].message.content, /server/);
  let streamed = "";
  for await (const chunk of client.chatCompletionStream({ endpointUrl, messages, max_tokens: 60, temperature: 0 })) {
    streamed += chunk.choices[0]?.delta?.content ?? "";
  }
  assert.equal(streamed, out.choices[0].message.content);
});
