"""When accuracy is a poor headline: a class so frequent that always saying it does well, or rare classes done badly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reglaj.evaluation.report.words import percent, span

_MAJORITY = 0.5
"""Share of the most frequent class from which on accuracy says little, where it is also 1.5 times an even share."""
_FAR = 0.1
"""Accuracy less macro-F1, from which on rare classes go much worse than frequent ones."""


def is_imbalanced(test: Mapping[str, Any]) -> bool:
    """Whether accuracy is a poor headline for these figures of test rows."""
    return bool(imbalance_told(test))


def imbalance_told(test: Mapping[str, Any]) -> str:
    """Why accuracy is a poor headline, in a sentence; empty where it is none."""
    per_class: Mapping[str, Any] = test.get("per_class") or {}
    rows = sum(values["support"] for values in per_class.values())
    if not rows:
        return ""
    label = max(per_class, key=lambda name: per_class[name]["support"])
    share = per_class[label]["support"] / rows
    accuracy, macro = test["accuracy"], test["macro_f1"]
    reasons = []
    if share >= max(_MAJORITY, 1.5 / len(per_class)):
        reasons.append(f"{percent(share, 0)} of the test rows are {label!r}, so always saying it is as often right")
    if accuracy["value"] - macro["value"] >= _FAR and macro["high"] < accuracy["value"]:
        reasons.append("rare classes go much worse than frequent ones")
    if not reasons:
        return ""
    told = f"Accuracy is a poor headline here: {', and '.join(reasons)}. "
    return (
        told + f"Macro-F1, which counts every class alike, is {percent(macro['value'])} ({span(macro, is_share=True)})."
    )


def what_to_do(test: Mapping[str, Any]) -> str:
    """The keys of a recipe that help rare classes, for figures that are imbalanced."""
    keys = ["`train.sampling: balanced`", "`train.class_weights: balanced`"]
    if not test.get("thresholds"):
        keys.append("`evaluate.thresholds: macro_f1`")
    return f"Frequent classes decide the accuracy. Where rare ones matter, try {', '.join(keys[:-1])} or {keys[-1]}."
