"""Which records are left out by their label, repeat another one, or contradict it.

Legend: N records, M records that are still undecided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reglaj.core.errors import nearest
from reglaj.data.folding import group_numbers
from reglaj.data.ledger import CODE, UNDECIDED, Columns
from reglaj.data.splits.base import PARTS

if TYPE_CHECKING:
    from reglaj.data.accounting import Accounts
    from reglaj.data.sharing import Bonds


def exclude(columns: Columns, accounts: Accounts, excluded: tuple[str, ...]) -> None:
    """Leave out the records of these labels; a name that no record has is noted."""
    import numpy as np

    index = {name: code for code, name in enumerate(columns.label_names)}
    for name in excluded:
        if name not in index:
            guess = nearest(name, index)
            hint = f" (did you mean {guess!r}?)" if guess else ""
            accounts.notes.append(f"data.exclude_labels names {name!r}, which no record has{hint}")
    codes = [index[name] for name in excluded if name in index]
    accounts.bucket[(accounts.bucket == UNDECIDED) & np.isin(columns.label, codes)] = CODE["filtered"]


def compare(columns: Columns, accounts: Accounts, bonds: Bonds, *, keep_contradictions: bool) -> None:
    """Exact duplicates and contradictions among the undecided records, found by sorting their hashes.

    Where the data say the part, only records of one part are compared here: what crosses parts is for the leakage gate.
    Of equal records the latest is kept where there are times, so that the order of the files decides nothing.
    """
    import numpy as np

    open_places = np.flatnonzero(accounts.bucket == UNDECIDED)
    if not len(open_places):
        return
    groups, labels = group_numbers(columns.exact[open_places]), columns.label[open_places]
    if bonds.given is not None:
        _, groups = np.unique(groups * (len(PARTS) + 1) + bonds.given[open_places], return_inverse=True)
    age = np.zeros(len(open_places), dtype=np.int64) if bonds.times is None else -bonds.times[open_places]
    order = np.lexsort((age, labels, groups))  # stable: within equal text and label the first record comes first
    places, groups, labels = open_places[order], groups[order], labels[order]
    starts_group = np.ones(len(places), dtype=bool)
    starts_group[1:] = groups[1:] != groups[:-1]
    starts_pair = starts_group.copy()
    starts_pair[1:] |= labels[1:] != labels[:-1]
    pair = np.cumsum(starts_pair) - 1
    first_of_pair = places[starts_pair]
    pairs_in_group = np.bincount(groups[starts_pair])
    first_pair_of_group = pair[starts_group]
    is_contradictory = pairs_in_group[groups] > 1
    accounts.num_contradictory_texts = int((pairs_in_group > 1).sum())
    if not keep_contradictions:
        # The witness against a record is the first one with another label.
        home = first_pair_of_group[groups]
        other = np.where(pair == home, home + 1, home)[is_contradictory]
        accounts.bucket[places[is_contradictory]] = CODE["contradictory_label"]
        accounts.twin[places[is_contradictory]] = first_of_pair[other]
    is_duplicate = ~starts_pair if keep_contradictions else ~starts_pair & ~is_contradictory
    accounts.bucket[places[is_duplicate]] = CODE["exact_duplicate"]
    accounts.twin[places[is_duplicate]] = first_of_pair[pair[is_duplicate]]
