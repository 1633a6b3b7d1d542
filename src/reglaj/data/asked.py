"""What a recipe asks of its split: keys that belong together, and the kind that they mean."""

from __future__ import annotations

from reglaj.core.errors import Problem, UserError, unknown_name
from reglaj.data.config import DataConfig
from reglaj.data.splits import SPLITS

_KEYS_OF = {"time": ("time", "given", "auto"), "column": ("given", "auto")}
"""Keys of `data.split` that only some kinds read."""


def check_split(config: DataConfig) -> None:
    """Raise `UserError` with every key of the split that is missing, or that its kind would not read."""
    if config.split.kind not in SPLITS and config.split.kind != "auto":
        raise unknown_name("split", config.split.kind, [*SPLITS.names(), "auto"], where="data.split.kind")
    problems = [*_unread(config), *_missing(config), *_parts_of_sources(config)]
    if config.split.kind in SPLITS:
        problems += SPLITS.get(config.split.kind).check(config.split)
    if problems:
        raise UserError(*problems)


def kind_asked_for(config: DataConfig) -> tuple[str, str] | None:
    """The kind of split that `auto` stands for where other keys say it already, and why; None where it is open."""
    split = config.split
    if split.column or any(source.part for source in config.sources):
        return "given", "split as given: the data say which part a record is in"
    if split.time:
        return "time", f"split by time: data.split.time names the column {split.time!r}"
    if split.group:
        return "group", f"split by group: data.split.group names {split.group!r}, whose records stay in one part"
    return None


def _unread(config: DataConfig) -> list[Problem]:
    split = config.split
    return [
        Problem(
            where=f"data.split.{key}",
            given=f"{getattr(split, key)!r} with the kind {split.kind}",
            allowed=f"this key with the kinds {', '.join(kinds)}",
            why="the split would not read it",
            remedy=f"set data.split.kind to {kinds[0]}, or remove the key",
        )
        for key, kinds in _KEYS_OF.items()
        if getattr(split, key) is not None and split.kind in SPLITS and split.kind not in kinds
    ]


def _missing(config: DataConfig) -> list[Problem]:
    split = config.split
    needs = SPLITS.get(split.kind, where="data.split.kind").needs if split.kind != "auto" else None
    if needs is None or getattr(split, needs) is not None:
        return []
    has_parts = all(source.part for source in config.sources)
    if split.kind == "given" and any(source.part for source in config.sources):
        return []  # sources without a part are a problem of their own
    if split.kind == "given" and has_parts:
        return []
    also = ", or data.sources[].part for separate files" if split.kind == "given" else ""
    return [
        Problem(
            where=f"data.split.{needs}",
            given=f"nothing, with the kind {split.kind}",
            allowed="the name of a column of the sources" + also,
            why=f"without it there is nothing to split by {split.kind}",
            remedy=f"name it: data.split.{needs}=COLUMN",
        )
    ]


def _parts_of_sources(config: DataConfig) -> list[Problem]:
    named = [source for source in config.sources if source.part]
    if not named:
        return []
    where, split = "data.sources[].part", config.split
    if split.kind not in ("given", "auto"):
        return [
            Problem(
                where=where,
                given=f"{named[0].part} for {named[0].path!r}, with the kind {split.kind}",
                allowed="parts of sources with data.split.kind: given",
                why="another split would deal their records out anew",
                remedy="set data.split.kind=given, or remove `part`",
            )
        ]
    problems = []
    if split.column:
        problems.append(
            Problem(
                where=where,
                given=f"parts of sources beside data.split.column: {split.column}",
                allowed="one of the two",
                why="they may contradict each other",
                remedy="remove one of them",
            )
        )
    bare = [source.path for source in config.sources if not source.part]
    parts = {source.part for source in named}
    if bare:
        problems.append(
            Problem(
                where=where,
                given=f"no part for {', '.join(bare)}",
                allowed="a part for every source, or for none",
                why="its records would have no part",
                remedy="name train, validation or test for each",
            )
        )
    problems += [
        Problem(
            where=where,
            given=f"no source for {part}",
            allowed="sources for train and test; validation is taken from train where it has none",
            why="the part would be empty",
            remedy=f"name a source for {part}, or let us split (remove `part`)",
        )
        for part in ("train", "test")
        if part not in parts
    ]
    return problems
