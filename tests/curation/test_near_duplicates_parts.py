"""The parts of near-duplicate search: sets of shingles, bands, buckets; and pairs of near embeddings."""

import itertools

import numpy as np
import pytest
from benchmarks.near_duplicates import make_texts, run_here
from tests.curation.brute import Batches, shingles

from reglaj.core.console import SILENT
from reglaj.curation.banding import SLOTS, choose_banding
from reglaj.curation.buckets import group, pairs_within
from reglaj.curation.collection import collect, may_share, shared_shingles
from reglaj.curation.semantic import semantic_pairs
from reglaj.curation.shingles import ShingleStore, shingle

TEXTS = [
    "",
    "abcd",
    "abcde",
    "aaaaaaaaaaaa",
    "card payment",
    "card payments",
    "plată cu cardul",
    "😀😀😀😀😀x",
    "payment card",
]


def test_sets_of_shingles_are_those_of_the_texts():
    flat, sizes = shingle(TEXTS)
    assert sizes.tolist() == [len(shingles(text)) for text in TEXTS]
    ends = np.cumsum(sizes)
    sets = [set(flat[end - size : end].tolist()) for size, end in zip(sizes, ends, strict=True)]
    for a, b in itertools.combinations(range(len(TEXTS)), 2):
        assert len(sets[a] & sets[b]) == len(shingles(TEXTS[a]) & shingles(TEXTS[b]))
    assert all((np.diff(flat[end - size : end]) > 0).all() for size, end in zip(sizes, ends, strict=True))


def test_a_text_has_the_same_set_in_any_company():
    alone = [shingle([text])[0].tolist() for text in TEXTS]
    flat, sizes = shingle(TEXTS)
    assert [part.tolist() for part in np.split(flat, np.cumsum(sizes)[:-1])] == alone


def test_shared_shingles_are_counted_and_never_refused_wrongly():
    collection = collect(Batches(TEXTS, 4), choose_banding(0.8), SILENT, doing="")
    pairs = np.array(list(itertools.product(range(len(collection)), repeat=2)))
    names = [TEXTS[row] for row in collection.first]
    true = [len(shingles(names[a]) & shingles(names[b])) for a, b in pairs]
    assert shared_shingles(collection, collection, *pairs.T).tolist() == true
    kept = may_share(collection, collection, *pairs.T, np.array(true))
    assert len(kept) == len(pairs)
    refused = may_share(collection, collection, *pairs.T, np.array(true) + 1)
    assert len(refused) < len(pairs) / 2


@pytest.mark.parametrize("held", [0, 7, 1000])
def test_shingles_that_do_not_fit_go_to_a_file(held):
    store = ShingleStore(held)
    pieces = [np.arange(size, dtype=np.int32) for size in (5, 0, 9, 3)]
    for piece in pieces:
        store.add(piece)
    flat = store.all()
    assert isinstance(flat, np.memmap) is (held < 1000)
    assert flat.tolist() == np.concatenate(pieces).tolist()


@pytest.mark.parametrize("threshold", [0.301, 0.36, 0.5, 0.6, 0.8, 0.9, 0.99, 1.0])
def test_bands_find_what_is_at_the_threshold(threshold):
    banding = choose_banding(threshold)
    assert banding.recall(threshold) >= 0.995
    assert banding.bands * banding.rows <= SLOTS
    assert banding.recall(threshold / 2) < 0.5 + 0.5 * (threshold < 0.5), "a band is not an open door"


def test_buckets_hold_texts_of_equal_keys_and_their_pairs():
    keys = np.array([5, 1, 5, 2, 1, 5, 9], dtype=np.uint64)
    buckets = group(keys, np.array([10, 11, 12, 13, 14, 15, 16]))
    pairs = {pair for left, right in pairs_within(buckets) for pair in zip(left.tolist(), right.tolist(), strict=True)}
    assert pairs == {(11, 14), (10, 12), (10, 15), (12, 15)}
    assert group(keys[:0], np.empty(0, dtype=np.int64)).sizes.shape == (0,)


@pytest.mark.parametrize("count", [0, 1, 300, 2500])
def test_near_embeddings_are_those_of_all_pairs(count):
    chance = np.random.default_rng(0)
    embeddings = chance.normal(size=(count, 6)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    pairs, similarity = semantic_pairs(embeddings, 0.9, limit=10**6)
    near = np.triu(embeddings @ embeddings.T, k=1)
    assert set(map(tuple, pairs.tolist())) == set(map(tuple, np.argwhere(near >= 0.9).tolist()))
    assert (np.diff(similarity) <= 0).all()
    few, nearest = semantic_pairs(embeddings, 0.9, limit=20)
    assert few.tolist() == pairs[:20].tolist()
    assert nearest.tolist() == similarity[:20].tolist()


def test_the_benchmark_judges_what_it_measures():
    told = run_here("reglaj", 600, 0.8, judged=True)
    assert told["true_pairs"] >= 10
    assert (told["recall"], told["precision"], told["together"]) == (1, 1, 1)
    assert len(set(make_texts(600))) == 600
    assert make_texts(50) == make_texts(50)
