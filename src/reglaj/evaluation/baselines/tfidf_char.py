"""Character n-grams with logistic regression: hard to beat on short texts with typing errors and rich inflection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reglaj.evaluation.baselines import BASELINES
from reglaj.evaluation.baselines.base import BaselineData, LabelBaseline, logistic_on

if TYPE_CHECKING:
    from reglaj.evaluation.types import FloatArray

MAX_FEATURES = 300_000
"""The most frequent n-grams that are kept; bounds memory on long texts, no effect on short ones."""


@BASELINES.register("tfidf_char")
class TfidfChar(LabelBaseline):
    """n-grams of 2 to 5 characters inside words, sublinear counts times inverse document frequency."""

    title = "character TF-IDF"
    summary = "TF-IDF of 2 to 5 characters with logistic regression, strength chosen on validation"

    def fit_predict(self, data: BaselineData) -> FloatArray:
        import numpy as np
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, max_features=MAX_FEATURES, dtype=np.float32
        )
        features = (
            vectorizer.fit_transform(data.train_texts),
            vectorizer.transform(data.validation_texts),
            vectorizer.transform(data.test_texts),
        )
        return logistic_on(self, features, data)
