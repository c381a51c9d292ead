"""Writes render.json: what transformers makes of requests with the templates of templates/.

    python render.py        # needs transformers (5.23.0 made the committed file) and jinja2

The requests are as clients send them. What a caller of transformers must know
of a template, and the Go code finds out by trying, is in CALLERS.
"""

import copy
import json
import pathlib

from transformers.utils.chat_template_utils import render_jinja_template

HERE = pathlib.Path(__file__).parent
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'Get <b>weather</b> & "more"\nfor é',
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "City, e.g. 'Zürich'"},
                "days": {"type": ["integer", "null"]},
                "list": {"type": "array", "items": {"type": "number"}},
            },
            "required": ["location"],
        },
    },
}
ARGUMENTS = '{"location": "Zürich", "n": 1.5, "big": 10000000000, "ok": true, "none": null}'
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "abcdefghi", "type": "function", "function": {"name": "get_weather", "arguments": ARGUMENTS}}]}
RESULT = {"role": "tool", "tool_call_id": "abcdefghi", "content": "22 °C"}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


SYSTEM = {"role": "system", "content": " Be <kind>.\n"}
IMAGE = {"type": "image_url", "image_url": {"url": "http://localhost/a.png"}}
TEXT = {"type": "text", "text": " What is 'it'? "}

REQUESTS = {
    "one": {"messages": [user(" Hi <you> & 'them' \"q\" 😀 ")]},
    "system": {"messages": [SYSTEM, user("Hi"), assistant("Hello\n"), user("ok?")]},
    "thought": {"messages": [user("Hi"), assistant("<think>\nx\n</think>\n\nHello"), user("ok?"), assistant("5", reasoning_content="2+3"), user("?")]},
    "continue": {"messages": [user("Hi"), assistant("Once upon a ")]},
    "two users": {"messages": [user("a"), user("b")]},
    "text chunks": {"messages": [user([TEXT, {"type": "text", "text": "b"}])]},
    "image": {"messages": [user([IMAGE, TEXT])]},
    "image and system": {"messages": [SYSTEM, user([IMAGE, TEXT])]},
    "tools": {"messages": [SYSTEM, user("Weather?")], "tools": [WEATHER, WEATHER]},
    "call": {"messages": [user("Weather?"), CALL], "tools": [WEATHER]},
    "result": {"messages": [user("Weather?"), CALL, RESULT], "tools": [WEATHER]},
    "answered": {"messages": [user("Weather?"), CALL, RESULT, assistant("Warm."), user("Thanks")], "tools": [WEATHER]},
    "two calls": {"messages": [user("Weather?"), {**CALL, "tool_calls": [*CALL["tool_calls"], *copy.deepcopy(CALL["tool_calls"])]}, RESULT, RESULT], "tools": [WEATHER]},
    "variables": {"messages": [user("Hi")], "chat_template_kwargs": {"enable_thinking": False, "date_string": "1 Jan 2030"}},
    "guideline": {"messages": [user("Hi")], "guideline": "No 'harm'."},
}
USES_TOOLS = {"tools", "call", "result", "answered", "two calls"}
USES_IMAGES = {"image", "image and system"}

# tools: the template shows calls. content: text or lists, if it takes one only.
CALLERS = {
    "llama31": {"tools": True, "content": "text"},
    "llama32vision": {},
    "qwen25": {"tools": True, "content": "text"},
    "qwen3": {"tools": True, "content": "text"},
    "mistral": {"tools": True, "content": "text"},
    "mistralargs": {"tools": True},
    "gemma2": {"content": "text"},
    "gemma3": {},
    "phi3": {"content": "text"},
    "phi4mini": {"content": "text"},
    "deepseek": {"tools": True, "content": "text", "arguments": "text", "null": True},
    "chatml": {"content": "text"},
    "commandr": {"content": "text"},
    "commandr_tools": {"tools": True, "content": "text"},
    "shieldgemma": {"content": "text", "guideline": True},
    "listsonly": {"content": "lists"},
}


def content(value, kind):
    if kind == "lists" and isinstance(value, str):
        return [{"type": "text", "text": value}]
    if isinstance(value, list):
        if kind == "text":
            return "".join(chunk["text"] for chunk in value)
        return [{"type": "image"} if chunk["type"] == "image_url" else chunk for chunk in value]
    return value


def message(m, caller):
    m = copy.deepcopy(m)
    m["content"] = content(m["content"], caller.get("content"))
    if m["content"] is None and not caller.get("null"):
        del m["content"]
    for call in m.get("tool_calls", []):
        if caller.get("arguments") != "text":
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return m


def render(template, caller, request):
    messages = [message(m, caller) for m in request["messages"]]
    last = messages[-1]
    go_on = last["role"] == "assistant" and "tool_calls" not in last
    variables = {**TOKENS, **request.get("chat_template_kwargs", {})}
    if "guideline" in request:
        variables["guideline"] = request["guideline"]
    texts, _ = render_jinja_template(
        conversations=[messages],
        tools=request.get("tools"),
        chat_template=template,
        continue_final_message=go_on,
        add_generation_prompt=not go_on,
        **variables,
    )
    return texts[0]


def main():
    rows = []
    for name, caller in CALLERS.items():
        template = (HERE / "templates" / f"{name}.jinja").read_text()
        for case, request in REQUESTS.items():
            if caller.get("guideline") and case != "guideline":
                continue
            if case in USES_TOOLS and not caller.get("tools") or case in USES_IMAGES and caller.get("content") == "text":
                continue
            row = {"template": name, "case": case}
            try:
                row["text"] = render(template, caller, request)
            except Exception as e:
                row["error"] = str(e)
            rows.append(row)
    write = lambda v: json.dumps(v, ensure_ascii=False)
    requests = ",\n".join(f"{write(k)}: {write(v)}" for k, v in REQUESTS.items())
    text = '{"requests": {\n' + requests + '\n},\n"rows": [\n' + ",\n".join(map(write, rows)) + "\n]}\n"
    (HERE / "render.json").write_text(text)
    print(len(rows), "rows,", sum("error" in r for r in rows), "errors")


if __name__ == "__main__":
    main()
