"""What the cells of a column look like, and how well that suits a role: the shape that a guess starts from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from reglaj.data.formats import turn_facts

_NUMBER = re.compile(r"^[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?$")
_WHOLE = re.compile(r"^[-+]?\d+([.,]0+)?$")
_DATE = re.compile(r"^(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})([T ].*)?$")
_ADDRESS = re.compile(r"^(https?://|www\.)\S+$")


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
    turns: float
    """Share of lists of turns of a conversation."""
    answered: float
    """Share of cells whose last turn is the assistant's."""
    turn_style: str
    """`OpenAI` or `ShareGPT`, as most of these are; empty where there are none."""
    mean_turns: float
    commonest: str
    is_complete: bool
    """Whether these are all cells of the column, not the first ones of a longer file."""

    @property
    def repeats(self) -> float:
        """How often a value occurs on average."""
        return self.filled / self.distinct if self.distinct else 0.0

    @property
    def variety(self) -> float:
        """Different values among the cells."""
        return self.distinct / self.filled if self.filled else 0.0


def describe_column(name: str, cells: Iterable[str | None], *, is_complete: bool = True) -> ColumnFacts:
    """The facts of one column."""
    every = list(cells)
    filled = [cell.strip() for cell in every if cell and cell.strip()]
    count = len(filled)
    values = Counter(filled)

    def share(fits: Callable[[str], object]) -> float:
        return sum(n for value, n in values.items() if fits(value)) / count if count else 0.0

    lists = share(lambda value: (value[0], value[-1]) in (("[", "]"), ("{", "}")))
    found = [facts for facts in map(turn_facts, filled) if facts] if lists > 0.5 else []
    styles = Counter(facts.style for facts in found)
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
        lists=lists,
        turns=len(found) / count if count else 0.0,
        answered=sum(facts.is_answered for facts in found) / count if count else 0.0,
        turn_style=styles.most_common(1)[0][0] if styles else "",
        mean_turns=sum(facts.turns for facts in found) / len(found) if found else 0.0,
        commonest=values.most_common(1)[0][0] if values else "",
        is_complete=is_complete,
    )


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


def text_shape(facts: ColumnFacts) -> tuple[float, str]:
    """For texts: they differ, and have several words."""
    if reason := _unusable(facts):
        return 0.0, reason
    if facts.numbers > 0.8:
        return 0.0, "holds numbers, not texts"
    if facts.distinct == 1 and facts.filled > 1:
        return 0.0, f"always says {_short(facts.commonest)}"
    amount = "nearly all different" if facts.variety > 0.9 else f"{facts.distinct:,} of {facts.filled:,} different"
    score = min(1.0, facts.variety / 0.5) * min(1.0, max(0.15, (facts.words - 1) / 3))
    return score, f"holds texts of {facts.characters:.0f} characters on average, {amount}"


def label_shape(facts: ColumnFacts) -> tuple[float, str]:
    """For names of classes: short, and repeated."""
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


def turns_shape(facts: ColumnFacts) -> tuple[float, str]:
    """For whole conversations: lists of turns, with answers among them."""
    if not facts.filled:
        return 0.0, "is empty"
    if facts.turns <= 0.5:
        return 0.0, f"holds {'lists' if facts.lists > 0.5 else 'single values'}, not lists of turns"
    if not facts.answered:
        return 0.0, f"holds {facts.turn_style} turns, and no conversation ends with an answer"
    return 1.0, f"holds {facts.turn_style} turns, {facts.mean_turns:.1f} on average"


def list_shape(facts: ColumnFacts) -> tuple[float, str]:
    """For lists and objects."""
    if not facts.filled:
        return 0.0, "is empty"
    return (0.5, "holds lists") if facts.lists > 0.5 else (0.0, "holds no lists")


def any_shape(facts: ColumnFacts) -> tuple[float, str]:
    """For what only its name tells."""
    return (0.0, "is empty") if not facts.filled else (0.1, f"holds {facts.distinct:,} different values")


def _short(text: str, limit: int = 40) -> str:
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
