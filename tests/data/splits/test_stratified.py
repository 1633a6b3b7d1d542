"""Every part has every label, in the shares asked for; also where a row has several."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.splits.tables import SHARES, TABLES, Row, assign, examples, make_config, sizes, texts

Shares = tuple[float, float, float]


@given(table=TABLES, shares=SHARES, pinned=st.sets(st.integers(0, 40), max_size=10))
@examples(60)
def test_a_label_is_in_every_part_or_given_up(table: list[Row], shares: Shares, pinned: set[int]) -> None:
    table = [Row(label=row.label, unit=row.unit, pinned=row.unit in pinned) for row in table]
    parts = assign("stratified", table, make_config(shares))
    for label in {row.label for row in table}:
        found = {part for row, part in zip(table, parts.tolist(), strict=True) if row.label == label}
        is_learnt = all(row.pinned for row in table if row.label == label)
        assert found in ({-1}, {0, 1, 2}, {0} if is_learnt else {-1})


@given(
    counts=st.lists(st.integers(10, 60), min_size=1, max_size=12),
    shares=st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.5, 0.25, 0.25), (0.1, 0.1, 0.8)]),
)
@examples(40)
def test_the_shares_are_hit_within_rounding(counts: list[int], shares: Shares) -> None:
    """Of each label, and of the whole: single rounding errors do not add up over many labels."""
    pairs = [(label, label * 1000 + i) for label, size in enumerate(counts) for i in range(size)]
    parts = assign("stratified", texts(pairs), make_config(shares))
    labels = np.array([label for label, _ in pairs])
    for part, share in enumerate(shares):
        assert abs((parts == part).sum() - share * len(pairs)) <= 2
        for label, size in enumerate(counts):
            assert abs((parts[labels == label] == part).sum() - share * size) < 2


def test_three_texts_are_enough() -> None:
    pairs = [(label, label * 3 + i) for label in range(30) for i in range(3)] + [(30, 1000 + i) for i in range(500)]
    parts = assign("stratified", texts(pairs))
    assert min(sizes(parts)) >= 30 + 49
    # What tiny labels take beyond their quota is not taken from the large one.
    assert sizes(parts[-500:]) == [400, 50, 50]


def test_labels_bound_to_the_same_texts() -> None:
    """Texts 0-3 carry several labels; a label that cannot be covered is given up, the others stay whole."""
    pairs = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 3), (2, 2), (2, 3), (2, 4)]
    pairs += [(3, text) for text in range(10, 40)]
    parts = assign("stratified", texts(pairs))
    for label in range(4):
        found = {part for (other, _), part in zip(pairs, parts.tolist(), strict=True) if other == label}
        assert found in ({-1}, {0, 1, 2})
    assert (parts[-30:] >= 0).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rare_labels_of_rows_with_several_are_in_every_part(seed: int) -> None:
    """Twenty labels from 5 to 1,500 rows of 3,000: drawn at random, rare ones would miss a part."""
    chance = np.random.default_rng(seed)
    rates = np.geomspace(5, 1500, 20) / 3000
    has = chance.random((3000, 20)) < rates
    sets = [np.flatnonzero(row).tolist() for row in has]
    parts = assign("stratified", [Row(unit=i) for i in range(3000)], make_config(seed=seed), label_sets=sets)
    assert sizes(parts) == pytest.approx([2400, 300, 300], abs=6)
    for label in range(20):
        found, total = sizes(parts[has[:, label]]), int(has[:, label].sum())
        if total >= 3:
            assert min(found) >= 1
        assert found[1:] == pytest.approx([total / 10] * 2, abs=max(2, 0.1 * total / 10))
