"""Always the most frequent class of the training rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reglaj.evaluation.baselines import BASELINES
from reglaj.evaluation.baselines.base import BaselineData, LabelBaseline

if TYPE_CHECKING:
    from reglaj.evaluation.types import FloatArray


@BASELINES.register("majority")
class Majority(LabelBaseline):
    """The class shares of the training rows, for every row.

    The shares rather than certainty: of all constant answers they have the best log loss. One row is added to every
    class (Laplace), so that a class without a training row is unlikely and not impossible.
    """

    title = "majority class"
    summary = "answers the most frequent class of the training rows, with the class shares as probabilities"

    def fit_predict(self, data: BaselineData) -> FloatArray:
        import numpy as np

        counts = np.bincount(data.train_y, minlength=len(data.labels)) + 1.0
        answer = data.labels[int(counts.argmax())]
        self.facts = {"answer": answer}
        self.notes = [f"{self.title}: {answer!r}, by the training rows."]
        return np.tile(counts / counts.sum(), (len(data.test_texts), 1))
