"""AdaLoRA: PEFT's own loop step by step, ranks that are taken away, files both ways, and a training that goes on."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.methods.peft_parity import (
    PARITY_FAMILIES,
    apart,
    opened_in_plain_peft,
    ours_opens_there,
    run_steps,
    targets_of,
    theirs_opens_here,
)
from tests.methods.subjects import move
from tests.methods.test_low_rank_steps import STEPS, Training, learnt, model_folder
from tests.training.plain_loop import PlainChat
from tests.training.test_fit import Planted, breaks_at, lines, same_weights, train

from reglaj.methods.adalora import AdaLora, AdaLoraConfig

__all__ = ["model_folder"]
SECTION = {"name": "adalora", "init_rank": 4, "target_rank": 2, "initial_ratio": 0.2, "final_ratio": 0.3}


class PeftsOwnLoop(PlainChat):
    """The model, the penalty and the allocator are PEFT's."""

    def _with_updates(self, model: Any) -> Any:
        handle: Any = self.training.learner.handle
        ours = handle.config
        settings = peft.AdaLoraConfig(
            init_r=ours.init_r, target_r=ours.target_r, lora_alpha=ours.lora_alpha, target_modules=targets_of(handle),
            tinit=4, tfinal=6, deltaT=1, total_step=STEPS, task_type="CAUSAL_LM",
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrapped = peft.get_peft_model(model, settings)
        first = dict(self.training.learner.backbone.named_parameters())
        with torch.no_grad():
            for key, parameter in wrapped.named_parameters():
                if "lora_" in key:
                    parameter.copy_(first[key.removeprefix("base_model.model.")])
        return wrapped

    def take(self, number: int, rows: list[int], factor: float) -> float:
        loss = self.step(rows, factor)
        self.base.base_model.update_and_allocate(number)
        return loss


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_twenty_steps_equal_pefts_own_loop(family, model_folder):
    """Budget full, falling and at its target; importances, penalty and masks."""
    training = Training(model_folder(family), family, SECTION)
    loop = PeftsOwnLoop(model_folder(family), training)  # type: ignore[arg-type]
    theirs = training.steps(loop.take)
    ours = run_steps(training)
    handle: Any = training.learner.handle
    assert handle.config.tinit == 4 and handle.config.tfinal == 6 and handle.config.deltaT == 1
    assert max(abs(one - other) for one, other in zip(ours, theirs, strict=True)) < 1e-5
    last, theirs_last = learnt(training.learner.trained()), learnt(loop.tensors())
    for key, tensor in last.items():
        assert torch.allclose(tensor, theirs_last[key], rtol=0, atol=1e-5), key
    pattern = loop.base.peft_config["default"].rank_pattern
    kept = {key.replace(".default", ""): value for key, value in pattern.items()}
    assert handle._pattern() == kept
    assert 0 < sum(map(sum, kept.values())) <= 2 * len(kept)
    assert len({sum(one) for one in kept.values()}) > 1, "not every layer keeps as many"


def trained(here: Any, steps: int = 10) -> Any:
    """A handle whose ranks have been taken away."""
    torch.manual_seed(0)
    config = AdaLoraConfig(init_rank=4, target_rank=2, initial_ratio=0.1, final_ratio=0.2)
    handle: Any = AdaLora.attach(config, here.model("adalora"), here.facts)
    handle.begin(steps)
    move(handle, here.facts, lambda: here.look(handle.model, handle), steps=steps)
    assert int(handle.kept.sum()) <= 2 * len(handle.kept)
    return handle


@pytest.mark.parametrize("family", PARITY_FAMILIES)
def test_plain_peft_opens_what_is_left_and_so_do_we(family, subject, tmp_path):
    here = subject(family)
    handle = trained(here)
    handle.save(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert sum(map(sum, saved["rank_pattern"].values())) == int(handle.kept.sum())
    plain = opened_in_plain_peft(here, "adalora", tmp_path)
    other: Any = AdaLora.attach(handle.settings, here.model("adalora"), here.facts)
    other.load(tmp_path)
    with torch.no_grad():
        ours = here.look(handle.model, handle)
        assert apart(here.look(plain.base_model.model), ours) < 1e-5
        assert torch.equal(here.look(other.model, other), ours)
    assert torch.equal(other.kept, handle.kept) and other._pattern() == handle._pattern()
    (tmp_path / "again").mkdir()
    other.save(tmp_path / "again")
    weights = [path / "adapter_model.safetensors" for path in (tmp_path, tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_everything_kept_is_saved_without_a_pattern_and_plain_pefts_opens_here(subject, tmp_path):
    here = subject("bert")
    handle = here.moved("adalora")
    (tmp_path / "ours").mkdir()
    ours_opens_there(here, "adalora", handle, tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "adapter_config.json").read_text())["rank_pattern"] is None
    config = peft.AdaLoraConfig(init_r=12, lora_alpha=32, total_step=10, target_modules=targets_of(handle))
    theirs_opens_here(here, "adalora", config, here.attach("adalora"), tmp_path / "theirs")


def test_another_pattern_or_rank_does_not_fit(subject, tmp_path):
    from reglaj.core.errors import UserError

    here = subject("bert")
    trained(here).save(tmp_path)
    for other in (AdaLoraConfig(), AdaLoraConfig(init_rank=4, target_rank=2, layers=1)):
        handle = AdaLora.attach(other, here.model("adalora"), here.facts)
        with pytest.raises(UserError, match="does not fit"):
            handle.load(tmp_path)


def test_weights_of_before_the_last_allocation_keep_what_they_had(subject, tmp_path):
    """As when the best weights of a training are those of an early step."""
    here = subject("bert")
    handle = trained(here)
    with torch.no_grad():
        for e in handle._e:
            e.fill_(0.3)
        whole = here.look(handle.model, handle)
    handle.save(tmp_path)
    other = AdaLora.attach(handle.settings, here.model("adalora"), here.facts)
    other.load(tmp_path)
    with torch.no_grad():
        assert torch.equal(here.look(other.model, other), whole)


def test_the_budget_of_short_trainings(subject):
    here = subject("bert")
    for steps in (1, 2, 3, 5):
        torch.manual_seed(0)
        handle: Any = AdaLora.attach(AdaLoraConfig(), here.model("adalora"), here.facts)
        handle.begin(steps)
        move(handle, here.facts, lambda handle=handle: here.look(handle.model, handle), steps=steps)
        assert int(handle.kept.sum()) == (8 if steps > 1 else 12) * len(handle.kept), steps
        assert all(bool((e.view(-1)[~kept] == 0).all()) for e, kept in zip(handle._e, handle.kept, strict=True))


def test_what_is_wrong_is_said_before(subject):
    facts = subject("bert").facts
    (problem,) = AdaLora.check(AdaLoraConfig(init_rank=4, target_rank=5), facts)
    assert problem.where == "method.target_rank" and "1 to method.init_rank" in problem.allowed
    (problem,) = AdaLora.check(AdaLoraConfig(init_rank=33), facts)
    assert problem.where == "method.init_rank"
    (problem,) = AdaLora.check(AdaLoraConfig(initial_ratio=0.5, final_ratio=0.5), facts)
    assert problem.where == "method.final_ratio"


def test_a_training_that_broke_ends_bitwise_as_the_calm_one(tiny_model, tmp_path):
    """Within the fall of the budget: scores and masks are in the checkpoint."""
    method = SECTION | {"initial_ratio": 0.1, "final_ratio": 0.1}
    settings: dict[str, Any] = {"model_dropout": 0.2, "epochs": 4, "learning_rate": 5e-3, "checkpoint_every": 2}
    calm, _, _ = train(tiny_model("bert"), tmp_path / "calm", method, early_stopping=None, **settings)
    with pytest.raises(Planted):
        train(tiny_model("bert"), tmp_path / "broken", method, breaks_at(8), early_stopping=None, **settings)
    again, ended, _ = train(tiny_model("bert"), tmp_path / "broken", method, early_stopping=None, **settings)
    assert ended.resumed_at == [6] and same_weights(again, calm)
    ours, theirs = (learner.handle.state() for learner in (again, calm))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not ours["kept"].all()
    assert lines(tmp_path / "broken") == lines(tmp_path / "calm")


def test_the_penalty_is_that_of_the_paper_in_pefts_form(subject):
    here = subject("bert")
    handle: Any = here.moved("adalora")
    expected = []
    for layer in handle.layers():
        q, p = layer.lora_A["default"].detach(), layer.lora_B["default"].detach()
        expected += [(q @ q.T - torch.eye(12)).norm(), (p.T @ p - torch.eye(12)).norm()]
    assert handle.penalty().item() == pytest.approx(0.5 * torch.stack(expected).mean().item(), rel=1e-5)
    assert AdaLora.attach(AdaLoraConfig(orthogonality_weight=0), here.model("adalora"), here.facts).penalty() is None


def test_nothing_of_it_is_left_on_disk_but_safetensors_and_json(subject, tmp_path: Path):
    trained(subject("bert")).save(tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors", ".json"}
