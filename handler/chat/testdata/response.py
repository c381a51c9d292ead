"""Writes response.json.gz: what transformers makes of answers by response_templates.

    python response.py        # needs transformers (5.24.0 made the committed file)

The answers are of the kinds that models write, and the same with faults put in
at random. Where transformers keeps only the last of two texts of a field, the
row has both.
"""

import gzip
import json
import pathlib
import random

from transformers.utils.chat_parsing import ResponseParser

HERE = pathlib.Path(__file__).parent

FUNCTION = {"type": "function", "function": "{content}"}
NAMED = {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}}

TEMPLATES = {
    "tags": {
        "defaults": {"role": "assistant"},
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {
            "thinking": {"open": "<think>", "close": "</think>"},
            "tool_calls": {"open": "<tool_call>", "close": "</tool_call>", "repeats": True, "content": "json", "transform": FUNCTION},
            "content": {"close": "<|im_end|>"},
        },
    },
    "explicit": {
        "start_anchor": "<|CHATBOT|>",
        "fields": {
            "content": {"open": "<|START_RESPONSE|>", "close": "<|END_RESPONSE|>", "content": "text"},
            "thinking": {"open": "<|START_THINKING|>", "close": "<|END_THINKING|>", "content": "text"},
            "tool_calls": {
                "open": "<|START_ACTION|>", "close": "<|END_ACTION|>", "content": "json", "transform_each": True,
                "transform": {"type": "function", "function": {"name": "{tool_name}", "arguments": "{parameters}"}},
            },
        },
    },
    "patterns": {
        "start_anchor": "Assistant:",
        "fields": {
            "thinking": {"open_pattern": r"(?:^|<think>\s*)", "close": "</think>"},
            "content": {"open": "<response>\n", "close_pattern": r"\n?</response>"},
            "tool_calls": {"open": "<tool_call>", "close": "</tool_call>", "repeats": True, "content": "json", "transform": FUNCTION},
        },
    },
    "xml": {
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {
            "thinking": {"open": "<think>", "close": "</think>"},
            "tool_calls": {
                "open_pattern": r"<tool_call>\s*<function=(?P<name>[\w-]+)>", "close": "</tool_call>", "repeats": True, "content": "xml-inline",
                "content_args": {
                    "tag_pattern": r"<parameter=(?P<key>\w+)>\s*(?P<value>.*?)\s*</parameter>",
                    "value_parser": {"name": "json", "args": {"allow_non_json": True}},
                },
                "transform": NAMED,
            },
            "content": {"close": ["<|im_end|>", "<|endoftext|>"]},
        },
    },
    "delimiters": {
        "start_anchor": ["<|turn>model\n", "<tool_response|>"],
        "fields": {
            "thinking": {"open": "<|channel>thought\n", "close": "<channel|>"},
            "tool_calls": {
                "open_pattern": r"<\|tool_call>call:(?P<name>\w+)", "close": "<tool_call|>", "repeats": True, "content": "json",
                "content_args": {"unquoted_keys": True, "string_delims": [['<|"|>', '<|"|>']]}, "transform": NAMED,
            },
            "content": {"close": ["<turn|>", "<|tool_response>"]},
        },
    },
    "blocks": {
        "start_anchor": "<|message_model|>",
        "fields": {
            "thinking": {"open_pattern": r"(?:<\|message_model\|>)?[^<]*<\|content_thinking\|>", "close": "<|end_message|>", "repeats": True, "join": "", "content_args": {"strip": False}},
            "content": {"open_pattern": r"(?:<\|message_model\|>)?[^<]*<\|content_text\|>", "close": "<|end_message|>", "repeats": True, "join": "", "content_args": {"strip": False}},
            "tool_calls": {
                "open_pattern": r"(?:<\|message_model\|>)?[^<]*<\|content_invoke_tool_json\|>", "close": "<|end_message|>", "repeats": True, "content": "json",
                "transform": {"type": "function", "function": {"name": "{content.name}", "arguments": "{content.args}"}},
            },
        },
    },
    "python": {
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {
            "thinking": {"open": "<think>", "close": "</think>"},
            "tool_calls": {
                "open": "<|tool_call_start|>", "close": "<|tool_call_end|>", "content": "python-call-list", "transform_each": True,
                "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{arguments}"}},
            },
            "content": {"close": "<|im_end|>"},
        },
    },
    "lines": {
        "start_anchor": "A:",
        "fields": {
            "tool_calls": {"open_pattern": r"CALL (?P<name>\w+)\n", "close_pattern": r"\nEND(ED)?", "repeats": True, "content": "kv-lines", "transform": NAMED},
            "content": {},
        },
    },
}

ANSWERS = {
    "tags": [
        "Hello.", "<think>\nA b.\n</think>\n\nHello.<|im_end|>",
        'Well.\n<tool_call>\n{"name": "f", "arguments": {"a": 1, "b": "</x>"}}\n</tool_call>\n<tool_call>{"name": "get_weather", "arguments": {"city": "Z\\u00fcrich", "n": "3"}}</tool_call> ok',
    ],
    "explicit": [
        '<|START_THINKING|>I call.<|END_THINKING|><|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "f", "parameters": {"a": 1}},\n    {"tool_call_id": "1", "tool_name": "get_weather", "parameters": {"city": "b"}}\n]<|END_ACTION|>',
        "<|START_RESPONSE|> Hello, é. <|END_RESPONSE|>",
    ],
    "patterns": [
        "A thought.\n</think>\n\n<response>\nHello!\nYou.\n</response>\n", '<think>x</think><tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\n',
    ],
    "xml": [
        '<think>t</think>\n<tool_call>\n<function=get_weather>\n<parameter=city>\nBern\n</parameter>\n<parameter=n>\n3\n</parameter>\n<parameter=list>\n[{"a": "b"}]\n</parameter>\n</function>\n</tool_call>',
        "Hi <b> there <tool_call><function=f></function></tool_call>\n<tool_call>\n<function=say-it><parameter=text>007</parameter></function></tool_call><|endoftext|>",
    ],
    "delimiters": [
        '<|channel>thought\nI call.<channel|><|tool_call>call:get_weather{city:<|"|>Paris, {France}: "x"<|"|>,n:0,list:[<|"|>a<|"|>,{b:null}],ok:true}<tool_call|><|tool_response>',
        "Hello <|channel| there<turn|>",
    ],
    "blocks": [
        '<|content_thinking|>One.<|end_message|><|message_model|><|content_thinking|> Two.<|end_message|><|message_model|><|content_text|>Now.<|end_message|><|message_model|>f<|content_invoke_tool_json|>{"name":"f","args":{"a":[1]}}<|end_message|><|end|>',
        "<|content_text|>Hello < there\n<|end_message|>",
    ],
    "python": [
        '<think>t</think>\n<|tool_call_start|>[get_weather(city="Paris, \'x\'", n=3), f(a=[1, {\'b\': None}], ok=True)]<|tool_call_end|>Done.<|im_end|>',
        "<|tool_call_start|>[]<|tool_call_end|>None.",
    ],
    "lines": ["Hi.\nCALL get_weather\ncity: Bern\nn: 3\n\nnothing\nEND\nThanks.", "CALL f\na:b:c\nENDED"],
}

TOOLS = [
    {"type": "function", "function": {"name": n, "parameters": {"type": "object", "properties": p}}}
    for n, p in {
        "f": {}, "get_weather": {"city": {"type": "string"}, "n": {"type": ["integer", "null"]}, "ok": {"type": "boolean"}}, "say-it": {"text": {"type": "string"}},
    }.items()
]


def expected(template, text):
    texts = {}

    class Keeper(ResponseParser):
        def _close_current(self, events):
            n = len(events)
            super()._close_current(events)
            for e in events[n:]:
                if e["type"] == "region_close" and isinstance(e["value"], str) and e["value"]:
                    texts.setdefault(e["field"], []).append(e["value"])

    parser = Keeper(template, prefix="", tools=TOOLS)
    parser.feed(text)
    message, _ = parser.finalize()
    for field in ("content", "thinking"):
        join = template["fields"].get(field, {}).get("join", "\n")
        if texts.get(field):
            message[field] = join.join(texts[field])
    return {k: message.get(k) for k in ("content", "thinking", "tool_calls") if message.get(k)}


def main():
    rng = random.Random(7)
    rows = []
    for name, answers in ANSWERS.items():
        template = TEMPLATES[name]
        texts = list(answers)
        for answer in answers:
            for _ in range(24):
                t = answer
                for _ in range(rng.randint(1, 2)):
                    i, j = sorted(rng.sample(range(len(t) + 1), 2))
                    t = rng.choice([t[:i] + t[min(j, i + 3):], t[:j], t[:i] + rng.choice([" ", "<", "\n", '"', "</think>", "é", "<think>", "{"]) + t[i:], t[:i] + t[i:j] + t[i:]])
                texts.append(t)
        for text in texts:
            row = {"template": name, "text": text}
            try:
                row["message"] = expected(template, text)
            except (ValueError, KeyError) as e:
                row["error"] = str(e)[:80]
            rows.append(row)
    data = json.dumps({"templates": TEMPLATES, "tools": TOOLS, "rows": rows}, ensure_ascii=False)
    with gzip.GzipFile(HERE / "response.json.gz", "wb", mtime=0) as f:
        f.write(data.encode())
    print(len(rows), "rows,", sum("error" in r for r in rows), "errors")


if __name__ == "__main__":
    main()
