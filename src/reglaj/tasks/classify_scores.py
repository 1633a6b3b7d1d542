"""The final figures of a classifier: its own, those of its baselines, and its worst mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from reglaj.core.console import Console
from reglaj.core.seeding import derive_seed
from reglaj.evaluation.metrics.classification import Answers, classification_differences, classification_scores
from reglaj.evaluation.metrics.groups import class_figures
from reglaj.evaluation.report.imbalance import imbalance_told
from reglaj.tasks.base import Encoded, Evaluation, EvaluationResult
from reglaj.tasks.classify_calibration import Calibration, served
from reglaj.tasks.classify_confidence import confidence_figures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reglaj.data.examples import Examples
    from reglaj.evaluation.baselines.base import BaselineData
    from reglaj.evaluation.slices import ScoreGroup
    from reglaj.evaluation.types import FloatArray, IntArray

WORST_MISTAKES = 25


def evaluate_classifier(
    labels: list[str],
    encoded: Encoded,
    baselines: tuple[str, ...],
    evaluation: Evaluation,
    calibration: Calibration | None,
    console: Console,
) -> EvaluationResult:
    """Scores the test rows once; everything else is made of these answers.

    encoded: the test rows. baselines: names of those to run. calibration: how scores become answers.
    """
    scores = evaluation.learner.scores(encoded.rows, console, "testing")
    answers = served(calibration, scores)
    test = classification_scores(labels, encoded.targets, answers, **resampling(evaluation))
    if calibration and evaluation.learner.ranks.is_first:
        test |= confidence_figures(labels, encoded.targets, scores, calibration, **resampling(evaluation))
    found: dict[str, Any] = {}
    notes: list[str] = []
    if evaluation.data is not None:
        inputs = _baseline_data(labels, evaluation, console)
        found, notes = _baselines(inputs, baselines, evaluation, encoded.targets, answers)
    if told := imbalance_told(test):
        notes.append(told)
    return EvaluationResult(
        test=test,
        baselines=found,
        mistakes=_mistakes(labels, evaluation.test, encoded.targets, answers),
        notes=notes,
        cut=encoded.cut,
        score_group=_group_scorer(encoded.targets, answers.classes, answers.probabilities, evaluation),
    )


def _group_scorer(
    targets: IntArray, predicted: IntArray, probabilities: FloatArray, evaluation: Evaluation
) -> ScoreGroup:
    """The figures of some of the test rows. predicted: (N,) what the model decided on."""

    def score(rows: IntArray) -> dict[str, dict[str, Any]]:
        return class_figures(targets[rows], predicted[rows], probabilities[rows], **resampling(evaluation))

    return score


def resampling(evaluation: Evaluation) -> dict[str, Any]:
    """How sure figures are to be, and the rows that are drawn for it: the same for all of them."""
    return {
        "confidence": evaluation.config.confidence,
        "samples": evaluation.config.bootstrap_samples,
        "seed": derive_seed(evaluation.seed, "bootstrap"),
    }


def _baselines(
    inputs: BaselineData,
    names: tuple[str, ...],
    evaluation: Evaluation,
    targets: IntArray,
    answers: Answers,
) -> tuple[dict[str, Any], list[str]]:
    """Figures of each baseline with the model's paired differences to them, and what is to be said of them."""
    from reglaj.evaluation.baselines.base import run_baseline

    labels, settings = inputs.labels, resampling(evaluation)
    results: dict[str, Any] = {}
    notes: list[str] = []
    ranks = evaluation.learner.ranks
    # Only the first process writes a report, and a baseline is no work that processes share.
    for name in names if ranks.is_first else ():
        with ranks.alone():
            baseline = run_baseline(name, inputs)
        theirs = baseline.probabilities
        scores = classification_scores(labels, targets, theirs, **settings)
        differences = classification_differences(labels, targets, answers, theirs, **settings)
        inputs.console.say(f"  baseline {name}: {baseline.seconds:.1f} s")
        results[name] = {
            metric: {**scores[metric], "difference": difference} for metric, difference in differences.items()
        }
        notes += baseline.notes
    return results, notes


def _baseline_data(labels: list[str], evaluation: Evaluation, console: Console) -> BaselineData:
    from reglaj.evaluation.baselines.base import BaselineData
    from reglaj.models.encoding import encode_texts

    def embed(texts: list[str]) -> NDArray[np.float32]:
        rows, _ = encode_texts(evaluation.tokenizer, texts, evaluation.max_tokens)
        return evaluation.learner.embeddings(rows, console)

    assert evaluation.data is not None, "a baseline learns from the training rows"
    number = {label: i for i, label in enumerate(labels)}
    train, validation = evaluation.data.train(), evaluation.data.validation()
    return BaselineData(
        labels=labels,
        train_texts=train.column("text"),
        train_y=np.array([number[label] for label in train.column("label")]),
        validation_texts=validation.column("text"),
        validation_y=np.array([number[label] for label in validation.column("label")]),
        test_texts=evaluation.test.column("text"),
        embed=embed,
        seed=derive_seed(evaluation.seed, "baselines"),
        console=console,
    )


def _mistakes(labels: list[str], test: Examples, targets: IntArray, answers: Answers) -> list[dict[str, Any]]:
    """The wrong rows of which the model was surest, surest first."""
    guesses, confidence = answers.classes, answers.confidences
    wrong = np.flatnonzero(guesses != targets)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:WORST_MISTAKES]
    texts = test.column("text")
    return [
        {
            "text": texts[row],
            "label": labels[targets[row]],
            "prediction": labels[guesses[row]],
            "probability": float(confidence[row]),
            "id": test.ids[row],
            "source": test.source[row],
            "line": test.line[row],
        }
        for row in worst.tolist()
    ]
