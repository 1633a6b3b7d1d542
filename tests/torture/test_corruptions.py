"""200 corruptions of the newest of two checkpoints: each is found, none is loaded, the older one is used."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch
from tests.tiny import recipe_for
from tests.torture.corruptions import CORRUPTIONS

import reglaj
from reglaj.core.console import Console
from reglaj.core.runs import read_manifest
from reglaj.training.checkpoints import damage_of, list_checkpoints, newest_checkpoint

NUMBER = 200


class Listening(Console):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def warn(self, text: str) -> None:
        self.heard.append(text)


@pytest.fixture(scope="module")
def trained(tiny_model, tiny_rows, tmp_path_factory):
    """The two checkpoints of a finished run, and its identity."""
    train = {"max_steps": 12, "checkpoint_every": 5, "keep": 2, "evaluate_every": 4}
    run = reglaj.train(recipe_for(tiny_model("bert"), tiny_rows, train=train), runs=tmp_path_factory.mktemp("runs"))
    folder = run.path / "checkpoints"
    assert [path.name for path in list_checkpoints(folder)] == ["step-000010", "step-000012"]
    return folder, read_manifest(run.path)["identity"]


def test_every_corruption_is_found_and_none_is_loaded(trained, tmp_path: Path) -> None:
    folder, identity = trained
    chance = random.Random(5)
    kept = {path.name: newest_checkpoint(_only(path, tmp_path), identity) for path in list_checkpoints(folder)}
    older_weights = kept["step-000010"].weights
    assert not torch.equal(*(kept[name].weights["head.linear.weight"] for name in kept))
    done = set()
    for number in range(NUMBER):
        copy = tmp_path / str(number)
        shutil.copytree(folder, copy)
        older, newer = list_checkpoints(copy)
        assert damage_of(newer, identity) is None
        corruption = chance.choice(CORRUPTIONS)
        told = corruption(newer, older, chance)
        done.add(corruption)
        assert _content(newer) != _content(folder / newer.name), told
        reason = damage_of(newer, identity)
        assert reason, f"{told}: not found"

        console = Listening()
        used = newest_checkpoint(copy, identity, console)
        assert used is not None and used.step == 10, told
        assert used.weights.keys() == older_weights.keys()
        assert all(torch.equal(used.weights[name], older_weights[name]) for name in older_weights)
        assert [path.name for path in list_checkpoints(copy)] == ["step-000010"]
        aside = copy / "damaged-step-000012"
        assert (aside / "reason.txt").read_text(encoding="utf-8").strip() == reason
        assert len(console.heard) == 1 and reason in console.heard[0] and aside.name in console.heard[0]
        shutil.rmtree(copy)
    assert done == set(CORRUPTIONS)


def test_two_damaged_ones_leave_nothing_to_load(trained, tmp_path: Path) -> None:
    folder, identity = trained
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for path in list_checkpoints(copy):
        (path / "weights.safetensors").write_bytes(b"")
    console = Listening()
    assert newest_checkpoint(copy, identity, console) is None
    assert sorted(path.name for path in copy.iterdir()) == ["damaged-step-000010", "damaged-step-000012"]
    assert len(console.heard) == 2


def _only(path: Path, tmp_path: Path) -> Path:
    """A folder of checkpoints that holds this one alone."""
    target = tmp_path / f"only-{path.name}"
    shutil.copytree(path, target / path.name)
    return target


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
