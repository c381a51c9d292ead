"""Other ways to put a question: the general paraphrases, slips and habits of people who type.

They know nothing of the guide's topics; they only turn one English frame into another.
"""

import random
import re

# Each group is a set of frames that mean the same; X stands for the rest of the question.
FRAMES = [
    ["How do I X?", "How can I X?", "How to X?", "How would I X?", "How could one X?", "How do you X?", "How does one X?", "What do I do to X?",
     "What must I do to X?", "What is the way to X?", "I want to X.", "I would like to X.", "I need to X.", "Show me how to X.", "Tell me how to X.", "How should I X?"],
    ["Can I X?", "Is it possible to X?", "May I X?", "Could I X?", "Am I able to X?", "Is there a way to X?", "Can one X?", "Can you X?"],
    ["What is X?", "What's X?", "Explain X.", "Tell me about X.", "What does X mean?", "What is meant by X?", "Describe X.", "Please explain X.",
     "What is the meaning of X?", "I do not understand X.", "Can you explain X?", "What is X for?", "What is X good for?", "What's X about?", "X?"],
    ["What does X do?", "What is X for?", "What is X good for?", "What is the purpose of X?", "What's X for?", "Why is there X?", "What does the parameter X do?"],
    ["Does it support X?", "Is X supported?", "Do you support X?", "Is there support for X?", "Can it do X?", "Is X possible?", "Does X work?", "Does it have X?",
     "Can I use X?", "Is there X?", "What about X?", "Are X supported?"],
    ["Why do I get X?", "What causes X?", "How come I get X?", "I get X, why?", "I am getting X.", "I always get X.", "What is the reason for X?", "I got X"],
    ["What happens if X?", "What if X?", "What will happen if X?", "What does it do if X?", "And if X?", "What happens when X?"],
    ["Which X?", "What X?"],
    ["Give me X.", "I want X.", "I'd like X.", "Can I have X?", "Show me X.", "Please give me X.", "I would like to have X.", "Do you have X?"],
    ["Where is X?", "Where do I find X?", "Where can I find X?", "Where's X?", "In which place is X?", "Where would I find X?"],
    ["How much X?", "What amount of X?", "How much X exactly?"],
    ["Do I need X?", "Is X needed?", "Is X required?", "Must I have X?", "Is X necessary?", "Do we need X?", "Do you need X?", "Does it need X?"],
    ["Should I X?", "Is it better to X?", "Would you X?", "Is it good to X?"],
    ["How does X work?", "Explain how X works.", "How is X done?", "In what way does X work?", "Tell me how X works."],
]
BEFORE = ["Please tell me: ", "Can you tell me: ", "Hi, ", "Hello, ", "Hey, ", "I have a question: ", "Quick question: ", "So, ", "And ", "Ok, ", "Well, ", "Tell me, ", "Now ", "But ",
          "Please, ", "One more question: ", "I wonder: ", "Do you know: "]
AFTER = [" please", " thanks", " exactly", " then", " now", " here", " in Millrace", " with Millrace", " on this server", ", please"]
STAND_INS = ["it", "the server", "this server", "millrace", "this", "your server", "the millrace server"]
SKIPPABLE = {"the", "a", "an", "do", "is", "does", "my", "of", "are", "to"}


def _compile(frame: str) -> re.Pattern:
    head, tail = frame.split("X", 1)
    return re.compile(re.escape(head) + r"(?P<x>[^?.!]+)" + re.escape(tail.rstrip("?.")) + r"[?.!]?$", re.I)


# Only the first frame of a group is looked for: the others are vaguer, and turning one vague form into another drifts off the meaning.
_PATTERNS = [(_compile(group[0]), group) for group in FRAMES]


def reframe(wording: str, rng: random.Random) -> str:
    """The wording in another frame of its group, or unchanged when it has none."""
    for pattern, group in _PATTERNS:
        if match := pattern.match(wording):
            return rng.choice(group).replace("X", match["x"].strip())
    return wording


def slip(text: str, rng: random.Random) -> str:
    """The text with one letter doubled, dropped, swapped or mistyped inside a longer plain word."""
    words = text.split(" ")
    places = [i for i, w in enumerate(words) if len(w) >= 5 and w.isalpha()]
    if not places:
        return text
    i = rng.choice(places)
    w = words[i]
    at = rng.randrange(1, len(w) - 1)
    words[i] = rng.choice([w[:at] + w[at + 1:], w[:at] + w[at] + w[at:], w[:at] + w[at + 1] + w[at] + w[at + 2:], w[:at] + rng.choice("etaoinsr") + w[at + 1:]])
    return " ".join(words)


def vary(wording: str, rng: random.Random) -> str:
    """The wording as somebody else might type it."""
    text = wording
    if rng.random() < 0.30:
        text = reframe(text, rng)
    if "Millrace" in text and rng.random() < 0.30:
        text = text.replace("Millrace", rng.choice(STAND_INS), 1)
    if rng.random() < 0.10:
        before = rng.choice(BEFORE)
        text = before + text[0].lower() + text[1:] if text[:1].isupper() and not text.startswith(("I ", "Millrace", "SageMaker", "AWS")) else before + text
    if rng.random() < 0.07:
        end = text[-1] if text[-1:] in "?.!" else ""
        text = text.rstrip("?.!") + rng.choice(AFTER) + end
    if rng.random() < 0.08:
        words = text.split(" ")
        places = [i for i, w in enumerate(words) if w.lower() in SKIPPABLE]
        if len(words) > 3 and places:
            del words[rng.choice(places)]
            text = " ".join(words)
    if rng.random() < 0.12:
        text = slip(text, rng)
    draw = rng.random()
    if draw < 0.35:
        text = text.lower()
    elif draw < 0.45:
        text = text[:1].lower() + text[1:]
    elif draw < 0.47:
        text = text.upper()
    elif draw < 0.65:
        text = text[:1].upper() + text[1:]
    draw = rng.random()
    if draw < 0.40:
        text = text.rstrip("?.!")
    elif draw < 0.48:
        text = text.rstrip("?.!") + rng.choice(["??", " ?", "!", "...", "."])
    elif draw < 0.60 and text[-1:].isalnum():
        text += rng.choice("?.!")
    return text.strip() or wording
