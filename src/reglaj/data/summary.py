"""The report of a data folder, as one JSON document. Counts are records."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from reglaj.data.accounting import Accounts
from reglaj.data.clusters import describe_clusters
from reglaj.data.config import DataConfig
from reglaj.data.evidence import Evidence
from reglaj.data.folding import fold
from reglaj.data.ledger import BUCKETS, CODE, REASONS, Columns
from reglaj.data.roles import ColumnRoles
from reglaj.data.splits.base import PARTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_LOOK_ALIKES = 20


def summarise(
    columns: Columns,
    accounts: Accounts,
    sources: list[dict[str, Any]],
    roles: ColumnRoles,
    evidence: Evidence,
    kept: str,
) -> dict[str, Any]:
    """Where the records went, per part and label and source, and what a user should know.

    kept: a sentence on what the split keeps together.
    """
    counts, config = accounts.counts(), evidence.config
    dropped = {name: counts[name] for name in REASONS if counts[name]}
    report = {
        "read": len(columns),
        **{part: counts[part] for part in PARTS},
        "dropped": dropped,
        "labels": _labels(columns, accounts) if roles.target else {},
        "lengths": _lengths(columns, accounts, roles),
        "sources": [source | _source_counts(columns, accounts, place) for place, source in enumerate(sources)],
        "split": config.split.model_dump(mode="json")
        | {"distinct_folded_texts": accounts.num_folded_texts, "units": accounts.num_units, "kept": kept},
        "leakage": {
            "policy": config.leakage,
            "records": len({row for leak in accounts.leaks for row in leak.rows.tolist()}),
            "found": [leak.facts() for leak in accounts.leaks],
        },
        "near_duplicates": describe_clusters(accounts, evidence),
        "contradictory_texts": accounts.num_contradictory_texts,
        "notes": _notes(columns, accounts, sources, config),
        "test_hash": _test_hash(columns, accounts),
    }
    assert report["read"] == sum(counts[part] for part in PARTS) + sum(dropped.values())
    return report


def _labels(columns: Columns, accounts: Accounts) -> dict[str, dict[str, int]]:
    """Part to label to records; labels in the order of their names."""
    found = {}
    for part in PARTS:
        counts = _count(columns.label[accounts.bucket == CODE[part]], len(columns.label_names))
        found[part] = {name: count for name, count in zip(columns.label_names, counts, strict=True) if count}
    return found


def _count(values: NDArray[Any], size: int) -> list[int]:
    import numpy as np

    counts: list[int] = np.bincount(values, minlength=size).tolist()
    return counts


def _lengths(columns: Columns, accounts: Accounts, roles: ColumnRoles) -> dict[str, dict[str, float]]:
    """Characters of the texts that are used, by role."""
    import numpy as np

    used = columns.length[accounts.bucket < len(PARTS)]
    found = {}
    for place, role in enumerate(roles.inputs[: used.shape[1]]):
        low, middle, high, top = np.percentile(used[:, place], [0, 50, 95, 100]).tolist()
        mean = float(used[:, place].mean())
        figures = {"min": low, "median": middle, "mean": mean, "p95": high, "max": top}
        found[role] = {name: round(value, 1) for name, value in figures.items()}
    return found


def _source_counts(columns: Columns, accounts: Accounts, source: int) -> dict[str, Any]:
    counts = _count(accounts.bucket[columns.source == source], len(BUCKETS))
    by_name = dict(zip(BUCKETS, counts, strict=True))
    return {
        "read": sum(counts),
        **{part: by_name[part] for part in PARTS},
        "dropped": {name: by_name[name] for name in REASONS if by_name[name]},
    }


def _notes(columns: Columns, accounts: Accounts, sources: list[dict[str, Any]], config: DataConfig) -> list[str]:
    notes = [f"{source['name']}: {note}" for source in sources for note in source["notes"]]
    notes += accounts.notes
    if accounts.num_contradictory_texts:
        is_kept = config.contradictory_labels == "keep"
        fate = "one record per label is kept" if is_kept else "all of their records are dropped"
        notes.append(f"{accounts.num_contradictory_texts:,} texts occur under different labels; {fate}")
    return notes + _look_alikes(columns, accounts)


def _look_alikes(columns: Columns, accounts: Accounts) -> list[str]:
    """Labels that differ only by case, white space or Unicode form: usually one label, typed in two ways."""
    used = set(columns.label[accounts.bucket < len(PARTS)].tolist())
    used |= set(columns.label[accounts.bucket == CODE["rare_label"]].tolist())
    groups: dict[str, list[str]] = {}
    for code in sorted(used - {-1}):
        groups.setdefault(fold(columns.label_names[code]), []).append(columns.label_names[code])
    alike = [names for names in groups.values() if len(names) > 1]
    notes = [
        f"the labels {', '.join(map(repr, names))} differ only by case or white space, and count as {len(names)} labels"
        for names in alike[:_MAX_LOOK_ALIKES]
    ]
    if len(alike) > _MAX_LOOK_ALIKES:
        notes.append(f"{len(alike) - _MAX_LOOK_ALIKES:,} more groups of labels look alike")
    return notes


def _test_hash(columns: Columns, accounts: Accounts) -> str:
    """SHA-256 over the sorted (text digest, label) of the test rows."""
    import numpy as np

    places = np.flatnonzero(accounts.bucket == CODE["test"])
    names = [hashlib.sha256(name.encode()).digest() for name in columns.label_names] + [b""]
    texts = np.ascontiguousarray(columns.exact[places])
    labels = columns.label[places].tolist()
    rows = sorted(text.tobytes() + names[label] for text, label in zip(texts, labels, strict=True))
    return hashlib.sha256(b"".join(rows)).hexdigest()
