"""Which encoding a text file is in.

A byte order mark decides; then the pattern of zero bytes (UTF-16 without a mark); then whether lines are
valid UTF-8, which text in another encoding practically never is. What remains is told apart by language:
the encoding is the one in which the non-ASCII letters are those of one European language, standing in words.
Windows-1252 and Latin-1 agree on every printable character that Latin-1 has, so the former stands for both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import IO

_CHUNK_BYTES = 1 << 20
_SAMPLE_BYTES = 1 << 18
_MIN_EXPLAINED = 0.7
_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
# Signs that stand anywhere, and signs that make no sense right behind a letter: in "powiód³" something is misread.
_PUNCTUATION = frozenset("…†‡‰‹›‘’“”•–—™\xa0«»¿¡©®")
_SYMBOL = re.compile(r"(?<![^\W\d_])[€§°±²³½¼¾·¢£¥¶µ×÷¬]|\b[ckd]?m[²³]|(?<=[\dn])[ºª]|(?<![^\s(\[,;\"'])[‚„]")
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class _Language:
    """letters: the non-ASCII ones; words: frequent short ones; unlikely: sequences that it hardly has."""

    codecs: tuple[str, ...]
    letters: str
    words: str
    unlikely: str = r"(?!)"


_WESTERN = ("cp1252",)
_CENTRAL = ("cp1250", "iso8859-2")
_LANGUAGES = (
    _Language(_WESTERN, "éèêàâïöçñü", "the a is to of and in my it i you not for this that have"),
    _Language(_WESTERN, "àâæçéèêëîïôœùûü", "le la les de des et est un une du en que pour dans à être été où ça"),
    _Language(_WESTERN, "äöüß", "der die das und ist nicht ein eine zu mit für über den von ich wie auf können"),
    _Language(_WESTERN, "áéíñóúü", "el la los las de que y en un una es por con para no mi cómo qué está más sí"),
    _Language(_WESTERN, "ãáàâçéêíóôõúü", "o os as de que e em um uma com para não é por meu são está", r"ã(?![oe])"),
    _Language(_WESTERN, "àèéìíòóù", "il lo la di che e un una per non con sono è più come perché della ho"),
    _Language(_WESTERN, "åäöæøé", "och att det som en på är av för og er ikke til på jeg med ja on ei se että hän"),
    _Language(_WESTERN, "áéíóúýþæðö", "og að er ekki til á í um sem það við hann með ég"),
    _Language(_CENTRAL, "ăâîşţ", "şi de la cu pe este nu un o în din care pentru să că mai am cum ce", r"ă[oe]"),
    _Language(_CENTRAL, "ąćęłńóśźż", "i w na z się nie do że jest to jak o po ale czy mam od za"),
    _Language(_CENTRAL, "áčďéěíňóřšťúůýž", "a se v na je že s z do to jak pro ale jsem si po by ve"),
    _Language(_CENTRAL, "áäčďéíĺľňóôŕšťúýž", "a sa v na je že s z do to ako pre ale som si po by vo"),
    _Language(_CENTRAL, "áéíóöőúüű", "a az és hogy nem egy is van meg ez de ha el mint csak volt"),
    _Language(_CENTRAL, "čćđšž", "i je u na da se za ne su od s što kako sam ali to koji"),
)


@dataclass(frozen=True)
class Encoding:
    """How bytes become text.

    codec: Python's name. bom_bytes: length of the byte order mark. may_fail: whether lines can hold
    undecodable bytes; where it is False they were all seen to decode. notes: what a user should know.
    """

    codec: str
    bom_bytes: int = 0
    may_fail: bool = True
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The name that reports show."""
        shown = {"cp1252": "windows-1252", "cp1250": "windows-1250", "iso8859-2": "iso-8859-2"}
        return shown.get(self.codec, self.codec) + (" with BOM" if self.bom_bytes else "")


def detect_encoding(stream: IO[bytes], max_bytes: int | None = None) -> Encoding:
    """The encoding of a text, read to its end or to `max_bytes`."""
    first = stream.read(_CHUNK_BYTES)
    for mark, codec in _MARKS:
        if first.startswith(mark):
            is_wide = codec != "utf-8"
            counts = _LineCounts() if is_wide else _count_lines(first[len(mark) :], stream, max_bytes)
            return Encoding(codec, len(mark), is_wide or counts.invalid > 0 or max_bytes is not None)
    wide = _wide_without_mark(first[:4096])
    if wide:
        return Encoding(wide)
    counts = _count_lines(first, stream, max_bytes)
    if counts.invalid == 0:
        return Encoding("utf-8", may_fail=max_bytes is not None)
    if counts.valid < counts.invalid:
        codec, explained = best_legacy_codec(bytes(counts.sample))
        if explained >= _MIN_EXPLAINED:
            notes: tuple[str, ...] = ()
            if counts.valid:
                notes = (f"{counts.valid:,} lines look like UTF-8 in a file that is otherwise {Encoding(codec).label}",)
            return Encoding(codec, notes=notes)
    return Encoding("utf-8", notes=(f"{counts.invalid:,} lines hold bytes that are not UTF-8",))


class _LineCounts:
    """Lines that are valid UTF-8 beyond ASCII, lines that are not UTF-8, and the beginning of the latter."""

    def __init__(self) -> None:
        self.valid = 0
        self.invalid = 0
        self.sample = bytearray()

    def add(self, block: bytes) -> None:
        if block.isascii():
            return
        for line in block.split(b"\n"):
            if line.isascii():
                continue
            try:
                line.decode("utf-8")
                self.valid += 1
            except UnicodeDecodeError:
                self.invalid += 1
                if len(self.sample) < _SAMPLE_BYTES:
                    self.sample += line + b"\n"


def _count_lines(first: bytes, stream: IO[bytes], max_bytes: int | None) -> _LineCounts:
    counts = _LineCounts()
    seen, chunk, rest = 0, first, b""
    while chunk:
        seen += len(chunk)
        # A line is judged whole, for a chunk may end inside a character.
        body, newline, tail = chunk.rpartition(b"\n")
        if newline:
            counts.add(rest + body)
            rest = tail
        else:
            rest += chunk
        if max_bytes is not None and seen >= max_bytes:
            return counts
        chunk = stream.read(_CHUNK_BYTES)
    counts.add(rest)
    return counts


def _wide_without_mark(head: bytes) -> str | None:
    """UTF-16 text of mostly Western letters has a zero in every other byte."""
    half = len(head) // 2
    if half < 2:
        return None
    even, odd = head[0::2].count(0) / half, head[1::2].count(0) / half
    if odd > 0.4 and even < 0.05:
        return "utf-16-le"
    if even > 0.4 and odd < 0.05:
        return "utf-16-be"
    return None


def best_legacy_codec(sample: bytes) -> tuple[str, float]:
    """The 8-bit codec under which `sample` reads best, and the share of its non-ASCII characters that make sense."""
    best = ("cp1252", 0.0, 0.0)
    for language in _LANGUAGES:
        for codec in language.codecs:
            text = sample.decode(codec, errors="replace").lower()
            explained = _explained(text, language)
            words = _WORD.findall(text)
            known = set(language.words.split())
            familiar = sum(word in known for word in words) / max(1, len(words))
            if explained + 0.3 * familiar > best[1] + 0.3 * best[2]:
                best = (codec, explained, familiar)
    return best[0], best[1]


def _explained(text: str, language: _Language) -> float:
    """Share of the non-ASCII characters that are letters of the language inside words, or known punctuation."""
    total = sum(not char.isascii() for char in text)
    good: float = sum(char in _PUNCTUATION for char in text) + len(_SYMBOL.findall(text))
    for word in _WORD.findall(text):
        if word.isascii():
            continue
        known = sum(char in language.letters for char in word)
        # Text has ASCII letters in most words; stray bytes do not.
        if known == len(word) or any(char.isascii() for char in word):
            good += known
    good -= 0.5 * len(re.findall(language.unlikely, text))
    return good / max(1, total)
