"""Texts that count as the same, and those that do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reglaj.data.folding import digest, digest_pair, fold, group_numbers, to_hashes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße", "STRASSE"),
        ("  a\t b\n", "A B"),
        ("ﬁne", "fine"),
        ("ștergeți", "s\u0326terget\u0326i"),
        ("a\u00a0b", "a b"),
        ("Ａ１", "a1"),
    ],
)
def test_fold_joins(one: str, other: str) -> None:
    assert fold(one) == fold(other)
    assert digest_pair([one])[1] == digest_pair([other])[1]
    assert digest_pair([one])[0] != digest_pair([other])[0]


@pytest.mark.parametrize(
    ("one", "other"), [("ştergeţi", "ștergeți"), ("mașină", "masina"), ("a b", "ab"), ("7", "007")]
)
def test_fold_keeps_apart(one: str, other: str) -> None:
    assert fold(one) != fold(other)


@given(text=st.text(max_size=30))
def test_folding_again_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)


def test_where_one_text_ends_matters() -> None:
    assert digest(["a", "bc"]) != digest(["ab", "c"])
    assert digest(["a", ""]) != digest(["", "a"])


@given(texts=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30))
def test_groups_are_equal_hashes(texts: list[str]) -> None:
    groups = group_numbers(to_hashes([digest([text]) for text in texts]))
    assert len(set(groups.tolist())) == len(set(texts)) == groups.max() + 1
    for i, text in enumerate(texts):
        assert {texts[j] for j in np.flatnonzero(groups == groups[i])} == {text}
