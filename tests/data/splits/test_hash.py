"""A row keeps its side, whatever other rows there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.splits.tables import SEEDS, SHARES, TABLES, Row, assign, examples, make_config

from reglaj.core.errors import UserError
from reglaj.data.config import SplitConfig
from reglaj.data.splits import SPLITS


@given(table=TABLES, more=TABLES, seed=SEEDS, shares=SHARES, chance=st.randoms(use_true_random=False))
@examples(100)
def test_no_other_row_changes_a_side(
    table: list[Row], more: list[Row], seed: int, shares: tuple[float, float, float], chance: object
) -> None:
    config = make_config(shares, seed)
    side = {row.unit: part for row, part in zip(table, assign("hash", table, config).tolist(), strict=True)}
    mixed = [*table, *more]
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    for row, part in zip(mixed, assign("hash", mixed, config).tolist(), strict=True):
        assert side.setdefault(row.unit, part) == part


def test_growing_by_a_tenth_twice_changes_no_side() -> None:
    sides = [assign("hash", [Row(unit=i) for i in range(size)]).tolist() for size in (10_000, 11_000, 12_100)]
    assert sides[1][:10_000] == sides[0]
    assert sides[2][:11_000] == sides[1]


def test_a_larger_share_takes_rows_from_train_alone() -> None:
    """The test stays what it was when validation grows."""
    table = [Row(unit=i) for i in range(2000)]
    small, large = (assign("hash", table, SplitConfig(kind="hash", validation=size)) for size in (0.1, 0.3))
    assert ((small == 2) == (large == 2)).all()
    assert (large[small == 1] == 1).all()


@pytest.mark.parametrize("sizes", [{"validation": 100}, {"test": 100}, {"validation": 5, "test": 100}])
def test_counts_are_refused(sizes: dict[str, float]) -> None:
    config = SplitConfig(kind="hash", **sizes)
    (problem,) = SPLITS.get("hash").check(config)
    assert "rows" in problem.given
    with pytest.raises(UserError, match="shares below 1"):
        assign("hash", [Row()], config)
