"""Groups stay whole, and parts are alike in labels as far as groups allow."""

from __future__ import annotations

import numpy as np
import pytest
from tests.data.splits.tables import Row, assign, make_config, sizes


def table_of_groups(seed: int, num_groups: int = 400, num_labels: int = 6) -> list[Row]:
    """Groups of 1 to some 60 rows, each with a mix of labels of its own, some labels rare."""
    chance = np.random.default_rng(seed)
    rows = []
    for group in range(num_groups):
        mix = chance.dirichlet(np.geomspace(3, 0.1, num_labels))
        rows += [Row(label=int(chance.choice(num_labels, p=mix)), unit=group) for _ in range(1 + chance.geometric(0.1))]
    return rows


def mix_of(parts: np.ndarray, table: list[Row], part: int) -> np.ndarray:
    counts = np.bincount([row.label for row, p in zip(table, parts.tolist(), strict=True) if p == part], minlength=6)
    return np.asarray(counts / counts.sum())


@pytest.mark.parametrize("seed", range(5))
def test_parts_are_alike_in_labels(seed: int) -> None:
    table = table_of_groups(seed)
    whole = np.bincount([row.label for row in table]) / len(table)
    ours, blind = (assign(kind, table, make_config(seed=seed)) for kind in ("group", "random"))
    assert sizes(ours)[1:] == pytest.approx([len(table) / 10] * 2, rel=0.03)
    for part in (1, 2):
        off, off_blind = (np.abs(mix_of(parts, table, part) - whole).max() for parts in (ours, blind))
        assert off < 0.01
        assert off < off_blind


def test_large_groups_are_not_kept_from_the_test() -> None:
    """Sizes of groups in the test are those of all: what is asked of a model is no easier than what it learnt from."""
    table = table_of_groups(1)
    sizes_of = np.bincount([row.unit for row in table])
    means = []
    for seed in range(8):
        parts = assign("group", table, make_config(seed=seed))
        units = {row.unit for row, part in zip(table, parts.tolist(), strict=True) if part == 2}
        means.append(np.mean([sizes_of[unit] for unit in units]))
    assert np.mean(means) == pytest.approx(sizes_of.mean(), rel=0.15)


def test_a_label_of_one_group_is_learnt() -> None:
    table = [Row(label=i % 2, unit=i // 5) for i in range(500)] + [Row(label=2, unit=1000) for _ in range(60)]
    for seed in range(10):
        parts = assign("group", table, make_config(seed=seed))
        assert set(parts[-60:].tolist()) == {0}


def test_a_label_that_train_cannot_have_is_given_up() -> None:
    """Three groups, three parts, and label 2 in none of train's: taking its group would leave a part empty."""
    table = [Row(label=i % 2, unit=0) for i in range(20)] + [Row(label=i % 2, unit=1) for i in range(4)]
    table += [Row(label=2, unit=2), Row(label=0, unit=2)]
    parts = assign("group", table, make_config())
    assert parts[-2] == -1
    assert sorted(set(parts.tolist())) == [-1, 0, 1, 2]


def test_a_group_that_train_can_spare_takes_the_place() -> None:
    """The only group of the test has the only row of label 2: it goes to train, and another group becomes the test."""
    for unit in range(4):
        table = [Row(label=i % 2, unit=i) for i in range(4)] + [Row(label=(4 + i) % 2, unit=i % 4) for i in range(8)]
        table += [Row(label=2, unit=unit)]
        parts = assign("group", table)
        assert parts[-1] == 0
        assert min(sizes(parts)) > 0


def test_without_labels_groups_are_dealt_out_by_chance() -> None:
    table = [Row(unit=i // 4) for i in range(400)]
    assert (assign("group", table) == assign("random", table)).all()


def test_many_groups_take_seconds() -> None:
    table = [Row(label=i % 50, unit=i // 3) for i in range(30_000)]
    assert sizes(assign("group", table))[1:] == pytest.approx([3000, 3000], abs=10)
