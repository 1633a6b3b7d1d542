"""Plain PEFT beside us, for methods whose learnt tokens stand before the texts.

Legend: P virtual tokens, T tokens of all texts, D width, V vocabulary.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from tests.tiny import write_model
from tests.tiny_chat import write_chat_model
from tests.training.choices import Choice, Training
from tests.training.plain_loop import PlainChat, PlainClassifier
from torch import Tensor

from reglaj.methods import METHODS
from reglaj.methods.base import Handle
from reglaj.models import loading
from reglaj.models.inspect import ModelFacts, inspect_model
from reglaj.models.packing import Layout, TokenBatch, choose_layout, hidden_states
from reglaj.models.seq2seq import seq2seq_logits
from reglaj.training.fit import build_step, plan_for
from reglaj.training.optimizer import schedule_factor, set_learning_rate

TEXTS = [np.array(row) for row in ([12, 17, 29, 11, 33], [22, 20, 23], [12, 25, 46, 37, 8, 9, 10, 23])]
TARGETS = [np.array(row) for row in ([0, 31, 8], [0, 9, 4, 77, 12], [0, 5])]
FAMILIES = ("bert", "roberta", "distilbert", "electra", "llama", "chat", "gpt2", "mistral", "gemma", "gemma2", "t5")
"""`chat` is Llama with its output matrix, the others but T5 are bare trunks."""
COUNT = 4
STEPS = 20


def write(family: str, folder: Path) -> ModelFacts:
    """A tiny model of a family in a folder."""
    (write_chat_model(folder) if family == "chat" else write_model(folder, family))
    return inspect_model(str(folder), folder=Path())


def load(facts: ModelFacts) -> Any:
    """The stock model, with its output matrix where the family has one here."""
    if facts.is_encoder_decoder:
        return loading.load_seq2seq(facts)
    return loading.load_causal(facts) if "ForCausalLM" in str(facts.config["architectures"]) else load_trunk(facts)


def load_trunk(facts: ModelFacts) -> Any:
    return loading.load_backbone(facts)


def attach(name: str, facts: ModelFacts, seed: int = 0, **section: Any) -> Any:
    """A handle on a fresh model."""
    torch.manual_seed(seed)
    method = METHODS.get(name)
    config = method.config_type(**{"name": name, "num_virtual_tokens": COUNT, **section})
    return method.attach(config, load(facts), facts)


def ours(handle: Handle, facts: ModelFacts) -> Tensor:
    """What we give for each token: hidden states (T, D), or scores (T, V) where there is an output matrix."""
    model, virtual = handle.model.eval(), handle.virtual()
    with torch.no_grad():
        if facts.is_encoder_decoder:
            return seq2seq_logits(model, TokenBatch.of(TEXTS), TokenBatch.of(TARGETS), virtual)
        layout, _ = choose_layout(model.base_model, facts.model_type, facts.position_offset, 100)
        tokens = TokenBatch.of(TEXTS)
        hidden = hidden_states(model.base_model, tokens, layout, facts.position_offset, virtual=virtual)
        matrix = model.get_output_embeddings()
        return hidden if matrix is None else matrix(hidden)


def theirs(model: Any, facts: ModelFacts) -> Tensor:
    """The same from a `PeftModel`, a text at a time."""
    found = []
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for text, target in zip(TEXTS, TARGETS, strict=True):
            ids = torch.from_numpy(text)[None]
            given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            if facts.is_encoder_decoder:
                given["decoder_input_ids"] = torch.from_numpy(target)[None]
            output = model.eval()(**given)
            states = output.logits if hasattr(output, "logits") else output.last_hidden_state
            found.append(states[0, -len(target if facts.is_encoder_decoder else text) :])
    return torch.cat(found)


def saved(handle: Handle, folder: Path) -> Path:
    """The folder, into which the handle was saved."""
    folder.mkdir()
    handle.save(folder)
    return folder


def opened(facts: ModelFacts, folder: Path) -> Any:
    """What plain PEFT makes of a folder."""
    return peft.PeftModel.from_pretrained(load(facts), folder)


def close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-5 * max(1.0, other.abs().max().item()))


def follow(name: str, facts: ModelFacts, section: dict[str, Any], **train: Any) -> dict[str, float]:
    """Twenty steps of a training and of plain PEFT in a hand-written loop, and how far they are apart at the end.

    Returns the largest difference of `losses` and of each trained tensor; `moved` is how far the prompt came.
    """
    whole: Any = {"name": name, "num_virtual_tokens": COUNT, **section}
    layout: Layout = "packed-causal" if facts.is_decoder else "packed"
    choice = Choice(family=facts.model_type, method=whole, layout=layout)
    training = Training(facts.folder, choice, 32, epochs=5, max_steps=STEPS, **train)
    learner: Any = training.learner
    plain: Any = (_PeftChat if choice.is_chat else _PeftClassifier)(facts.folder, training)
    learner.train()
    step = build_step(learner, training.supervision, training.config)
    plan = plan_for(training.config, training.encoded.rows)
    assert plan.total_steps == STEPS
    first = {key: tensor.clone() for key, tensor in learner.trained().items()}
    apart = {"losses": 0.0}
    for number in range(1, STEPS + 1):
        rows, factor = plan.rows(number), schedule_factor(number, STEPS, training.config)
        set_learning_rate(step.optimizer, factor)
        result = step(number, training.batches(rows, 250 if choice.is_chat else 64))
        apart["losses"] = max(apart["losses"], abs(result.loss - plain.step(rows, factor)))
    last, expected = learner.trained(), plain.tensors()
    apart |= {key: (tensor - expected[key]).abs().max().item() for key, tensor in last.items()}
    moved = [(tensor - first[key]).abs().max().item() for key, tensor in last.items() if "virtual" in key]
    return apart | {"moved": min(moved)}


class _Peft:
    """What turns a plain loop into one over a `PeftModel` with the first values of ours."""

    training: Training

    def _with_updates(self, model: Any) -> Any:
        handle: Any = self.training.learner.handle
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrapped = peft.get_peft_model(model, copy.deepcopy(handle.config))
        encoder = wrapped.prompt_encoder["default"]
        encoder.load_state_dict(handle.encoder.state_dict())
        return wrapped

    def tensors(self) -> dict[str, Tensor]:
        found = super().tensors()  # type: ignore[misc]
        return {key.replace("prompt_encoder.", "virtual_prompts."): tensor for key, tensor in found.items()}


class _PeftChat(_Peft, PlainChat):
    """The loss is PEFT's own, which leaves virtual tokens out."""


class _Cut(torch.nn.Module):
    """A `PeftModel` without the states of its virtual tokens."""

    def __init__(self, wrapped: Any) -> None:
        super().__init__()
        self.wrapped = wrapped

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        output = self.wrapped(input_ids=input_ids, attention_mask=attention_mask)
        output.last_hidden_state = output.last_hidden_state[:, -input_ids.shape[1] :]
        return output


class _PeftClassifier(_Peft, PlainClassifier):
    def _with_updates(self, model: Any) -> Any:
        return _Cut(super()._with_updates(model))

    def tensors(self) -> dict[str, Tensor]:
        return {key.removeprefix("wrapped."): tensor for key, tensor in super().tensors().items()}
