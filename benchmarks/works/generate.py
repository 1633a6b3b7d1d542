"""Answers to many prompts against transformers' own `generate`: same model, same prompts, LoRA folded in on both sides.

The prompts are of 20 to 400 tokens. `generate` gets them in one batch, padded on the left, greedy, without end tokens,
with the merged weights in a plain model; we get them as they are, through `Handle.folded`. Construction is left out
(ours holds a self-check). With --full the answers to 50 real questions are compared token by token with `generate`, one
prompt at a time: ours alone and ours in batches, with the distance between the two best logits where they first differ.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks import conversations
from benchmarks.measuring import OURS, Contest, Side, Turn, timed
from benchmarks.works.sizes import Sizes
from reglaj.data.conversation import Conversation
from reglaj.data.rendering import Renderer
from reglaj.generation import GenerationConfig, Generator
from reglaj.methods.base import Handle
from reglaj.methods.lora import Lora, LoraConfig
from reglaj.models.inspect import inspect_model
from reglaj.models.starters import fetch

SHORTEST, LONGEST = 20, 400
PROMPTS = 16
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


def generate(sizes: Sizes) -> list[Contest]:
    """16 prompts of unequal length; a turn is all of them."""
    return [
        Contest(
            name="generate",
            title=f"SmolLM2, {PROMPTS} prompts of {SHORTEST} to {LONGEST} tokens, {sizes.new_tokens} new ones each",
            sides={OURS: Side(run=run_ours), "transformers generate": Side(run=run_peer)},
            amount=sizes.new_tokens,
            warm_up=min(8, sizes.new_tokens),
            tolerance=1 / PROMPTS,  # one close call between two logits may fall the other way
            compare=_compare_answers,
            facts=lambda: _facts(sizes),
        )
    ]


@functools.cache
def _ours() -> Handle:
    return with_lora(conversations.facts().folder)


@functools.cache
def _merged() -> Any:
    return merged(_ours(), conversations.facts().folder)


def run_ours(new_tokens: int) -> Turn:
    """All prompts by our generator, which is constructed anew outside of the time."""
    tokenizer = conversations.tokenizer()
    prompts = spread_prompts(tokenizer, PROMPTS)
    handle = _ours()
    with handle.folded():
        generator = Generator(handle.model, tokenizer, end_ids=(), context=4096)
        with timed() as region:
            answers = [
                answer.ids for answer in generator.generate(prompts, GenerationConfig(max_new_tokens=new_tokens))
            ]
    return Turn(region=region[0], answers=answers)


def run_peer(new_tokens: int) -> Turn:
    """All prompts by `generate`."""
    prompts = spread_prompts(conversations.tokenizer(), PROMPTS)
    model = _merged()
    with timed() as region:
        answers = in_one_batch(model, prompts, new_tokens)
    return Turn(region=region[0], answers=answers)


def _compare_answers(mine: Turn, other: Turn) -> tuple[float, str]:
    """The share of answers that differ anywhere."""
    equal = sum(a == b for a, b in zip(mine.answers, other.answers, strict=True))
    return 1 - equal / len(mine.answers), f"{equal} of {len(mine.answers)} answers equal"


def _facts(sizes: Sizes) -> dict[str, Any]:
    prompts = spread_prompts(conversations.tokenizer(), PROMPTS)
    facts: dict[str, Any] = {
        "prompt_tokens": [len(prompt) for prompt in prompts],
        "tokens": PROMPTS * sizes.new_tokens,
    }
    if sizes.questions:
        facts["equality"] = _equality(sizes.questions, sizes.new_tokens)
    return facts


def _equality(count: int, new_tokens: int) -> dict[str, Any]:
    tokenizer, handle = conversations.tokenizer(), _ours()
    end_ids = Renderer(tokenizer).facts.end_ids
    prompts = question_prompts(tokenizer, count)
    with handle.folded():
        generator = Generator(handle.model, tokenizer, end_ids=end_ids, context=4096)
        return compare_greedy(generator, _merged(), prompts, new_tokens, end_ids)
