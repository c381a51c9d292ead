// The request that was sent, as code for other clients. Pure functions.

const indent = (code, by) => code.replace(/\n/g, "\n" + by);

// python writes a JSON value as a Python literal.
export function python(v, by = "") {
  if (v === null || v === undefined) return "None";
  if (v === true) return "True";
  if (v === false) return "False";
  if (typeof v === "string") return JSON.stringify(v);
  if (typeof v !== "object") return String(v);
  const inner = by + "    ";
  const parts = Array.isArray(v)
    ? v.map((e) => python(e, inner))
    : Object.entries(v).map(([k, e]) => `${JSON.stringify(k)}: ${python(e, inner)}`);
  const [open, close] = Array.isArray(v) ? "[]" : "{}";
  const flat = open + parts.join(", ") + close;
  if (flat.length + by.length <= 80 && !flat.includes("\n")) return flat;
  return `${open}\n${parts.map((p) => inner + p + ",").join("\n")}\n${by}${close}`;
}

const shell = (s) => "'" + s.replaceAll("'", "'\\''") + "'";

export function curl({ url, body, key }) {
  const options = [
    `-H 'Content-Type: application/json'`,
    ...(key ? [`-H "Authorization: Bearer $API_KEY"`] : []),
    `-d ${shell(JSON.stringify(body, null, 1))}`,
  ];
  return `curl -N ${shell(url)} \\\n  ${options.join(" \\\n  ")}\n`;
}

export function boto3({ path, body, streamed }) {
  let sent = body;
  if (path !== "/v1/chat/completions") {
    // /invocations streams if the body says so, and repeats the prompt unless told.
    sent = { ...body, parameters: { return_full_text: false, ...body.parameters } };
    if (streamed) sent.stream = true;
  }
  const call = `EndpointName="YOUR-ENDPOINT",\n    ContentType="application/json",\n    Body=json.dumps(body),`;
  const head = `import json\n\nimport boto3\n\nruntime = boto3.client("sagemaker-runtime")\nbody = ${python(sent)}\n`;
  if (!streamed) {
    return `${head}answer = runtime.invoke_endpoint(\n    ${call}\n)\nprint(json.load(answer["Body"]))\n`;
  }
  return `${head}answer = runtime.invoke_endpoint_with_response_stream(\n    ${call}\n)\n` +
    `for event in answer["Body"]:\n    print(event["PayloadPart"]["Bytes"].decode(errors="replace"), end="")\n`;
}

const openAIChat = new Set(["model", "messages", "tools", "tool_choice", "parallel_tool_calls", "response_format", "stream",
  "stream_options", "logprobs", "top_logprobs", "max_tokens", "stop", "temperature", "top_p", "seed", "n",
  "frequency_penalty", "presence_penalty", "logit_bias"]);

// In OpenAI's words, for text completions: ours → theirs.
const completion = { max_new_tokens: "max_tokens", stop: "stop", temperature: "temperature", top_p: "top_p", seed: "seed",
  frequency_penalty: "frequency_penalty", top_n_tokens: "logprobs", best_of: "best_of", return_full_text: "echo" };

export function openAI({ base, path, body, streamed, model, key }) {
  const args = {}, extra = {}, without = [];
  let method = "chat.completions", show = "chunk.choices[0].delta.content";
  if (path === "/v1/chat/completions") {
    for (const [k, v] of Object.entries(body)) (openAIChat.has(k) ? args : extra)[k] = v;
    if (body.response_format?.type === "regex") { // a form of TGI's
      extra.response_format = args.response_format;
      delete args.response_format;
    }
  } else {
    method = "completions";
    show = "chunk.choices[0].text";
    Object.assign(args, { model, prompt: body.inputs, temperature: 0 });
    const p = body.parameters;
    if (p.do_sample || p.top_k || p.top_p < 1 || p.typical_p < 1) delete args.temperature; // as TGI decides
    for (const [k, v] of Object.entries(p)) {
      if (k === "repetition_penalty") extra[k] = v;
      else if (completion[k]) args[completion[k]] = v;
      else if (!["do_sample", "details"].includes(k)) without.push(k);
    }
    if (streamed) args.stream = true;
  }
  if (Object.keys(extra).length) args.extra_body = extra;
  const list = Object.entries(args).map(([k, v]) => `    ${k}=${indent(python(v), "    ")},`).join("\n");
  const note = without.length ? `# OpenAI's completions have no ${without.join(", ")}\n` : "";
  const head = `${key ? "import os\n\n" : ""}from openai import OpenAI\n\n` +
    `client = OpenAI(base_url=${JSON.stringify(base + "/v1")}, api_key=${key ? 'os.environ["API_KEY"]' : '"none"'})\n${note}`;
  if (!streamed) return `${head}answer = client.${method}.create(\n${list}\n)\nprint(answer.to_json())\n`;
  const print = body.tools ? "print(chunk.choices[0].delta)" : `print(${show} or "", end="", flush=True)`;
  return `${head}for chunk in client.${method}.create(\n${list}\n):\n    if chunk.choices:\n        ${print}\n`;
}
