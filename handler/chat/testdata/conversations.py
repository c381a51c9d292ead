"""Writes conversations.json.gz: what transformers makes of 40 conversations with each template.

    python conversations.py [FOLDER OUT.json.gz]     # needs transformers (5.24.0 made the committed file) and jinja2

FOLDER has templates, one in each *.jinja; without it they are those of
templates/. With it the templates may be those that are published: the source
distribution of llama-cpp-python carries seventy. TestRendersConversations reads
another file with -conversations FOLDER, if OUT is in it. A row has all
variables, so that a renderer needs to know nothing of a template.
"""

import copy
import gzip
import json
import pathlib
import sys

from transformers.utils.chat_template_utils import _alias_reasoning_fields, render_jinja_template

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
                "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
                "days": {"type": ["integer", "null"]},
                "list": {"type": "array", "items": {"type": "number"}},
                "where": {"type": "object", "properties": {"x": {"type": "number"}, "ok": {"type": "boolean"}}, "required": ["x"]},
            },
            "required": ["location"],
        },
    },
}
NOTHING = {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}}}
ARGUMENTS = {"location": "Zürich", "n": 1.5, "big": 10000000000, "ok": True, "none": None, "list": [1, "a\n", {"b": []}], "where": {"x": -0.25}}
IDS = ["abcdefghi", "jklmnopqr"]


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def calls(*names, content="", **more):
    made = [{"id": IDS[i], "type": "function", "function": {"name": n, "arguments": copy.deepcopy(ARGUMENTS) if n == "get_weather" else {}}} for i, n in enumerate(names)]
    return assistant(content, tool_calls=made, **more)


def result(content, i=0, name="get_weather"):
    return {"role": "tool", "tool_call_id": IDS[i], "name": name, "content": content}


SYSTEM = {"role": "system", "content": " Be <kind>.\n"}
PARTS = [{"type": "text", "text": " What is 'it'? "}, {"type": "text", "text": "b"}]
ASK = user("Weather?")
BOTH = [WEATHER, NOTHING]

# name: messages, tools, variables
CONVERSATIONS = {
    "one": ([user(" Hi <you> & 'them' \"q\" 😀 ")], None, {}),
    "empty": ([user("")], None, {}),
    "system": ([SYSTEM, user("Hi")], None, {}),
    "system alone": ([SYSTEM], None, {}),
    "developer": ([{"role": "developer", "content": "Be brief."}, user("Hi")], None, {}),
    "turns": ([SYSTEM, user("Hi"), assistant("Hello\n"), user("ok?")], None, {}),
    "many turns": ([user(f"q{i}") if i % 2 == 0 else assistant(f"a{i}") for i in range(9)], None, {}),
    "no prompt": ([user("Hi"), assistant("Hello")], None, {"add_generation_prompt": False}),
    "no prompt, user": ([user("Hi")], None, {"add_generation_prompt": False}),
    "two users": ([user("a"), user("b")], None, {}),
    "two assistants": ([user("a"), assistant("b"), assistant("c"), user("d")], None, {}),
    "assistant first": ([assistant("b"), user("a")], None, {}),
    "late system": ([user("a"), SYSTEM, user("b")], None, {}),
    "chunks": ([user(PARTS)], None, {}),
    "system chunks": ([{"role": "system", "content": PARTS}, user("Hi")], None, {}),
    "assistant chunks": ([user("Hi"), assistant(PARTS), user("ok")], None, {}),
    "image": ([user([{"type": "image"}, PARTS[0]])], None, {}),
    "thought": ([user("Hi"), assistant("5", reasoning_content="2+3"), user("?")], None, {}),
    "thought in text": ([user("Hi"), assistant("<think>\nx\n</think>\n\nHello"), user("ok?")], None, {}),
    "thought last": ([user("Hi"), assistant("5", reasoning_content="2+3")], None, {"add_generation_prompt": False}),
    "thought, other name": ([user("Hi"), assistant("5", thinking="2+3"), user("?")], None, {}),
    "thinking on": ([user("Hi")], None, {"enable_thinking": True, "thinking": True}),
    "thinking off": ([user("Hi")], None, {"enable_thinking": False, "thinking": False}),
    "effort": ([SYSTEM, user("Hi")], None, {"reasoning_effort": "high"}),
    "date": ([SYSTEM, user("Hi")], None, {"date_string": "1 Jan 2030"}),
    "tools": ([ASK], [WEATHER], {}),
    "tools, system": ([SYSTEM, ASK], BOTH, {}),
    "tools, effort": ([SYSTEM, ASK], BOTH, {"reasoning_effort": "low", "enable_thinking": False}),
    "tools, turns": ([ASK, assistant("Where?"), user("Here")], BOTH, {}),
    "call": ([ASK, calls("get_weather")], [WEATHER], {"add_generation_prompt": False}),
    "call, absent content": ([ASK, {k: v for k, v in calls("get_weather").items() if k != "content"}, result("22")], [WEATHER], {}),
    "call, null content": ([ASK, calls("get_weather", content=None), result("22")], [WEATHER], {}),
    "call without arguments": ([ASK, calls("now"), result("12:00", name="now")], BOTH, {}),
    "call after words": ([ASK, calls("get_weather", content="Let me see."), result("22 °C")], BOTH, {}),
    "call after thought": ([ASK, calls("get_weather", reasoning_content="I need it."), result("22 °C")], BOTH, {}),
    "answered": ([SYSTEM, ASK, calls("get_weather"), result('{"t": 22}'), assistant("Warm."), user("Thanks")], BOTH, {}),
    "two calls": ([ASK, calls("get_weather", "now"), result("22"), result("12:00", 1, "now")], BOTH, {}),
    "call after call": ([ASK, calls("now"), result("1", name="now"), calls("get_weather"), result("2"), assistant("ok"), user("?")], BOTH, {}),
    "result chunks": ([ASK, calls("now"), {**result("", name="now"), "content": PARTS}], BOTH, {}),
    "arguments as text": ([ASK, {**calls("now"), "tool_calls": [{"id": IDS[0], "type": "function", "function": {"name": "now", "arguments": '{"a": "é", "b": [1]}'}}]}, result("1", name="now")], BOTH, {}),
}


def main(folder=HERE / "templates", out=HERE / "conversations.json.gz"):
    rows, contexts = [], {}
    for file in sorted(pathlib.Path(folder).glob("*.jinja")):
        template = file.read_text()
        for name, (messages, tools, variables) in CONVERSATIONS.items():
            variables = {"date_string": "26 Jul 2024", **variables}
            row = {"template": file.stem, "case": name}
            kwargs = {**TOKENS, **variables}
            prompt = kwargs.pop("add_generation_prompt", True)
            contexts[name] = {"messages": _alias_reasoning_fields(messages), "tools": tools, "documents": None, "add_generation_prompt": prompt, **kwargs}
            try:
                texts, _ = render_jinja_template(conversations=[copy.deepcopy(messages)], tools=copy.deepcopy(tools), chat_template=template, add_generation_prompt=prompt, **kwargs)
                row["text"] = texts[0]
            except Exception as e:
                row["error"] = str(e)
            rows.append(row)
    with gzip.GzipFile(out, "wb", mtime=0) as f:
        f.write(json.dumps({"contexts": contexts, "rows": rows}, ensure_ascii=False).encode())
    print(len(rows), "rows,", sum("error" in r for r in rows), "errors")


if __name__ == "__main__":
    main(*sys.argv[1:])
