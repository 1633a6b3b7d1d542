"""Which column plays which role: a score for every column, with a reason a person can check.

Two things speak for a column: what its cells look like (its shape) and what it is called (its name). A shape
of zero rules a column out whatever its name; among what is left a known name weighs as much as a perfect
shape. Nothing here decides: two columns that score alike are reported as a tie, and the user is asked.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from reglaj.data.roles import ColumnRoles

ACCEPT = 0.5
"""Least score of a column that is proposed: half a perfect shape, or a name with any possible shape."""
TIE = 0.15
"""Scores closer than this are equally good."""

_NUMBER = re.compile(r"^[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?$")
_WHOLE = re.compile(r"^[-+]?\d+([.,]0+)?$")
_DATE = re.compile(r"^(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})([T ].*)?$")
_ADDRESS = re.compile(r"^(https?://|www\.)\S+$")
_WORD_PARTS = re.compile(r"[a-z]+|[A-Z]+(?![a-z])|[A-Z][a-z]*|\d+")


@dataclass(frozen=True, kw_only=True)
class ColumnFacts:
    """What the cells of one column look like. Shares are of the cells that are not empty."""

    name: str
    filled: int
    """Cells that hold more than white space."""
    filled_share: float
    distinct: int
    characters: float
    """Mean length."""
    words: float
    """Mean number of words; scripts without spaces count two characters as a word."""
    numbers: float
    whole_numbers: float
    dates: float
    addresses: float
    lists: float
    """Share of JSON lists and objects."""
    commonest: str
    is_complete: bool
    """Whether these are all cells of the column, not the first ones of a longer file."""

    @property
    def repeats(self) -> float:
        """How often a value occurs on average."""
        return self.filled / self.distinct if self.distinct else 0.0


@dataclass(frozen=True, kw_only=True)
class ColumnGuess:
    """How well one column fits one role. A score of 0 means it cannot."""

    role: str
    column: str
    score: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class _RoleHint:
    """How a role's column is usually called (English and Romanian, without diacritics), and what its cells are like."""

    shape: Callable[[ColumnFacts], tuple[float, str]]
    strong: frozenset[str]
    weak: frozenset[str] = frozenset()


def describe_column(name: str, cells: Iterable[str | None], *, is_complete: bool = True) -> ColumnFacts:
    """The facts of one column."""
    every = list(cells)
    filled = [cell.strip() for cell in every if cell and cell.strip()]
    count = len(filled)
    values = Counter(filled)

    def share(fits: Callable[[str], object]) -> float:
        return sum(n for value, n in values.items() if fits(value)) / count if count else 0.0

    return ColumnFacts(
        name=name,
        filled=count,
        filled_share=count / len(every) if every else 0.0,
        distinct=len(values),
        characters=sum(map(len, filled)) / count if count else 0.0,
        words=sum(map(_words, filled)) / count if count else 0.0,
        numbers=share(_NUMBER.match),
        whole_numbers=share(_WHOLE.match),
        dates=share(_DATE.match),
        addresses=share(_ADDRESS.match),
        lists=share(lambda value: (value[0], value[-1]) in (("[", "]"), ("{", "}"))),
        commonest=values.most_common(1)[0][0] if values else "",
        is_complete=is_complete,
    )


def recognise(
    roles: ColumnRoles,
    columns: Sequence[str],
    sample: Sequence[Mapping[str, str | None]],
    *,
    is_complete: bool = True,
) -> list[ColumnGuess]:
    """A guess for every role and column: roles in their order, within a role the best column first.

    is_complete: the sample is all there is, so that a value which is not in it does not occur.
    """
    facts = [describe_column(name, [row.get(name) for row in sample], is_complete=is_complete) for name in columns]
    guesses = []
    for role in roles.names:
        scored = [_guess(role, column) for column in facts]
        guesses += sorted(scored, key=lambda guess: -guess.score)
    return guesses


def candidates(guesses: Iterable[ColumnGuess], role: str, *, without: Iterable[str] = ()) -> list[ColumnGuess]:
    """The columns that are equally good for a role: one is a clear answer, several a tie, none a refusal."""
    taken = set(without)
    fit = [guess for guess in guesses if guess.role == role and guess.column not in taken and guess.score >= ACCEPT]
    best = max((guess.score for guess in fit), default=0.0)
    return [guess for guess in fit if best - guess.score < TIE]


def _guess(role: str, facts: ColumnFacts) -> ColumnGuess:
    hint = _HINTS.get(role) or _RoleHint(shape=_any_shape, strong=frozenset({role}))
    shape, reason = hint.shape(facts)
    if shape == 0:
        return ColumnGuess(role=role, column=facts.name, score=0.0, reason=reason)
    name = _name_score(facts.name, hint)
    # A column that is mostly empty can only be meant by its name.
    score = max(0.0, shape * (1.0 if facts.filled_share >= 0.5 else 0.4) + name)
    if facts.filled_share < 0.5:
        reason += f", but {1 - facts.filled_share:.0%} of its cells are empty"
    if name >= 0.4:
        reason += ", and its name says so"
    return ColumnGuess(role=role, column=facts.name, score=round(score, 3), reason=reason)


def _name_score(name: str, hint: _RoleHint) -> float:
    parts = _name_parts(name)
    whole = "".join(parts)
    if whole in hint.strong:
        return 1.0
    if whole in hint.weak:
        return 0.5
    if whole in _BESIDE_THE_POINT or (parts and parts[-1] in _BESIDE_THE_POINT):
        return -0.5
    # `customer_message` is less plain than `message`: where a table has both, the plain one is meant.
    words = {part for part in parts if len(part) > 2}
    if hint.strong & words:
        return 0.8
    return 0.4 if hint.weak & words else 0.0


def _name_parts(name: str) -> list[str]:
    """`mesajClient`, `Mesaj client` and `mesaj_client` are all mesaj, client; diacritics do not count."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return [part.casefold() for part in _WORD_PARTS.findall(plain)]


def _words(text: str) -> float:
    unspaced = sum(1 for c in text if ord(c) >= 0x2E80)  # CJK and what comes after it is written without spaces
    return len(text.split()) + unspaced / 2


def _unusable(facts: ColumnFacts) -> str:
    """Why a column can be neither a text nor a label, or nothing."""
    if not facts.filled:
        return "is empty"
    if facts.lists > 0.5:
        return "holds lists, not single values"
    if facts.dates > 0.8:
        return "holds dates"
    if facts.addresses > 0.8:
        return "holds web addresses"
    return ""


def _text_shape(facts: ColumnFacts) -> tuple[float, str]:
    if reason := _unusable(facts):
        return 0.0, reason
    if facts.numbers > 0.8:
        return 0.0, "holds numbers, not texts"
    if facts.distinct == 1 and facts.filled > 1:
        return 0.0, f"always says {_short(facts.commonest)}"
    variety = facts.distinct / facts.filled
    amount = "nearly all different" if variety > 0.9 else f"{facts.distinct:,} of {facts.filled:,} different"
    score = min(1.0, variety / 0.5) * min(1.0, max(0.15, (facts.words - 1) / 3))
    return score, f"holds texts of {facts.characters:.0f} characters on average, {amount}"


def _label_shape(facts: ColumnFacts) -> tuple[float, str]:
    if reason := _unusable(facts):
        return 0.0, reason
    if facts.distinct == 1 and facts.is_complete:
        return 0.0, f"always says {_short(facts.commonest)}, so there is nothing to tell apart"
    if facts.distinct == 1:  # files are often sorted by label: more classes may come
        return 0.1, f"says {_short(facts.commonest)} in all of the first {facts.filled:,} rows"
    if facts.numbers > 0.8 and facts.whole_numbers < facts.numbers:
        return 0.0, "holds numbers with decimals, not classes"
    times = f"{facts.repeats:.0f}" if facts.repeats >= 10 else f"{facts.repeats:.1f}"
    counted = f"has {facts.distinct:,} different values, each {times} times on average"
    if facts.repeats < 2:
        return 0.0, f"{counted}: they hardly repeat"
    if facts.characters > 100:
        return 0.0, f"holds texts of {facts.characters:.0f} characters on average, too long for names of classes"
    # Counters and flags look like classes too; a column of numbers needs its name to be preferred.
    kind = 0.5 if facts.numbers > 0.8 else 1.0
    return kind * min(1.0, facts.repeats / 10), counted


def _any_shape(facts: ColumnFacts) -> tuple[float, str]:
    return (0.0, "is empty") if not facts.filled else (0.1, f"holds {facts.distinct:,} different values")


def _short(text: str, limit: int = 40) -> str:
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")


def _names(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


_HINTS: dict[str, _RoleHint] = {
    "text": _RoleHint(
        shape=_text_shape,
        strong=_names(
            "text texts message messages question tweet post comment review sentence utterance query content body",
            "prompt input document abstract description complaint feedback transcript",
            "mesaj mesaje intrebare intrebari continut propozitie comentariu recenzie descriere cerere reclamatie",
            "sesizare",
        ),
        weak=_names("title subject headline summary titlu subiect rezumat"),
    ),
    "label": _RoleHint(
        shape=_label_shape,
        strong=_names(
            "label labels class category intent target sentiment topic y",
            "eticheta etichete clasa categorie categoria intentie intentia tinta tema sentimentul",
        ),
        weak=_names(
            "type tag kind group outcome decision specialty department emotion",
            "tip tipul grup domeniu specialitate departament emotie decizie rezultat",
        ),
    ),
}

# Columns that describe a row rather than what is to be learnt from it.
_BESIDE_THE_POINT = _names(
    "id ids uuid guid key index idx nr number row line count num date data time timestamp created updated year month",
    "day lang language url link split fold user author username source file filename page country version email phone",
    "limba sursa tara telefon an luna zi autor utilizator",
)
