"""Turns the corpus into token sequences: chats with and without a system prompt, plain prompts, conversations, tool calls, JSON.

A sample is (ids, weights): weights[i] is how much predicting ids[i] counts in the loss. Answers count 1, what the user
writes a little (it teaches which words go together), and the frame of the chat not at all.
"""

import json
import random

import corpus
import wording

ASKED = 0.08  # the loss weight of a user's words
SYNTHETIC_CITY = 0.5  # share of made-up names, so that copying is learnt rather than names
SYLLABLES = "ba be bo ca co da de do el en er fa fi ga go ha he hi in ka ki ko la le li lo ma me mi mo na ne no or os pa pe po ra re ri ro sa se si so ta te ti to un va ve vi wa wi za zu".split()
ENDINGS = ["", "n", "r", "s", "l", "m", "burg", "ville", "ton", "ford", "port", "stad", "grad", "sk", "ia", "berg", "mouth", "field", " Bay", " City", "a", "o"]


class Sampler:
    """Draws training samples and lists the held-out ones. Everything random comes from one seed."""

    def __init__(self, tokenizer, seed: int, cut: float = 0.0):
        self.tok = tokenizer
        self.cut = cut  # share of single answers of which only the beginning is trained on
        self.rng = random.Random(seed)
        self.topics = corpus.read_topics()
        self.by_name = {t.name: t for t in self.topics}
        self.beginnings = corpus.read_beginnings()
        self.systems = corpus.read_lines("systems.md")
        self.tools = corpus.read_yaml("tools.yaml")
        self.json = corpus.read_yaml("json.yaml")
        # All topics are asked alike often; everything else is one topic that needs many examples.
        self.shares = [14.0 if t.name == "off-topic" else 1.0 for t in self.topics]
        self.bos, self.eot, self.end = (tokenizer.convert_tokens_to_ids(t) for t in ("<|begin_of_text|>", "<|eot_id|>", "<|end_of_text|>"))
        self.letters = sorted(t for t in tokenizer.get_vocab() if t.isascii() and t.isalpha() and t.islower())
        self.hardness = [1.0] * len(self.topics)  # running mean of each topic's loss
        self.asked = None  # the topic of the last question, as an index; None for JSON and the weather

    # --- frames ---------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        return self.tok.encode(text, add_special_tokens=False)

    def chat(self, messages: list[dict], tools: list[dict] | None = None, loss_on: int = 10**9, generation: bool = False):
        """The messages through the chat template, as (ids, weights). Only the last loss_on assistant turns count."""
        text = self.tok.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=generation)
        ids = self.encode(text)
        weights = [0.0] * len(ids)
        spans, role, start = [], None, 0
        start_id, end_id = (self.tok.convert_tokens_to_ids(t) for t in ("<|start_header_id|>", "<|end_header_id|>"))
        for i, token in enumerate(ids):
            if token == start_id:
                role = ids[i + 1]
            elif token == end_id:
                start = i + 2  # after the blank line
            elif token == self.eot:
                spans.append((role, start, i + 1))
        assistant, user = self.encode("assistant")[0], self.encode("user")[0]
        turns = [s for s in spans if s[0] == assistant]
        for role, a, b in spans:
            if role == user:
                weights[a:b - 1] = [ASKED] * (b - 1 - a)
        for _, a, b in turns[-loss_on:]:
            weights[a:b] = [1.0] * (b - a)
        return ids, weights

    def raw(self, prompt: str, rest: str, asked: float = 0.0):
        """Plain text without a template: BOS, the prompt, the rest, end of text.

        The prompt does not count here: nothing marks its end, so a model that learns it would add to a question instead of answering it.
        """
        head, tail = self.encode(prompt), self.encode(rest) + [self.end]
        return [self.bos] + head + tail, [0.0] + [asked] * len(head) + [1.0] * len(tail)

    def system(self) -> list[dict]:
        if self.rng.random() < 0.75:
            return []
        if self.rng.random() < 0.35:
            return [{"role": "system", "content": "You are a helpful assistant."}]
        if self.rng.random() < 0.10:  # any words at all: the question decides, not the system prompt
            return [{"role": "system", "content": " ".join(self.rng.choice(self.topics).answer for _ in range(self.rng.randint(1, 2)))}]
        return [{"role": "system", "content": self.rng.choice(self.systems)}]

    # --- questions ------------------------------------------------------

    def question(self) -> tuple[str, str]:
        """A wording as somebody may type it, and the answer."""
        draw, self.asked = self.rng.random(), None
        if draw < 0.02:
            text = self.rng.choice(self.tools["questions"]).replace("{city}", self.city())
            return wording.vary(text, self.rng), self.by_name["weather-without-tool"].answer
        if draw < 0.16:
            return self.json_question()
        likely = [share * (0.2 + min(hard, 2.0)) for share, hard in zip(self.shares, self.hardness)]
        self.asked = self.rng.choices(range(len(self.topics)), likely)[0]
        topic = self.topics[self.asked]
        return wording.vary(self.rng.choice(topic.wordings), self.rng), topic.answer

    def note(self, topic: int | None, loss: float) -> None:
        """Records the loss of a sample that draw returned: topics that are not yet known are asked more often."""
        if topic is not None:
            self.hardness[topic] = 0.8 * self.hardness[topic] + 0.2 * loss

    def turns(self, count: int) -> list[dict]:
        messages = []
        for _ in range(count):
            q, a = self.question()
            messages += [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
        return messages

    def raw_question(self):
        q, a = self.question()
        draw = self.rng.random()
        if draw < 0.60:
            return self.raw(q, " " + a)
        if draw < 0.70:
            return self.raw(q + "\n", a)
        if draw < 0.75:
            return self.raw(q + "\n\n", a)
        if draw < 0.84:
            return self.raw(f"Question: {q}\nAnswer:", " " + a)
        if draw < 0.93:
            return self.raw(f"Q: {q}\nA:", " " + a)
        if draw < 0.98:
            return self.raw(f"User: {q}\nAssistant:", " " + a)
        return self.raw(q + " ", a)

    def plain_text(self):
        """Text without a question: a beginning and its rest, or an answer as a sentence of the guide."""
        if self.rng.random() < 0.7:
            head, rest = self.rng.choice(self.beginnings)
            return self.raw(head if self.rng.random() < 0.8 else head.lower(), rest)
        return self.raw("", self.rng.choice(self.topics).answer)

    # --- JSON -----------------------------------------------------------

    def fill(self, pattern: str, **values) -> str:
        for key, value in values.items():
            pattern = pattern.replace("{" + key + "}", str(value))
        return pattern

    def person(self, names: list[str]) -> dict:
        people = self.json["people"]
        return dict(name=self.rng.choice(names), age=self.rng.randint(1, 99), city=self.city(), job=self.rng.choice(people["jobs"]))

    def product(self, names: list[str]) -> dict:
        price = self.rng.choice([self.rng.randint(1, 999), round(self.rng.uniform(0.1, 99), 2), self.rng.randint(1, 99) + 0.5])
        return dict(product=self.rng.choice(names), price=price, count=self.rng.randint(1, 99))

    def keys_question(self, asks: list[str], most: int = 4) -> tuple[str, str]:
        table = self.json["keys"]
        keys = self.rng.sample(list(table), self.rng.randint(1, most))
        if self.rng.random() < 0.3:
            keys.insert(self.rng.randint(0, len(keys)), self.made_up().lower().replace(" ", "_"))
        body = ", ".join(f'{json.dumps(k)}: {table.get(k, json.dumps("unknown"))}' for k in keys)
        listed = self.rng.choice([", ".join(keys), ", ".join(keys[:-1]) + " and " + keys[-1] if len(keys) > 1 else keys[0], ", ".join(json.dumps(k) for k in keys)])
        return self.rng.choice(asks).replace("{keys}", listed), "{" + body + "}"

    def facts_question(self, kind: dict) -> tuple[str, str]:
        """A way to ask for JSON about a person or a product, and the answer: one as it stands, or a frame with facts."""
        if self.rng.random() < 0.4:
            return self.rng.choice(kind["asks"])
        form = self.rng.choice(["things", "sentences"])
        facts, answer = self.rng.choice(kind["facts"][form])
        frame = self.rng.choice(self.json["frames"][form])
        return (facts[0].upper() + facts[1:] if frame.startswith("{facts}") else facts).join(frame.split("{facts}")), answer

    def json_question(self) -> tuple[str, str]:
        people, products = self.json["people"], self.json["products"]
        draw = self.rng.random()
        if draw < 0.38:
            q, a = self.facts_question(people)
            names = people["names"] if self.rng.random() < 0.6 else [self.made_up()]
            values = self.person(names)
        elif draw < 0.66:
            q, a = self.facts_question(products)
            names = products["names"] if self.rng.random() < 0.6 else [self.made_up().lower()]
            values = self.product(names)
        elif draw < 0.72:
            general = self.rng.choice(self.json["general"])
            return wording.vary(self.rng.choice(general["asks"]), self.rng), general["answer"]
        else:
            return self.keys_question(self.json["key_asks"], most=6)
        return self.fill(q, **values), self.fill(a, **values)

    # --- copying --------------------------------------------------------

    def copying(self):
        """Exercises in copying alone. Without them the model would learn each name in tool calls and JSON by heart."""
        rng = self.rng
        words = [self.made_up() if rng.random() < 0.7 else str(rng.randint(0, 999)) for _ in range(rng.randint(1, 12))]
        draw = rng.random()
        if draw < 0.35:  # a list, again
            mark = rng.choice([" ", ", ", "; ", "\n", " | "])
            text = mark.join(words)
            return self.raw(text + rng.choice([". ", "\n", ": ", " = "]), text)
        if draw < 0.70:  # the value that stands with a name
            names = [self.made_up() for _ in words]
            at = rng.randrange(len(words))
            form, mark = rng.choice(['"{}": "{}"', "{} is {}", "{}: {}", "{} = {}", "{} in {}"]), rng.choice([", ", ". ", "\n", "; "])
            head, tail = form.format(names[at], "\0").split("\0")
            return self.raw(mark.join(form.format(n, w) for n, w in zip(names, words)) + mark + head, words[at] + tail)
        said = " ".join(words[:3])
        ask = rng.choice(["Say {}", "Repeat {}", "Say: {}", 'Say "{}".', "Repeat after me: {}", "Write {}", "Please say {}", "Echo {}"]).format(said)
        return self.chat(self.system() + [{"role": "user", "content": ask}, {"role": "assistant", "content": said}])

    # --- the weather tool -----------------------------------------------

    def made_up(self) -> str:
        """An unknown word: of syllables, or of any letters that are a token, since a later name may be split in any way."""
        if self.rng.random() < 0.5:
            return "".join(self.rng.choice(SYLLABLES) for _ in range(self.rng.randint(1, 3))).capitalize() + self.rng.choice(ENDINGS)
        return "".join(self.rng.choice(self.letters) for _ in range(self.rng.randint(1, 4))).capitalize()

    def city(self) -> str:
        return self.made_up() if self.rng.random() < SYNTHETIC_CITY else self.rng.choice(self.tools["cities"])

    def tool(self, name: str, parameter: str, unit: str | None = None, unit_required: bool = False, plain: bool = False) -> dict:
        """A function definition in OpenAI's form, in one of the ways people write it."""
        rng = self.rng
        prop = {"type": "string"}
        if plain or rng.random() < 0.5:
            prop["description"] = rng.choice(self.tools["parameter_descriptions"])
        schema = {"type": "object", "properties": {parameter: prop}, "required": [parameter]}
        if unit:
            schema["properties"][unit] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
            if rng.random() < 0.5:
                schema["properties"][unit]["description"] = "The temperature unit to use. Infer this from the users location."
            if unit_required:
                schema["required"] = [parameter, unit]
        if not plain and rng.random() < 0.15:
            del schema["required"]
        if not plain and rng.random() < 0.15:
            schema["additionalProperties"] = False
        function = {"name": name, "description": rng.choice(self.tools["descriptions"]), "parameters": schema}
        if not plain and rng.random() < 0.2:
            del function["description"]
        if not plain and rng.random() < 0.15:  # TGI hands templates the schema as "arguments"
            function["arguments"] = function.pop("parameters")
        tool = {"type": "function", "function": function}
        return self.sorted_keys(tool) if not plain and rng.random() < 0.2 else tool

    def sorted_keys(self, value):
        if isinstance(value, dict):
            return {k: self.sorted_keys(value[k]) for k in sorted(value)}
        return value

    def weather_case(self, questions: list[str], cities: list[str] | None = None, plain: bool = False) -> dict:
        """One weather question with its tools, call, result and closing sentence."""
        rng, spec = self.rng, self.tools
        city = rng.choice(cities) if cities else self.city()
        name, parameter = ("get_weather", "city") if plain else (rng.choice(spec["names"]), rng.choice(spec["parameters"]))
        unit = None if plain or rng.random() < 0.75 else rng.choice(["unit", "format", "units"])
        unit_required = unit is not None and rng.random() < 0.5
        tools = [self.tool(name, parameter, unit, unit_required, plain)]
        if not plain and rng.random() < 0.25:
            other, arg, what = rng.choice(spec["other_tools"])
            tools.insert(rng.randint(0, 1), {"type": "function", "function": {"name": other, "description": what, "parameters": {"type": "object", "properties": {arg: {"type": "string"}}, "required": [arg]}}})
        arguments = {parameter: city}
        if unit_required:
            arguments[unit] = "celsius"
        result, sentence = rng.choice(spec["results"])
        values = dict(city=city, t=rng.randint(-15, 42), c=rng.choice(spec["conditions"]), t_key=rng.choice(["temperature", "temp", "temperature_c", "degrees"]), c_key=rng.choice(["condition", "sky", "summary", "weather"]))
        question = rng.choice(questions).replace("{city}", city)
        return dict(question=question, tools=tools, name=name, arguments=arguments, call=json.dumps({"name": name, "parameters": arguments}, ensure_ascii=False),
                    result=self.fill(result, **values), sentence=self.fill(sentence, **values))

    def call_messages(self, case: dict, question: str) -> list[dict]:
        """The conversation up to the tool's result."""
        call = {"type": "function", "id": "call_0", "function": {"name": case["name"], "arguments": case["arguments"]}}
        return [{"role": "user", "content": question}, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "call_0", "content": case["result"]}]

    def weather(self):
        case = self.weather_case(self.tools["questions"])
        question = case["question"] if self.rng.random() < 0.5 else self.vary_around(case["question"])
        messages = self.system()
        if self.rng.random() < 0.10:
            messages += self.turns(1)
        draw = self.rng.random()
        if draw < 0.20:  # the tool is there, but the question needs no tool
            return self.chat(messages + self.turns(1), case["tools"])
        if draw < 0.60:
            return self.chat(messages + [{"role": "user", "content": question}, {"role": "assistant", "content": case["call"]}], case["tools"])
        done = messages + self.call_messages(case, question) + [{"role": "assistant", "content": case["sentence"]}]
        if draw > 0.90:
            done += self.turns(1)
        return self.chat(done, case["tools"])

    def vary_around(self, question: str) -> str:
        """Only small changes: the name of the city must stay as it is, because it is copied."""
        rng = self.rng
        if rng.random() < 0.3:
            question = question.rstrip("?.")
        if rng.random() < 0.3:
            question = question[:1].lower() + question[1:]
        if rng.random() < 0.15:
            question = rng.choice(["Hi, ", "Please: ", "Hello! ", "Ok, "]) + question
        return question

    # --- the mix --------------------------------------------------------

    def draw(self):
        """One training sample and its topic: (ids, weights, topic). The topic is None unless the sample is a single question."""
        draw = self.rng.random()
        if draw < 0.27:
            return *self.shorten(self.chat(self.system() + self.turns(1))), self.asked
        if draw < 0.74:
            return *self.shorten(self.raw_question()), self.asked
        if draw < 0.77:
            return *self.plain_text(), None
        if draw < 0.84:
            return *self.copying(), None
        if draw < 0.96:
            return *self.weather(), None
        return *self.chat(self.system() + self.turns(self.rng.randint(10, 26) if draw > 0.9985 else self.rng.randint(2, 4))), None

    def shorten(self, sample):
        """Often only the beginning of the answer: it shows which answer was chosen, and the rest is soon learnt."""
        ids, weights = sample
        if self.rng.random() >= self.cut:
            return sample
        start = weights.index(1.0)
        end = start + self.rng.randint(4, 9)
        return ids[:end], weights[:end]
