"""Texts that were decoded wrongly come back as they were; whole ones are not touched."""

from __future__ import annotations

import pytest

from reglaj.curation.encodings import has_lost, mend

ROMANIAN = "Știri: întreținerea și plata se fac în două zile, spune șeful băncii."
WHOLE = [
    "plain ASCII",
    "café au lait",
    ROMANIAN,
    "Москва и Київ",
    "日本語の文章",
    "curly “quotes” – and a dash…",
    "emoji 😀 and £5",
    "AT&T <br> &amp;",
]


@pytest.mark.parametrize("text", WHOLE)
def test_whole_texts_are_not_touched(text: str):
    assert mend(text) == text


@pytest.mark.parametrize("text", ["café au lait", ROMANIAN, "Müller zahlt 5 € – heute", "l’été"])
def test_utf8_that_was_read_as_latin_comes_back(text: str):
    data = text.encode()
    try:
        broken = data.decode("cp1252")
    except UnicodeDecodeError:
        broken = data.decode("latin-1")
    assert broken != text
    assert mend(broken) == text


def test_lost_characters_are_seen():
    assert has_lost("caf\N{REPLACEMENT CHARACTER}") and not has_lost("café")
