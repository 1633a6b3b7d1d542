"""Balanced sampling: labels equally often, the same for the same seed and epoch, and as many steps as without it."""

from itertools import pairwise

import numpy as np
import pytest

from reglaj.data.batching import BatchPlan, balanced_order

LABELS = np.repeat([0, 1, 2], [80, 17, 3])


def plan(labels=LABELS, **values):
    settings = {"batch_size": 8, "epochs": 3, "max_steps": None, "seed": 5, "labels": labels}
    return BatchPlan(lengths=np.full(len(LABELS), 4), **settings | values)


def test_labels_come_equally_often_and_steps_are_as_many():
    balanced, natural = plan(), plan(labels=None)
    assert balanced.total_steps == natural.total_steps
    for epoch in range(3):
        rows = [row for step in balanced.steps(epoch) for row in step]
        assert [len(step) for step in balanced.steps(epoch)] == [len(step) for step in natural.steps(epoch)]
        assert sorted(np.bincount(LABELS[rows]).tolist()) == [33, 33, 34]


def test_within_a_label_rows_come_equally_often_up_to_one():
    rows = balanced_order(LABELS, np.random.default_rng(0))
    times = np.bincount(rows, minlength=len(LABELS))
    for label in range(3):
        of_label = times[label == LABELS]
        assert of_label.max() - of_label.min() <= 1
    assert times[:80].max() == 1, "of a frequent label some rows, none of them twice"


def test_an_epoch_is_a_function_of_seed_and_epoch_alone():
    one, other = plan(), plan()
    later = list(other.steps(2))  # asked for first: what was asked before has no part in it
    assert list(one.steps(0)) == list(other.steps(0)) and list(one.steps(2)) == later
    assert list(one.steps(0)) != list(one.steps(1)) != list(plan(seed=6).steps(1))
    number = one.steps_per_epoch + 3
    assert one.rows(number) == list(other.steps(1))[2]


def test_over_the_epochs_every_row_of_a_frequent_label_is_met():
    met = {row for epoch in range(30) for step in plan(epochs=30).steps(epoch) for row in step}
    assert met == set(range(len(LABELS)))


@pytest.mark.parametrize("labels", [[3], [0, 0, 0], [0, 1, 2, 3, 4], [7, 7, 9]])
def test_the_smallest_tables(labels):
    labels = np.array(labels)
    rows = balanced_order(labels, np.random.default_rng(1))
    assert len(rows) == len(labels) and set(rows) <= set(range(len(labels)))


def test_growing_imbalance_never_loses_a_label():
    for rare in (1, 2, 5):
        labels = np.repeat([0, 1], [1000, rare])
        counts = np.bincount(labels[balanced_order(labels, np.random.default_rng(rare))])
        assert abs(int(counts[0]) - int(counts[1])) <= 1


def test_epochs_differ_in_what_they_draw():
    drawn = [frozenset(row for step in plan().steps(epoch) for row in step) for epoch in range(3)]
    assert all(a != b for a, b in pairwise(drawn))
