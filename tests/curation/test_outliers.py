"""Texts far from all others stand out; a crowd of any shape does not."""

from __future__ import annotations

import numpy as np
import pytest

from reglaj.curation.outliers import FEWEST, find_outliers


def _units(points: np.ndarray) -> np.ndarray:
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def _crowd(rows: int = 600) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 24))
    return centres[np.arange(rows) % 6] + 0.2 * rng.normal(size=(rows, 24))


def test_planted_strangers_are_found_and_nobody_else():
    strangers = np.random.default_rng(9).normal(size=(5, 24))
    found = find_outliers(_units(np.concatenate([_crowd(), strangers])))
    assert np.flatnonzero(found.is_outlier).tolist() == list(range(600, 605))
    assert found.median < found.threshold < found.distance[600:].min()


def test_a_text_is_no_neighbour_of_itself(monkeypatch: pytest.MonkeyPatch):
    points = _units(np.concatenate([_crowd(), np.random.default_rng(9).normal(size=(5, 24))]))
    whole = find_outliers(points)
    monkeypatch.setattr("reglaj.curation.outliers._REFERENCE", 300)
    sampled = find_outliers(points, seed=4)
    assert np.flatnonzero(sampled.is_outlier).tolist() == np.flatnonzero(whole.is_outlier).tolist()
    assert np.array_equal(sampled.distance, find_outliers(points, seed=4).distance)
    monkeypatch.setattr("reglaj.curation.outliers._BLOCK", 7)
    assert np.allclose(find_outliers(points, seed=4).distance, sampled.distance, atol=1e-5)


def test_equal_texts_do_not_make_everything_else_an_outlier():
    points = _units(np.concatenate([np.repeat(_crowd(1), 500, axis=0), _crowd(100)]))
    assert not find_outliers(points).is_outlier.any() or find_outliers(points).is_outlier.sum() <= 100


def test_too_few_texts_have_no_outliers():
    found = find_outliers(_units(_crowd(FEWEST - 1)))
    assert len(found.is_outlier) == FEWEST - 1 and not found.is_outlier.any()
