"""The quality report: what stands in the rows of train and validation, and what to do about it. Trains nothing.

The test stays sealed: of it there are the counts that the ledger has.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import EnvironmentFault, UserError
from reglaj.core.files import canonical_hash
from reglaj.core.run_listing import DATA
from reglaj.core.runs import software
from reglaj.core.seeding import derive_seed
from reglaj.curation import quality
from reglaj.curation.account_findings import account_findings
from reglaj.curation.findings import as_example, ordered
from reglaj.curation.quality import LookedAt
from reglaj.curation.row_findings import row_findings
from reglaj.data.conversation import Conversation
from reglaj.pipelines.embedding import embedder_of
from reglaj.tasks import TASKS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.curation.embeddings import Embedder
    from reglaj.data.examples import Examples, VisibleData
    from reglaj.models.inspect import ModelFacts
    from reglaj.pipelines.recipe import Recipe
    from reglaj.tasks.base import Task

MOST_ROWS = 100_000
"""Rows that are read. Of more, so many are drawn."""
MOST_EMBEDDED = 20_000
"""Rows that a model looks at, of those: about a minute and a half of two cores for MiniLM and short texts."""
FILE = "quality.json"
_VERSION = 1
"""Raised whenever the same rows would be reported on otherwise than before."""
_SEED = 0
_UNCUT = 1_000_000


def quality_report(
    recipe: Recipe, data: VisibleData, facts: ModelFacts, runs: Path, console: Console = SILENT
) -> dict[str, Any]:
    """The report as one JSON document (docs/data-quality.md). The caller writes it beside the data, under `FILE`.

    recipe: with its context. facts: of its model. The same data and recipe give the same report, `seconds` aside: one
    that lies beside the data already is taken as it is. Where no model can look at the texts, the sections that need
    one are null and `embedder_note` says why.
    """
    embedder, note = _embedder(recipe, facts, runs, console)
    identity = _identity(recipe, data, facts, embedder.fingerprint if embedder else note)
    kept = _kept(runs / DATA / data.key / FILE, identity)
    if kept is not None:
        return kept
    look = _Look(recipe, data, facts, runs, console)
    report = look.sections
    with look.timed("all"):
        look.read()
        look.texts()
        report |= {"embedder": embedder.name if embedder else None, "embedder_note": note}
        look.embedded(embedder)
        found = [
            *account_findings(report, data.report, look.shown),
            *row_findings(report, data.report, look.shown),
        ]
        report["findings"] = [one.as_json() for one in ordered(found)]
    report["seconds"] = {name: round(seconds, 3) for name, seconds in look.seconds.items()}
    report["identity"] = identity
    return report


def _embedder(recipe: Recipe, facts: ModelFacts, runs: Path, console: Console) -> tuple[Embedder | None, str | None]:
    """The model that looks at texts; or None, and why there is none."""
    try:
        return embedder_of(recipe, runs, console, facts), None
    except (EnvironmentFault, UserError) as error:
        problem = error.problems[0]
        console.warn(f"no model looks at the texts: {problem.given} ({problem.why})")
        return None, f"no model looked at the texts: {problem.given} ({problem.why})"


def _identity(recipe: Recipe, data: VisibleData, facts: ModelFacts, looks: str | None) -> str:
    """Everything that decides the report."""
    near = recipe.data.near_duplicates
    return canonical_hash(
        {
            "version": _VERSION,
            "data": data.key,
            "model": facts.fingerprint,
            "max_tokens": recipe.train.max_tokens,
            "confidence": recipe.evaluate.confidence,
            "semantic": near and near.semantic,
            "embedder": looks,
            "software": software(),
        }
    )


def _kept(path: Path, identity: str) -> dict[str, Any] | None:
    """The report of an earlier call, where it is of the same things."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and report.get("identity") == identity else None


class _Look:
    """One look at the data: sections of the report, rows that are quoted, and how long each took."""

    def __init__(self, recipe: Recipe, data: VisibleData, facts: ModelFacts, runs: Path, console: Console) -> None:
        self.recipe, self.data, self.facts, self.runs, self.console = recipe, data, facts, runs, console
        self.task = TASKS.get(recipe.task).from_data(data)
        self.parts = (data.train(), data.validation())
        self.sections: dict[str, Any] = {"findings": []}
        self.shown: dict[str, list[dict[str, Any]]] = {}
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Enters under `seconds` how long the block took."""
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began

    def read(self) -> None:
        """The rows, and how many tokens they have."""
        parts = self.parts
        self.rows = _looked_at(self.task, parts, _drawn(sum(map(len, parts)), MOST_ROWS))
        self.sections["looked_at"] = {
            "train": len(parts[0]),
            "validation": len(parts[1]),
            "rows": len(self.rows),
            "sampled": None,
        }
        with self.timed("tokens"):
            self._tokens()

    def _tokens(self) -> None:
        """Lengths of everything that the task makes of the rows, uncut."""
        import numpy as np

        from reglaj.models.loading import load_tokenizer

        tokenizer = load_tokenizer(self.facts.folder, self.facts.name)
        self.task.connect(tokenizer, self.recipe)
        encoded = [self.task.encode(part, tokenizer, _UNCUT) for part in self.parts]
        lengths = np.concatenate([one.rows.lengths for one in encoded])
        context = self.recipe.train.max_tokens or self.facts.context
        dropped = self.data.report.get("dropped", {}).get("too_long", 0)
        role = " and ".join(self.task.roles.inputs)
        self.sections["tokens"] = {role: quality.tokens_section(lengths, context, dropped)}
        if len(lengths) == sum(map(len, self.parts)):  # where a record gives several examples, they fit
            longest = np.argsort(-lengths, kind="stable")[: quality.EXAMPLES]
            longest = longest[lengths[longest] > context]
            quoted = _looked_at(self.task, self.parts, longest)
            told = [f"{length:,} tokens" for length in lengths[longest].tolist()]
            self.shown["truncation"] = [quoted.example(place, note) for place, note in enumerate(told)]

    def texts(self) -> None:
        """What can be told without a model."""
        from reglaj.curation.languages import detect_languages

        rows, report, sections, shown = self.rows, self.data.report, self.sections, self.shown
        sections["labels"] = quality.labels_section(report)
        with self.timed("languages"):
            chosen = _drawn(len(rows), MOST_EMBEDDED)
            some = rows.only(chosen.tolist())
            sections["languages"], shown["languages"] = quality.languages_section(
                some, detect_languages(some.texts, self.console)
            )
            sections["languages_checked"] = len(some)
        with self.timed("encodings"):
            is_repaired = self.recipe.data.clean.encodings == "repair"
            sections["encodings"], shown["encodings"] = quality.encodings_section(rows, report, is_repaired)
        with self.timed("boilerplate"):
            sections["boilerplate"], shown["boilerplate"] = quality.boilerplate_section(rows)
            sections["many_answers"], shown["many_answers"] = quality.many_answers_section(rows)
        clusters = report.get("near_duplicates")
        sections["clusters"] = {**clusters, "semantic": None} if clusters else None
        dropped = report.get("dropped", {})
        sections["duplicates"] = {
            "exact": dropped.get("exact_duplicate", 0),
            "contradictory": dropped.get("contradictory_label", 0),
        }
        shown["contradictory"] = _rejected(self.runs / DATA / self.data.key / "rejects.jsonl", "contradictory_label")

    def embedded(self, embedder: Embedder | None) -> None:
        """What a frozen model sees."""
        sections = self.sections
        sections |= {"label_errors": None, "outliers": None, "difficulty": None}
        if embedder is None:
            return
        chosen = _drawn(len(self.rows), MOST_EMBEDDED)
        if len(chosen) < len(self.rows):
            sections["looked_at"]["sampled"] = len(chosen)
        with self.timed("embeddings"):
            embeddings = embedder.unit([self.rows.texts[row] for row in chosen.tolist()], self.console)
        if self.rows.labels is not None:
            with self.timed("label_errors"):
                self._labels(chosen, embeddings, self.rows.labels)
        with self.timed("outliers"):
            from reglaj.curation.outliers import find_outliers

            found = find_outliers(embeddings, seed=_SEED, console=self.console)
            sections["outliers"], self.shown["outliers"] = quality.outliers_section(self.rows, chosen, found)
        threshold = self.recipe.data.near_duplicates and self.recipe.data.near_duplicates.semantic
        if threshold:
            with self.timed("semantic"):
                semantic = quality.semantic_section(self.rows, chosen, embeddings, threshold, self.console)
                sections["clusters"] = {**(sections["clusters"] or {}), "semantic": semantic}

    def _labels(self, chosen: NDArray[np.int64], embeddings: NDArray[np.float32], labels: list[str]) -> None:
        import numpy as np

        from reglaj.curation.difficulty import difficulty
        from reglaj.curation.label_errors import find_label_errors
        from reglaj.curation.probing import FOLDS, cross_validated

        given = np.array([labels[row] for row in chosen.tolist()], dtype=object)
        names, targets = np.unique(given, return_inverse=True)
        if len(targets) < FOLDS or len(names) < 2:
            return
        probabilities = cross_validated(embeddings, targets, len(names), seed=_SEED, console=self.console)
        errors = find_label_errors(probabilities, targets)
        self.sections["label_errors"], self.shown["label_errors"] = quality.label_errors_section(
            self.rows, chosen, errors, targets, names.tolist()
        )
        confidence = self.recipe.evaluate.confidence
        self.sections["difficulty"] = difficulty(probabilities, targets, confidence)


def _drawn(count: int, most: int) -> NDArray[np.int64]:
    """Rows that are looked at, in order: all, or `most` of them at random but always the same."""
    import numpy as np

    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(derive_seed(_SEED, "quality")).choice(count, most, replace=False))


def _looked_at(task: Task, parts: tuple[Examples, Examples], chosen: NDArray[np.int64]) -> LookedAt:
    """Those rows of train and validation, counted through."""
    rows, roles = chosen.tolist(), task.roles

    def of(columns: list[list[Any]]) -> list[Any]:
        every = [cell for column in columns for cell in column]
        return [every[row] for row in rows]

    if roles.inputs == ("conversation",):
        cells = of([part.column("conversation") for part in parts])
        conversations = [Conversation.from_json(cell) for cell in cells]
        texts = [_spoken(one) for one in conversations]
    else:
        conversations, texts = None, of([task.written(part) for part in parts])
    return LookedAt(
        texts=texts,
        labels=of([part.column(roles.target) for part in parts]) if roles.target else None,
        conversations=conversations,
        source=of([part.source for part in parts]),
        line=of([part.line for part in parts]),
        part=of([[name] * len(part) for name, part in zip(("train", "validation"), parts, strict=True)]),
    )


def _spoken(conversation: Conversation) -> str:
    """The turns of a conversation; a system prompt is the same for many."""
    return "\n".join(str(turn.get("content", "")) for turn in conversation.messages if turn["role"] != "system")


def _rejected(path: Path, bucket: str) -> list[dict[str, Any]]:
    """The first records that the ledger dropped for that reason, as they are quoted. They are in no part."""
    shown: list[dict[str, Any]] = []
    with contextlib.suppress(OSError), path.open(encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            if record["bucket"] == bucket:
                shown.append(
                    as_example(
                        {"text": quality.cut(record["text"]), "note": record["reason"]}
                        | {name: record[name] for name in ("source", "line")}
                    )
                )
            if len(shown) == quality.EXAMPLES:
                break
    return shown
