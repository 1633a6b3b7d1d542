"""What a classifier's probabilities are worth on test: before and after calibration, and answering only where sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reglaj.evaluation.metrics.abstention import on_rows, risk_coverage
from reglaj.evaluation.metrics.calibration import calibration_differences, softmax
from reglaj.evaluation.metrics.classification import Answers, classification_differences, classification_scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reglaj.evaluation.types import IntArray
    from reglaj.tasks.classify_calibration import Calibration

TARGETS = (0.01, 0.02, 0.05, 0.1)
"""Errors among what is answered that the report holds against the test rows; where none can be had, the lowest too."""
_CALIBRATED = ("log_loss", "expected_calibration_error")
_CHOSEN = ("macro_f1", "accuracy")


def confidence_figures(
    labels: Sequence[str],
    truth: IntArray,
    scores: NDArray[np.float32],
    calibration: Calibration,
    *,
    confidence: float,
    samples: int,
    seed: int,
) -> dict[str, Any]:
    """`calibration`, `thresholds` (null where not asked for) and `abstention` on rows with scores (N, C).

    The first two hold what validation said, and under `test` each figure `before` and `after` with the paired
    `difference` where something was applied. The third has the `curve` of error over coverage, and for each target
    error the threshold that validation gives with what it does on these rows.
    """
    settings: dict[str, Any] = {"confidence": confidence, "samples": samples, "seed": seed}
    raw, served = Answers.likeliest(softmax(scores)), calibration.answers(scores)
    calibrated = Answers.likeliest(served.probabilities)

    def compared(before: Answers, after: Answers, names: Sequence[str]) -> dict[str, Any]:
        sides = {
            side: classification_scores(labels, truth, answers, **settings)
            for side, answers in (("before", before), ("after", after))
        }
        if names == _CALIBRATED:
            differences = calibration_differences(truth, before.probabilities, after.probabilities, **settings)
        else:
            differences = classification_differences(labels, truth, after, before, **settings)
        return {name: {**{s: sides[s][name] for s in sides}, "difference": differences[name]} for name in names}

    found: dict[str, Any] = {}
    for name, before, after, names in (
        ("calibration", raw, calibrated, _CALIBRATED),
        ("thresholds", calibrated, served, _CHOSEN),
    ):
        told = calibration.told[name]
        found[name] = told and {
            "applied": told["applied"],
            **({"temperature": told["temperature"], "fitted": told["fitted"]} if name == "calibration" else {}),
            **({"family": told["family"], "offsets": _pairs(told["offsets"])} if name == "thresholds" else {}),
            "validation": {"rows": told["rows"], **{figure: told[figure] for figure in names if figure in told}},
            "test": compared(before, after, names) if told["applied"] else {},
        }
    return {**found, "abstention": _abstention(truth, served, calibration, confidence)}


def _pairs(offsets: Mapping[str, float] | None) -> list[dict[str, Any]] | None:
    """By label, as a list: a label may be called anything, and keys of a report mean something."""
    return None if offsets is None else [{"label": label, "offset": offset} for label, offset in offsets.items()]


def _abstention(truth: IntArray, served: Answers, calibration: Calibration, confidence: float) -> dict[str, Any]:
    right = (served.classes == truth).astype(np.int64)
    wanted = {target: calibration.threshold(target, confidence) for target in TARGETS}
    if not any(wanted.values()) and (lowest := calibration.reachable(confidence)):
        wanted[lowest[0]] = lowest[1]
    targets = []
    for target, threshold in wanted.items():
        targets.append(
            {"target_error": target, "threshold": None}
            if threshold is None
            else {
                "target_error": target,
                "threshold": threshold.value,
                "validation_coverage": threshold.coverage,
                **on_rows(served.confidences, right, threshold.value, confidence),
            }
        )
    return {"curve": risk_coverage(served.confidences, right, confidence), "targets": targets}
