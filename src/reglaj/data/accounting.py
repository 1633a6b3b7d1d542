"""Which bucket each record ends in, once all are known: filtered, duplicate, contradictory, rare, or one of the parts.

Legend: N records, M records that are still undecided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reglaj.core.errors import UserError, listing, user_error
from reglaj.data.comparing import compare, exclude
from reglaj.data.config import DataConfig
from reglaj.data.evidence import Evidence
from reglaj.data.folding import group_numbers
from reglaj.data.leakage import Leak
from reglaj.data.ledger import BUCKETS, CODE, REASONS, UNDECIDED, Columns
from reglaj.data.sharing import Bonds, clean, deal, mend, undecided
from reglaj.data.splits.base import PARTS, Split, check_parts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass
class Accounts:
    """The final ledger.

    bucket: (N,) codes into `BUCKETS`. twin: (N,) the record that a duplicate, contradictory or leaking one is compared
    with, else -1. label_texts: distinct folded texts of each label, by its index, before rare labels were dropped.
    leaks: what the leakage gate found. contaminated: record to the evaluation text that it nearly repeats.
    """

    bucket: NDArray[np.int8]
    twin: NDArray[np.int64]
    label_texts: NDArray[np.int64]
    num_contradictory_texts: int = 0
    num_folded_texts: int = 0
    num_units: int = 0
    notes: list[str] = field(default_factory=list)
    leaks: list[Leak] = field(default_factory=list)
    contaminated: dict[int, str] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Records of each bucket, in the order of `BUCKETS`."""
        import numpy as np

        found = np.bincount(self.bucket, minlength=len(BUCKETS)).tolist()
        return dict(zip(BUCKETS, found, strict=True))

    def part_name(self, record: int) -> str:
        """The part that a record is in, or that it is in none."""
        code = int(self.bucket[record])
        return PARTS[code] if 0 <= code < len(PARTS) else "in no part" if code < 0 else "dropped"

    def place(self, columns: Columns, record: int) -> str:
        """Line and source of a record."""
        return f"line {columns.line[record]} of {self.sources[columns.source[record]]}"


def account(
    columns: Columns, config: DataConfig, split: Split, evidence: Evidence, *, sources: list[str], has_labels: bool
) -> Accounts:
    """Decide every record. Raises `UserError` when too little is left, `GateRefused` where leakage is not allowed.

    The order matters and is: filtered, no time, contradictory and duplicate, contaminated, rare label, split, leakage,
    cleaning.
    A label that is left out contradicts nothing; a duplicate does not make its label less rare; what is cleaned away
    was not in the test.
    """
    import numpy as np

    accounts = Accounts(
        bucket=columns.bucket.copy(),
        twin=np.full(len(columns), -1, dtype=np.int64),
        label_texts=np.zeros(len(columns.label_names), dtype=np.int64),
        sources=sources,
    )
    exclude(columns, accounts, config.exclude_labels)
    if not (accounts.bucket == UNDECIDED).any():
        raise _nothing_left(columns, accounts, config, has_labels=has_labels)
    bonds = Bonds(columns, accounts, config, evidence)
    compare(columns, accounts, bonds, keep_contradictions=config.contradictory_labels == "keep")
    if not (accounts.bucket == UNDECIDED).any():
        raise _nothing_left(columns, accounts, config, has_labels=has_labels)
    _decontaminate(columns, accounts, config, evidence)
    bonds.look(columns, accounts, evidence)
    if has_labels and split.needs_labels:
        _refuse_one_class(columns, accounts)
        _drop_rare(columns, accounts, config.min_label_rows)
    leaks = deal(columns, accounts, config, split, bonds, evidence)
    mend(columns, accounts, config, leaks, evidence)
    if has_labels:
        _settle_labels(columns, accounts, split)
    clean(columns, accounts, evidence)
    if has_labels and evidence.cleaner:
        _refuse_cleaned_labels(columns, accounts)
    _check(columns, accounts, config, has_labels=has_labels)
    counts = accounts.counts()
    assert sum(counts.values()) == len(columns), "every record is in exactly one bucket"
    return accounts


def _decontaminate(columns: Columns, accounts: Accounts, config: DataConfig, evidence: Evidence) -> None:
    """Records that nearly repeat a text of an evaluation set of the user's."""
    import numpy as np

    rows, names = evidence.seen(undecided(accounts), "evaluation_set")
    if not len(rows):
        return
    leak = Leak(kind="evaluation_set", rows=rows, twins=np.full(len(rows), -1, dtype=np.int64), details=names)
    mend(columns, accounts, config, [leak], evidence)
    if config.leakage != "report":
        accounts.contaminated = dict(zip(rows.tolist(), names, strict=True))
    if not (accounts.bucket == UNDECIDED).any():
        raise user_error(
            "every usable record nearly repeats a text of data.decontaminate",
            allowed="evaluation sets that are not the data themselves",
            why="nothing is left to learn from",
            remedy="check the files under data.decontaminate",
            where="data.decontaminate",
        )


def _settle_labels(columns: Columns, accounts: Accounts, split: Split) -> None:
    """Labels that only a later part has cannot be learnt: by a given split that is an error, else they are rare."""
    import numpy as np

    if split.needs_labels:
        return
    if split.needs == "column":
        from reglaj.data.splits.checks import check_given_labels

        kept = accounts.bucket < len(PARTS)
        dropped = listing(f"{len(leak.rows):,} {leak.kind}" for leak in accounts.leaks)
        told = dropped if accounts.leaks else ""
        check_given_labels(columns.label[kept], accounts.bucket[kept], columns.label_names, told)
        accounts.notes += _labels_missing_in(columns, accounts)
        return
    learnt = np.unique(columns.label[accounts.bucket == CODE["train"]])
    lost = (accounts.bucket < len(PARTS)) & ~np.isin(columns.label, learnt)
    if lost.any():
        names = [columns.label_names[code] for code in np.unique(columns.label[lost]).tolist()]
        accounts.bucket[lost] = CODE["rare_label"]
        accounts.notes.append(
            f"{int(lost.sum()):,} records of validation and test have labels that train lacks, and are left out as "
            f"rare_label: {listing(names, 8)}"
        )


def _labels_missing_in(columns: Columns, accounts: Accounts) -> Iterator[str]:
    """A note for each given part that lacks labels which train has: its figures say nothing about them."""
    import numpy as np

    learnt = np.unique(columns.label[accounts.bucket == CODE["train"]])
    for part in PARTS[1:]:
        missing = np.setdiff1d(learnt, columns.label[accounts.bucket == CODE[part]])
        if len(missing):
            names = [repr(columns.label_names[code]) for code in missing.tolist()]
            yield f"the given {part} part has no record of {len(names):,} labels of train: {listing(names, 8)}"


def _refuse_cleaned_labels(columns: Columns, accounts: Accounts) -> None:
    """Cleaning must not take all training rows of a label: its rows in validation and test could not be answered."""
    import numpy as np

    kept = accounts.bucket < len(PARTS)
    learnt = np.unique(columns.label[accounts.bucket == CODE["train"]])
    lost = np.setdiff1d(np.unique(columns.label[kept]), learnt)
    if len(lost):
        names = [repr(columns.label_names[code]) for code in lost.tolist()]
        raise user_error(
            f"data.clean takes every training row of {len(names):,} label{'s'[: len(names) != 1]}: {listing(names, 8)}",
            allowed="cleaning that leaves something of every label to learn from",
            why="validation and test still have rows of it, which a model that never saw it cannot answer",
            remedy="leave the label out with data.exclude_labels, or let data.clean drop less",
            where="data.clean",
        )


def _check(columns: Columns, accounts: Accounts, config: DataConfig, *, has_labels: bool) -> None:
    """Raise `UserError` where a part is empty, or fewer than two labels are left to learn."""
    import numpy as np

    counts = accounts.counts()
    is_dropped = bool((accounts.bucket >= len(PARTS)).any())
    lost, kept = counts["near_duplicate_across_parts"], sum(counts[part] for part in PARTS)
    if not all(counts[part] for part in PARTS) and lost > kept:
        raise user_error(
            f"{lost:,} of {lost + kept:,} usable records nearly repeat one in a later part",
            allowed="parts that stand by themselves",
            why="the split may not move a record, so the ones in earlier parts are dropped, and a part is left empty",
            remedy="raise data.near_duplicates.threshold (null compares texts after folding only), let us split "
            "(data.split.kind=auto), or add other data",
            where="data",
        )
    check_parts({part: counts[part] for part in PARTS}, config.split, _dropped(accounts) if is_dropped else "")
    if has_labels and len(np.unique(columns.label[accounts.bucket == CODE["train"]])) < 2:
        raise user_error(
            "fewer than 2 labels can be in all three parts",
            allowed="at least 2 labels with texts of their own",
            why="the labels share their texts, and equal texts stay in one part; " + _dropped(accounts),
            remedy="look at rows with equal text and different labels, or add data",
            where="data",
        )


def _drop_rare(columns: Columns, accounts: Accounts, min_rows: int) -> None:
    """Labels with fewer distinct texts than parts need; texts that are equal after folding count once."""
    import numpy as np

    places = np.flatnonzero(accounts.bucket == UNDECIDED)
    groups, labels = group_numbers(columns.folded[places]), columns.label[places]
    pairs = np.unique(labels * (groups.max() + 1) + groups)
    accounts.label_texts = np.bincount(pairs // (groups.max() + 1), minlength=len(columns.label_names))
    is_rare = accounts.label_texts[labels] < min_rows
    accounts.bucket[places[is_rare]] = CODE["rare_label"]
    num_labels = len(np.unique(labels[~is_rare]))
    if num_labels < 2:
        sizes = accounts.label_texts
        most = ", ".join(f"{columns.label_names[i]!r} {sizes[i]:,}" for i in _largest(sizes))
        raise user_error(
            f"{num_labels} of {len(np.unique(labels)):,} labels have enough distinct texts",
            allowed=f"at least 2 labels with {min_rows} distinct texts each (data.min_label_rows)",
            why=f"every label has to be in train, validation and test; the largest are {most}",
            remedy="add data, or check that the label column is the right one",
            where="data",
        )


def _largest(sizes: NDArray[np.int64]) -> list[int]:
    import numpy as np

    chosen: list[int] = np.argsort(-sizes, kind="stable")[:3].tolist()
    return chosen


def _refuse_one_class(columns: Columns, accounts: Accounts) -> None:
    import numpy as np

    labels = np.unique(columns.label[accounts.bucket == UNDECIDED])
    if len(labels) == 1:
        count = int((accounts.bucket == UNDECIDED).sum())
        raise user_error(
            f"all {count:,} usable records have the label {columns.label_names[labels[0]]!r}",
            allowed="at least 2 different labels",
            why="with one class there is nothing to tell apart; " + _dropped(accounts),
            remedy="check that the label column is the right one, or add records of other labels",
            where="data.sources",
        )


def _nothing_left(columns: Columns, accounts: Accounts, config: DataConfig, *, has_labels: bool) -> UserError:
    counts = {name: int((accounts.bucket == CODE[name]).sum()) for name in REASONS}
    most = max(counts, key=lambda name: counts[name])
    why = _dropped(accounts)
    if most in columns.first_reasons:
        why += f"; the first {most} at {columns.first_reasons[most]}"
    return user_error(
        f"none of the {len(accounts.bucket):,} records can be used",
        allowed="records with a text and a label" if has_labels else "records with something to learn from",
        why=why,
        remedy=_remedy(most, config),
        where="data.sources",
    )


def _remedy(most: str, config: DataConfig) -> str:
    """What to do where most records are in that bucket."""
    if most == "too_long":
        raised = "raise train.max_tokens (up to what the model takes)"
        return raised if config.too_long == "truncate_prompt" else f"{raised}, or set data.too_long: truncate_prompt"
    if most in ("no_supervised_token", "broken_turns"):
        return "mend the turns, or check that the columns are the right ones (data.sources.columns)"
    return "check that the columns are the right ones (data.sources.columns), and the file's kind"


def _dropped(accounts: Accounts) -> str:
    counts = {name: int((accounts.bucket == CODE[name]).sum()) for name in REASONS}
    found = listing(f"{count:,} {name}" for name, count in counts.items() if count)
    return f"dropped: {found}"
