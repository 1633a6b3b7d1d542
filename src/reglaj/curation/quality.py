"""What is seen in the rows of train and validation, section by section, as JSON values. Nothing here reads the test.

Each check returns its section of the quality report and, where it points at rows, a few of them. What a finding says
of them is in `findings`. Legend: N rows looked at, train first, then validation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reglaj.core.console import SILENT, Console
from reglaj.data.languages import LANGUAGES, UNSURE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.curation.label_errors import LabelErrors
    from reglaj.curation.outliers import Outliers
    from reglaj.data.conversation import Conversation

Section = dict[str, Any]
Shown = list[dict[str, Any]]
EXAMPLES = 10
_CHARACTERS = 200
_BINS = 30


@dataclass(frozen=True, kw_only=True)
class LookedAt:
    """N rows. texts: what cleaning judges too, of conversations all turns but the system prompt. labels, conversations:
    where the task has them. source, line, part: where each came from.
    """

    texts: list[str]
    labels: list[str] | None
    conversations: list[Conversation] | None
    source: list[str]
    line: list[int]
    part: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def only(self, chosen: Sequence[int]) -> LookedAt:
        """Some of the rows, in the order given."""
        columns = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return LookedAt(**{name: values and [values[row] for row in chosen] for name, values in columns.items()})

    def example(self, row: int, note: str = "", text: str | None = None) -> dict[str, Any]:
        """A row as it is quoted. text: what of it, by default its beginning."""
        return {
            "text": cut(self.texts[row] if text is None else text),
            "label": self.labels[row] if self.labels else None,
            "note": note,
            "source": self.source[row],
            "line": self.line[row],
            "part": self.part[row],
        }


def cut(text: str, characters: int = _CHARACTERS) -> str:
    """The beginning of a text, with an ellipsis where something is left out."""
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


def tokens_section(lengths: NDArray[np.int64], context: int, dropped: int = 0) -> Section:
    """Histogram of lengths in tokens (N,), special tokens included, and what does not fit into `context`.

    dropped: records that were left out before, because they are too long.
    """
    import numpy as np

    longest = int(lengths.max())
    # One long text must not squeeze all others into one bar: the last bar is as wide as it has to be.
    usual = int(np.quantile(lengths, 0.995))
    step = max(1, -(-usual // (_BINS - 1)))
    edges = list(range(0, usual + step, step))
    edges += [max(longest, edges[-1]) + 1]
    counts, _ = np.histogram(lengths, bins=edges)
    over = np.maximum(lengths - context, 0)
    return {
        "counts": counts.tolist(),
        "edges": edges,
        "context": context,
        "rows": len(lengths),
        "cut": int((over > 0).sum()),
        "cut_share": float((over > 0).mean()),
        "dropped": dropped,
        "lost_tokens": int(over.sum()),
        "p50": int(np.quantile(lengths, 0.5, method="lower")),
        "p95": int(np.quantile(lengths, 0.95, method="lower")),
        "max": longest,
    }


def labels_section(report: Mapping[str, Any]) -> Section | None:
    """Rows per part and label, from the ledger; None for a task without labels."""
    parts = report.get("labels") or {}
    counts = Counter({label: rows for label, rows in parts.get("train", {}).items() if rows})
    if not counts:
        return None
    return {
        **{part: dict(parts.get(part, {})) for part in ("train", "validation", "test")},
        "imbalance_ratio": max(counts.values()) / min(counts.values()),
        "majority_share": max(counts.values()) / counts.total(),
    }


def languages_section(rows: LookedAt, codes: Sequence[str]) -> tuple[list[Section], Shown]:
    """Languages by how often they occur, `unsure` last; and texts in another than the most frequent one."""
    counts = Counter(codes)
    order = sorted(counts, key=lambda code: (code == UNSURE, -counts[code], code))
    listed = [
        {
            "language": code,
            "name": LANGUAGES.get(code, "too short or mixed to say"),
            "count": counts[code],
            "share": counts[code] / len(codes),
        }
        for code in order
    ]
    usual = (order[0], UNSURE)
    others = [row for row, code in enumerate(codes) if code not in usual][:EXAMPLES]
    return listed, [rows.example(row, LANGUAGES[codes[row]]) for row in others]


def encodings_section(rows: LookedAt, report: Mapping[str, Any], is_repaired: bool) -> tuple[Section, Shown]:
    """Texts whose encoding can be mended, and those in which characters are lost."""
    from reglaj.curation.encodings import has_lost, mend

    mended = [(row, new) for row, text in enumerate(rows.texts) if (new := mend(text)) != text]
    lost = [row for row, text in enumerate(rows.texts) if has_lost(text)]
    shown = [rows.example(row, _mended(rows.texts[row], new), _around(rows.texts[row], new)) for row, new in mended]
    shown = shown[:EXAMPLES]
    shown += [rows.example(row, "characters are lost") for row in lost][: EXAMPLES - len(shown)]
    section = {
        "sources": {source["name"]: source.get("encoding") for source in report.get("sources", [])},
        "repaired": is_repaired,
        "repaired_texts": report.get("repaired_texts", 0),
        "repairable": len(mended),
        "lost": len(lost),
        "examples": shown,
    }
    return section, shown


def _first_difference(before: str, after: str) -> int:
    return next((place for place, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), 0)


def _around(before: str, after: str) -> str:
    start = max(0, _first_difference(before, after) - 60)
    return ("…" if start else "") + before[start:]


def _mended(before: str, after: str) -> str:
    start = max(0, _first_difference(before, after) - 20)
    return f"mended: {cut(after[start:], 80)}"


def boilerplate_section(rows: LookedAt) -> tuple[Section, Shown]:
    """Rows by kind of boilerplate, what lines are shared, and how texts begin alike."""
    import numpy as np

    from reglaj.curation.boilerplate import find_boilerplate

    found = find_boilerplate(rows.texts)
    words = {
        "markup": "mostly markup",
        "symbols": "mostly signs or addresses",
        "repeated_lines": "lines of many others",
    }
    shown = []
    for kind, mask in found.kinds.items():
        shown += [rows.example(row, words[kind]) for row in np.flatnonzero(mask)[:EXAMPLES].tolist()]
    section = {
        "rows": int(found.rows.sum()),
        "kinds": {kind: int(mask.sum()) for kind, mask in found.kinds.items()},
        "lines": [{"text": cut(line), "count": count} for line, count in found.lines],
        "starts": [{"text": cut(start), "count": count} for start, count in found.starts],
    }
    return section, shown[:EXAMPLES]


def label_errors_section(
    rows: LookedAt, chosen: NDArray[np.int64], errors: LabelErrors, targets: NDArray[np.int64], names: Sequence[str]
) -> tuple[Section, Shown]:
    """Likely label errors. chosen: (M,) rows that were looked at; targets: (M,) class numbers into `names`."""
    import numpy as np

    from reglaj.curation.label_errors import METHOD, confused_pairs
    from reglaj.curation.probing import FOLDS

    ranked = errors.ranked()
    flagged = np.bincount(targets[ranked], minlength=len(names))
    totals = np.bincount(targets, minlength=len(names))
    order = sorted(np.flatnonzero(flagged).tolist(), key=lambda code: (-flagged[code], names[code]))
    section = {
        "checked": len(targets),
        "flagged": len(ranked),
        "share": len(ranked) / max(1, len(targets)),
        "method": METHOD.format(folds=FOLDS),
        "probe_accuracy": float((errors.guess == targets).mean()),
        "per_label": {names[code]: {"flagged": int(flagged[code]), "rows": int(totals[code])} for code in order[:200]},
        "pairs": [
            {"label": given, "looks_like": seen, "count": count}
            for given, seen, count in confused_pairs(errors, targets, names)[:10]
        ],
    }
    shown = [
        rows.example(int(chosen[row]), f"looks like {names[errors.guess[row]]} ({errors.probability[row]:.2f})")
        for row in ranked[: 2 * EXAMPLES].tolist()
    ]
    return section, shown


def outliers_section(rows: LookedAt, chosen: NDArray[np.int64], found: Outliers) -> tuple[Section, Shown]:
    """Texts unlike the others, and how far all of them are. chosen: (M,) rows that were looked at."""
    import numpy as np

    top = float(max(found.distance.max(), found.threshold)) if len(found.distance) else 1.0
    counts, edges = np.histogram(found.distance, bins=_BINS, range=(0.0, top or 1.0))
    section = {
        "checked": len(chosen),
        "flagged": int(found.is_outlier.sum()),
        "threshold": found.threshold,
        "median": found.median,
        "counts": counts.tolist(),
        "edges": edges.tolist(),
    }
    far = np.flatnonzero(found.is_outlier)
    far = far[np.argsort(-found.distance[far], kind="stable")][:EXAMPLES]
    shown = [rows.example(int(chosen[row]), f"distance {found.distance[row]:.2f}") for row in far.tolist()]
    return section, shown


def many_answers_section(rows: LookedAt) -> tuple[Section | None, Shown]:
    """Prompts with several answers; None for a task without conversations."""
    from reglaj.curation.many_answers import find_many_answers

    if rows.conversations is None:
        return None, []
    found = find_many_answers(rows.conversations)
    places = [rows.example(one.rows[0], f"{len(one.answers)} answers", one.prompt) for one in found[:EXAMPLES]]
    examples = [
        {
            "prompt": place["text"],
            "answers": [cut(answer) for answer in one.answers[:4]],
            **{key: place[key] for key in ("source", "line", "part")},
        }
        for one, place in zip(found, places, strict=False)
    ]
    return {"prompts": len(found), "records": sum(len(one.rows) for one in found), "examples": examples}, places


def semantic_section(
    rows: LookedAt,
    chosen: NDArray[np.int64],
    embeddings: NDArray[np.float32],
    threshold: float,
    console: Console = SILENT,
) -> Section:
    """Pairs of texts that say the same in other words, the nearest first."""
    from reglaj.curation.semantic import semantic_pairs

    most = 10_000
    pairs, similarity = semantic_pairs(embeddings, threshold, most, console)
    examples = [
        {"texts": [cut(rows.texts[int(chosen[row])]) for row in pair], "similarity": float(near)}
        for pair, near in zip(pairs[:EXAMPLES].tolist(), similarity[:EXAMPLES], strict=True)
    ]
    return {"threshold": threshold, "pairs": len(pairs), "capped": len(pairs) == most, "examples": examples}
