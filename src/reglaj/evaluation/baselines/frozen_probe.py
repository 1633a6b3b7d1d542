"""Embeddings of the untrained model with logistic regression: what the model knows before any fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reglaj.evaluation.baselines import BASELINES
from reglaj.evaluation.baselines.base import BaselineData, LabelBaseline, logistic_on

if TYPE_CHECKING:
    from reglaj.evaluation.types import FloatArray


@BASELINES.register("frozen_probe")
class FrozenProbe(LabelBaseline):
    """Standardised embeddings, logistic regression."""

    title = "frozen embeddings"
    summary = "embeddings of the untrained model with logistic regression, strength chosen on validation"
    needs_embeddings = True

    def fit_predict(self, data: BaselineData) -> FloatArray:
        import numpy as np

        assert data.embed is not None, "run_baseline has checked it"
        train, validation, test = (
            np.asarray(data.embed(texts), np.float32)
            for texts in (data.train_texts, data.validation_texts, data.test_texts)
        )
        # Unit variance per dimension, then rows of about unit length: the strengths mean what they mean on TF-IDF rows.
        mean = train.mean(axis=0)
        scale = (train.std(axis=0) + 1e-6) * np.float32(train.shape[1] ** 0.5)
        features = ((train - mean) / scale, (validation - mean) / scale, (test - mean) / scale)
        return logistic_on(self, features, data)
