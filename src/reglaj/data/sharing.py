"""From usable records to parts: what belongs together is joined, a split deals it out, leaks are found and mended.

Legend: N records, M of them still undecided, at `places`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from reglaj.core.errors import user_error
from reglaj.data.belonging import Units, join
from reglaj.data.cleaning import CleanRows
from reglaj.data.evidence import Evidence
from reglaj.data.leakage import BUCKET_OF, Leak, backwards, crossing_units, illustrate, refuse
from reglaj.data.ledger import CODE, UNDECIDED, Columns
from reglaj.data.splits.base import PARTS, Split, SplitRows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.accounting import Accounts
    from reglaj.data.config import DataConfig


class Bonds:
    """What ties records to each other, to a time, and to a part. Each (N,), or None where the recipe names none.

    group, times: see `Evidence`. given: index into `PARTS` that the data name. tied: groups that share a text are one.
    texts: labellings by near-duplicates.
    """

    def __init__(self, columns: Columns, accounts: Accounts, config: DataConfig, evidence: Evidence) -> None:
        self.group = _groups(columns, accounts, config, evidence)
        self.times = _times(columns, accounts, config, evidence)
        self.given = _given(columns, accounts, config, evidence)
        self.tied: NDArray[np.int64] | None = None
        self.texts: list[NDArray[np.int64]] = []

    def look(self, columns: Columns, accounts: Accounts, evidence: Evidence) -> None:
        """Look at the texts, once it is known which records repeat others exactly."""
        self.texts = evidence.near_duplicates(undecided(accounts), len(columns))
        if self.group is not None:
            self.tied = _tied(columns, accounts, self.group)


def undecided(accounts: Accounts) -> NDArray[np.int64]:
    """Records that may still be used, in their order."""
    import numpy as np

    return np.flatnonzero(accounts.bucket == UNDECIDED)


def _groups(columns: Columns, accounts: Accounts, config: DataConfig, evidence: Evidence) -> NDArray[np.int64] | None:
    codes = evidence.group(columns)
    if codes is None:
        return None
    from reglaj.data.splits.checks import check_group_column

    assert config.split.group
    places = undecided(accounts)
    check_group_column(codes[places], config.split.group)
    if missing := int((codes[places] < 0).sum()):
        accounts.notes.append(f"{missing:,} records have no {config.split.group!r}: each of them is a group of its own")
    return codes


def _times(columns: Columns, accounts: Accounts, config: DataConfig, evidence: Evidence) -> NDArray[np.int64] | None:
    """Also drops the few records whose time cannot be read; many of them are an error."""
    import numpy as np

    name = config.split.time
    if name is None:
        return None
    from reglaj.data.splits.checks import check_times
    from reglaj.data.splits.times import NOT_A_TIME, parse_times

    places = undecided(accounts)
    every = evidence.cells(name)
    cells = [every[place] for place in places.tolist()]
    times = parse_times(cells)
    check_times(cells, times, lambda row: accounts.place(columns, int(places[row])), name)
    lost = times == NOT_A_TIME
    accounts.bucket[places[lost]] = CODE["no_time"]
    whole = np.full(len(columns), NOT_A_TIME, dtype=np.int64)
    whole[places] = times
    return whole


def _given(columns: Columns, accounts: Accounts, config: DataConfig, evidence: Evidence) -> NDArray[np.int8] | None:
    import numpy as np

    if config.split.kind != "given":
        return None
    if config.split.column is None:
        return evidence.given_parts(columns)
    from reglaj.data.splits.given import parts_of_cells

    places = undecided(accounts)
    every = evidence.cells(config.split.column)
    whole = np.full(len(columns), -1, dtype=np.int8)
    cells = [every[place] for place in places.tolist()]
    whole[places] = parts_of_cells(cells, config.split.column, lambda row: accounts.place(columns, int(places[row])))
    return whole


def _tied(columns: Columns, accounts: Accounts, group: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) a number for groups that belong together because a text stands in several; -1 for records left out before.

    Of such a text one record is kept: whichever it is, it binds the groups of all.
    """
    import numpy as np

    alive = np.flatnonzero((accounts.bucket == UNDECIDED) | (accounts.bucket == CODE["exact_duplicate"]))
    tied = np.full(len(columns), -1, dtype=np.int64)
    tied[alive] = join(columns.exact[alive], [group[alive]]).number
    return tied


def unit_numbers(columns: Columns, places: NDArray[np.int64], split: Split, config: DataConfig, bonds: Bonds) -> Units:
    """The units that must not be torn: where the split is ours, near-duplicates and groups; else folded texts alone."""
    labellings = []
    if split.is_ours or config.split.kind == "given":  # validation that is carved out of a given train is ours
        if config.leakage != "report":
            labellings += [labelling[places] for labelling in bonds.texts]
        if bonds.tied is not None:
            labellings.append(bonds.tied[places])
    units = join(columns.folded[places], labellings)
    if units.count == 1:
        raise user_error(
            f"all {len(places):,} usable records belong together",
            allowed="at least three records that are independent of each other",
            why="nearly equal texts, and records of one group, stay in one part: the other parts would be empty",
            remedy="raise data.near_duplicates.threshold (null compares texts after folding only), choose another "
            "data.split.group, or add other data",
            where="data",
        )
    return units


def deal(
    columns: Columns, accounts: Accounts, config: DataConfig, split: Split, bonds: Bonds, evidence: Evidence
) -> list[Leak]:
    """Give every undecided record its part, and return the leakage that there was, mended as the recipe says.

    Raises `GateRefused` where there is leakage and the recipe says `stop`.
    """
    import numpy as np

    places = undecided(accounts)
    units = unit_numbers(columns, places, split, config, bonds)
    accounts.num_units = units.count
    accounts.num_folded_texts = join(columns.folded[places], []).count
    has_labels = bool(columns.label_names)
    labels = columns.label[places] if has_labels else np.zeros(len(places), dtype=np.int64)
    names = columns.label_names if has_labels else [""]
    learnt, details = evidence.seen(places, "earlier_run")
    pinned = _pinned(units, np.isin(places, learnt)) if split.is_ours and config.leakage != "report" else None
    if pinned is not None:
        _note_pinned(accounts, pinned, evidence)
    rows = SplitRows(
        hashes=units.hashes,
        groups=units.number,
        labels=labels,
        label_names=names,
        times=None if bonds.times is None else bonds.times[places],
        given=None if bonds.given is None else bonds.given[places],
        pinned=pinned,
    )
    parts = split.assign(rows, config.split)
    accounts.bucket[places] = np.where(parts < 0, CODE["rare_label"], parts)
    is_carved = rows.given is not None and not (rows.given == CODE["validation"]).any()
    if is_carved:
        count = int((parts == CODE["validation"]).sum())
        accounts.notes.append(f"no record is given as validation: {count:,} are taken from train, by chance")
    leaks = _leaks(columns, accounts, places, bonds, is_carved=is_carved)
    outside = accounts.bucket[learnt] != CODE["train"]
    if outside.any():
        kept = np.flatnonzero(outside & (accounts.bucket[learnt] < len(PARTS)))
        twins = np.full(len(kept), -1, dtype=np.int64)
        leaks.append(Leak(kind="earlier_run", rows=learnt[kept], twins=twins, details=[details[i] for i in kept]))
    return [leak for leak in leaks if len(leak.rows)]


def _pinned(units: Units, seen: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    import numpy as np

    if not seen.any():
        return None
    return np.isin(units.number, units.number[seen])


def _note_pinned(accounts: Accounts, pinned: NDArray[np.bool_], evidence: Evidence) -> None:
    """Say how much an earlier run binds. Raises `UserError` where it has learnt from everything."""
    names = " and ".join(other.name for other in evidence.others if other.kind == "earlier_run")
    if pinned.all():
        raise user_error(
            f"every usable record nearly repeats one of {names}",
            allowed="records that the run which this one starts from has not learnt from",
            why="validation and test would show what it remembers",
            remedy="add new data, or start from another model",
            where="model",
        )
    accounts.notes.append(f"{int(pinned.sum()):,} records are in train because they belong with {names}")


def _leaks(
    columns: Columns, accounts: Accounts, places: NDArray[np.int64], bonds: Bonds, *, is_carved: bool
) -> list[Leak]:
    """What crosses parts, kind by kind; a record that leaks in several ways is counted in each.

    is_carved: validation was taken from a given train by chance, so that time says nothing between these two.
    """
    import numpy as np

    parts = np.where(accounts.bucket[places] < len(PARTS), accounts.bucket[places], -1).astype(np.int8)
    near = join(columns.folded[places], [labelling[places] for labelling in bonds.texts])
    found = [crossing_units("near_duplicate", places, near.number, parts)]
    folded = join(columns.folded[places], [])
    same = crossing_units("contradictory_label", places, folded.number, parts)
    if same is not None:
        differs = columns.label[same.rows] != columns.label[same.twins]
        found.append(replace(same, rows=same.rows[differs], twins=same.twins[differs]))
    if bonds.group is not None:
        found.append(crossing_units("group", places, bonds.group[places], parts))
    if bonds.times is not None:
        sides = np.where(is_carved & (parts == CODE["validation"]), CODE["train"], parts)
        found.append(backwards(places, bonds.times[places], sides))
    return [leak for leak in found if leak is not None and len(leak.rows)]


def mend(columns: Columns, accounts: Accounts, config: DataConfig, leaks: list[Leak], evidence: Evidence) -> None:
    """Drop what leaks, refuse it, or leave it and say so."""
    illustrate(
        leaks,
        accounts.part_name,
        lambda record: accounts.place(columns, record),
        evidence.texts_at,
    )
    if config.leakage == "stop":
        refuse(leaks)
    for leak in leaks:
        if config.leakage == "report":
            leak.fate = "left as they are: data.leakage is report"
            continue
        is_kept = accounts.bucket[leak.rows] < len(PARTS)
        accounts.bucket[leak.rows[is_kept]] = CODE[BUCKET_OF[leak.kind]]
        accounts.twin[leak.rows[is_kept]] = leak.twins[is_kept]
        leak.fate = f"dropped as {BUCKET_OF[leak.kind]}"
    accounts.leaks += leaks


def clean(columns: Columns, accounts: Accounts, evidence: Evidence) -> None:
    """Take out of train and validation what the cleaner names. The test is not looked at."""
    import numpy as np

    if evidence.cleaner is None:
        return
    places = np.flatnonzero((accounts.bucket == CODE["train"]) | (accounts.bucket == CODE["validation"]))
    staged = evidence.staging.texts(places, evidence.views["whole"])
    texts = [text for batch in staged for text in batch]
    has_labels = bool(columns.label_names)
    labels = [columns.label_names[code] for code in columns.label[places].tolist()] if has_labels else None
    found = evidence.cleaner.drop(CleanRows(texts=texts, labels=labels), evidence.console)
    for bucket, mask in found.items():
        rows = places[mask]
        accounts.bucket[rows[accounts.bucket[rows] < len(PARTS)]] = CODE[bucket]
