"""Which column plays which role: a score for every column, with a reason a person can check.

Two things speak for a column: what its cells look like (its shape) and what it is called (its name). A shape
of zero rules a column out whatever its name; among what is left a known name weighs as much as a perfect
shape. Nothing here decides: two columns that score alike are reported as a tie, and the user is asked.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from reglaj.data.roles import ColumnRoles
from reglaj.tasks.columns import (
    ColumnFacts,
    any_shape,
    describe_column,
    label_shape,
    list_shape,
    text_shape,
    turns_shape,
)

ACCEPT = 0.5
"""Least score of a column that is proposed: half a perfect shape, or a name with any possible shape."""
TIE = 0.15
"""Scores closer than this are equally good."""

_WORD_PARTS = re.compile(r"[a-z]+|[A-Z]+(?![a-z])|[A-Z][a-z]*|\d+")


@dataclass(frozen=True, kw_only=True)
class ColumnGuess:
    """How well one column fits one role. A score of 0 means it cannot."""

    role: str
    column: str
    score: float
    reason: str
    is_plain: bool = False
    """Whether the column can hardly be meant for anything else: by its name, or by turns of a conversation."""
    style: str = ""
    """`OpenAI` or `ShareGPT`, where the column holds turns."""
    size: str = ""
    """How many turns, in words."""


@dataclass(frozen=True, kw_only=True)
class _RoleHint:
    """How a role's column is usually called (English and Romanian, without diacritics), and what its cells are like.

    needs_name: texts of any kind have that shape, so only the name tells. holds_turns: a cell is a conversation.
    """

    shape: Callable[[ColumnFacts], tuple[float, str]]
    strong: frozenset[str]
    weak: frozenset[str] = frozenset()
    needs_name: bool = False
    holds_turns: bool = False


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
    for role in roles.source_names:
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
    hint = _HINTS.get(role) or _RoleHint(shape=any_shape, strong=frozenset({role}))
    shape, reason = hint.shape(facts)
    style = facts.turn_style if hint.holds_turns and facts.turns > 0.5 else ""
    if shape == 0:
        return ColumnGuess(role=role, column=facts.name, score=0.0, reason=reason, style=style)
    name = _name_score(facts.name, hint)
    if hint.needs_name and name < 0.4:
        return ColumnGuess(role=role, column=facts.name, score=0.0, reason=f"{reason}; its name says nothing of {role}")
    # A column that is mostly empty can only be meant by its name.
    score = max(0.0, shape * (1.0 if facts.filled_share >= 0.5 else 0.4) + name)
    if facts.filled_share < 0.5:
        reason += f", but {1 - facts.filled_share:.0%} of its cells are empty"
    if name >= 0.4:
        reason += ", and its name says so"
    is_plain = bool(style) or _is_plain(role, name, hint, facts)
    guess = ColumnGuess(role=role, column=facts.name, score=round(score, 3), reason=reason, is_plain=is_plain)
    return replace(guess, style=style, size=f"{facts.mean_turns:.1f} turns on average") if style else guess


def _is_plain(role: str, name: float, hint: _RoleHint, facts: ColumnFacts) -> bool:
    """A column called `answer` whose cells are yes and no may well be a label; one called `completion` is none."""
    if facts.name.strip().casefold() == role:
        return True
    return name == 1.0 and (not hint.needs_name or facts.variety > 0.5)


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


def _names(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


def _other_turns(facts: ColumnFacts) -> tuple[float, str]:
    if facts.name == "conversations" and facts.answered:
        return 0.0, "has a role of its own name"
    return turns_shape(facts)


def _named_turns(facts: ColumnFacts) -> tuple[float, str]:
    shape, reason = turns_shape(facts)
    return (shape, reason) if facts.name == "conversations" else (0.0, reason)


_ANSWERS = _names("completion answer response output reply assistant raspuns raspunsuri iesire")

_HINTS: dict[str, _RoleHint] = {
    "text": _RoleHint(
        shape=text_shape,
        strong=_names(
            "text texts message messages question tweet post comment review sentence utterance query content body",
            "prompt input document abstract description complaint feedback transcript",
            "mesaj mesaje intrebare intrebari continut propozitie comentariu recenzie descriere cerere reclamatie",
            "sesizare",
        ),
        weak=_names("title subject headline summary titlu subiect rezumat"),
    ),
    "label": _RoleHint(
        shape=label_shape,
        strong=_names(
            "label labels class category intent target sentiment topic y",
            "eticheta etichete clasa categorie categoria intentie intentia tinta tema sentimentul",
        ),
        weak=_names(
            "type tag kind group outcome decision specialty department emotion",
            "tip tipul grup domeniu specialitate departament emotie decizie rezultat",
        ),
    ),
    "messages": _RoleHint(
        shape=_other_turns,
        strong=_names("messages message conversation dialog dialogue chat turns mesaje conversatie replici"),
        holds_turns=True,
    ),
    "conversations": _RoleHint(shape=_named_turns, strong=_names("conversations"), holds_turns=True),
    "prompt": _RoleHint(
        shape=text_shape,
        strong=_names("prompt question query input user human request intrebare intrebari cerere intrare"),
        needs_name=True,
    ),
    "completion": _RoleHint(shape=text_shape, strong=_ANSWERS, needs_name=True),
    "instruction": _RoleHint(
        shape=text_shape, strong=_names("instruction instructions instructiune instructiuni"), needs_name=True
    ),
    "output": _RoleHint(shape=text_shape, strong=_ANSWERS, needs_name=True),
    "input": _RoleHint(shape=any_shape, strong=_names("input context intrare"), needs_name=True),
    "system": _RoleHint(shape=any_shape, strong=_names("system systemprompt sistem"), needs_name=True),
    "tools": _RoleHint(shape=list_shape, strong=_names("tools functions instrumente"), needs_name=True),
    "history": _RoleHint(shape=list_shape, strong=_names("history istoric"), needs_name=True),
}

# Columns that describe a row rather than what is to be learnt from it.
_BESIDE_THE_POINT = _names(
    "id ids uuid guid key index idx nr number row line count num date data time timestamp created updated year month",
    "day lang language url link split fold user author username source file filename page country version email phone",
    "limba sursa tara telefon an luna zi autor utilizator",
)
