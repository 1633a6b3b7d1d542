"""Parts are those that the data name; only validation may be made."""

from __future__ import annotations

import pytest
from hypothesis import given
from tests.data.splits.tables import SEEDS, TABLES, Row, assign, examples, make_config, sizes

from reglaj.core.errors import UserError
from reglaj.data.config import SplitConfig
from reglaj.data.splits.given import parts_of_cells


def place(row: int) -> str:
    return f"data.csv, line {row + 2}"


@given(table=TABLES, seed=SEEDS)
@examples(60)
def test_nothing_is_rearranged(table: list[Row], seed: int) -> None:
    parts = assign("given", table, make_config(seed=seed))
    told = [row.given for row in table]
    if 1 in told:
        assert parts.tolist() == told
        return
    # Validation is made of whole units of train, and of nothing else.
    assert [part for part in parts.tolist() if part == 2] == [part for part in told if part == 2]
    train = [(row.unit, part) for row, part in zip(table, parts.tolist(), strict=True) if row.given == 0]
    for unit in {unit for unit, _ in train}:
        assert len({part for other, part in train if other == unit}) == 1
    if len({unit for unit, _ in train}) >= 2:
        assert {part for _, part in train} == {0, 1}


def test_validation_is_a_share_of_train_or_so_many_rows() -> None:
    table = [Row(unit=i, given=0 if i < 500 else 2) for i in range(1000)]
    assert sizes(assign("given", table)) == [450, 50, 500]
    counted = SplitConfig(kind="given", validation=70)
    assert sizes(assign("given", table, counted)) == [430, 70, 500]
    assert (assign("given", table, make_config(seed=1)) != assign("given", table)).any()
    with pytest.raises(UserError, match="500 that are given for train"):
        assign("given", table, SplitConfig(kind="given", validation=500))


def test_cells_are_read_in_any_case() -> None:
    cells = ["train", "Validation", " VALID ", "dev", "val", "TEST", "Training"]
    assert parts_of_cells(cells, "split", place).tolist() == [0, 1, 1, 1, 1, 2, 0]


def test_other_cells_are_named() -> None:
    with pytest.raises(UserError) as told:
        parts_of_cells(["train", "holdout", "test", None, " "], "split", place)
    text = str(told.value)
    assert "has 'holdout', an empty cell in 3 of 5 rows" in text
    assert "validation, valid, val or dev" in text
    assert "data.csv, line 3" in text


@pytest.mark.parametrize("cells, missing", [(["train", "dev"], "test"), (["test", "dev"], "train")])
def test_a_part_that_no_row_names_is_refused(cells: list[str], missing: str) -> None:
    with pytest.raises(UserError, match=f"no row of the column 'split' says {missing}"):
        parts_of_cells(cells, "split", place)
