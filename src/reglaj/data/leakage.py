"""The leakage gate: what lies in two parts and may not, and what becomes of it.

Where the split is ours to make, units stay whole and nothing crosses. Where it is not (time, hash, given), the member
in the earlier part is dropped, so that no row changes its side. Legend: M records that were shared out, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reglaj.core.errors import GateRefused, Problem
from reglaj.data.splits.base import PARTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_EXAMPLES = 5
# Kind of leakage to the ledger's bucket of what is dropped for it, and to words for it.
BUCKET_OF = {
    "near_duplicate": "near_duplicate_across_parts",
    "contradictory_label": "near_duplicate_across_parts",
    "group": "group_across_parts",
    "time": "time_across_parts",
    "evaluation_set": "contaminated",
    "earlier_run": "near_duplicate_across_parts",
}
WORDS = {
    "near_duplicate": "records nearly repeat one in a later part",
    "contradictory_label": "records repeat a text of a later part under another label",
    "group": "records share their group with one in a later part",
    "time": "records are later than the first one of a later part",
    "evaluation_set": "records nearly repeat a text of an evaluation set",
    "earlier_run": "records outside train were learnt from by the run that this one starts from",
}


@dataclass(kw_only=True)
class Leak:
    """One kind of leakage. rows: (L,) records that are dropped for it under `repair`; twins: (L,) what each leaks into
    (a record, or -1). fate: what became of them."""

    kind: str
    rows: NDArray[np.int64]
    twins: NDArray[np.int64]
    details: list[str] = field(default_factory=list)
    fate: str = ""
    examples: list[dict[str, Any]] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """For the report."""
        words = WORDS[self.kind]
        return {"kind": self.kind, "count": len(self.rows), "what": words, "fate": self.fate, "examples": self.examples}


def crossing_units(
    kind: str, places: NDArray[np.int64], number: NDArray[np.int64], parts: NDArray[np.int8]
) -> Leak | None:
    """Records whose unit has a member in a later part, with that member as their twin.

    places: (M,) records. number: (M,) unit of each, negative for none. parts: (M,) index into `PARTS`, -1 for none.
    """
    import numpy as np

    at = np.flatnonzero((number >= 0) & (parts >= 0))
    order = at[np.lexsort((places[at], -parts[at].astype(np.int64), number[at]))]  # the latest part comes first
    starts = np.ones(len(order), dtype=bool)
    starts[1:] = number[order][1:] != number[order][:-1]
    witness = order[starts][np.cumsum(starts) - 1]
    leaks = parts[order] < parts[witness]
    rows, twins = places[order[leaks]], places[witness[leaks]]
    if not len(rows):
        return None
    by_place = np.argsort(rows, kind="stable")
    return Leak(kind=kind, rows=rows[by_place], twins=twins[by_place])


def backwards(places: NDArray[np.int64], times: NDArray[np.int64], parts: NDArray[np.int8]) -> Leak | None:
    """Records that are later than the first one of a later part. times: (M,) microseconds."""
    import numpy as np

    found: list[NDArray[np.int64]] = []
    witnesses: list[NDArray[np.int64]] = []
    for part in (1, 0):
        later = np.flatnonzero(parts > part)
        if not len(later):
            continue
        first = later[times[later].argmin()]
        rows = np.flatnonzero((parts == part) & (times > times[first]))
        found.append(places[rows])
        witnesses.append(np.full(len(rows), places[first], dtype=np.int64))
    if not sum(map(len, found)):
        return None
    return Leak(kind="time", rows=np.concatenate(found), twins=np.concatenate(witnesses))


def refuse(leaks: Sequence[Leak]) -> None:
    """Raises `GateRefused` with every kind of leakage, its count and examples, where there is any."""
    if not leaks:
        return
    raise GateRefused(
        *(
            Problem(
                where="data.leakage",
                given=f"{len(leak.rows):,} {WORDS[leak.kind]}" + _shown(leak),
                allowed="parts that share no near-duplicate, group or evaluation text, and run forward in time",
                why="a figure of such a test says more about memory than about new data",
                remedy=_remedy(leak),
            )
            for leak in leaks
        )
    )


def _remedy(leak: Leak) -> str:
    repaired = f"`data.leakage=repair` drops them, counted as {BUCKET_OF[leak.kind]}; `report` only counts them"
    if leak.kind in ("evaluation_set", "earlier_run"):
        return repaired
    ours = "let us split: remove `part` of the sources or data.split.column, and leave data.split.kind at auto"
    return f"{repaired} (of two the one in the earlier part goes); or {ours}"


def _shown(leak: Leak) -> str:
    told = [
        f"{one['place']} ({one['part']}), {one['text']!r}" + (f", and {one['other']}" if one["other"] else "")
        for one in leak.examples
    ]
    return ", such as " + "; ".join(told) if told else ""


def illustrate(
    leaks: Sequence[Leak],
    part_of: Callable[[int], str],
    place_of: Callable[[int], str],
    texts_of: Callable[[Sequence[int]], dict[int, str]],
) -> None:
    """Give each leak its examples. What lies in test is named by its place and never quoted."""
    wanted = {int(row) for leak in leaks for row in leak.rows[:MAX_EXAMPLES]}
    texts = texts_of(sorted(wanted))
    for leak in leaks:
        for index, row in enumerate(leak.rows[:MAX_EXAMPLES].tolist()):
            twin = int(leak.twins[index]) if index < len(leak.twins) else -1
            other = f"{place_of(twin)} ({part_of(twin)})" if twin >= 0 else ""
            if index < len(leak.details):
                other = leak.details[index]
            is_sealed = part_of(row) == PARTS[2]
            text = "(a row of the sealed test)" if is_sealed else texts.get(row, "")
            leak.examples.append({"part": part_of(row), "place": place_of(row), "text": text, "other": other})
