"""Carries out `data.clean`: says which rows of train and validation go, and mends encodings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import user_error
from reglaj.curation.embeddings import Embedder
from reglaj.data.cleaning import CleanConfig, Cleaner, CleanRows
from reglaj.data.languages import UNSURE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Raised whenever the same rows and settings would be judged otherwise than before.
_VERSION = 1
_SEED = 0
"""Of folds and samples: the same rows are judged alike whatever the seeds of a recipe are."""


def make_cleaner(config: CleanConfig, embedder: Embedder | None) -> Cleaner | None:
    """What `data.clean` asks for, or None where it asks for nothing. embedder: needed where a model has to look."""
    if config.is_off:
        return None
    if config.needs_embeddings and embedder is None:
        raise ValueError("label errors and outliers are found by embeddings: hand an embedder in")
    return ConfiguredCleaner(config, embedder)


class ConfiguredCleaner(Cleaner):
    """What a person asked for, in this order: languages, boilerplate, label errors, outliers.

    Every check sees all rows that are handed in, so that what one finds does not depend on what others are on.
    """

    def __init__(self, config: CleanConfig, embedder: Embedder | None) -> None:
        self._config = config
        self._embedder = embedder
        self.repairs = config.encodings == "repair"

    def identity(self) -> Mapping[str, Any]:
        chosen = self._config.model_dump(mode="json", exclude_defaults=True)
        if "languages" in chosen:
            chosen["languages"] = sorted(set(chosen["languages"]))
        facts: dict[str, Any] = {"version": _VERSION, "clean": chosen}
        if self._config.needs_embeddings and self._embedder:
            facts["embedder"] = self._embedder.fingerprint
        return facts

    def repair(self, text: str) -> str:
        from reglaj.curation.encodings import mend

        mended = mend(text) if self.repairs else text
        self.repaired += mended != text
        return mended

    def drop(self, rows: CleanRows, console: Console = SILENT) -> dict[str, NDArray[np.bool_]]:
        found: dict[str, NDArray[np.bool_]] = {}
        if self._config.languages:
            found["other_language"] = self._other_language(rows, console)
        if self._config.boilerplate == "drop":
            from reglaj.curation.boilerplate import find_boilerplate

            found["boilerplate"] = find_boilerplate(rows.texts).rows
        if self._config.needs_embeddings:
            found |= self._by_embeddings(rows, console)
        return found

    def _other_language(self, rows: CleanRows, console: Console) -> NDArray[np.bool_]:
        import numpy as np

        from reglaj.curation.languages import detect_languages

        allowed = {*self._config.languages, UNSURE}
        return np.array([code not in allowed for code in detect_languages(rows.texts, console)], dtype=bool)

    def _by_embeddings(self, rows: CleanRows, console: Console) -> dict[str, NDArray[np.bool_]]:
        from reglaj.curation.outliers import find_outliers

        assert self._embedder is not None, "make_cleaner has checked it"
        embeddings = self._embedder.unit(rows.texts, console)
        found: dict[str, NDArray[np.bool_]] = {}
        if self._config.label_errors == "drop":
            found["label_error"] = self._label_errors(rows, embeddings, console)
        if self._config.outliers == "drop":
            found["outlier"] = find_outliers(embeddings, seed=_SEED, console=console).is_outlier
        return found

    def _label_errors(self, rows: CleanRows, embeddings: NDArray[np.float32], console: Console) -> NDArray[np.bool_]:
        import numpy as np

        from reglaj.curation.label_errors import find_label_errors
        from reglaj.curation.probing import FOLDS, cross_validated

        if rows.labels is None:
            raise user_error(
                "data.clean.label_errors is drop",
                allowed="keep, for a task without labels",
                why="there are no labels that could be wrong",
                remedy="remove the key",
                where="data.clean.label_errors",
            )
        labels, targets = np.unique(np.array(rows.labels, dtype=object), return_inverse=True)
        if len(targets) < FOLDS or len(labels) < 2:
            return np.zeros(len(targets), dtype=bool)
        probabilities = cross_validated(embeddings, targets, len(labels), seed=_SEED, console=console)
        return find_label_errors(probabilities, targets).is_error
