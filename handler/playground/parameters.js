// The parameters of requests, as fields of forms, and the bodies made of them.
// A field that is left empty is not sent, so that the server's default holds.

const exampleTools = [{
  type: "function",
  function: {
    name: "get_weather",
    description: "Current weather of a place",
    parameters: {
      type: "object",
      properties: { city: { type: "string" }, unit: { enum: ["celsius", "fahrenheit"] } },
      required: ["city"],
    },
  },
}];

const exampleSchema = {
  type: "object",
  properties: { name: { type: "string" }, tags: { type: "array", items: { type: "string" }, maxItems: 3 } },
  required: ["name", "tags"],
};

const field = (kind) => (name, label, help, more) => ({ kind, name, label, help, ...more });
const number = field("number"), check = field("checkbox"), text = field("text"), area = field("area"), lines = field("lines"), select = field("select");
const json = (name, label, help, value, more) => ({ kind: "json", name, label, help, value: value && JSON.stringify(value, null, 1), ...more });
const whole = { step: 1 };

const temperature = number("temperature", "Temperature", "Higher is more varied, lower is more predictable.", { min: 0, placeholder: "1", slider: [0, 2, 0.05, 1] });
const topP = number("top_p", "Top p", "Draws from the likeliest tokens that together have this probability.", { min: 0, max: 1, placeholder: "1", slider: [0, 1, 0.01, 1] });
const topK = number("top_k", "Top k", "Draws from this many of the likeliest tokens.", { ...whole, min: 1, placeholder: "all" });
const minP = number("min_p", "Min p", "Leaves out tokens that are less likely than this share of the likeliest one.", { min: 0, max: 1, placeholder: "0", slider: [0, 1, 0.01, 0] });
const typicalP = number("typical_p", "Typical p", "Leaves out tokens that are much more or much less likely than expected (locally typical sampling).", { min: 0, max: 1, placeholder: "1", slider: [0, 1, 0.01, 1] });
const seed = number("seed", "Seed", "The same request with the same seed gets the same answer.", { ...whole, min: 0, placeholder: "random" });
const repetition = number("repetition_penalty", "Repetition penalty", "Above 1: tokens that occur in the prompt or the answer become less likely.", { min: 0, placeholder: "1", slider: [1, 2, 0.05, 1] });
const frequency = number("frequency_penalty", "Frequency penalty", "Above 0: tokens become less likely each time they occur in the answer.", { min: -2, max: 2, placeholder: "0", slider: [-2, 2, 0.1, 0] });
const stream = check("stream", "Stream", "Show the answer while it is generated.", { on: true });

// A group is {title, fields}, an open one is unfolded at first. `only` names the
// modes in which a field is shown and sent.
export const chatGroups = [
  { title: "Instructions", open: true, fields: [
    area("system", "System prompt", "Tells the model how to behave. Not every model knows system prompts.", { rows: 3 }),
  ] },
  { title: "Sampling", open: true, fields: [
    { ...temperature, help: `${temperature.help} 0 always takes the likeliest token.` },
    topP, topK, minP, typicalP, seed,
    number("n", "Answers", "How many to generate at once.", { ...whole, min: 1, placeholder: "1" }),
  ] },
  { title: "Length", fields: [
    number("max_tokens", "Longest answer", "In tokens. Empty: as much as the context holds.", { ...whole, min: 1, placeholder: "no limit" }),
    number("min_tokens", "Shortest answer", "The answer does not end before this many tokens.", { ...whole, min: 0, placeholder: "0" }),
    lines("stop", "Stop texts", "Each line is a text that ends the answer."),
    check("ignore_eos", "Ignore the end", "Generate until the limit, even if the model would stop."),
  ] },
  { title: "Penalties", fields: [
    repetition,
    number("presence_penalty", "Presence penalty", "Above 0: tokens that occur in the answer become less likely, however often they do.", { min: -2, max: 2, placeholder: "0", slider: [-2, 2, 0.1, 0] }),
    frequency,
    json("logit_bias", "Token bias", "Makes single tokens more or less likely.", undefined, { rows: 1, placeholder: '{"token id": -100 … 100}' }),
    lines("bad_words", "Forbidden words", "One on each line. They are not generated."),
  ] },
  { title: "Format and tools", fields: [
    select("mode", "Answer as", "", { options: [["", "plain text"], ["tools", "text or tool calls"], ["schema", "JSON of a schema"], ["json", "any JSON"], ["regex", "regular expression"]] }),
    json("tools", "Tools", "Functions that the model may call. You type in their results.", exampleTools, { rows: 9, only: ["tools"] }),
    select("tool_choice", "Tool choice", "", { options: [["auto", "auto"], ["required", "required"], ["none", "none"]], only: ["tools"] }),
    check("parallel_tool_calls", "Parallel calls", "Allow several calls in one answer.", { on: true, only: ["tools"] }),
    text("tool_prompt", "Tool prompt", "Shown to models whose template does not know tools.", { only: ["tools"] }),
    json("schema", "JSON schema", "", exampleSchema, { rows: 9, only: ["schema"] }),
    text("regex", "Regular expression", "", { value: "(yes|no), because [a-z ]{1,40}\\.", only: ["regex"] }),
  ] },
  { title: "Tokens", fields: [
    check("logprobs", "Token probabilities", "Colour each token by its probability."),
    number("top_logprobs", "Alternatives", "How many to show for each token.", { ...whole, min: 0, max: 20, value: 3 }),
  ] },
  { title: "More", fields: [
    stream,
    select("reasoning_effort", "Reasoning effort", "For models that reason before they answer.", { options: [["", "the model's own"], ["none", "none"], ["low", "low"], ["medium", "medium"], ["high", "high"]] }),
    number("thinking_token_budget", "Reasoning budget", "The most tokens of reasoning. Then it is ended, and the model answers.", { ...whole, min: 0, placeholder: "no limit" }),
    json("chat_template_kwargs", "Template variables", "Variables for the chat template.", undefined, { rows: 1, placeholder: '{"enable_thinking": false}' }),
    text("guideline", "Guideline", "For templates that use one, such as those of guard models."),
  ] },
];

export const generateGroups = [
  { title: "Sampling", open: true, fields: [
    check("do_sample", "Draw tokens", "Without it, and without a value below, the likeliest token is taken."),
    temperature, topP, topK, minP, typicalP, seed,
    number("best_of", "Best of", "Generates this many and returns the likeliest. Not with streaming.", { ...whole, min: 1, placeholder: "1" }),
  ] },
  { title: "Length", open: true, fields: [
    number("max_new_tokens", "Longest output", "In tokens.", { ...whole, min: 1, placeholder: "100" }),
    lines("stop", "Stop texts", "Each line is a text that ends the output."),
    number("truncate", "Truncate", "Keeps only this many tokens of the prompt, from its end.", { ...whole, min: 1, placeholder: "off" }),
  ] },
  { title: "Penalties", fields: [repetition, frequency] },
  { title: "Format", fields: [
    select("mode", "Output as", "", { options: [["", "plain text"], ["json", "JSON of a schema"], ["regex", "regular expression"]] }),
    json("schema", "JSON schema", "", exampleSchema, { rows: 9, only: ["json"] }),
    text("regex", "Regular expression", "", { value: "(yes|no), because [a-z ]{1,40}\\.", only: ["regex"] }),
  ] },
  { title: "Tokens", fields: [
    check("logprobs", "Token probabilities", "Colour each token by its probability."),
    number("top_n_tokens", "Alternatives", "How many to show for each token.", { ...whole, min: 0, value: 3 }),
    check("decoder_input_details", "Score the prompt", "Show the probabilities of the prompt's tokens, too. Not with streaming."),
  ] },
  { title: "More", fields: [
    stream,
    check("details", "Details", "Return the tokens, the seed and why the output ended.", { on: true }),
    check("return_full_text", "Repeat the prompt", "Put the prompt before the output."),
    check("watermark", "Watermark", "Mark the output as generated."),
    text("adapter_id", "Adapter", "Name of a LoRA adapter."),
  ] },
];

// chatBody makes the body of a chat of messages and the form's values.
export function chatBody(model, messages, values) {
  const { system, mode, tools, schema, regex, logprobs, top_logprobs, stream, parallel_tool_calls, ignore_eos, ...rest } = values;
  const body = { model, messages: system ? [{ role: "system", content: system }, ...messages] : messages, ...rest };
  if (ignore_eos) body.ignore_eos = true;
  if (logprobs) {
    body.logprobs = true;
    if (top_logprobs) body.top_logprobs = top_logprobs;
  }
  if (mode === "tools") {
    body.tools = tools;
    if (!parallel_tool_calls) body.parallel_tool_calls = false;
  }
  if (mode === "schema") body.response_format = { type: "json_schema", json_schema: { name: "answer", schema } };
  if (mode === "json") body.response_format = { type: "json_object" };
  if (mode === "regex") body.response_format = { type: "regex", value: regex };
  if (stream) {
    body.stream = true;
    body.stream_options = { include_usage: true };
  }
  return body;
}

// generateBody makes the body of a generation of a prompt and the form's values.
export function generateBody(inputs, values) {
  const { mode, schema, regex, logprobs, top_n_tokens, stream, ...rest } = values;
  const parameters = {};
  if (logprobs && top_n_tokens) parameters.top_n_tokens = top_n_tokens;
  for (const [name, value] of Object.entries(rest)) if (value !== false) parameters[name] = value;
  if (mode === "json") parameters.grammar = { type: "json", value: schema };
  if (mode === "regex") parameters.grammar = { type: "regex", value: regex };
  return { inputs, parameters };
}
