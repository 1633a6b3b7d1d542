"""Planted label errors are found, clean labels are left alone, and nothing depends on chance."""

from __future__ import annotations

import numpy as np
import pytest

from reglaj.curation.difficulty import difficulty
from reglaj.curation.label_errors import confused_pairs, find_label_errors
from reglaj.curation.probing import FOLDS, cross_validated

CLASSES = 4


def _blobs(rows: int = 400, spread: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around one direction per class, and their classes."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CLASSES, 16))
    targets = np.arange(rows) % CLASSES
    points = centres[targets] + spread * rng.normal(size=(rows, 16))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), targets


def _flipped(targets: np.ndarray, share: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(targets), round(share * len(targets)), replace=False)
    given = targets.copy()
    given[rows] = (targets[rows] + rng.integers(1, CLASSES, len(rows))) % CLASSES
    return given, rows


def test_planted_flips_are_found_and_little_else():
    points, targets = _blobs()
    given, flipped = _flipped(targets, 0.05)
    errors = find_label_errors(cross_validated(points, given, CLASSES, seed=0), given)
    found = set(errors.ranked().tolist())
    assert len(found & set(flipped.tolist())) >= 0.9 * len(flipped)
    assert len(found & set(flipped.tolist())) >= 0.9 * len(found)
    assert all(errors.guess[row] == targets[row] for row in found & set(flipped.tolist()))


def test_clean_labels_are_left_alone():
    points, targets = _blobs()
    assert not find_label_errors(cross_validated(points, targets, CLASSES, seed=0), targets).is_error.any()


def test_the_most_suspicious_come_first():
    points, targets = _blobs()
    given, _ = _flipped(targets, 0.05)
    errors = find_label_errors(cross_validated(points, given, CLASSES, seed=0), given)
    confidence = errors.confidence[errors.ranked()]
    assert (np.diff(confidence) >= 0).all()


def test_the_same_rows_are_judged_alike_again():
    points, targets = _blobs()
    given, _ = _flipped(targets, 0.1)
    first, again = (cross_validated(points, given, CLASSES, seed=3) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.allclose(first.sum(axis=1), 1)


def test_a_label_with_fewer_rows_than_folds_is_never_called_wrong():
    points, targets = _blobs()
    given = targets.copy()
    rare = np.arange(FOLDS - 1)
    given[rare] = CLASSES
    errors = find_label_errors(cross_validated(points, given, CLASSES + 1, seed=0), given)
    assert not errors.is_error[rare].any()


def test_pairs_say_what_was_taken_for_what():
    points, targets = _blobs()
    given = targets.copy()
    given[np.flatnonzero(targets == 0)[:8]] = 2
    errors = find_label_errors(cross_validated(points, given, CLASSES, seed=0), given)
    label, looks_like, count = confused_pairs(errors, given, ["a", "b", "c", "d"])[0]
    assert (label, looks_like) == ("c", "a") and 6 <= count <= 8


def test_fits_are_bounded_and_every_row_is_judged(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("reglaj.curation.probing._MOST_FITTED", 100)
    points, targets = _blobs()
    found = cross_validated(points, targets, CLASSES, seed=0)
    assert (found.argmax(axis=1) == targets).mean() > 0.95


def test_difficulty_tells_an_easy_task_from_noise():
    points, targets = _blobs()
    easy = difficulty(cross_validated(points, targets, CLASSES, seed=0), targets, 0.95)
    assert easy["low"] <= easy["value"] <= easy["high"] and easy["low"] > 0.9 and easy["note"].startswith("easy")
    noise = np.random.default_rng(5).integers(0, CLASSES, len(targets))
    blind = difficulty(cross_validated(points, noise, CLASSES, seed=0), noise, 0.95)
    assert blind["low"] <= blind["majority"] < 0.4 and "nothing" in blind["note"]
