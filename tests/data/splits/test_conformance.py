"""What every kind of split promises; a new kind is tested here by being registered."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.splits.tables import (
    ROW,
    SEEDS,
    SHARES,
    TABLES,
    Row,
    assign,
    examples,
    make_config,
    sizes,
    texts,
)

from reglaj.core.errors import UserError
from reglaj.data.config import SplitConfig
from reglaj.data.splits import SPLITS
from reglaj.data.splits.base import PARTS, check_parts

KINDS = SPLITS.names()
OURS = [kind for kind in KINDS if SPLITS.get(kind).is_ours]
WITH_LABELS = [kind for kind in KINDS if SPLITS.get(kind).needs_labels]
LABEL_SETS = st.sets(st.integers(0, 4), max_size=3).map(sorted)
Shares = tuple[float, float, float]


def test_there_are_kinds() -> None:
    assert {"stratified", "random", "group", "time", "hash", "given"} <= set(KINDS)
    assert {"stratified", "random", "group"} <= set(OURS)
    assert not {"time", "hash", "given"} & {*OURS, *WITH_LABELS}


@pytest.mark.parametrize("kind", KINDS)
@given(table=TABLES, shares=SHARES, seed=SEEDS)
@examples(40)
def test_nothing_is_lost_and_units_are_whole(kind: str, table: list[Row], shares: Shares, seed: int) -> None:
    parts = assign(kind, table, make_config(shares, seed))
    assert parts.shape == (len(table),)
    assert set(parts.tolist()) <= {-1, 0, 1, 2}
    kept = [(row, part) for row, part in zip(table, parts.tolist(), strict=True) if part >= 0]
    if kind in OURS:
        for unit in {row.unit for row, _ in kept}:
            assert len({part for row, part in kept if row.unit == unit}) == 1
    if kind not in WITH_LABELS:
        assert len(kept) == len(table)
    for label in {row.label for row in table} if kind in WITH_LABELS else ():
        # Given up as a whole, or there to be learnt.
        found = {part for row, part in zip(table, parts.tolist(), strict=True) if row.label == label}
        assert found == {-1} or (0 in found and -1 not in found)


@pytest.mark.parametrize("kind", KINDS)
@given(table=TABLES, chance=st.randoms(use_true_random=False), seed=SEEDS)
@examples(25)
def test_the_same_rows_in_any_order_give_the_same_split(kind: str, table: list[Row], chance: object, seed: int) -> None:
    order = list(range(len(table)))
    chance.shuffle(order)  # type: ignore[attr-defined]
    straight = assign(kind, table, make_config(seed=seed))
    assert (assign(kind, table, make_config(seed=seed)) == straight).all()
    shuffled = assign(kind, [table[i] for i in order], make_config(seed=seed))
    assert shuffled.tolist() == straight[order].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_or_nothing_is_left_to_chance(kind: str) -> None:
    table = [Row(label=i % 4, unit=i, moment=i, given=min(i % 5, 2)) for i in range(400)]
    first = assign(kind, table, make_config(seed=1))
    assert (assign(kind, table, make_config(seed=1)) == first).all()
    changed = int((assign(kind, table, make_config(seed=2)) != first).sum())
    assert changed > 40 if kind in OURS else changed == 0 or changed > 40


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("validation, test", [(0.1, 0.1), (0.25, 0.05), (300, 700), (0.1, 250)])
def test_sizes_are_met_on_many_rows(kind: str, validation: float, test: float) -> None:
    """Exactly where nothing stands against it; as chance allows where each row is decided by itself."""
    config = SplitConfig(kind=kind, validation=validation, test=test, seed=3)
    if SPLITS.get(kind).check(config):
        with pytest.raises(UserError):
            assign(kind, [Row()], config)
        return
    total = 4000
    wanted = [size if size >= 1 else size * total for size in (validation, test)]
    named = [2] * int(wanted[1]) + [1] * int(wanted[0])
    rows = np.random.default_rng(0).permutation(total).tolist()
    table = [
        Row(label=i % 7, unit=i, moment=rows[i], given=part)
        for i, part in enumerate(named + [0] * (total - len(named)))
    ]
    found = sizes(assign(kind, table, config))
    assert sum(found) == total
    for size, rows_wanted in zip(found[1:], wanted, strict=True):
        chance = 0 if kind in OURS else 5 * math.sqrt(rows_wanted * (1 - rows_wanted / total))
        assert abs(size - rows_wanted) <= chance + 1


@pytest.mark.parametrize("kind", OURS)
@given(counts=st.lists(st.integers(1, 9), min_size=30, max_size=90), shares=SHARES, seed=SEEDS, mixed=st.booleans())
@examples(30)
def test_sizes_are_met_within_a_unit(kind: str, counts: list[int], shares: Shares, seed: int, mixed: bool) -> None:
    """With labels the mix counts as well: then a part may miss its size by a unit for each label."""
    pairs = [(unit % 3 if mixed else 0, unit) for unit, size in enumerate(counts) for _ in range(size)]
    found = sizes(assign(kind, texts(pairs), make_config(shares, seed)))
    slack = max(counts) * (3 if mixed else 1)
    for size, share in list(zip(found, shares, strict=True))[1:]:
        assert abs(size - share * len(pairs)) <= slack


@pytest.mark.parametrize("kind", OURS)
@given(table=st.lists(ROW, min_size=20, max_size=120), chance=st.sets(st.integers(0, 40), max_size=20), seed=SEEDS)
@examples(40)
def test_what_an_earlier_run_learnt_from_stays_in_train(
    kind: str, table: list[Row], chance: set[int], seed: int
) -> None:
    table = [replace(row, pinned=row.unit in chance) for row in table]
    parts = assign(kind, table, make_config(seed=seed))
    assert {part for row, part in zip(table, parts.tolist(), strict=True) if row.pinned} <= {-1, 0}
    if kind not in WITH_LABELS and len({row.unit for row in table if not row.pinned}) >= 3:
        assert min(sizes(parts)) > 0


@pytest.mark.parametrize("kind", OURS)
def test_pinned_units_count_as_rows_of_train(kind: str) -> None:
    table = [Row(label=i % 3, unit=i, pinned=i < 600) for i in range(1000)]
    assert sizes(assign(kind, table)) == pytest.approx([800, 100, 100], abs=2)
    # Too few are free for the sizes asked for: validation and test share what there is.
    few = [Row(label=i % 3, unit=i, pinned=i < 900) for i in range(1000)]
    _, validation, test = sizes(assign(kind, few))
    assert validation == pytest.approx(test, abs=6)
    assert validation + test >= 94


@pytest.mark.parametrize("kind", WITH_LABELS)
@given(rows=st.lists(st.tuples(st.integers(0, 40), LABEL_SETS), min_size=1, max_size=100), shares=SHARES, seed=SEEDS)
@examples(40)
def test_rows_with_several_labels(kind: str, rows: list[tuple[int, list[int]]], shares: Shares, seed: int) -> None:
    table, sets = [Row(unit=unit) for unit, _ in rows], [labels for _, labels in rows]
    config = make_config(shares, seed)
    parts = assign(kind, table, config, label_sets=sets)
    kept = [(row, part) for row, part in zip(table, parts.tolist(), strict=True) if part >= 0]
    for unit in {row.unit for row, _ in kept}:
        assert len({part for row, part in kept if row.unit == unit}) == 1
    for label in range(5):
        found = {part for labels, part in zip(sets, parts.tolist(), strict=True) if label in labels}
        assert not found or found == {-1} or 0 in found
    if len(kept) == len(table) and len({row.unit for row in table}) >= 3:
        assert min(sizes(parts)) > 0
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    again = assign(kind, [table[i] for i in order], config, label_sets=[sets[i] for i in order])
    assert again.tolist() == parts[order].tolist()


@pytest.mark.parametrize("kind", OURS)
def test_large_units(kind: str) -> None:
    """40 copies of each of five texts: no quota fits one, and every part has one all the same."""
    parts = assign(kind, texts([(0, unit) for unit in range(5)] * 40), make_config())
    assert sorted(sizes(parts)) == [40, 40, 120]


@pytest.mark.parametrize("kind", OURS)
def test_of_few_units_one_is_always_learnt_from(kind: str) -> None:
    for units in (1, 2, 3):
        for copies in (1, 5):
            found = sizes(assign(kind, texts([(0, unit) for unit in range(units)] * copies)))
            assert sum(found) in (0, units * copies)  # a label that cannot be in every part may be given up
            assert sum(found) == 0 or found[0] > 0


@pytest.mark.parametrize("kind", OURS)
def test_counts_beyond_the_rows_are_refused(kind: str) -> None:
    config = SplitConfig(kind=kind, validation=50, test=60)
    with pytest.raises(UserError, match="validation 50 rows, test 60 rows"):
        assign(kind, texts((i % 2, i) for i in range(100)), config)


@pytest.mark.parametrize("kind", [*KINDS, "auto"])
def test_an_empty_part_is_refused_with_the_sizes_and_the_rule(kind: str) -> None:
    config = SplitConfig(kind=kind, test=5)
    with pytest.raises(UserError, match="validation, test would have no rows") as told:
        check_parts(dict(zip(PARTS, (2, 0, 0), strict=True)), config)
    assert "train the rest, validation 0.1, test 5 rows" in str(told.value)
    assert kind == "auto" or SPLITS.get(kind).rule in str(told.value)


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'stratified'"):
        SPLITS.get("stratfied", where="data.split.kind")
