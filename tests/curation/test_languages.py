"""Languages are named where the text says enough, and left open where it does not."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from reglaj.curation.languages import detect_languages
from reglaj.data.languages import LANGUAGES, UNSURE

PUBLIC = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("De ce nu a ajuns cardul meu după două săptămâni?", "ro"),
        ("Why has my card not arrived after two weeks?", "en"),
        ("Warum ist meine Karte nach zwei Wochen noch nicht da?", "de"),
        ("Pourquoi ma carte n'est-elle pas encore arrivée ?", "fr"),
        ("Почему моя карта ещё не пришла?", "ru"),
        ("カードがまだ届きません", "ja"),
    ],
)
def test_a_sentence_is_enough(text: str, code: str):
    assert detect_languages([text]) == [code]


@pytest.mark.parametrize(
    "text", ["", "ok", "12 345", "😀😀", "https://example.org/why-has-my-card-not-arrived", "<br><p>"]
)
def test_what_says_too_little_is_left_open(text: str):
    assert detect_languages([text]) == [UNSURE]


def test_romanian_is_recognised_on_ronec_and_ro_sts():
    ronec, sts = PUBLIC / "ronec" / "valid.json", PUBLIC / "ro_sts" / "RO-STS.dev.tsv"
    if not ronec.is_file() or not sts.is_file():
        pytest.skip("shared/data/ronec and ro_sts are not beside this checkout")
    records = json.loads(ronec.read_text(encoding="utf-8"))[:300]
    texts = ["".join(t + " " * s for t, s in zip(r["tokens"], r["space_after"], strict=True)) for r in records]
    texts += [cell for line in sts.read_text(encoding="utf-8").splitlines()[:300] for cell in line.split("\t")[1:3]]
    counts = Counter(detect_languages(texts))
    assert counts["ro"] >= 0.97 * len(texts)
    assert sum(count for code, count in counts.items() if code not in ("ro", UNSURE)) <= 0.005 * len(texts)


def test_every_language_that_can_be_told_has_a_name():
    from reglaj.curation.languages import _identifier

    assert set(_identifier().labels) - {"zxx"} == set(LANGUAGES)
