"""Trains the demo model on the text of this folder, measures it on held-out wordings, and writes model/.

    python train.py --minutes 50            train from scratch, then measure and write
    python train.py --minutes 10 --resume   go on from the last checkpoint
    python train.py --from ../../container/demo/model   start from these weights and keep their tokenizer
    python train.py --eval-only             measure the model on disk

The schedule follows the clock, not a step count: a busy machine gives a shorter training, never a late one.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import corpus
from evaluate import evaluate, write_model_test
from muon import Muon
from samples import Sampler

HERE = Path(__file__).parent
DEMO = HERE.parent.parent / "container/demo"  # what the binary embeds
MODEL = DEMO / "model"
VOCABULARY = 2048
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"]
# The split of Llama 3: contractions, words with their leading space, up to three digits, punctuation, line ends, blanks.
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
POOL = 1024  # samples drawn at once and sorted by length, so that little is padding
IGNORE = -100


def config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=5, intermediate_size=512, num_attention_heads=8, num_key_value_heads=2, head_dim=32,
        max_position_embeddings=2048, rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, tie_word_embeddings=True,
        bos_token_id=VOCABULARY - len(SPECIAL), eos_token_id=[VOCABULARY - 2, VOCABULARY - 5], initializer_range=0.02)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE in the style of Llama 3, learnt from the training text and written to model/tokenizer.json."""
    tok = Tokenizer(models.BPE(ignore_merges=False))
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - len(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tok.train_from_iterator(tokenizer_text(), trainer)
    if tok.get_vocab_size() != VOCABULARY - len(SPECIAL):
        raise ValueError(f"the text gives {tok.get_vocab_size()} tokens, want {VOCABULARY - len(SPECIAL)}")
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    bos = SPECIAL[0]
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tok.token_to_id(bos))])])
    MODEL.mkdir(exist_ok=True)
    tok.save(str(MODEL / "tokenizer.json"))
    write_json(MODEL / "tokenizer_config.json", {
        "added_tokens_decoder": {str(tok.token_to_id(t)): {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True} for t in SPECIAL},
        "bos_token": bos, "eos_token": "<|eot_id|>", "clean_up_tokenization_spaces": False, "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 2048, "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": (HERE / "chat_template.jinja").read_text().rstrip("\n")})
    return load_tokenizer()


def tokenizer_text():
    """The text the merges are learnt from. Answers count twice: they are what is generated."""
    for topic in corpus.read_topics():
        yield from topic.wordings
        yield from [w.lower() for w in topic.wordings]
        yield from [topic.answer, " " + topic.answer] * 2
    for head, rest in corpus.read_beginnings():
        yield head + rest
    yield from corpus.read_lines("systems.md")
    tools, objects = corpus.read_yaml("tools.yaml"), corpus.read_yaml("json.yaml")
    for city in tools["cities"]:
        yield f"in {city}?"
    names = ["user", "assistant", "system", "ipython"]
    for word in names:
        yield from [word] * 200
    definition = '{"type": "function", "function": {"name": "get_weather", "description": "Get the weather of a city.", "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "The city"}}, "required": ["city"]}}}'
    yield from [definition, '{"name": "get_weather", "parameters": {"city": "Paris"}}', '{"temperature": 18, "condition": "sunny"}', "\n\n"] * 40
    yield from [(HERE / "chat_template.jinja").read_text().split("'Functions", 1)[1].split("'")[0]] * 20
    for group in ("questions", "descriptions", "parameter_descriptions", "names", "conditions"):
        yield from tools[group]
    for ask, answer in objects["people"]["asks"] + objects["products"]["asks"]:
        yield from [ask, answer]
    yield from (f'{{"{k}": {v}}}' for k, v in objects["keys"].items())


def load_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(MODEL)


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def batches(sampler: Sampler, size: int):
    """Endless batches (ids, labels, weights, topics), each of about size tokens, with samples of similar length."""
    while True:
        pool = sorted((sampler.draw() for _ in range(POOL)), key=lambda s: len(s[0]))
        groups, group = [], []
        for sample in pool:
            if len(sample[0]) > 2048:
                continue
            if group and (len(group) + 1) * len(sample[0]) > size:
                groups.append(group)
                group = []
            group.append(sample)
        groups.append(group)
        sampler.rng.shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _, _ in group)
            ids = torch.zeros(len(group), width, dtype=torch.long)
            labels = torch.full((len(group), width), IGNORE)
            weights = torch.zeros(len(group), width)
            for row, (i, w, _) in enumerate(group):
                ids[row, :len(i)] = labels[row, :len(i)] = torch.tensor(i)
                weights[row, :len(w)] = torch.tensor(w)
            labels[weights == 0] = IGNORE
            yield ids, labels, weights, [topic for _, _, topic in group]


def loss_of(model, ids, labels, weights):
    """The weighted mean cross-entropy, and for each row that of its answers. Padding is on the right, so the causal mask is enough."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted, weight = labels[:, 1:], weights[:, 1:]
    chosen = wanted != IGNORE  # logits only where they count
    losses = torch.nn.functional.cross_entropy(model.lm_head(hidden[chosen]), wanted[chosen], reduction="none")
    full = torch.zeros_like(weight)
    full[chosen] = losses.detach()
    answer = weight == 1
    rows = (full * answer).sum(1) / answer.sum(1).clamp(min=1)
    return (losses * weight[chosen]).sum() / weight[chosen].sum(), rows.tolist()


def optimizers(model, world: int):
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if not any(p is m for m in matrices)]
    return [Muon(matrices, lr=0.02, weight_decay=0.05, world=world),
            torch.optim.AdamW(rest, lr=0.004, betas=(0.9, 0.95), weight_decay=0.01)]


def average(model, world: int, weight: float, progress: float) -> float:
    """Averages the gradients over the processes, weighted by their loss weights; returns the mean progress, the same for all."""
    params = [p for p in model.parameters() if p.requires_grad]
    if world == 1:
        return progress
    flat = torch.cat([p.grad.flatten() * weight for p in params] + [torch.tensor([weight, progress])])
    torch.distributed.all_reduce(flat)
    at = 0
    for p in params:
        p.grad.copy_(flat[at:at + p.numel()].view_as(p) / flat[-2])
        at += p.numel()
    return flat[-1].item() / world


def train(rank: int, args) -> None:
    """One of args.processes equal processes. Each draws its own samples; the first one logs, measures and saves."""
    torch.set_num_threads(args.threads)
    if args.processes > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{args.checkpoint}.meet", rank=rank, world_size=args.processes)
    torch.manual_seed(args.seed)
    tok = load_tokenizer()
    sampler = Sampler(tok, 1000 * args.seed + rank, args.cut)
    model = LlamaForCausalLM(config())
    if args.resume:
        model.load_state_dict(torch.load(args.checkpoint))
    elif args.model:
        model = LlamaForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    log = logger(args.log) if rank == 0 else lambda line: None
    log(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(sampler.topics)} topics, {sum(len(t.wordings) for t in sampler.topics)} wordings")
    opts = optimizers(model, args.processes)
    for opt in opts:
        for group in opt.param_groups:
            group["base"] = group["lr"]
    start = saved = measured = time.time()
    step, tokens, mean, progress = 0, 0, None, 0.0
    for ids, labels, weights, topics in batches(sampler, args.batch_tokens // args.processes):
        loss, rows = loss_of(model, ids, labels, weights)
        loss.backward()
        for topic, row in zip(topics, rows):
            sampler.note(topic, row)
        progress = average(model, args.processes, weights[:, 1:].sum().item(), (time.time() - start) / (60 * args.minutes))
        if progress >= 1:
            break
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate = args.rate * min(1.0, (step + 1) / 15) * min(1.0, (1 - progress) / 0.6)  # warm up, hold, then fall to nothing
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = group["base"] * rate
            opt.step()
            opt.zero_grad(set_to_none=True)
        step, tokens = step + 1, tokens + ids.numel() * args.processes
        mean = loss.item() if mean is None else 0.95 * mean + 0.05 * loss.item()
        if step % 20 == 0:
            known = sum(h < 0.1 for h in sampler.hardness)
            log(f"step {step} progress {progress:.3f} loss {mean:.4f} known {known} {tokens / (time.time() - start):.0f} tokens/s")
        if rank == 0 and time.time() - saved > 120:
            torch.save(model.state_dict(), args.checkpoint)
            saved = time.time()
        if rank == 0 and time.time() - measured > 60 * args.measure_every:
            log(f"measured {evaluate(model, Sampler(tok, 1), formats=('chat',))[0]['summary']}")
            measured = time.time()
    if rank == 0:
        torch.save(model.state_dict(), args.checkpoint)


def logger(path: str):
    def log(line: str) -> None:
        print(line, flush=True)
        with open(path, "a") as file:
            file.write(line + "\n")
    return log


def write_model(model: LlamaForCausalLM) -> None:
    """The weights rounded to bf16, and the configuration."""
    model.to(torch.bfloat16).save_pretrained(MODEL)
    write_json(MODEL / "generation_config.json", {"bos_token_id": VOCABULARY - 6, "do_sample": False, "eos_token_id": [VOCABULARY - 2, VOCABULARY - 5]})
    cfg = json.loads((MODEL / "config.json").read_text())
    write_json(MODEL / "config.json", cfg)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=50)
    parser.add_argument("--rate", type=float, default=1.0, help="scales both learning rates")
    parser.add_argument("--cut", type=float, default=0.7, help="share of single answers of which only the beginning is trained on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2, help="two processes of one thread lose less time on a busy machine than one process of two")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--batch-tokens", type=int, default=3600, help="tokens of one step, over all processes")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument("--from", dest="model", metavar="MODEL_FOLDER", help="start from the weights of this folder; the tokenizer in model/ stays as it is")
    parser.add_argument("--eval-only", action="store_true")
    parser.add_argument("--measure-every", type=float, default=10, help="minutes between measurements in training")
    parser.add_argument("--checkpoint", default="/tmp/millrace-demo.pt")
    parser.add_argument("--log", default="/tmp/millrace-demo.log")
    args = parser.parse_args()
    if not args.eval_only:
        if not args.resume and not args.model:
            build_tokenizer()
        Path(f"{args.checkpoint}.meet").unlink(missing_ok=True)
        torch.multiprocessing.spawn(train, (args,), nprocs=args.processes)
        model = LlamaForCausalLM(config())
        model.load_state_dict(torch.load(args.checkpoint))
        write_model(model)
    torch.set_num_threads(args.threads * args.processes)
    tok = load_tokenizer()
    model = LlamaForCausalLM.from_pretrained(MODEL, dtype=torch.float32)  # the weights that were written, rounded to bf16
    sampler = Sampler(tok, 1)
    report, judged = evaluate(model, sampler)
    write_json(HERE / "eval.json", report)
    write_model_test(DEMO / "model_test.jsonl", sampler.rng, judged)
    logger(args.log)(json.dumps({k: report[k] for k in ("summary", "by_category", "by_format")}))


if __name__ == "__main__":
    main()
