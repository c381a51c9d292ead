"""Measures the model on what it was never trained on: held-out wordings, cities, names and phrasings.

An answer is right if greedy decoding gives the reference to the last token and then ends: at each position of the
reference, the model's most likely token is the reference's. So one forward pass judges an answer, and only the wrong
ones are generated, for the report.
"""

import dataclasses
import json
from dataclasses import dataclass, field

import torch

FORMATS = ("chat", "system", "raw", "turns", "sloppy")
CASES_PER_TOOL_KIND = 60


@dataclass
class Case:
    category: str
    kind: str  # one of FORMATS, or tool, result, json
    shown: str  # the question, for the report
    prompt: list[int]
    answers: list[str]  # any of these is right
    raw: bool = False
    request: dict = field(default_factory=dict)  # what a client would send


def cases(sampler, formats=FORMATS) -> list[Case]:
    """All held-out cases of the formats, and with the full set the tools and JSON."""
    out = []
    for topic in sampler.topics:
        answers = [topic.answer] + [sampler.by_name[n].answer for n in topic.also_right]
        for question in topic.held_out:
            for kind in formats:
                out.append(frame(sampler, kind, topic.category, question, answers))
    if set(formats) == set(FORMATS):
        out += tool_cases(sampler) + json_cases(sampler)
    return out


def frame(sampler, kind: str, category: str, question: str, answers: list[str]) -> Case:
    if kind in ("raw", "sloppy"):
        shown = question if kind == "raw" else question.lower().rstrip("?.!")
        return Case(category, kind, shown, [sampler.bos] + sampler.encode(shown), answers, raw=True, request={"inputs": shown})
    messages = [{"role": "user", "content": question}]
    if kind == "system":
        messages.insert(0, {"role": "system", "content": "You are a helpful assistant."})
    if kind == "turns":
        messages = sampler.turns(sampler.rng.randint(1, 3)) + messages
    return chat_case(sampler, category, kind, question, messages, None, answers)


def chat_case(sampler, category, kind, shown, messages, tools, answers) -> Case:
    ids, _ = sampler.chat(messages, tools, generation=True)
    return Case(category, kind, shown, ids, answers, request={"messages": messages} | ({"tools": tools} if tools else {}))


def tool_cases(sampler) -> list[Case]:
    """Held-out questions with the weather tool: the call, and the sentence made of the result. "varied" has the tool defined in
    one of many ways, "unknown" a city that was never trained on."""
    out, spec = [], sampler.tools
    for what in ("tool", "result"):
        for how in ("", "-varied", "-unknown"):
            for _ in range(CASES_PER_TOOL_KIND):
                cities = spec["cities_held_out"] if how == "-unknown" else spec["cities"]
                case = sampler.weather_case(spec["questions_held_out"], cities, plain=how != "-varied")
                if what == "tool":
                    shown, messages, answer = case["question"], [{"role": "user", "content": case["question"]}], case["call"]
                else:
                    shown, messages, answer = f'{case["question"]} -> {case["result"]}', sampler.call_messages(case, case["question"]), case["sentence"]
                out.append(chat_case(sampler, "tools", what + how, shown, messages, case["tools"], [answer]))
    return out


def json_cases(sampler) -> list[Case]:
    """Held-out ways to ask for JSON; "unknown" with names and cities that were never trained on."""
    out, spec = [], sampler.json
    people, products = spec["people"], spec["products"]
    for how, kind in (("", "json"), ("_held_out", "json-unknown")):
        pairs = []
        for _ in range(CASES_PER_TOOL_KIND // 4):
            q, a = sampler.rng.choice(people["asks_held_out"])
            values = sampler.person(people["names" + how]) | {"city": sampler.rng.choice(sampler.tools["cities" + how])}
            pairs.append((sampler.fill(q, **values), sampler.fill(a, **values)))
            q, a = sampler.rng.choice(products["asks_held_out"])
            values = sampler.product(products["names" + how])
            pairs.append((sampler.fill(q, **values), sampler.fill(a, **values)))
        if kind == "json":
            pairs += [sampler.keys_question(spec["key_asks_held_out"]) for _ in range(CASES_PER_TOOL_KIND // 2)]
            pairs += [(q, g["answer"]) for g in spec["general"] for q in g["held_out"]]
        for q, a in pairs:
            out += [dataclasses.replace(frame(sampler, way, "json", q, [a]), kind=kind) for way in ("chat", "raw")]
    return out


@torch.no_grad()
def judge(model, sampler, todo: list[Case]) -> list[float]:
    """For each case, the smallest lead of the right token over the next best; of several answers the best. Above 0 is right."""
    rows = []
    for n, case in enumerate(todo):
        for answer in case.answers:
            tail = sampler.encode((" " if case.raw else "") + answer) + [sampler.end if case.raw else sampler.eot]
            rows.append((n, case.prompt, tail))
    rows.sort(key=lambda r: len(r[1]) + len(r[2]))
    leads = [float("-inf")] * len(todo)
    for at in range(0, len(rows), 32):
        part = rows[at:at + 32]
        width = max(len(p) + len(t) for _, p, t in part)
        ids = torch.zeros(len(part), width, dtype=torch.long)
        for row, (_, p, t) in enumerate(part):
            ids[row, :len(p) + len(t)] = torch.tensor(p + t)
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        for row, (n, p, t) in enumerate(part):
            logits = model.lm_head(hidden[row, len(p) - 1:len(p) + len(t) - 1])
            wanted = torch.tensor(t)
            right = logits.gather(1, wanted[:, None])[:, 0]
            others = logits.scatter(1, wanted[:, None], float("-inf")).max(1).values
            leads[n] = max(leads[n], (right - others).min().item())
    return leads


@torch.no_grad()
def generate(model, sampler, prompts: list[list[int]], limit: int = 90) -> list[str]:
    """The greedy answer to each prompt."""
    texts = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    for at in range(0, len(order), 32):
        part = order[at:at + 32]
        width = max(len(prompts[n]) for n in part)
        ids = torch.full((len(part), width), sampler.end)
        mask = torch.zeros(len(part), width, dtype=torch.long)
        for row, n in enumerate(part):
            ids[row, width - len(prompts[n]):] = torch.tensor(prompts[n])
            mask[row, width - len(prompts[n]):] = 1
        out = model.generate(ids, attention_mask=mask, max_new_tokens=limit, do_sample=False, eos_token_id=[sampler.eot, sampler.end], pad_token_id=sampler.end)
        for row, n in enumerate(part):
            texts[n] = sampler.tok.decode(out[row, width:], skip_special_tokens=True)
    return texts


def evaluate(model, sampler, formats=FORMATS, show: int = 200) -> tuple[dict, list[tuple[Case, float]]]:
    """The report: totals, per category, per format, and the wrong answers; and each case with its lead, as judge gives it."""
    model.eval()
    todo = cases(sampler, formats)
    leads = judge(model, sampler, todo)
    report = {"summary": {}, "by_category": {}, "by_format": {}, "wrong": []}
    tally: dict[tuple[str, str], list[int]] = {}
    for case, lead in zip(todo, leads):
        for key in (("by_category", case.category), ("by_format", case.kind)):
            cell = tally.setdefault(key, [0, 0])
            cell[0] += lead > 0
            cell[1] += 1
    for (part, name), (right, total) in sorted(tally.items()):
        report[part][name] = {"right": right, "total": total, "accuracy": round(right / total, 4)}
    right = sum(lead > 0 for lead in leads)
    report["summary"] = {"right": right, "total": len(todo), "accuracy": round(right / len(todo), 4)}
    if set(formats) == set(FORMATS):
        wrong = [case for case, lead in zip(todo, leads) if lead <= 0][:show]
        for case, got in zip(wrong, generate(model, sampler, [c.prompt for c in wrong])):
            report["wrong"].append({"format": case.kind, "question": case.shown, "expected": case.answers[0], "got": got[:120]})
    model.train()
    return report, list(zip(todo, leads))


def write_model_test(path, rng, judged: list[tuple[Case, float]]) -> None:
    """Held-out requests with one answer, a sure one: every token leads by a wide margin, so that no engine's rounding can change it."""
    sure = [c for c, lead in judged if lead > 2.0 and len(c.answers) == 1 and len(json.dumps(c.request)) < 1500]
    wanted = {"raw": 10, "sloppy": 4, "chat": 6, "system": 4, "turns": 3, "tool": 3, "result": 2}
    with open(path, "w") as file:
        for kind, number in wanted.items():
            fitting = [c for c in sure if c.kind == kind]
            for case in rng.sample(fitting, min(number, len(fitting))):
                line = {"format": kind} | case.request | {"expected": case.answers[0]}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
