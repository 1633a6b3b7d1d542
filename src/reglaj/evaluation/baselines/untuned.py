"""The model as it was before training: what the fine-tuning has to beat."""

from __future__ import annotations

from reglaj.evaluation.baselines import BASELINES
from reglaj.evaluation.baselines.answering import AnswerBaseline, AnswerBaselineData, Exchange


@BASELINES.register("untuned")
class Untuned(AnswerBaseline):
    """The questions as they are."""

    title = "untouched model"
    summary = "the model before any training, asked the same questions"

    def exchanges(self, data: AnswerBaselineData) -> list[Exchange]:
        return []
