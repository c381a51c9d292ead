"""EleutherAI's lm-evaluation-harness: texts to generate, and the log-likelihood of given ones, over the completions."""

import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # the task and the tokenizer are here

import lm_eval
import pytest
from lm_eval.tasks import TaskManager

TOKENIZER = Path(__file__).parents[2] / "container" / "demo" / "model"
QUESTIONS = [
    {"question": "What is Millrace?", "choices": [" A server.", " xqzt"], "answer": 0},
    {"question": "Which language is Millrace written in?", "choices": [" zzzz", " Go."], "answer": 1},
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("task") / "questions.json"
    path.write_text("\n".join(map(json.dumps, QUESTIONS)))
    return path


def evaluate(url, data, kind, task, chat=False, **arguments):
    config = {
        "task": "questions", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test",
        "doc_to_text": "{{question}}", "num_fewshot": 0} | task
    result = lm_eval.simple_evaluate(
        model=kind, model_args={"model": "tgi", "base_url": url, "max_retries": 1, **arguments}, tasks=[config], apply_chat_template=chat,
        task_manager=TaskManager(include_defaults=False), log_samples=True, bootstrap_iters=0)  # it would read a thousand other tasks
    return result["results"]["questions"], result["samples"]["questions"]


@pytest.mark.parametrize("tokenized", [True, False], ids=["ids", "texts"])
@pytest.mark.parametrize("batch", [1, 4])
def test_loglikelihood(url, data, tokenized, batch):
    """The model takes a sentence to be likelier than letters. Prompts are token ids, or texts, one or several at a time."""
    task = {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "doc_to_target": "answer", "metric_list": [{"metric": "acc"}]}
    scores, samples = evaluate(f"{url}/v1/completions", data, "local-completions", task,
                               tokenizer=str(TOKENIZER), tokenizer_backend="huggingface", tokenized_requests=tokenized, batch_size=batch)
    assert scores["acc,none"] == 1
    assert all(float(answer[0]) < 0 for s in samples for answer in s["filtered_resps"])


GENERATE = {"output_type": "generate_until", "doc_to_target": "{{choices[answer]}}", "metric_list": [{"metric": "exact_match"}],
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 20}}


def test_generate_until(url, data):
    _, samples = evaluate(f"{url}/v1/completions", data, "local-completions", GENERATE, tokenizer_backend="none")
    assert all(s["resps"][0][0].strip() for s in samples)


def test_generate_until_chat(url, data):
    _, samples = evaluate(f"{url}/v1/chat/completions", data, "local-chat-completions", GENERATE, chat=True)
    assert "server" in samples[0]["resps"][0][0]
