"""What the report says of near-duplicates: how many, how large, and what is in the largest."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from reglaj.data.accounting import Accounts
from reglaj.data.evidence import Evidence
from reglaj.data.ledger import CODE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.relations import NearDuplicates

_LARGEST = 8
_TEXTS = 4
_CONTAINED = 5
_SHARE_OF_ALL = 0.1
"""A cluster that holds more of the records than this is worth a note: boilerplate or a low threshold chains texts."""


def describe_clusters(accounts: Accounts, evidence: Evidence) -> dict[str, Any] | None:
    """Clusters over the records that were compared, those of all ways to compare them together; None where none were.

    Texts of the sealed test are not quoted.
    """
    if not evidence.near:
        return None
    config = evidence.config.near_duplicates
    places, first = evidence.near["whole"]
    largest, sizes = _largest(places, first.cluster, accounts, evidence)
    report: dict[str, Any] = {
        "threshold": config.threshold if config else None,
        "compared": len(places),
        "clusters": sum(sizes.values()),
        "records": sum(size * count for size, count in sizes.items()),
        "pairs": len(first.pairs),
        "sizes": {str(size): sizes[size] for size in sorted(sizes)},
        "largest": largest,
        "contained": _contained(places, first, accounts, evidence),
    }
    for name, (ours, found) in evidence.near.items():
        if name != "whole":
            _, more = _largest(ours, found.cluster, accounts, evidence, quote=False)
            report[f"by_{name}"] = {
                "clusters": sum(more.values()),
                "records": sum(size * count for size, count in more.items()),
                "largest": max(more, default=1),
            }
        note_large(ours, found.cluster, name, accounts)
    return report


def kept_together(evidence: Evidence) -> str:
    """How many near-duplicates there are, for the sentence about a split that keeps them together; empty for none."""
    import numpy as np

    found = [np.bincount(near.cluster, minlength=1) for _, near in evidence.near.values()]
    records = max((int(sizes[sizes > 1].sum()) for sizes in found), default=0)
    if not records:
        return ""
    fate = "may be torn apart" if evidence.config.leakage == "report" else "stay with them"
    return f"{records:,} records that nearly repeat others {fate}"


def note_large(places: NDArray[np.int64], cluster: NDArray[np.int64], view: str, accounts: Accounts) -> None:
    """Say where one cluster holds a good part of everything: it moves as one."""
    import numpy as np

    size = int(np.bincount(cluster, minlength=1).max()) if len(cluster) else 0
    if size > 10 and size > _SHARE_OF_ALL * len(places):
        what = "by their questions, " if view == "question" else ""
        accounts.notes.append(
            f"{what}{size:,} of {len(places):,} records are one cluster of near-duplicates, which stays in one part: "
            "boilerplate that all of them share, or a low data.near_duplicates.threshold, chains texts"
        )


def _largest(
    places: NDArray[np.int64],
    cluster: NDArray[np.int64],
    accounts: Accounts,
    evidence: Evidence,
    *,
    quote: bool = True,
) -> tuple[list[dict[str, Any]], dict[int, int]]:
    """The largest clusters with a few of their texts, and how many clusters there are of each size from 2 on."""
    import numpy as np

    sizes = np.bincount(cluster, minlength=len(cluster))
    counted = Counter(sizes[sizes > 1].tolist())
    order = np.argsort(-sizes, kind="stable")[:_LARGEST]
    members = {int(c): np.flatnonzero(cluster == c) for c in order if sizes[c] > 1} if quote else {}
    sealed = accounts.bucket[places] == CODE["test"]
    shown = {c: [row for row in rows.tolist() if not sealed[row]][:_TEXTS] for c, rows in members.items()}
    texts = evidence.texts_at(sorted(int(places[row]) for rows in shown.values() for row in rows))
    largest = [
        {"size": len(rows), "texts": [texts[int(places[row])] for row in shown[c]]} for c, rows in members.items()
    ]
    return largest, dict(counted)


def _contained(
    places: NDArray[np.int64], found: NearDuplicates, accounts: Accounts, evidence: Evidence
) -> dict[str, Any]:
    sealed = accounts.bucket[places] == CODE["test"]
    chosen = [pair for pair in found.contained.tolist() if not (sealed[pair[0]] or sealed[pair[1]])][:_CONTAINED]
    texts = evidence.texts_at(sorted({int(places[row]) for pair in chosen for row in pair}))
    examples = [{"inner": texts[int(places[a])], "outer": texts[int(places[b])]} for a, b in chosen]
    parts = accounts.bucket[places]
    across = sum(1 for a, b in found.contained.tolist() if parts[a] < 3 and parts[b] < 3 and parts[a] != parts[b])
    return {"count": len(found.contained), "across_parts": across, "examples": examples}
