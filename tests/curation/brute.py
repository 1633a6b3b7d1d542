"""Near-duplicates the slow way: every pair, by sets of characters. And texts in batches."""

from __future__ import annotations

import csv
import string
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from reglaj.data.folding import fold

BANKING77 = Path(__file__).resolve().parents[3] / "shared" / "data" / "banking77"


class Batches:
    """A list as `Texts`, in small batches so that their seams are tested."""

    def __init__(self, texts: Sequence[str], size: int = 701) -> None:
        self.texts, self.size = list(texts), size

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[list[str]]:
        for begin in range(0, len(self.texts), self.size):
            yield self.texts[begin : begin + self.size]


def shingles(text: str) -> set[str]:
    folded = fold(text)
    return {folded[place : place + 5] for place in range(len(folded) - 4)}


def bare(text: str) -> str:
    return "".join(filter(str.isalnum, fold(text))) or fold(text)


def jaccard(a: str, b: str) -> float:
    """1 where the texts are equal but for case and punctuation, as it is promised."""
    if bare(a) == bare(b):
        return 1.0
    left, right = shingles(a), shingles(b)
    return len(left & right) / max(len(left | right), 1)


def true_pairs(texts: Sequence[str], threshold: float) -> set[tuple[int, int]]:
    """All pairs whose sets of 5 characters are at least that similar."""
    numbers: dict[str, int] = {}
    columns: list[int] = []
    ends = [0]
    for text in texts:
        columns += [numbers.setdefault(shingle, len(numbers)) for shingle in sorted(shingles(text))]
        ends.append(len(columns))
    matrix = csr_array((np.ones(len(columns), dtype=np.int32), columns, ends), shape=(len(texts), len(numbers)))
    both = (matrix @ matrix.T).tocoo()
    sizes = np.diff(ends)
    left, right = both.coords
    similarity = both.data / (sizes[left] + sizes[right] - both.data)
    is_near = (left < right) & (similarity >= threshold - 1e-9)
    return set(zip(left[is_near].tolist(), right[is_near].tolist(), strict=True))


def banking_texts() -> list[str]:
    if not BANKING77.is_dir():
        pytest.skip("shared/data/banking77 is not beside this checkout")
    with (BANKING77 / "train.csv").open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def other_case_and_punctuation(text: str, chance: np.random.Generator) -> str:
    """The same words: letters up or down, marks taken out and others put in."""
    letters = [letter.upper() if chance.random() < 0.5 else letter.lower() for letter in text]
    kept = [letter for letter in letters if letter not in string.punctuation or chance.random() < 0.5]
    words = "".join(kept).split()
    marks = ["", "", ",", " -", "!", "...", ";"]
    return " ".join(word + str(chance.choice(marks)) for word in words) + str(chance.choice(["?!", ".", "", "!!!"]))
