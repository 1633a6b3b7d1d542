"""What a baseline is, and how one is run: of a classifier here, of answers in `answering`.

A baseline learns from the training rows alone, chooses its settings on the validation rows alone, and is not fitted
again on both: it sees exactly the rows that the model sees, in the same roles.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from reglaj.core.console import SILENT, Console
from reglaj.evaluation.baselines import BASELINES

if TYPE_CHECKING:
    from reglaj.evaluation.types import FloatArray, IntArray

STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""`C` of scikit-learn's `LogisticRegression`: small is cautious. Tried in this order."""


@dataclass(frozen=True, kw_only=True)
class BaselineData:
    """The rows of the three parts, as class numbers into `labels`, C of them (N rows each; every class need not occur).

    embed: texts to (N, D) embeddings of the model before any training, or None where there is no such thing.
    """

    labels: Sequence[str]
    train_texts: list[str]
    train_y: IntArray
    validation_texts: list[str]
    validation_y: IntArray
    test_texts: list[str]
    embed: Callable[[list[str]], FloatArray] | None = None
    seed: int = 0
    console: Console = SILENT


class Baseline(ABC):
    """One way to do without training the model. A new one is one file here; the conformance suite finds it."""

    title: ClassVar[str]
    """How a sentence calls it, such as `character TF-IDF`."""
    summary: ClassVar[str]
    """One line about what it does."""


class LabelBaseline(Baseline):
    """One way to put texts into classes."""

    needs_embeddings: ClassVar[bool] = False

    def __init__(self) -> None:
        self.notes: list[str] = []
        """Sentences about what was chosen and on what; filled by `fit_predict`."""
        self.facts: dict[str, Any] = {}
        """The same as JSON values."""

    @abstractmethod
    def fit_predict(self, data: BaselineData) -> FloatArray:
        """Probabilities of the test rows: (N_test, C), rows summing to one, a column for every label."""


@dataclass(frozen=True, kw_only=True)
class BaselineResult:
    """What a baseline said of the test rows, and what it took."""

    name: str
    title: str
    probabilities: FloatArray
    seconds: float
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def run_baseline(name: str, data: BaselineData) -> BaselineResult:
    """Fit one baseline and predict the test rows. Raises `UserError` on an unknown name."""
    kind = BASELINES.get(name, where="evaluate.baselines")
    if not issubclass(kind, LabelBaseline):
        raise ValueError(f"the baseline {name!r} does not put texts into classes")
    baseline = kind()
    if baseline.needs_embeddings and data.embed is None:
        raise ValueError(f"the baseline {name!r} needs the embeddings of the untrained model")
    began = time.perf_counter()
    probabilities = baseline.fit_predict(data)
    expected = (len(data.test_texts), len(data.labels))
    if probabilities.shape != expected:
        raise ValueError(f"the baseline {name!r} returned {probabilities.shape}, not {expected}")
    seconds = round(time.perf_counter() - began, 3)
    return BaselineResult(
        name=name,
        title=baseline.title,
        probabilities=probabilities,
        seconds=seconds,
        notes=baseline.notes,
        facts=baseline.facts,
    )


def logistic_on(
    baseline: LabelBaseline, features: tuple[Any, Any, Any], data: BaselineData, strengths: Sequence[float] = STRENGTHS
) -> FloatArray:
    """Logistic regression on given features of train, validation and test: probabilities (N_test, C).

    The strength is the one with the best validation accuracy, and among equals the best log loss; the search goes from
    cautious to bold and ends after two strengths in a row that are worse in both, for each one costs seconds. What was
    chosen is put into `baseline.notes` and `baseline.facts`.
    """
    from reglaj.evaluation.logistic import logistic_path
    from reglaj.evaluation.metrics.classification import point_metrics

    train, validation, test = features
    best, best_score, worse = None, (-1.0, float("-inf")), 0
    tried: list[dict[str, float]] = []
    with data.console.progress(f"baseline: {baseline.title}", total=len(strengths), unit="strengths") as advance:
        for model in logistic_path(train, data.train_y, len(data.labels), strengths):
            scores = point_metrics(data.validation_y, model.predict(validation))
            accuracy, log_loss = scores["accuracy"], scores["log_loss"]
            tried.append({"strength": model.strength, "accuracy": accuracy, "log_loss": log_loss})
            worse = worse + 1 if accuracy < best_score[0] and log_loss > -best_score[1] else 0
            if (accuracy, -log_loss) > best_score:
                best, best_score = model, (accuracy, -log_loss)
            advance(1)
            if worse == 2:
                break
    assert best is not None, "there is always a strength to try"
    baseline.facts = {"strength": best.strength, "features": int(train.shape[1]), "tried": tried}
    values = ", ".join(f"{one['strength']:g}" for one in tried)
    baseline.notes = [
        f"{baseline.title}: logistic regression on {train.shape[1]:,} features, strength C = {best.strength:g} chosen "
        f"on validation accuracy among {values}; fitted on the training rows alone, as the model."
    ]
    return best.predict(test)
