"""Tokens are made once: found by content, whole or made anew, and gone with their data."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny import WORDS, write_tokenizer
from transformers import AutoTokenizer

from reglaj.core.console import Console
from reglaj.models.encoding import encode_texts
from reglaj.models.token_cache import (
    FILE,
    Arrays,
    TokenStore,
    encode_kept,
    fingerprint_of,
    keeping_tokens,
    kept_arrays,
)

TEXTS = [" ".join((WORDS * 4)[i % 29 : i % 29 + 90]) for i in range(300)]


class Heard(Console):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Made:
    """Arrays of some texts, and how often they had to be made."""

    def __init__(self, size: int = 1000) -> None:
        self.times, self.size = 0, size

    def __call__(self) -> Arrays:
        self.times += 1
        return {"numbers": np.arange(self.size, dtype=np.int32), "flags": np.ones((2, 3), dtype=np.bool_)}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    write_tokenizer(tmp_path / "tokenizer")
    return AutoTokenizer.from_pretrained(tmp_path / "tokenizer")


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return TokenStore(folder=tmp_path / "runs" / ".cache" / "tokens", data_key="a" * 32, console=Heard())


def sets(store: TokenStore) -> list[Path]:
    return sorted(path for path in store.folder.iterdir() if not path.name.startswith("."))


def test_what_was_tokenised_is_found_again(store: TokenStore, tokenizer: Any) -> None:
    plain, cut = encode_texts(tokenizer, TEXTS, 64)
    with keeping_tokens(store):
        first = encode_kept(tokenizer, TEXTS, 64)
    assert len(sets(store)) == 1
    # Found, not written anew.
    (name,) = {path.name for path in sets(store)}
    before = (store.folder / name / FILE).stat().st_mtime_ns
    with keeping_tokens(replace(store)):
        second = encode_kept(tokenizer, TEXTS, 64)
    assert (store.folder / name / FILE).stat().st_mtime_ns == before
    for rows, places in (first, second):
        assert (rows.flat == plain.flat).all() and (rows.starts == plain.starts).all()
        assert rows.flat.dtype == plain.flat.dtype and rows.starts.dtype == plain.starts.dtype
        assert places == cut and len(cut) > 100


def test_outside_the_block_nothing_is_kept(store: TokenStore, tokenizer: Any) -> None:
    encode_kept(tokenizer, TEXTS, 64)
    with keeping_tokens(store):
        pass
    encode_kept(tokenizer, TEXTS, 64)
    assert not store.folder.exists()


def test_short_texts_are_not_worth_it(store: TokenStore) -> None:
    made = Made()
    for _ in range(2):
        store.arrays({}, ["short"], made)
    assert made.times == 2 and not store.folder.exists()


def test_anything_else_is_another_set(store: TokenStore, tokenizer: Any, tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "other", closing=False)
    other = AutoTokenizer.from_pretrained(tmp_path / "other")
    added = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    added.add_tokens(["cardul"])
    left = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    left.truncation_side = "left"
    assert len({fingerprint_of(one) for one in (tokenizer, other, added, left)}) == 4
    with keeping_tokens(store):
        for texts in (
            TEXTS,
            TEXTS[::-1],
            [TEXTS[0] + TEXTS[1], *TEXTS[2:]],
            [TEXTS[0], TEXTS[1] + TEXTS[2], *TEXTS[3:]],
        ):
            encode_kept(tokenizer, texts, 64)
        encode_kept(tokenizer, TEXTS, 63)
        for one in (other, added, left):
            encode_kept(one, TEXTS, 64)
            rows, cut = encode_kept(one, TEXTS, 64)
            expected, too_long = encode_texts(one, TEXTS, 64)
            assert (rows.flat == expected.flat).all() and cut == too_long
        kept_arrays(lambda: {"kind": "chat"}, TEXTS, Made())
    assert len(sets(store)) == 9


def test_a_call_before_does_not_change_the_fingerprint(tokenizer: Any) -> None:
    before = fingerprint_of(tokenizer)
    tokenizer(["my card"], truncation=True, max_length=3, padding="max_length")
    assert fingerprint_of(tokenizer) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-1]),
        lambda folder: (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-1] + b"?"),
        lambda folder: (folder / FILE).unlink(),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text("[1"),
        lambda folder: (folder / "manifest.json").write_text("[1]"),
        lambda folder: folder.rename(folder.with_name("elsewhere")) and folder.write_text("a file"),
    ],
    ids=["cut", "changed", "no tokens", "no manifest", "half a manifest", "another manifest", "a file"],
)
def test_what_is_damaged_is_made_anew(store: TokenStore, change: Callable[[Path], Any]) -> None:
    made = Made()
    expected = store.arrays({"n": 1}, TEXTS, made)
    (folder,) = sets(store)
    change(folder)
    again = store.arrays({"n": 1}, TEXTS, made)
    assert made.times == 2
    assert all((again[name] == expected[name]).all() for name in expected)
    assert "thrown away and made anew" in store.console.warnings[0]  # type: ignore[attr-defined]
    store.arrays({"n": 1}, TEXTS, made)
    assert made.times == 2


def test_the_store_is_capped_and_the_oldest_use_goes_first(store: TokenStore) -> None:
    store = replace(store, most_bytes=12_000)
    for number in range(2):
        store.arrays({"n": number}, TEXTS, Made())
        for folder in sets(store):
            os.utime(folder / "manifest.json", (folder.stat().st_mtime - 100,) * 2)
    kept = set(sets(store))
    store.arrays({"n": 0}, TEXTS, Made())  # used just now
    store.arrays({"n": 2}, TEXTS, Made())
    assert len(sets(store)) == 2 and len(kept & set(sets(store))) == 1
    made = Made()
    store.arrays({"n": 0}, TEXTS, made)
    assert made.times == 0
    store.arrays({"n": 3}, TEXTS, Made(size=10_000))  # larger than the store may be
    assert len(sets(store)) == 2


def test_a_disk_that_refuses_costs_time_only(store: TokenStore) -> None:
    store.folder.parent.mkdir(parents=True)
    store.folder.write_text("a file where the store should be")
    made = Made()
    for _ in range(2):
        assert store.arrays({}, TEXTS, made)["numbers"][7] == 7
    assert made.times == 2
    assert "tokens are not kept" in store.console.warnings[0]  # type: ignore[attr-defined]


def test_what_a_killed_process_left_is_swept(store: TokenStore) -> None:
    left = store.folder / f".{'0' * 32}.999999999.01234567.tmp"
    left.mkdir(parents=True)
    store.arrays({}, TEXTS, Made())
    assert not left.exists()
