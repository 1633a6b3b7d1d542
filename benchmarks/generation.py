"""Answers to many prompts against transformers' own `generate`: same model, same prompts, LoRA folded in on both sides.

    python benchmarks/generation.py [--model starter:smollm2] [--prompts 16] [--new-tokens 64] [--repeats 5]
                                    [--questions 50] [--no-timing]

The prompts are of 20 to 400 tokens. `generate` gets them in one batch, padded on the left, greedy, without end tokens,
with the merged weights in a plain model; we get them as they are, through `Handle.folded`. Construction is left out
(ours holds a self-check; its seconds are in the JSON), each side warms up once, sides take turns, and the ratio is
taken within each turn: what else the machine does then falls on both. Seconds of the processor are there as well, for
they hardly see a neighbour. Then the answers to real questions are compared token by token with `generate`, one prompt
at a time: ours alone and ours in batches, with the distance between the two best logits where the first difference
lies. Prints two Markdown tables; writes JSON beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
import transformers

from reglaj.data.conversation import Conversation
from reglaj.data.rendering import Renderer
from reglaj.generation import GenerationConfig, Generator
from reglaj.methods.base import Handle
from reglaj.methods.lora import Lora, LoraConfig
from reglaj.models.inspect import inspect_model
from reglaj.models.starters import fetch

SHORTEST, LONGEST = 20, 400
CLOSE = 1e-4
"""Two logits that are nearer than this are in no order that rounding respects."""

Prompts = list[list[int]]


def load(folder: Path) -> Any:
    """A plain model in float32, ready to answer."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def with_lora(folder: Path, seed: int = 0) -> Handle:
    """A model with a LoRA on every linear layer whose update is not zero, about a tenth of the weights' size."""
    handle = Lora.attach(LoraConfig(), load(folder), inspect_model(str(folder), folder=Path()))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in handle.parameters()["lora"]:
            parameter.normal_(std=0.01, generator=generator)
    handle.model.eval()
    return handle


def merged(handle: Handle, folder: Path) -> Any:
    """A plain model with the same weights, the update added: what `merge_and_unload` gives."""
    model = load(folder)
    with handle.folded(), torch.no_grad():
        weights = {key.replace(".base_layer.", "."): value for key, value in handle.model.named_parameters()}
        for key, parameter in model.named_parameters():
            parameter.copy_(weights[key])
    return model


def spread_prompts(tokenizer: Any, count: int) -> Prompts:
    """Text of the finance starter, cut to lengths from 20 to 400 tokens, in no order of length."""
    texts = " ".join(row["completion"] for row in read_finance()[: count * 8])
    ids = tokenizer.encode(texts, add_special_tokens=False)
    lengths = [SHORTEST + round((LONGEST - SHORTEST) * place / max(count - 1, 1)) for place in range(count)]
    lengths = lengths[::2] + lengths[1::2]
    starts = [sum(lengths[:place]) for place in range(count)]
    return [ids[start : start + length] for start, length in zip(starts, lengths, strict=True)]


def question_prompts(tokenizer: Any, count: int) -> Prompts:
    """The first questions of the finance starter, as the model's chat template writes them."""
    renderer = Renderer(tokenizer)
    return [
        renderer.prompt(Conversation.of([{"role": "user", "content": row["prompt"]}])) for row in read_finance()[:count]
    ]


def read_finance() -> list[dict[str, str]]:
    """Rows with `prompt` and `completion`."""
    with Path(fetch("finance")).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def in_one_batch(model: Any, prompts: Prompts, new_tokens: int) -> Prompts:
    """transformers, as its documentation says: padded on the left, one call."""
    longest = max(map(len, prompts))
    padded = [[0] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    with torch.inference_mode():
        output = model.generate(
            input_ids=torch.tensor(padded),
            attention_mask=torch.tensor(mask),
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    answers: Prompts = output[:, longest:].tolist()
    return answers


def timed(function: Callable[[], Prompts]) -> tuple[float, float, Prompts]:
    """Seconds on the clock, seconds of the processors, and what came out."""
    started, busy = time.perf_counter(), time.process_time()
    answers = function()
    return time.perf_counter() - started, time.process_time() - busy, answers


def measure(handle: Handle, peer: Any, tokenizer: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of every turn, side by side, and how many answers are equal token by token."""
    prompts = spread_prompts(tokenizer, options.prompts)
    config = GenerationConfig(max_new_tokens=options.new_tokens)
    result: dict[str, Any] = {"prompt_tokens": [len(prompt) for prompt in prompts], "new_tokens": options.new_tokens}
    with handle.folded():
        started = time.perf_counter()
        generator = Generator(handle.model, tokenizer, end_ids=(), context=4096)
        result["construction_seconds"] = time.perf_counter() - started
        sides: dict[str, Callable[[], Prompts]] = {
            "reglaj": lambda: [answer.ids for answer in generator.generate(prompts, config)],
            "transformers": lambda: in_one_batch(peer, prompts, options.new_tokens),
        }
        for side in sides.values():
            side()
        turns: dict[str, list[tuple[float, float, Prompts]]] = {name: [] for name in sides}
        for _ in range(options.repeats):
            for name, side in sides.items():
                turns[name].append(timed(side))
    for name, taken in turns.items():
        result[name] = {"seconds": [turn[0] for turn in taken], "processor_seconds": [turn[1] for turn in taken]}
    ours, theirs = turns["reglaj"], turns["transformers"]
    result["ratios"] = [b[0] / a[0] for a, b in zip(ours, theirs, strict=True)]
    result["processor_ratios"] = [b[1] / a[1] for a, b in zip(ours, theirs, strict=True)]
    result["equal_answers"] = sum(a == b for a, b in zip(ours[0][2], theirs[0][2], strict=True))
    return result


def alone_by_transformers(
    model: Any, prompt: list[int], new_tokens: int, end_ids: Collection[int]
) -> tuple[list[int], list[float]]:
    """The greedy answer to one prompt, end token included, and how far apart the two best logits were at each."""
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=sorted(end_ids) or None,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
    best = torch.cat(output.logits).float().topk(2).values
    return output.sequences[0, len(prompt) :].tolist(), (best[:, 0] - best[:, 1]).tolist()


def compare_greedy(
    generator: Generator, peer: Any, prompts: Prompts, new_tokens: int, end_ids: Collection[int]
) -> dict[str, Any]:
    """Prompts whose answer differs from `generate`, alone and in batches, with the margin where it first does."""
    config = GenerationConfig(max_new_tokens=new_tokens)
    together = [answer.ids for answer in generator.generate(prompts, config)]
    result: dict[str, Any] = {"prompts": len(prompts), "tokens": 0, "close_calls": 0, "alone": [], "batched": []}
    for prompt, batched in zip(prompts, together, strict=True):
        expected, margins = alone_by_transformers(peer, prompt, new_tokens, end_ids)
        result["tokens"] += len(expected)
        result["close_calls"] += sum(margin <= CLOSE for margin in margins)
        alone = generator.generate([prompt], config)[0].ids
        wanted = [token for token in expected if token not in end_ids]
        for name, answer in (("alone", alone), ("batched", batched)):
            if answer != wanted:
                pairs = enumerate(zip([*answer, -1], [*wanted, -1], strict=False))
                place = next(place for place, (ours, theirs) in pairs if ours != theirs)
                result[name].append({"token": place, "margin": margins[place]})
    return result


def table(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = []
    timing = results.get("timing")
    if timing:
        lines += ["| side | seconds, median (range) | processor seconds | new tokens a second |", "|---|---|---|---|"]
        tokens = len(timing["prompt_tokens"]) * timing["new_tokens"]
        for name in ("reglaj", "transformers"):
            taken, busy = timing[name]["seconds"], timing[name]["processor_seconds"]
            middle = statistics.median(taken)
            spread = f"{middle:.2f} ({min(taken):.2f}-{max(taken):.2f})"
            lines.append(f"| {name} | {spread} | {statistics.median(busy):.2f} | {tokens / middle:.0f} |")
        ratios = timing["ratios"]
        lines += [
            "",
            f"{statistics.median(ratios):.2f} times as fast, turn by turn {min(ratios):.2f} to {max(ratios):.2f} (by "
            f"processor seconds {statistics.median(timing['processor_ratios']):.2f}); {timing['equal_answers']} of "
            f"{len(timing['prompt_tokens'])} answers equal.",
            "",
        ]
    equality = results.get("equality")
    if equality:
        lines += ["| answers | differ | of them within 1e-4 | margins where they part |", "|---|---|---|---|"]
        for name in ("alone", "batched"):
            margins = [difference["margin"] for difference in equality[name]]
            close = sum(margin <= CLOSE for margin in margins)
            shown = ", ".join(f"{margin:.1e}" for margin in margins) or "-"
            lines.append(f"| {name} | {len(margins)} of {equality['prompts']} | {close} | {shown} |")
        lines += ["", f"{equality['close_calls']} of {equality['tokens']} tokens had two best logits within 1e-4."]
    return "\n".join(lines)


def main() -> None:
    """Measure, write JSON, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="starter:smollm2", help="a folder, or a starter")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--questions", type=int, default=50, help="0 leaves the comparison out")
    parser.add_argument("--no-timing", action="store_true", help="only compare answers")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    folder = inspect_model(options.model, folder=Path()).folder
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    handle = with_lora(folder)
    peer = merged(handle, folder)
    results: dict[str, Any] = {}
    if not options.no_timing:
        results["timing"] = measure(handle, peer, tokenizer, options)
    if options.questions:
        end_ids = Renderer(tokenizer).facts.end_ids
        prompts = question_prompts(tokenizer, options.questions)
        with handle.folded():
            generator = Generator(handle.model, tokenizer, end_ids=end_ids, context=4096)
            results["equality"] = compare_greedy(generator, peer, prompts, options.new_tokens, end_ids)
    facts = {
        "model": options.model,
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        **results,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
