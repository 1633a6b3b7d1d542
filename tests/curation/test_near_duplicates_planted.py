"""Near-duplicates that were put there on purpose, footers that thousands share, and texts inside others."""

import json

import numpy as np
import pytest
from tests.curation.brute import Batches, banking_texts, jaccard, other_case_and_punctuation, true_pairs
from tests.curation.test_near_duplicates import find, matcher, sentences

from reglaj.core.errors import EnvironmentFault
from reglaj.curation.buckets import FULL_PAIRS
from reglaj.models.starters import fetch


def medical_texts() -> list[str]:
    try:
        path = fetch("starter:medical")
    except EnvironmentFault as fault:
        pytest.skip(f"the starter medical cannot be fetched: {fault}")
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("source", [banking_texts, medical_texts])
def test_other_case_and_punctuation_is_found(source):
    texts = source()[:5000]
    chance = np.random.default_rng(1)
    planted = chance.choice(len(texts), 500, replace=False)
    copies = [other_case_and_punctuation(texts[row], chance) for row in planted]
    found = find(texts + copies)
    together = found.cluster[planted] == found.cluster[len(texts) :]
    assert together.mean() >= 0.99
    assert (matcher().seen(Batches(copies), Batches(texts)) >= 0).mean() >= 0.99


def test_added_sentences_are_found_by_containment():
    texts = [text for text in dict.fromkeys(banking_texts()) if 40 <= len(text) <= 90][:2000]
    chance = np.random.default_rng(2)
    planted = chance.choice(len(texts), 200, replace=False)
    before = "Good morning to everybody who reads this. "
    after = " I have waited for an answer since Monday, and nobody has called me back so far."
    longer = [f"{before if row % 2 else ''}{texts[row].upper()}{after}" for row in planted]
    found = find(texts + longer)
    inside = set(map(tuple, found.contained.tolist()))
    pairs = [(row, len(texts) + place) for place, row in enumerate(planted.tolist())]
    assert np.mean([pair in inside for pair in pairs]) >= 0.99
    assert all(found.cluster[a] != found.cluster[b] for a, b in inside), "reported, not clustered"
    assert found.containment.min() >= 0.95
    seen = matcher().seen(Batches(longer), Batches(texts))
    assert (seen >= 0).mean() >= 0.99


def test_what_is_said_everywhere_is_no_finding():
    greeting = ["hello", "thank you", "ok"]
    texts = [f"{greeting[i % 3]} {sentence}" for i, sentence in enumerate(sentences(300))]
    found = find(greeting + texts)
    assert not np.isin(found.contained, range(3)).any()
    assert found.cluster[:3].tolist() == [0, 1, 2]


def words(chance: np.random.Generator, count: int) -> str:
    return " ".join("".join(chance.choice(list("abcdefghijklmnoprstu"), 6)) for _ in range(count))


def test_a_shared_footer_neither_chains_nor_hangs():
    """Three quarters of each text are one footer: below the threshold for all pairs, and every band is full of them."""
    chance = np.random.default_rng(3)
    footer = words(chance, 12)
    texts = [f"{words(chance, 4)} {footer}" for _ in range(10_000)]
    texts += [f"{text[:10]}zz{text[12:]}" for text in texts[:100]]
    found = find([*texts, footer])
    sizes = np.unique(found.cluster, return_counts=True)[1]
    assert 0.5 < jaccard(texts[0], texts[1]) < 0.8
    assert sizes.max() == 2
    assert (found.cluster[:100] == found.cluster[10_000:10_100]).mean() >= 0.99
    assert (found.contained[:, 0] == len(texts)).sum() > 0, "the footer lies in many of them"
    assert len(found.contained) < 1000, "and not all of them are listed"


def test_thousands_of_copies_of_one_form_are_one_cluster():
    texts = [
        f"Dear customer, your order number {i:05d} has left our warehouse and arrives tomorrow" for i in range(4000)
    ]
    found = find(texts)
    assert (found.cluster == 0).all()
    assert len(found.pairs) < 40 * len(texts), "they are compared with a few of them, not each with each"


def test_families_inside_one_oversized_bucket_stay_apart():
    """Many texts share a footer; some of them come in families of 40 that differ in a digit."""
    chance = np.random.default_rng(5)
    footer = words(chance, 20)
    heads = [words(chance, 7) for _ in range(30)]
    texts = [f"{head} {i:02d} {footer}" for head in heads for i in range(40)]
    found = find(texts)
    true = true_pairs(texts, 0.8)
    assert np.unique(found.cluster).size == len(heads)
    assert np.mean([found.cluster[a] == found.cluster[b] for a, b in true]) >= 0.99
    assert len(texts) > 10 * FULL_PAIRS


def test_thousands_of_short_texts():
    chance = np.random.default_rng(6)
    texts = ["".join(chance.choice(list("abcdefgh"), size)) for size in chance.integers(1, 7, 6000)]
    found = find(texts)
    for number in np.unique(found.cluster)[:50]:
        members = {texts[row] for row in np.flatnonzero(found.cluster == number)}
        assert len(members) == 1 or min(map(len, members)) >= 5


def test_long_texts():
    chance = np.random.default_rng(7)
    books = [words(chance, 1500) for _ in range(20)]
    edited = [f"{book[:5000]} {words(chance, 50)} {book[5000:]}" for book in books[:10]]
    parts = [book[2000:6000] for book in books[10:]]
    found = find(books + edited + parts)
    assert found.cluster.tolist() == [*range(20), *range(10), *range(30, 40)]
    assert found.contained.tolist() == [[30 + i, 10 + i] for i in range(10)]
