"""The training text: reads the files of text/ into topics, beginnings, tools and JSON patterns.

A topic of a guide file looks like this:

    ## port
    Millrace listens on port 8080. ...      the answer, one paragraph
    - Which port does it [use|listen on]?   wordings to train on; [a|b] stands for either
    ? What port is it listening on?         held out: only ever used to measure
    = another-topic                         that topic's answer counts as right too
"""

import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

TEXT = Path(__file__).parent / "text"
CHOICE = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
MIN_WORDINGS, HELD_OUT = 6, 2


@dataclass
class Topic:
    name: str
    category: str
    answer: str = ""
    wordings: list[str] = field(default_factory=list)  # expanded, without choices
    held_out: list[str] = field(default_factory=list)
    also_right: list[str] = field(default_factory=list)  # names of topics


def expand(pattern: str) -> list[str]:
    """Every string that a pattern with [a|b] choices stands for."""
    parts = CHOICE.split(pattern)  # text, choices, text, choices, ..., text
    options = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    return [re.sub(r" +([?.!,]|$)", r"\1", re.sub(r"  +", " ", "".join(pick))).strip() for pick in itertools.product(*options)]


def read_topics(text: Path = TEXT) -> list[Topic]:
    """The topics of the numbered guide files, checked for size and for leaks between training and measuring."""
    topics: list[Topic] = []
    for path in sorted(text.glob("[0-9]*.md")):
        topic = None
        for number, line in enumerate(path.read_text().splitlines(), 1):
            line = line.strip()
            if line.startswith("## "):
                topic = Topic(line[3:], path.stem)
                topics.append(topic)
            elif not line or line.startswith("# "):
                continue
            elif topic is None:
                raise ValueError(f"{path.name}:{number}: text before the first topic")
            elif line.startswith("- "):
                topic.wordings += expand(line[2:])
            elif line.startswith("? "):
                topic.held_out.append(line[2:])
            elif line.startswith("= "):
                topic.also_right.append(line[2:])
            else:
                topic.answer = f"{topic.answer} {line}".strip()
    check(topics)
    return topics


def normal(wording: str) -> str:
    """A wording without case and punctuation, to compare wordings by."""
    return re.sub(r"[^\w/]+", " ", wording.lower()).strip()


def check(topics: list[Topic]) -> None:
    names = {t.name for t in topics}
    owner: dict[str, str] = {}
    for t in topics:
        if not t.answer:
            raise ValueError(f"topic {t.name}: no answer")
        if len(t.wordings) < MIN_WORDINGS or len(t.held_out) < HELD_OUT:
            raise ValueError(f"topic {t.name}: {len(t.wordings)} wordings and {len(t.held_out)} held out, want at least {MIN_WORDINGS} and {HELD_OUT}")
        for w in t.wordings:
            if owner.setdefault(normal(w), t.name) != t.name:
                raise ValueError(f"{w!r} is in the topics {owner[normal(w)]} and {t.name}")
        for other in t.also_right:
            if other not in names:
                raise ValueError(f"topic {t.name}: no topic {other}")
    if len(names) != len(topics):
        raise ValueError("two topics have one name")
    for t in topics:
        for h in t.held_out:
            if normal(h) in owner:
                raise ValueError(f"held-out {h!r} of {t.name} is trained on by {owner[normal(h)]}")


def read_lines(name: str, text: Path = TEXT) -> list[str]:
    """The lines of a file that are neither blank nor headings."""
    lines = (text / name).read_text().splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def read_beginnings(text: Path = TEXT) -> list[tuple[str, str]]:
    """(beginning, rest) of the plain-text lines; together they are the line without its bar."""
    pairs = []
    for line in read_lines("continuations.md", text):
        if " | " not in line:
            continue
        head, tail = line.split(" | ", 1)
        pairs.append((head, tail if tail[0] in ",.;:" else " " + tail))
    return pairs


def read_yaml(name: str, text: Path = TEXT) -> dict:
    return yaml.safe_load((text / name).read_text())
