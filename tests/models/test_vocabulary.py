"""Losses of chosen tokens: equal to plain cross-entropy in value and in gradient, however they are chunked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_chat import write_chat_model

from reglaj.core.errors import UserError
from reglaj.models import vocabulary
from reglaj.models.inspect import inspect_model
from reglaj.models.loading import load_causal
from reglaj.models.vocabulary import VocabularyHead


@pytest.fixture(scope="module")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = write_chat_model(tmp_path_factory.mktemp(family), family)
        return made[family]

    return make


def model_of(folder: Path) -> Any:
    return load_causal(inspect_model(str(folder), folder=Path()))


def some_states(model: Any, count: int = 37) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(count, model.config.hidden_size, generator=generator)
    return hidden, torch.randint(0, model.config.vocab_size, (count,), generator=generator)


@pytest.mark.parametrize("chunk_rows", [1, 5, 37, 1000])
@pytest.mark.parametrize("is_trained", [True, False])
def test_losses_and_gradients_are_those_of_cross_entropy(
    tiny_chat: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, chunk_rows: int, is_trained: bool
) -> None:
    model = model_of(tiny_chat("llama"))
    matrix = model.get_output_embeddings().weight.requires_grad_(is_trained)
    monkeypatch.setattr(vocabulary, "CHUNK_VALUES", chunk_rows * matrix.shape[0])
    hidden, targets = some_states(model)
    weights = torch.linspace(-1, 2, len(targets))  # each token may count differently, as in preference training
    ours, plain = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()

    losses = VocabularyHead(model).token_losses(ours, targets)
    (losses * weights).sum().backward()
    from_ours = matrix.grad.clone() if is_trained else None
    matrix.grad = None
    expected = torch.nn.functional.cross_entropy(plain @ matrix.T, targets, reduction="none")
    (expected * weights).sum().backward()

    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-5, atol=1e-6)
    if is_trained:
        torch.testing.assert_close(from_ours, matrix.grad, rtol=1e-5, atol=1e-5)


def test_a_soft_cap_is_part_of_the_scores(tiny_chat: Callable[[str], Path]) -> None:
    model = model_of(tiny_chat("llama"))
    model.config.final_logit_softcapping = 2.0
    hidden, targets = some_states(model)
    hidden.requires_grad_()
    losses = VocabularyHead(model).token_losses(hidden, targets)
    scores = torch.tanh(model.get_output_embeddings()(hidden) / 2.0) * 2.0
    torch.testing.assert_close(losses, torch.nn.functional.cross_entropy(scores, targets, reduction="none"))
    losses.sum().backward()
    assert hidden.grad is not None and hidden.grad.abs().sum() > 0


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral", "gpt2"])
def test_the_scores_are_those_of_the_model(tiny_chat: Callable[[str], Path], family: str) -> None:
    VocabularyHead(model_of(tiny_chat(family))).check(family)


def test_scores_made_in_another_way_are_refused(tiny_chat: Callable[[str], Path]) -> None:
    model = model_of(tiny_chat("llama"))
    plain = model.forward

    def scaled(*args: Any, **options: Any) -> Any:
        output = plain(*args, **options)
        output.logits = output.logits * 0.5
        return output

    model.forward = scaled
    with pytest.raises(UserError, match="unknown way"):
        VocabularyHead(model).check("odd")


def test_the_head_owns_no_parameters(tiny_chat: Callable[[str], Path]) -> None:
    assert not list(VocabularyHead(model_of(tiny_chat("llama"))).parameters())
