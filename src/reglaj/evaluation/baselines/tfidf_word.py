"""Words and pairs of words with logistic regression: the classical text classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reglaj.evaluation.baselines import BASELINES
from reglaj.evaluation.baselines.base import BaselineData, LabelBaseline, logistic_on

if TYPE_CHECKING:
    from reglaj.evaluation.types import FloatArray

MAX_FEATURES = 300_000
"""The most frequent words and pairs that are kept; bounds memory on long texts, no effect on short ones."""


@BASELINES.register("tfidf_word")
class TfidfWord(LabelBaseline):
    """Words and pairs of words, sublinear counts times inverse document frequency."""

    title = "word TF-IDF"
    summary = "TF-IDF of words and pairs of words with logistic regression, strength chosen on validation"

    def fit_predict(self, data: BaselineData) -> FloatArray:
        import numpy as np
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(
            # Words of one letter and single signs count too: "I", "?", an emoji. No text is without any token.
            token_pattern=r"(?u)\w+|[^\w\s]",
            ngram_range=(1, 2),
            sublinear_tf=True,
            max_features=MAX_FEATURES,
            dtype=np.float32,
        )
        features = (
            vectorizer.fit_transform(data.train_texts),
            vectorizer.transform(data.validation_texts),
            vectorizer.transform(data.test_texts),
        )
        return logistic_on(self, features, data)
