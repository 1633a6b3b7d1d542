"""Texts come out as they went in, whatever they were written in."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest
from tests.data.tables import read_all

from reglaj.data.reading import look
from reglaj.data.reading.encodings import detect_encoding

ROMANIAN = "Aş vrea să ştiu dacă plăţile întârziate apar în această lună, şi când îmi trimiteţi cardul."
SAMPLES = {
    ("cp1250", "Romanian"): ROMANIAN,
    ("iso8859-2", "Romanian"): ROMANIAN,
    (
        "cp1250",
        "Polish",
    ): "Proszę o pomoc, mój przelew się nie powiódł i nie wiem, dlaczego tak długo to trwa. Żółć, łąka.",
    (
        "iso8859-2",
        "Polish",
    ): "Proszę o pomoc, mój przelew się nie powiódł i nie wiem, ktoś źle wpisał ś, ą. Łąka, żółć.",
    ("cp1250", "Czech"): "Prosím vás, kde je moje karta? Příliš žluťoučký kůň úpěl ďábelské ódy a ještě něco.",
    (
        "cp1250",
        "Hungarian",
    ): "Szeretném tudni, hogy miért nem érkezett meg a pénz, és hogyan lehet ezt megszűntetni. Őszi idő.",
    (
        "cp1252",
        "French",
    ): "Je n'ai pas reçu ma carte bancaire, où est-elle ? C'est très gênant, l'été dernier c'était déjà arrivé.",
    ("cp1252", "German"): "Ich möchte wissen, warum die Überweisung für mich nicht möglich ist. Viele Grüße aus Köln.",
    (
        "cp1252",
        "Portuguese",
    ): "Não recebi o meu cartão, e as informações são confusas. O que é que eu faço então? Obrigado, João.",
    ("cp1252", "Spanish"): "¿Por qué no funcionó mi tarjeta mañana? El niño está aquí, y yo también. Información útil.",
    ("cp1252", "English"): "“It isn’t working” – I paid £20 and €5 at the café… déjà vu",
    (
        "latin-1",
        "Swedish",
    ): "Jag har inte fått mitt kort än, och det är på väg säger ni. Hälsningar från Åsa och Örjan.",
}


@pytest.mark.parametrize(("codec", "language"), SAMPLES)
def test_legacy_encodings_are_told_apart(tmp_path: Path, codec: str, language: str) -> None:
    text = SAMPLES[codec, language]
    path = tmp_path / "rows.csv"
    path.write_bytes(f'text,label\nplain ascii,a\n"{text}",b\n'.encode(codec))
    good, bad = read_all(path)
    assert not bad
    assert good[1] == (3, (text, "b"))


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("packed", [False, True])
def test_unicode_encodings(tmp_path: Path, codec: str, packed: bool) -> None:
    text = "Știți când îmi vine cardul, 🙂 vă rog? ăâîșț ĂÂÎȘȚ"
    data = f'text,label\n"{text}",întrebare\n'.encode(codec)
    path = tmp_path / "rows.csv"  # gzip is told by its bytes, not by the name
    path.write_bytes(gzip.compress(data) if packed else data)
    assert read_all(path) == ([(2, (text, "întrebare"))], [])


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_bad_line_in_utf8_is_lost_by_itself(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    lines = {
        "csv": [b"text,label", "ăâ,a".encode(), b"caf\xff,b", "șț,c".encode(), b'"two\nlines \xfe",d', b"end,e"],
        "jsonl": [
            b'{"text":"\xc4\x83","label":"a"}',
            b'{"text":"\xff","label":"b"}',
            '{"text":"ș","label":"c"}'.encode(),
        ],
    }[kind]
    path.write_bytes(b"\n".join(lines) + b"\n")
    good, bad = read_all(path, ["text", "label"])
    if kind == "csv":
        assert good == [(2, ("ăâ", "a")), (4, ("șț", "c")), (7, ("end", "e"))]
        assert [(line, fault.bucket) for line, fault in bad] == [(3, "unreadable"), (5, "unreadable")]
        assert bad[0][1].text == "caf\\xff,b"
    else:
        assert good == [(1, ("ă", "a")), (3, ("ș", "c"))]
        assert [(line, fault.bucket) for line, fault in bad] == [(2, "unreadable")]


@pytest.mark.parametrize("word", ["mașină", "casă", "țară", "plată", "înțeleg", "mâine", "să", "ați"])
@pytest.mark.parametrize("codec", ["cp1250", "iso8859-2"])
def test_one_romanian_word_is_enough(tmp_path: Path, word: str, codec: str) -> None:
    word = word.replace("ș", "ş").replace("ț", "ţ")  # these encodings have the letters with a cedilla
    path = tmp_path / "rows.csv"
    path.write_bytes(f"text,label\nNu am {word} acum,a\n".encode(codec))
    assert read_all(path) == ([(2, (f"Nu am {word} acum", "a"))], [])


@pytest.mark.parametrize("word", ["não", "mañana", "déjà", "Köln", "été", "perché", "œuvre", "blåbær", "naïve", "São"])
def test_one_western_word_is_enough(tmp_path: Path, word: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(f"text,label\nThe word {word} here,a\n".encode("cp1252"))
    assert read_all(path) == ([(2, (f"The word {word} here", "a"))], [])


def test_bytes_that_are_no_language_stay_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,label\nhello,a\n\xff\xfe\xfa,b\nbye,a\n")
    good, bad = read_all(path)
    assert [cells for _, cells in good] == [("hello", "a"), ("bye", "a")]
    assert [line for line, _ in bad] == [3]


@pytest.mark.parametrize(("codec", "text"), [("cp1251", "привет, как дела"), ("shift_jis", "こんにちは、元気")])
def test_other_encodings_are_not_misread_in_silence(tmp_path: Path, codec: str, text: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(f"text,label\n{text},a\nplain,b\n".encode(codec))
    good, bad = read_all(path)
    assert [cells for _, cells in good] == [("plain", "b")]
    assert [line for line, _ in bad] == [2]


def test_bytes_that_windows_1252_does_not_have(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("text,label\ndéjà vu,a\nl'été où,b\n".encode("cp1252") + b"x\x81y,c\nend,d\n")
    good, bad = read_all(path)
    assert [cells for _, cells in good] == [("déjà vu", "a"), ("l'été où", "b"), ("end", "d")]
    assert [line for line, _ in bad] == [4]


def test_cut_utf16_loses_its_last_line_only(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("text,label\nă,a\nș,b\n".encode("utf-16")[:-2] + b"\x41")
    good, bad = read_all(path)
    assert [cells for _, cells in good] == [("ă", "a")]
    assert [line for line, _ in bad] == [3]


def test_a_character_across_two_chunks() -> None:
    data = b"a" * ((1 << 20) - 1) + "ă".encode() * 10 + b"\n"
    encoding = detect_encoding(io.BytesIO(data))
    assert (encoding.codec, encoding.may_fail) == ("utf-8", False)


def test_the_encoding_is_sought_beyond_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,label\n" + b"plain ascii,a\n" * 200_000 + f"{ROMANIAN[:20]},b\n".encode("cp1250"))
    good, bad = read_all(path, max_rows=50_000)
    assert not bad
    assert good[-1] == (200_002, (ROMANIAN[:20], "b"))


def test_mixed_encodings_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = ["text,label", "déjà vu à l'été,a", "où est ma carte reçue,b"]
    path.write_bytes("\n".join(lines).encode("cp1252") + "\nș,c\n".encode())
    assert any("look like UTF-8" in note for note in look(path).notes)
