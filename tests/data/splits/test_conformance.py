"""What every kind of split promises; a new kind is tested here by being registered."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reglaj.core.errors import UserError
from reglaj.data.config import SplitConfig
from reglaj.data.folding import group_numbers
from reglaj.data.splits import SPLITS
from reglaj.data.splits.base import PARTS, SplitRows, check_parts

KINDS = SPLITS.names()
WITH_LABELS = [kind for kind in KINDS if SPLITS.get(kind).needs_labels]
# (label, text after folding) of each row.
ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), min_size=1, max_size=120)
SHARES = st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.34, 0.33, 0.33), (0.98, 0.01, 0.01), (0.1, 0.1, 0.8)])


def make_rows(pairs: list[tuple[int, int]]) -> SplitRows:
    hashes = np.frombuffer(
        b"".join(hashlib.blake2b(str(text).encode(), digest_size=16).digest() for _, text in pairs), dtype="<u8"
    ).reshape(-1, 2)
    labels = np.array([label for label, _ in pairs], dtype=np.int64)
    names = [f"label {i}" for i in range(int(labels.max()) + 1)]
    return SplitRows(hashes=hashes, groups=group_numbers(hashes), labels=labels, label_names=names)


def make_config(shares: tuple[float, float, float] = (0.8, 0.1, 0.1), seed: int = 0) -> SplitConfig:
    return SplitConfig(train=shares[0], validation=shares[1], test=shares[2], seed=seed)


def assign(kind: str, pairs: list[tuple[int, int]], config: SplitConfig) -> NDArray[np.int8]:
    return SPLITS.get(kind)().assign(make_rows(pairs), config)


def test_there_are_kinds() -> None:
    assert {"stratified", "random"} <= set(KINDS)
    assert WITH_LABELS and len(WITH_LABELS) < len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@given(pairs=ROWS, shares=SHARES, seed=st.integers(0, 5))
@settings(max_examples=60)
def test_parts_are_sound(
    kind: str, pairs: list[tuple[int, int]], shares: tuple[float, float, float], seed: int
) -> None:
    parts = assign(kind, pairs, make_config(shares, seed))
    assert parts.shape == (len(pairs),)
    assert set(parts.tolist()) <= {-1, 0, 1, 2}
    kept = [(pair, part) for pair, part in zip(pairs, parts.tolist(), strict=True) if part >= 0]
    # Rows that are equal after folding are together.
    for text in {text for (_, text), _ in kept}:
        assert len({part for (_, other), part in kept if other == text}) == 1
    # A label is given up as a whole or is in every part; without labels nothing is given up.
    if kind not in WITH_LABELS:
        assert len(kept) == len(pairs)
    else:
        for label in {label for label, _ in pairs}:
            found = {part for (other, _), part in zip(pairs, parts.tolist(), strict=True) if other == label}
            assert found in ({-1}, {0, 1, 2})


@pytest.mark.parametrize("kind", KINDS)
@given(pairs=ROWS, chance=st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_the_order_of_the_rows_is_irrelevant(kind: str, pairs: list[tuple[int, int]], chance: object) -> None:
    order = list(range(len(pairs)))
    chance.shuffle(order)  # type: ignore[attr-defined]
    straight = assign(kind, pairs, make_config())
    shuffled = assign(kind, [pairs[i] for i in order], make_config())
    assert shuffled.tolist() == straight[order].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(kind: str) -> None:
    pairs = [(i % 4, i) for i in range(400)]
    first = assign(kind, pairs, make_config(seed=1))
    assert (assign(kind, pairs, make_config(seed=1)) == first).all()
    assert (assign(kind, pairs, make_config(seed=2)) != first).sum() > 40


@pytest.mark.parametrize("kind", KINDS)
@given(
    sizes=st.lists(st.integers(10, 60), min_size=1, max_size=12),
    shares=st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.5, 0.25, 0.25), (0.1, 0.1, 0.8)]),
)
@settings(max_examples=40)
def test_the_shares_are_hit_within_rounding(kind: str, sizes: list[int], shares: tuple[float, float, float]) -> None:
    """Of each label, and of the whole: single rounding errors do not add up over many labels."""
    pairs = [(label, label * 1000 + i) for label, size in enumerate(sizes) for i in range(size)]
    parts = assign(kind, pairs, make_config(shares))
    labels = np.array([label for label, _ in pairs])
    for part, share in enumerate(shares):
        assert abs((parts == part).sum() - share * len(pairs)) <= 2
        for label, size in enumerate(sizes if kind in WITH_LABELS else []):
            assert abs((parts[labels == label] == part).sum() - share * size) < 2


@pytest.mark.parametrize("kind", KINDS)
@given(sizes=st.lists(st.integers(1, 9), min_size=30, max_size=90), shares=SHARES, seed=st.integers(0, 5))
@settings(max_examples=40)
def test_the_shares_are_hit_within_one_group(
    kind: str, sizes: list[int], shares: tuple[float, float, float], seed: int
) -> None:
    pairs = [(0, text) for text, size in enumerate(sizes) for _ in range(size)]
    parts = assign(kind, pairs, make_config(shares, seed))
    for part, share in list(enumerate(shares))[1:]:
        assert abs((parts == part).sum() - share * len(pairs)) <= max(sizes)


@pytest.mark.parametrize("kind", WITH_LABELS)
def test_three_texts_are_enough(kind: str) -> None:
    pairs = [(label, label * 3 + i) for label in range(30) for i in range(3)] + [(30, 1000 + i) for i in range(500)]
    parts = assign(kind, pairs, make_config())
    counts = np.bincount(parts, minlength=3)
    assert counts.min() >= 30 + 49
    # What tiny labels take beyond their quota is not taken from the large one.
    assert np.bincount(parts[-500:]).tolist() == [400, 50, 50]


@pytest.mark.parametrize("kind", KINDS)
def test_large_groups(kind: str) -> None:
    """40 copies of each of five texts: no quota fits one, and every part has one all the same."""
    parts = assign(kind, [(0, text) for text in range(5)] * 40, make_config())
    assert sorted(np.bincount(parts, minlength=3).tolist()) == [40, 40, 120]


def test_labels_bound_to_the_same_texts() -> None:
    """Texts 0-3 carry several labels; a label that cannot be covered is given up, the others stay whole."""
    pairs = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 3), (2, 2), (2, 3), (2, 4)]
    pairs += [(3, text) for text in range(10, 40)]
    parts = assign("stratified", pairs, make_config())
    for label in range(4):
        found = {part for (other, _), part in zip(pairs, parts.tolist(), strict=True) if other == label}
        assert found in ({-1}, {0, 1, 2})
    assert (parts[-30:] >= 0).all()


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(UserError, match="validation, test would have no rows"):
        check_parts(dict(zip(PARTS, (2, 0, 0), strict=True)), make_config())


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'stratified'"):
        SPLITS.get("stratfied", where="data.split.kind")
