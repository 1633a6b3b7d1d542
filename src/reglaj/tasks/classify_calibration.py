"""What validation decided about a classifier's answers, in model/calibration.json: how scores become probabilities,
which class is answered, and how sure is sure enough.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reglaj.core.errors import ReglajError, user_error
from reglaj.core.files import write_json
from reglaj.evaluation.metrics.abstention import Threshold, reachable, threshold_for
from reglaj.evaluation.metrics.calibration import choose_temperature, softmax
from reglaj.evaluation.metrics.classification import Answers
from reglaj.evaluation.metrics.thresholds import answers_with, choose_thresholds
from reglaj.training.parallel import ALONE, Ranks

if TYPE_CHECKING:
    from reglaj.evaluation.config import EvaluateConfig
    from reglaj.evaluation.types import FloatArray, IntArray

FILE = "calibration.json"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """temperature: what scores are divided by. offsets: (C,) added to log-probabilities before the largest is taken, or
    None. confidences, is_right: of each validation row, the probability of its answer and whether that was right.
    told: why, for the report.
    """

    temperature: float
    offsets: FloatArray | None
    confidences: FloatArray
    is_right: IntArray
    told: Mapping[str, Any]

    def answers(self, scores: FloatArray) -> Answers:
        """What is served for scores (N, C)."""
        return answers_with(softmax(scores, self.temperature), self.offsets)

    def threshold(self, target_error: float, confidence: float) -> Threshold | None:
        """From which probability on answers are wrong at most this often; None where validation does not show it."""
        return threshold_for(self.confidences, self.is_right, target_error, confidence)

    def reachable(self, confidence: float) -> tuple[float, Threshold] | None:
        """The lowest target error that has a threshold, and that threshold."""
        return reachable(self.confidences, self.is_right, confidence)

    def sure_enough(self, target_error: float, confidence: float) -> float:
        """The value of that threshold. Raises `UserError`, with what can be had, where there is none."""
        found = self.threshold(target_error, confidence)
        if found is not None:
            return found.value
        lowest = self.reachable(confidence)
        rows = len(self.confidences)
        raise user_error(
            f"a target error of {target_error:.3g}",
            allowed=f"{lowest[0]:.3g} and more with what is known of this model, which would then answer about "
            f"{lowest[1].coverage:.0%}"
            if lowest
            else "none: too little is known of this model",
            why=f"{rows:,} validation rows do not show, with {confidence:.3g} confidence, that its surest answers are "
            "wrong so rarely",
            remedy="take a higher target, or more validation rows (data.split.validation) and train again; "
            "--abstain-below P promises nothing and always works",
        )

    def in_words(self) -> list[str]:
        """What was decided, a sentence each."""
        told = []
        if found := self.told["calibration"]:
            before, after = found["log_loss"]["before"], found["log_loss"]["after"]
            told.append(
                f"scores are divided by {found['temperature']:.3g}: on validation the log loss is {after:.3f} with it "
                f"and {before:.3f} without"
                if found["applied"]
                else f"already calibrated, as far as {found['rows']:,} validation rows can tell"
            )
        if found := self.told["thresholds"]:
            before, after, rows = found["macro_f1"]["before"], found["macro_f1"]["after"], found["rows"]
            told.append(
                f"answers are chosen for macro-F1: on validation {after:.3f} with it and {before:.3f} without"
                if found["applied"]
                else f"the likeliest class is answered: no gain in macro-F1 is shown on {rows:,} validation rows"
            )
        return told

    def save(self, folder: Path) -> None:
        """Write it beside the task."""
        values = {
            "temperature": self.temperature,
            "offsets": None if self.offsets is None else self.offsets.tolist(),
            **self.told,
            "validation": {"confidence": self.confidences.tolist(), "right": self.is_right.tolist()},
        }
        write_json(folder / FILE, values)


def settle(
    labels: list[str],
    scores: FloatArray,
    truth: IntArray,
    config: EvaluateConfig,
    seed: int,
    ranks: Ranks = ALONE,
) -> Calibration:
    """What scores (N, C) and truth (N,) of validation decide: the first process, for all of them."""
    values = _decided(labels, scores, truth, config, seed) if ranks.is_first else None
    return _from_values(ranks.from_first(values), labels)


def _decided(
    labels: list[str], scores: FloatArray, truth: IntArray, config: EvaluateConfig, seed: int
) -> dict[str, Any]:
    """The document of calibration.json."""
    settings: dict[str, Any] = {
        "confidence": config.confidence,
        "samples": config.bootstrap_samples,
        "seed": seed,
    }
    told: dict[str, Any] = {"calibration": None, "thresholds": None}
    temperature: float = 1.0
    offsets: list[float] | None = None
    if config.calibration == "temperature":
        told["calibration"] = choose_temperature(scores, truth, **settings)
        temperature = told["calibration"]["temperature"]
    probabilities = softmax(scores, temperature)
    answers = Answers.likeliest(probabilities)
    if config.thresholds == "macro_f1":
        told["thresholds"], answers = choose_thresholds(labels, truth, probabilities, **settings)
        if told["thresholds"]["applied"]:
            offsets = [told["thresholds"]["offsets"][label] for label in labels]
    order = np.argsort(-answers.confidences, kind="stable")
    right = (answers.classes == truth)[order].astype(int)
    return {
        "temperature": temperature,
        "offsets": offsets,
        **told,
        "validation": {"confidence": answers.confidences[order].tolist(), "right": right.tolist()},
    }


def served(calibration: Calibration | None, scores: FloatArray) -> Answers:
    """What is said for scores (N, C); without a calibration the likeliest class, by the scores as they are."""
    return calibration.answers(scores) if calibration else Answers.likeliest(softmax(scores))


def without_calibration() -> ReglajError:
    """What is said where a target error is asked of a model that keeps nothing of validation."""
    return user_error(
        "a target error for a model without calibration.json",
        allowed="models of this version",
        why="it keeps nothing of what validation said, so nothing can be promised of it",
        remedy="train again with --fresh; --abstain-below P works all the same",
    )


def load_calibration(folder: Path, labels: list[str]) -> Calibration | None:
    """What `save` wrote; None beside a model of a version that did not write it. Raises `UserError`."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return _from_values(json.loads(path.read_text(encoding="utf-8")), labels)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _from_values(values: Mapping[str, Any], labels: list[str]) -> Calibration:
    """Raises `ValueError`, `KeyError` or `TypeError` where they are not what was written."""
    offsets, validation = values["offsets"], values["validation"]
    found = Calibration(
        temperature=float(values["temperature"]),
        offsets=None if offsets is None else np.array(offsets, dtype=np.float64),
        confidences=np.array(validation["confidence"], dtype=np.float64),
        is_right=np.array(validation["right"], dtype=np.int64),
        told={name: values[name] for name in ("calibration", "thresholds")},
    )
    whole = found.offsets is None or found.offsets.shape == (len(labels),)
    if not (whole and found.temperature > 0 and found.confidences.shape == found.is_right.shape):
        raise ValueError("its parts do not fit each other")
    return found


def _damaged(path: Path, error: Exception) -> ReglajError:
    return user_error(
        f"{path.parent.name}/{path.name} cannot be read",
        allowed="the file as it was written",
        why=f"{type(error).__name__}: {error}",
        remedy="bring the file back, or train again with --fresh",
    )
