"""The prompts of goldens.py: 50 for each model."""

PLAIN = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "Water boils at 100 degrees Celsius because",
    "The three laws of motion are:\n1.",
    "To be, or not to be, that is the question:",
    "In 1969, the first human",
    "My favourite recipe for bread starts with",
    "Dear Sir or Madam,\n\nI am writing to",
    "Q: How many legs does a spider have?\nA:",
    "Roses are red,\nviolets are blue,\n",
    "La capitale de la France est",
    "Die Hauptstadt von Deutschland ist",
    "El agua hierve a cien grados porque",
    "L'Italia è un paese famoso per",
    "Москва — столица",
    "東京は日本の",
    "北京是中国的",
    "عاصمة مصر هي",
    "Ich heiße Jürgen und wohne in Köln. Übermorgen",
    "English: cheese\nFrench: fromage\nEnglish: bread\nFrench: pain\nEnglish: water\nFrench:",
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n    if n < 2:\n        return n\n",
    "package main\n\nimport \"fmt\"\n\nfunc main() {\n\tfor i := 0; i < 10; i++ {\n\t\tfmt.",
    "SELECT name, COUNT(*) FROM orders\nWHERE",
    "#include <stdio.h>\n\nint main(void) {\n    printf(",
    "function add(a, b) {\n  return a + b;\n}\n\nfunction multiply(",
    "<!DOCTYPE html>\n<html>\n<head>\n  <title>My page</title>\n</head>\n<body>\n",
    "{\"name\": \"Alice\", \"age\": 30, \"city\": \"Paris\"}\n{\"name\": \"Bob\", \"age\":",
    "[\n  {\"id\": 1, \"title\": \"First post\"},\n  {\"id\": 2, \"title\":",
    "name: build\non:\n  push:\n    branches: [main]\njobs:\n  test:\n",
    "1, 1, 2, 3, 5, 8, 13, 21,",
    "12345 + 67890 =",
    "| Country | Capital |\n|---------|---------|\n| France  | Paris   |\n| Spain   |",
    "Emoji: 😀 🎉 🚀 and",
    "a   b    c     d      e\n\n\n\nf\t\tg",
]

GETTYSBURG = (
    "Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in Liberty, "
    "and dedicated to the proposition that all men are created equal. Now we are engaged in a great civil war, testing "
    "whether that nation, or any nation so conceived and so dedicated, can long endure. We are met on a great "
    "battle-field of that war. We have come to dedicate a portion of that field, as a final resting place for those who "
    "here gave their lives that that nation might live. It is altogether fitting and proper that we should do this. "
    "But, in a larger sense, we can not dedicate -- we can not consecrate -- we can not hallow -- this ground. The brave "
    "men, living and dead, who struggled here, have consecrated it, far above our poor power to add or detract. The "
    "world will little note, nor long remember what we say here, but it can never forget what they did here. It is for "
    "us the living, rather, to be dedicated here to the unfinished work which they who fought here have thus far so "
    "nobly advanced. It is rather for us to be here dedicated to the great task remaining before us -- that from these "
    "honored dead we take increased devotion to that cause for which they gave the last full measure of devotion -- "
    "that we here highly resolve that these dead shall not have died in vain -- that this nation, under God,"
)

LONG = [
    GETTYSBURG,
    "".join(f"2026-01-{day:02} 08:{day + 10}:00 INFO request served in {7 * day % 40 + 3} ms\n" for day in range(1, 20)),
    "id,name,score\n" + "".join(f"{i},player{i},{i * i % 97}\n" for i in range(60)),
    "".join(f"{i} times {j} is {i * j}. " for i in range(2, 9) for j in range(2, 10)),
    "import unittest\n\n\nclass TestSum(unittest.TestCase):\n"
    + "".join(f"    def test_{i}(self):\n        self.assertEqual(sum([{i}, {i + 1}]), {2 * i + 1})\n\n" for i in range(16)),
]

QUESTIONS = [
    "What is the capital of Japan?",
    "Write a haiku about rain.",
    "Explain photosynthesis to a child.",
    "Give me three tips for better sleep.",
    "Translate to German: The cat sleeps on the sofa.",
    "Write a Python function that reverses a string.",
    "What is 17 times 4?",
    "Summarize in one sentence:\n\n" + GETTYSBURG,
    "Reply with JSON only: the name and the age of Alice, who is 30.",
    "¿Cuál es la capital de España?",
    "Who wrote Romeo and Juliet, and when?",
]

CHATML = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
TURNS = "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n"

PROMPTS = {
    "smollm2": PLAIN + LONG + [CHATML.format(question) for question in QUESTIONS],
    "gemma3": PLAIN + LONG + [TURNS.format(question) for question in QUESTIONS],
}
assert all(len(prompts) == 50 for prompts in PROMPTS.values())
