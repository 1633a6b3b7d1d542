"""`data.clean`: what it drops, what it mends, and what enters the key of the data."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from reglaj.core.errors import UserError
from reglaj.curation.cleaning import make_cleaner
from reglaj.curation.embeddings import Embedder
from reglaj.data.cleaning import CleanConfig, Cleaner, CleanRows

SUBJECTS = ("the card", "the loan", "the app")


def _embed(texts: list[str]) -> np.ndarray:
    """A direction per subject, with a little of each text's own."""
    rows = []
    for number, text in enumerate(texts):
        place = np.random.default_rng(number).normal(size=8) * 0.1
        for axis, subject in enumerate(SUBJECTS):
            place[axis] += 3.0 * (subject in text)
        if "stranger" in text:
            place[6] += 3.0
        rows.append(place)
    return np.array(rows, dtype=np.float32)


def _cleaner(**keys) -> Cleaner:
    embedder = Embedder(name="tiny", fingerprint="f", embed=_embed)
    found = make_cleaner(CleanConfig(**keys), embedder)
    assert found is not None
    return found


def _rows() -> CleanRows:
    texts = [f"Question {i} about {SUBJECTS[i % 3]} and what it costs" for i in range(90)]
    labels = [SUBJECTS[i % 3] for i in range(90)]
    labels[4] = labels[0]  # says "the loan", labelled as the card
    return CleanRows(texts=[*texts, "A stranger among them, about nothing of it"], labels=[*labels, SUBJECTS[0]])


def _dropped(cleaner: Cleaner, rows: CleanRows) -> dict[str, list[int]]:
    return {bucket: np.flatnonzero(mask).tolist() for bucket, mask in cleaner.drop(rows).items()}


def test_nothing_is_cleaned_unless_it_is_asked_for():
    assert make_cleaner(CleanConfig(), None) is None


def test_a_planted_label_error_goes_and_a_stranger_goes():
    found = _dropped(_cleaner(label_errors="drop", outliers="drop"), _rows())
    assert 4 in found["label_error"] and len(found["label_error"]) <= 2
    assert found["outlier"] == [90]


def test_rows_in_other_languages_go_and_those_too_short_to_say_stay():
    rows = CleanRows(
        texts=[
            "Why has my card not arrived yet?",
            "De ce nu a ajuns cardul meu până acum?",
            "ok",
            "Warum ist sie nicht da?",
        ],
        labels=None,
    )
    assert _dropped(_cleaner(languages=["en"]), rows) == {"other_language": [1, 3]}
    assert _dropped(_cleaner(languages=["ro", "de"]), rows) == {"other_language": [0]}


def test_boilerplate_goes():
    rows = CleanRows(texts=["<div><p>x</p></div>", "Where is my card?", "-------"], labels=None)
    assert _dropped(_cleaner(boilerplate="drop"), rows) == {"boilerplate": [0, 2]}


def test_encodings_are_mended_only_where_it_is_asked_for():
    assert _cleaner(encodings="repair").repairs and _cleaner(encodings="repair").repair("cafÃ©") == "café"
    assert not _cleaner(boilerplate="drop").repairs and _cleaner(boilerplate="drop").repair("cafÃ©") == "cafÃ©"


def test_identity_has_what_decides_and_nothing_else():
    assert _cleaner(languages=["ro", "en"]).identity() == _cleaner(languages=["en", "ro", "en"]).identity()
    assert "embedder" not in _cleaner(boilerplate="drop").identity()
    assert _cleaner(outliers="drop").identity()["embedder"] == "f"
    assert _cleaner(outliers="drop").identity() != _cleaner(label_errors="drop").identity()
    assert _cleaner(boilerplate="drop").identity()["clean"] == {"boilerplate": "drop"}


def test_the_same_rows_are_judged_alike_again():
    cleaner = _cleaner(label_errors="drop", outliers="drop", boilerplate="drop", languages=["en"])
    first, again = _dropped(cleaner, _rows()), _dropped(cleaner, _rows())
    assert first == again and list(first) == ["other_language", "boilerplate", "label_error", "outlier"]


def test_label_errors_need_labels():
    with pytest.raises(UserError, match="labels"):
        _cleaner(label_errors="drop").drop(CleanRows(texts=["a", "b"], labels=None))


@pytest.mark.parametrize(("given", "said"), [("Romanian", "Romanian is ro"), ("xx", "two-letter codes")])
def test_a_language_that_cannot_be_told_is_refused(given: str, said: str):
    with pytest.raises(ValidationError, match=said):
        CleanConfig(languages=[given])
