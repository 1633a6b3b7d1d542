"""Slices and a gate as the pipeline adds them to a report, from the simulated model of `sample_reports`."""

import numpy as np
from tests.evaluation.sample_reports import HOSTILE, simulate

from reglaj.evaluation.gates import judge, read_gate
from reglaj.evaluation.grouping import Slicing, learn_slicing
from reglaj.evaluation.metrics.groups import class_figures
from reglaj.evaluation.report.classification import CLASSIFICATION
from reglaj.evaluation.slices import Slice, score_slices

LONG = "a department whose name nobody could make any shorter without leaving out what it does"
GATE = {"accuracy": ">= 0.5", "worst_slice.recall": ">= 0.97", "slice.language.xx.accuracy": ">= 0.5"}


def with_slices(report, *, num_rows=400, samples=100):
    """The report with `slices` and `gate` of its own; one of three rules holds."""
    truth, probabilities = simulate(3, num_rows, skill=2.0)
    predicted, chance = probabilities.argmax(axis=1), np.random.default_rng(5)

    def score(rows):
        return class_figures(truth[rows], predicted[rows], probabilities[rows], samples=samples)

    cells = {
        "length": [str(int(n)) for n in chance.gamma(3, 6, num_rows)],
        "language": list(chance.choice(["en", "ro", "zh", "unsure"], num_rows, p=[0.6, 0.3, 0.02, 0.08])),
        "department": list(chance.choice(["cards", HOSTILE, LONG, "|`x`\n# h"], num_rows)),
        "many": [f"value {n}" for n in chance.integers(0, 40, num_rows)],
    }
    slices = []
    for name, values in cells.items():
        slicing = learn_slicing(values, unit="words") if name == "length" else Slicing()
        names, codes = slicing.groups(values)
        slices.append(Slice(name=name, slicing=slicing, names=names, codes=codes))
    plan = CLASSIFICATION
    figures = {one.name: one.lower_is_better for one in plan.slice_figures}
    found = score_slices(slices, score, figures, 0.95)
    rules, problems = read_gate(GATE, list(cells), plan.figures, plan.slice_figures)
    assert not problems
    return {**report, "slices": found, "gate": judge(rules, report["test"], found)}
