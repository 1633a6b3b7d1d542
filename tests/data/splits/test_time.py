"""Validation and test are the latest, and what is of one moment stays together."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from tests.data.splits.tables import SHARES, TABLES, Row, assign, examples, make_config, sizes

from reglaj.data.config import SplitConfig


@given(table=TABLES, shares=SHARES)
@examples(100)
def test_time_never_runs_backwards(table: list[Row], shares: tuple[float, float, float]) -> None:
    parts = assign("time", table, make_config(shares))
    moments = {
        part: [row.moment for row, p in zip(table, parts.tolist(), strict=True) if p == part] for part in range(3)
    }
    for early, late in ((0, 1), (1, 2), (0, 2)):
        if moments[early] and moments[late]:
            assert max(moments[early]) < min(moments[late])
    if len({row.moment for row in table}) >= 3:
        assert min(sizes(parts)) > 0


@given(counts=st.lists(st.integers(1, 30), min_size=3, max_size=30), shares=SHARES)
@examples(100)
def test_no_other_cut_is_nearer(counts: list[int], shares: tuple[float, float, float]) -> None:
    """The test part, which is cut off first, by trying every cut that leaves two moments."""
    table = [Row(moment=moment, unit=moment) for moment, count in enumerate(counts) for _ in range(count)]
    found = sizes(assign("time", table, make_config(shares)))
    wanted = max(1, round(shares[2] * len(table)))
    able = [sum(counts[cut:]) for cut in range(2, len(counts))]
    assert abs(found[2] - wanted) == min(abs(size - wanted) for size in able)


def test_equal_times_stay_together() -> None:
    table = [Row(unit=i, moment=i // 30) for i in range(100)]  # 30, 30, 30, 10
    assert sizes(assign("time", table, make_config())) == [60, 30, 10]


def test_two_moments_are_train_and_test() -> None:
    assert sizes(assign("time", [Row(unit=i, moment=i // 50) for i in range(100)])) == [50, 0, 50]
    assert sizes(assign("time", [Row(unit=i) for i in range(100)])) == [100, 0, 0]


def test_sizes_may_be_counts() -> None:
    table = [Row(unit=i, moment=i) for i in range(100)]
    parts = assign("time", table, SplitConfig(kind="time", validation=7, test=11))
    assert Counter(parts.tolist()) == {0: 82, 1: 7, 2: 11}
    assert parts.tolist() == sorted(parts.tolist())


def test_labels_and_texts_are_not_looked_at() -> None:
    table = [Row(unit=i % 3, label=int(i >= 90), moment=i) for i in range(100)]
    with_labels = assign("time", table)
    assert (with_labels == assign("time", [Row(moment=i) for i in range(100)])).all()
