// The parameters of requests as form fields. A field that is left empty is not
// sent, so that the server's default holds.

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

const int = (name, min, placeholder, title) => ({ name, kind: "number", step: 1, min, placeholder, title });
const float = (name, min, max, placeholder, title) => ({ name, kind: "number", step: "any", min, max, placeholder, title });
const check = (name, on, title) => ({ name, kind: "checkbox", on, title });
const text = (name, title) => ({ name, kind: "text", title });
const lines = (name, title) => ({ name, kind: "lines", title });
const json = (name, value, only, rows) => ({ name, kind: "json", value: value && JSON.stringify(value, null, 1), only, rows });
const select = (name, options, only, title) => ({ name, kind: "select", options, only, title });
const heading = (label) => ({ label, kind: "heading" });

// `only` names the modes in which a field is shown and sent.
export const chatFields = [
  select("mode", [["", "plain text"], ["tools", "tools"], ["schema", "JSON schema"], ["json", "any JSON"], ["regex", "regular expression"]]),
  json("tools", exampleTools, ["tools"], 9),
  select("tool_choice", ["auto", "required", "none"], ["tools"]),
  { ...check("parallel_tool_calls", true, "More than one call in an answer"), only: ["tools"] },
  { ...text("tool_prompt", "Shown to models whose template knows no tools"), only: ["tools"] },
  json("schema", exampleSchema, ["schema"], 9),
  { name: "regex", kind: "text", value: "(yes|no), because [a-z ]{1,40}\\.", only: ["regex"] },
  check("stream", true, "Show the answer as it is made"),
  check("logprobs", true, "Colour tokens by their probability"),
  { ...int("top_logprobs", 0, "0", "Alternatives of each token"), value: 3 },
  heading("Length"),
  int("max_tokens", 1, "no limit"),
  lines("stop", "Texts that end the answer, one a line"),
  heading("Sampling"),
  float("temperature", 0, undefined, "1", "0: always the likeliest token"),
  float("top_p", 0, 1, "1"),
  int("seed", 0, "random"),
  int("n", 1, "1", "Number of answers"),
  float("frequency_penalty", -2, 2, "0"),
  float("presence_penalty", -2, 2, "0"),
  json("logit_bias", undefined, undefined, 1),
  text("guideline", "For templates that use one"),
];

export const generateFields = [
  check("stream", true, "Show the text as it is made"),
  check("logprobs", true, "Colour tokens by their probability"),
  { ...int("top_n_tokens", 0, "0", "Alternatives of each token"), value: 3 },
  heading("Length"),
  int("max_new_tokens", 1, "100"),
  lines("stop", "Texts that end the output, one a line"),
  int("truncate", 1, "off", "Keep only so many tokens of the prompt"),
  heading("Sampling"),
  check("do_sample", false, "Draw tokens instead of taking the likeliest"),
  float("temperature", 0, undefined, "1"),
  int("top_k", 1, "off"),
  float("top_p", 0, 1, "1"),
  float("typical_p", 0, 1, "1"),
  int("seed", 0, "random"),
  float("repetition_penalty", 0, undefined, "1"),
  float("frequency_penalty", -2, 2, "0"),
  int("best_of", 1, "1", "Of so many runs the likeliest; not with stream"),
  check("watermark", false),
  heading("Grammar"),
  select("mode", [["", "none"], ["json", "JSON schema"], ["regex", "regular expression"]]),
  json("schema", exampleSchema, ["json"], 9),
  { name: "regex", kind: "text", value: "(yes|no), because [a-z ]{1,40}\\.", only: ["regex"] },
  heading("Answer"),
  check("details", true, "Tell tokens, seed and why it ended"),
  check("decoder_input_details", false, "Score the prompt's tokens; not with stream"),
  check("return_full_text", false, "Repeat the prompt"),
  text("adapter_id", "Name of a LoRA adapter"),
];

// build fills a form with fields and returns read, which gives the values that
// are set: {name: value}. A wrong value throws with the field's name.
export function build(form, fields) {
  const rows = fields.map((f) => {
    const row = document.createElement(f.kind === "heading" ? "h3" : "label");
    if (f.kind === "heading") {
      row.textContent = f.label;
      form.append(row);
      return { f, row };
    }
    if (f.title) row.title = f.title;
    let input;
    if (f.kind === "select") {
      input = document.createElement("select");
      for (const o of f.options) input.append(new Option(...(Array.isArray(o) ? [o[1], o[0]] : [o])));
    } else if (f.kind === "json" || f.kind === "lines") {
      input = document.createElement("textarea");
      input.rows = f.rows || 2;
      input.value = f.value || "";
      if (f.kind === "json") input.className = "mono";
      input.spellcheck = false;
      row.className = "wide";
    } else {
      input = document.createElement("input");
      input.type = f.kind;
      for (const name of ["min", "max", "step"]) if (f[name] !== undefined) input[name] = f[name];
      if (f.value) input.value = f.value;
      if (f.kind === "text") row.className = "wide";
    }
    input.name = f.name;
    if (f.placeholder) input.placeholder = f.placeholder;
    if (f.name === "logit_bias") input.placeholder = '{"token id": -100 … 100}';
    if (f.kind === "checkbox") {
      input.checked = f.on;
      row.className = "check";
      row.append(input, f.name);
    } else {
      row.append(f.name, input);
    }
    form.append(row);
    return { f, row, input };
  });
  const mode = form.elements.mode;
  const shown = ({ f }) => !f.only || f.only.includes(mode.value);
  const show = () => rows.forEach((r) => { r.row.hidden = !shown(r); });
  mode.addEventListener("change", show);
  show();
  form.addEventListener("submit", (e) => e.preventDefault());

  return function read() {
    const values = {};
    for (const r of rows) {
      if (!r.input || !shown(r)) continue;
      const { f, input } = r;
      input.classList.remove("bad");
      if (f.kind === "checkbox") values[f.name] = input.checked;
      else if (!input.checkValidity()) throw new Error(`${f.name}: ${input.validationMessage}`);
      else if (input.value === "") continue;
      else if (f.kind === "number") values[f.name] = Number(input.value);
      else if (f.kind === "lines") values[f.name] = input.value.split("\n").filter((l) => l);
      else if (f.kind === "json") {
        try {
          values[f.name] = JSON.parse(input.value);
        } catch (err) {
          input.classList.add("bad");
          throw new Error(`${f.name} is no JSON: ${err.message}`);
        }
      } else values[f.name] = input.value;
    }
    return values;
  };
}

// chatBody makes the body of a chat of what read gave.
export function chatBody(model, messages, v) {
  const { mode, tools, schema, regex, logprobs, top_logprobs, stream, parallel_tool_calls, ...rest } = v;
  const body = { model, messages, ...rest };
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

// generateBody makes the body of a generation of what read gave.
export function generateBody(inputs, v) {
  const { mode, schema, regex, logprobs, top_n_tokens, stream, ...rest } = v;
  const parameters = {};
  if (logprobs && top_n_tokens) parameters.top_n_tokens = top_n_tokens;
  for (const [name, value] of Object.entries(rest)) if (value !== false) parameters[name] = value;
  if (mode === "json") parameters.grammar = { type: "json", value: schema };
  if (mode === "regex") parameters.grammar = { type: "regex", value: regex };
  return { inputs, parameters };
}
