"""What counts as a near-duplicate, against all pairs counted by hand; what the numbers of clusters promise."""

import contextlib
import json
import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.curation.brute import Batches, banking_texts, jaccard, true_pairs

from reglaj.core.console import Console
from reglaj.curation.near_duplicates import MinHashMatcher
from reglaj.data.config import NearDuplicatesConfig
from reglaj.data.folding import fold

WORDS = [f"{a}{b}" for a in ("card", "pay", "bank", "loan", "rate") for b in ("", "s", "ing", "er", "able", "less")]


def matcher(threshold: float = 0.8) -> MinHashMatcher:
    return MinHashMatcher(NearDuplicatesConfig(threshold=threshold))


def find(texts, threshold=0.8):
    return matcher(threshold).find(Batches(texts))


def clusters(texts, found) -> set[frozenset[str]]:
    """Clusters of two or more, as sets of texts."""
    members = defaultdict(set)
    for text, number in zip(texts, found.cluster.tolist(), strict=True):
        members[number].add(text)
    return {frozenset(texts) for texts in members.values() if len(texts) > 1}


def sentences(count: int, seed: int = 0) -> list[str]:
    """A third of them with one or two letters changed in an earlier one."""
    chance = random.Random(seed)
    texts: list[str] = []
    for _ in range(count):
        text = " ".join(chance.choices(WORDS, k=chance.randint(4, 14)))
        if texts and chance.random() < 0.35:
            letters = list(chance.choice(texts))
            for _ in range(chance.randint(1, 2)):
                letters[chance.randrange(len(letters))] = chance.choice("abcdef")
            text = "".join(letters)
        texts.append(text)
    return texts


@pytest.mark.parametrize("threshold", [0.6, 0.8, 0.9])
@pytest.mark.parametrize("source", ["sentences", "banking77"])
def test_pairs_above_the_threshold_are_found_and_none_below_is_told(source, threshold):
    texts = sentences(2500) if source == "sentences" else banking_texts()[:3000]
    texts += [text[: 7 + row % 9] + text[8 + row % 9 :] for row, text in enumerate(texts[::10])]  # a letter is lost
    texts = list({fold(text): text for text in texts}.values())  # equal texts are paired with the first of them only
    true = true_pairs(texts, threshold)
    found = find(texts, threshold)
    told = set(map(tuple, found.pairs.tolist()))
    assert len(true) >= 10
    assert len(true & told) >= 0.99 * len(true)
    similarity = {pair: jaccard(texts[pair[0]], texts[pair[1]]) for pair in told}
    assert min(similarity.values()) >= threshold, "each is confirmed, so none is below (1% would be allowed)"
    np.testing.assert_allclose(
        found.similarity, [similarity[pair] for pair in map(tuple, found.pairs.tolist())], atol=1e-6
    )


@given(
    st.lists(st.lists(st.sampled_from([*"abcdé", "card ", "payment ", "Card!", " ", "😀"]), max_size=9).map("".join))
)
def test_clusters_are_what_the_pairs_connect(texts):
    found = find(texts, 0.5)
    linked = list(range(len(texts)))
    for a, b in found.pairs.tolist():
        assert a < b
        assert jaccard(texts[a], texts[b]) >= 0.5
        linked = [min(linked[a], linked[b]) if number in (linked[a], linked[b]) else number for number in linked]
    assert found.cluster.tolist() == linked
    for inner, outer in found.contained.tolist():
        assert found.cluster[inner] != found.cluster[outer]


def test_the_order_of_the_texts_does_not_decide_the_clusters():
    texts = list(
        dict.fromkeys(sentences(1500, seed=3) + [f"the invoice of customer {i} was paid late" for i in range(900)])
    )
    once = find(texts, 0.7)
    shuffled = random.Random(4).sample(texts, len(texts))
    again = find(shuffled, 0.7)
    assert clusters(texts, once) == clusters(shuffled, again)
    assert len(clusters(texts, once)) > 20
    contained = {(texts[a], texts[b]) for a, b in once.contained.tolist()}
    assert contained == {(shuffled[a], shuffled[b]) for a, b in again.contained.tolist()}


def test_the_smallest_row_names_a_cluster_and_equal_texts_are_in_one():
    texts = ["How do I pay?", "alone here", "HOW do I pay", "how  do i pay?", "nobody else says this", "Alone  HERE"]
    found = find(texts)
    assert found.cluster.tolist() == [0, 1, 0, 0, 4, 1]
    assert found.pairs.tolist() == [[0, 2], [0, 3], [1, 5]]
    assert found.similarity.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("a", "b", "is_near"),
    [
        ("yes", "Yes!", True),
        ("yes", "no", False),
        ("e-mail", "e mail", True),
        ("", "   ", True),
        ("?", "!", False),
        ("अच्छा है", "अच्छी है", False),  # vowel signs are marks, not punctuation
        ("ștergeți contul", "ȘTERGEȚI contul!", True),
        ("straße", "STRASSE", True),
        ("😀", "😀😀", False),
    ],
)
def test_short_texts_are_near_where_only_case_and_punctuation_differ(a, b, is_near):
    assert (find([a, b]).cluster.tolist() == [0, 0]) is is_near
    assert (matcher().seen(Batches([a]), Batches([b])).tolist() == [0]) is is_near


def test_no_texts_at_all():
    found = find([])
    assert (found.cluster.shape, found.pairs.shape, found.contained.shape) == ((0,), (0, 2), (0, 2))
    assert matcher().seen(Batches([]), Batches(["a text of some length"])).shape == (0,)
    assert matcher().seen(Batches(["a text of some length"]), Batches([])).tolist() == [-1]


def test_texts_are_seen_among_others_in_every_way():
    others = [
        "When will my new card arrive at home?",
        "A long story begins here. The transfer to my savings account has failed twice today. It goes on.",
        "short note on exchange rates",
        "when will my new card arrive at home",
    ]
    texts = [
        "when will my NEW card arrive at home?",  # equal
        "When will my new card arrive at home!?",  # equal without punctuation: the smallest row
        "When will my new card arrive at home??? x",  # similar
        "The transfer to my savings account has failed twice today.",  # inside
        "And this is a short note on exchange rates, as I said before.",  # around
        "Nobody has asked this before, I believe.",
        "The transfer to my savings account has failed twice today.",  # twice
    ]
    assert matcher().seen(Batches(texts, 2), Batches(others, 3)).tolist() == [0, 0, 0, 1, 2, -1, 1]


def test_seen_finds_what_all_pairs_show():
    texts = sentences(2400, seed=9)
    mine, others = texts[:800], texts[800:]
    seen = matcher().seen(Batches(mine), Batches(others))
    true = {a for a, b in true_pairs(texts, 0.8) if a < 800 <= b}
    assert len(true) >= 50
    assert sum(seen[row] >= 0 for row in true) >= 0.99 * len(true)


def test_a_chain_is_big_where_the_threshold_is_low():
    texts = banking_texts()[:7000]
    sizes = {t: np.unique(find(texts, t).cluster, return_counts=True)[1] for t in (0.36, 0.8)}
    assert sizes[0.36].max() > 0.4 * len(texts), "of all of banking77 it is three quarters"
    assert sizes[0.8].max() < 10


def test_what_decides_the_answers_is_told():
    told = [json.dumps(matcher(threshold).identity(), sort_keys=True) for threshold in (0.6, 0.8, 0.8)]
    assert told[0] != told[1] == told[2]


def test_progress_ends_where_it_said():
    class Bars(Console):
        def __init__(self):
            self.bars = []

        @contextlib.contextmanager
        def progress(self, description, total=None, unit="rows", done=0):
            bar = [description, total, done]
            self.bars.append(bar)

            def advance(count):
                bar[2] += count

            yield advance

    console = Bars()
    matcher().find(Batches(sentences(2000)), console)
    assert len(console.bars) == 3
    assert all(total == done for _, total, done in console.bars)
