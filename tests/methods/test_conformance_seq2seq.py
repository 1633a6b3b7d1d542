"""A training of an encoder-decoder that is broken and goes on, for every method: the same loop and checkpoints as any
task's, though no task has such a model yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.methods.settings import BOTH, VARIANTS, cases, section
from tests.methods.subjects import Subject
from tests.methods.trainings import Planted, same_end
from torch import Tensor, nn

from reglaj.methods import METHODS
from reglaj.models.encoding import TokenRows
from reglaj.models.packing import TokenBatch
from reglaj.models.seq2seq import seq2seq_logits
from reglaj.objectives.base import Objective, Term
from reglaj.training.checkpoints import list_checkpoints
from reglaj.training.config import TrainConfig
from reglaj.training.engine import Engine
from reglaj.training.fit import Fitted, Supervision, fit
from reglaj.training.learner import Learner

Pair = tuple[TokenBatch, TokenBatch]
ROWS = 12


class EachToken(Objective[Pair]):
    """The token that follows each of a target's."""

    names = ("next_token",)

    def counts(self, batch: Pair) -> dict[str, float]:
        return {"next_token": float(sum(batch[1].lengths))}

    def terms(self, outputs: Tensor, batch: Pair) -> dict[str, Term]:
        following = torch.roll(batch[1].input_ids, -1)
        return {"next_token": Term(sum=nn.functional.cross_entropy(outputs, following, reduction="sum"))}


def some_rows(seed: int) -> list[list[int]]:
    chance = np.random.default_rng(seed)
    return [chance.integers(4, 60, size=int(chance.integers(3, 9))).tolist() for _ in range(ROWS)]


def learner_on(here: Subject, case: str) -> Learner:
    """The method on a fresh model, as a training begins it."""
    model, method = here.model(case), METHODS.get(section(case)["name"])
    torch.manual_seed(0)
    handle = method.attach(method.config_type(**section(case)), model, here.facts)
    layout: dict[str, Any] = {"layout": "padded", "layout_reason": ""}
    engine = Engine(device="cpu", precision="float32", micro_batch_tokens=40, threads=1, hardware="", **layout)
    headless: Any = nn.Identity()
    return Learner(model, handle, headless, here.facts, engine)


def train(learner: Learner, folder: Path, *, breaks_at: int = 0) -> Fitted:
    """fit, whose pass of that number breaks."""
    texts, targets = TokenRows.of(some_rows(0)), TokenRows.of(some_rows(1))
    passes = 0

    def forward(batch: Pair) -> Tensor:
        nonlocal passes
        passes += 1
        if passes == breaks_at:
            raise Planted
        virtual = learner.handle.current_virtual()
        return seq2seq_logits(learner.backbone, *batch, **({} if virtual is None else {"virtual": virtual}))

    def measure() -> dict[str, float]:
        batch = texts.batch(range(ROWS)), targets.batch(range(ROWS))
        with learner.evaluating(), torch.no_grad():
            virtual = learner.handle.current_virtual()
            scores = seq2seq_logits(learner.backbone, *batch, **({} if virtual is None else {"virtual": virtual}))
        return {"validation_loss": EachToken().terms(scores, batch)["next_token"].sum.item()}

    config = TrainConfig.model_validate(
        {
            "epochs": 3, "batch_size": 6, "learning_rate": 3e-3, "checkpoint_every": 2, "precision": "float32",
            "device": "cpu", "max_tokens": 20, "early_stopping": {"metric": "validation_loss"},
        }
    )  # fmt: skip
    supervision = Supervision(
        rows=texts,
        load=lambda numbers: (texts.batch(numbers), targets.batch(numbers)),
        forward=forward,
        objective=EachToken(),
        row_places=lambda batch: [str(place) for place in range(len(batch[0].lengths))],
        cut_rows=lambda batch: [batch],
        measure=measure,
    )
    folder.mkdir(exist_ok=True)
    return fit(learner, supervision, config, folder, identity="me")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.torture] if case in VARIANTS else []) for case in cases()]
)
def test_a_stopped_training_of_an_encoder_decoder_ends_bitwise_as_the_calm_one(
    case: str, subject: Callable[[str], Subject], tmp_path: Path
) -> None:
    here = subject(BOTH)
    if here.problems(case):
        pytest.skip(f"{case} refuses an encoder-decoder")
    calm = learner_on(here, case)
    if not calm.named_parameters():
        pytest.skip(f"{case} has nothing that learns here")
    before = {key: tensor.clone() for key, tensor in calm.trained().items()}
    train(calm, tmp_path / "calm")
    with pytest.raises(Planted):
        train(learner_on(here, case), tmp_path / "broken", breaks_at=8)
    assert [path.name for path in list_checkpoints(tmp_path / "broken" / "checkpoints")] == ["step-000002"]
    again = learner_on(here, case)
    fitted = train(again, tmp_path / "broken")
    assert fitted.resumed_at == [2] and fitted.steps == 6
    same_end(calm, again, before)
