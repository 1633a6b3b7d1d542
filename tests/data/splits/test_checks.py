"""A column that cannot split is refused, with what is wrong with it and what would work."""

from __future__ import annotations

import numpy as np
import pytest

from reglaj.core.errors import UserError
from reglaj.data.splits.checks import check_given_labels, check_group_column, check_times
from reglaj.data.splits.times import parse_times


def place(row: int) -> str:
    return f"data.csv, line {row + 2}"


def test_a_group_column_with_one_value() -> None:
    with pytest.raises(UserError) as told:
        check_group_column(np.zeros(500, dtype=np.int64), "user")
    assert "the column 'user' has one value in 500 usable rows" in str(told.value)
    assert told.value.problems[0].where == "data.split.group"
    with pytest.raises(UserError, match="has 2 values"):
        check_group_column(np.array([0, 1] * 50), "user")
    check_group_column(np.array([0, 1, 2]), "user")
    check_group_column(np.array([0, 0, 0, -1, -1]), "user")  # rows without a value are on their own


def test_times_that_cannot_be_read() -> None:
    cells: list[str | None] = [f"2024-01-{i % 28 + 1:02}" for i in range(100)]
    check_times(cells, parse_times(cells), place, "date")
    cells[10], cells[40] = "soon", None
    check_times(cells, parse_times(cells), place, "date")  # 2%: left out, not refused
    cells[70] = "x" * 100
    with pytest.raises(UserError) as told:
        check_times(cells, parse_times(cells), place, "date")
    text = str(told.value)
    assert "no readable time in 3 of 100 usable rows (3.0%)" in text
    assert f"data.csv, line 12: 'soon'; data.csv, line 42: empty; data.csv, line 72: '{'x' * 39}…'" in text
    check_times([], parse_times([]), place, "date")


def test_only_the_first_rows_are_named() -> None:
    cells: list[str | None] = ["?"] * 1000
    with pytest.raises(UserError, match="line 6: '\\?'; and 995 more"):
        check_times(cells, parse_times(cells), place, "date")


def test_labels_that_train_lacks() -> None:
    names = ["a", "b", "c", "d"]
    labels = np.array([0, 1, 0, 2, 2, 3, 1])
    parts = np.array([0, 0, 1, 1, 2, 2, 2], dtype=np.int8)
    with pytest.raises(UserError) as told:
        check_given_labels(labels, parts, names)
    assert "train lacks 2 labels of 3 rows of validation and test: 'c' (2), 'd' (1)" in str(told.value)
    check_given_labels(labels, np.where(labels >= 2, -1, parts).astype(np.int8), names)
    check_given_labels(labels, np.where(labels >= 2, 0, parts).astype(np.int8), names)
