"""The short form of `make torture`: six kills and two full disks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.torture.calm import Scene
from tests.torture.cases import TINY
from tests.torture.disk import FULL, fill_often, small_disk
from tests.torture.kills import kill_often
from tests.torture.processes import Zygote

KILLS = 3
MOMENTS = 2
DISK_SEED = 15  # draws one moment between two steps and one inside a save


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as made:
        yield made


@pytest.fixture(scope="module")
def scenes(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scene]:
    folders = {name: tmp_path_factory.mktemp(name) for name in TINY}
    return {name: Scene.prepared(make(folders[name]), zygote, folders[name]) for name, make in TINY.items()}


@pytest.mark.parametrize("name", TINY)
def test_killed_trainings_end_as_the_calm_one(scenes: dict[str, Scene], name: str) -> None:
    tally = kill_often(scenes[name], kills=KILLS, per_training=KILLS)
    assert not tally.problems
    assert tally.kills == KILLS


def test_a_full_disk_loses_nothing(scenes: dict[str, Scene], tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "24m") as reason:
        if reason:
            pytest.skip(reason)
        results = fill_often(scenes["classifier"], tmp_path / "disk", moments=MOMENTS, seed=DISK_SEED)
    assert [result.problems for result in results] == [[]] * MOMENTS
    assert any(result.code == FULL for result in results)
