"""Writes chat.json: what transformers makes of chat templates.

    python chat.py        # needs transformers (5.23.0 made the committed file) and jinja2

Each case is a template, the variables, and the text or the error. "known"
marks the differences that the header of src/chat.rs names.
"""

import json
import pathlib

from transformers.utils.chat_template_utils import _compile_jinja_template as compile_template

# Headers around each message, as in the Llama 3 family: output without line breaks of its own.
HEADERS = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "1 Feb 2030" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "[system]\\nToday: " + date_string + "\\n" + system }}
{%- if tools is defined and tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
    {%- endfor %}
{%- endif %}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- for call in message.tool_calls %}
            {{- '{"name": "' + call.function.name + '", "parameters": ' + (call.function.arguments | tojson) + "}" }}
        {%- endfor %}
    {%- elif message.content is not string and (message.content is mapping or message.content is iterable) %}
        {{- message.content | tojson }}
    {%- else %}
        {{- "[" + message['role'] + "]\\n" + message['content'] | trim + "[end]" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "[assistant]\\n" }}
{%- endif %}
"""

# Lines that only come out right with trim_blocks and lstrip_blocks; marks for training.
CHATML = """{% for message in messages %}
    {% if message['role'] == 'assistant' %}
        {% generation %}
<|im_start|>assistant
{{ message['content'] }}<|im_end|>
        {%- endgeneration -%}
    {% else %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
    {% endif %}
    {# a comment #}
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""

# Roles must alternate; namespaces, slices, selectattr, loop controls, a macro.
STRICT = """{%- macro turn(m) %}<{{ m.role }}>{{ m.content.strip().replace("a", "A", 1) }}</{{ m.role }}>{% endmacro %}
{%- set ns = namespace(turns=0) -%}
{%- for m in messages -%}
    {%- if m.role == 'system' %}{% continue %}{% endif -%}
    {%- if (m.role == 'user') != (ns.turns % 2 == 0) -%}
        {{- raise_exception("Roles must alternate: 'user' & 'assistant'") -}}
    {%- endif -%}
    {%- set ns.turns = ns.turns + 1 -%}
    {{- turn(m) -}}
{%- endfor -%}
{{- (messages | selectattr("role", "equalto", "user") | list)[-1].content[:2] ~ eos_token -}}
"""

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get <b>weather</b> & \"more\"\nfor Zürich",
        "parameters": {"type": "object", "properties": {"z": {"type": "string"}, "a": {"enum": [1, 1.5, None, True]}}, "required": []},
    },
}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


CONVERSATIONS = {
    "one": {"messages": [user(" Hi <you> & 'them' ")], "add_generation_prompt": True},
    "system": {
        "messages": [{"role": "system", "content": "Be kind.\n"}, user("a banana"), assistant("Hello 😀"), user("ok?")],
        "add_generation_prompt": True,
    },
    "finished": {"messages": [user("Hi"), assistant("Hello\n")], "add_generation_prompt": False},
    "tools": {"messages": [user("Weather?")], "tools": [TOOL], "date_string": "today", "add_generation_prompt": True},
    "tools none": {"messages": [user("Hi")], "tools": None},
    "call": {
        "messages": [
            user("Weather?"),
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"z": "Zürich", "n": 1.5, "ok": True, "no": None}}}]},
            {"role": "tool", "content": {"t": 22}},
        ],
    },
    "two users": {"messages": [user("a"), user("b")]},
}

EXPRESSIONS = [
    '{{ true }} {{ none }} {{ [1, "a", none, 1.0] }} {{ {"a": true} }}',
    "{{ 3/2 }} {{ 7//2 }} {{ 2**3 }} {{ -7 % 3 }} {{ 1e20 }} {{ 0.00001 }} {{ 123456.5 }}",
    '{{ {"a": "<b>&\'\\"é\\u2028\\u0007"} | tojson }}',
    '{{ [1, {"z": 1, "a": [], "m": {}}] | tojson(indent=2) }}',
    '{{ {"b": 1, "a": "é"} | tojson(sort_keys=true, ensure_ascii=true) }}',
    '{{ {"b": [1, 2]} | tojson(separators=(",", ":")) }}',
    "{{ [1e16, 1.5e-7, 100.0, -0.0] | tojson }}",
    "{{ none is iterable }} {{ 'a' is iterable }} {{ missing is iterable }} {{ [] is iterable }} {{ 5 is iterable }}",
    '{{ missing | default("d") }}|{{ missing }}|{{ "" | default("e", true) }}',
    '{{ " x ".strip() }}|{{ "a,b".split(",") }}|{{ "ab".startswith("a") }}|{{ "Ab".title() }}|{{ "x".upper() }}',
    '{{ "Hello"[::-1] }} {{ "héé" | length }} {{ "%s!" | format("x") }}',
    "{% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}{{ v }}{% endfor %} {{ {'b': 1, 'a': 2} | dictsort }}",
    "{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% set x %}a{{ 1 }}{% endset %}[{{ x }}]{% raw %}{{ y }}{% endraw %}",
    "{{ raise_exception('no') }}",
    "{{ missing.attribute }}",
    '{{ strftime_now("%%") }}',
    "{{ '{% generation %}' }}{# {% generation %} #}{% raw %}{{ 7 % 4 }}{% generation %}{% endraw %}",
    # The operator %, which minijinja has for numbers only.
    '{{ "%s" % "x" }}|{{ "%s-%03d" % ("x", 7) }}|{{ "%5.2f %x %%" % (1.5, 255) }}|',
    '{{ "%(a)s=%(b)d" % {"a": "k", "b": 3} }} {{ "%s" % [1, "b"] }} {{ "%s" % none }} {{ "%s %s" % (true, 1.0) }}',
    '{% set f = "<%s>" %}{% for i in [1, 2] %}{{ f % i ~ "," }}{% endfor %}{{ ("a%s" ~ "b%s") % (1, 2) | upper }}',
    '{{ 7 % 4 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7.5 % 2 }} {{ 2 * 7 % 4 }} {{ 1 + 7 % 4 ** 2 }} {{ 20 % 7 % 4 }} {{ [5 % 3, (9) % 4] }}',
    '{% for m in [1, 2, 3] %}{% if (loop.index0 % 2 == 0) != (loop.index % 3 == 0) %}{{ m }}{% endif %}{% endfor %}',
    '{{ "%d%%" % 5 if 5 % 2 else "no %" }} {{ {"a": {"b": "%s" % "}}"}}.a.b }} {{ "%" in "50%" and not 4 % 2 }}',
    '{{ "no verb" % "x" }}',
    '{{ "%s %s" % "x" }}',
    '{{ "%d" % "x" }}',
    "{{ 1 % 0 }}",
    "{{ 5 % }}",
]
# Where minijinja differs and we let it.
KNOWN = ["{{ joiner is defined }}", '{{ "%r" % "x" }}']


def main():
    variables = {"bos_token": "<s>", "eos_token": "</s>"}
    cases = []
    for name, source in {"headers": HEADERS, "chatml": CHATML, "strict": STRICT}.items():
        for conversation, extra in CONVERSATIONS.items():
            cases.append((f"{name}, {conversation}", source, {**variables, **extra}))
    cases += [(e, e, variables) for e in EXPRESSIONS + KNOWN]
    rows = []
    for name, source, context in cases:
        row = {"name": name, "template": source, "context": context, "known": source in KNOWN}
        try:
            row["text"] = compile_template(source).render(**context)
        except Exception as e:
            row["error"] = str(e)
        rows.append(row)
    text = "[\n" + ",\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n]\n"
    (pathlib.Path(__file__).parent / "chat.json").write_text(text)
    print(len(rows), "cases", sum("error" in r for r in rows), "errors")


if __name__ == "__main__":
    main()
