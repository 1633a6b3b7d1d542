"""Promise 1: every row is accounted for. The sources are read again, and the ledger has to come out the same."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reglaj.core.errors import ReglajError, listing
from reglaj.core.files import sha256_file
from reglaj.pipelines.verify.stored import Stored, contradictions, differences, read_stored
from reglaj.pipelines.verify.subject import Subject, short
from reglaj.pipelines.verify.verdicts import Finding, concluded, counted, not_applicable


@dataclass(frozen=True)
class _Source:
    """name: as it was called when it was first read. sha256: of then. now: of today, None where it is gone."""

    name: str
    path: str
    sha256: str
    now: str | None


def every_row(subject: Subject) -> Finding:
    """The ledger agrees with itself and with the report, and another reading of the sources gives it again."""
    if subject.data is None:
        return not_applicable(subject.no_data)
    stored = subject.stored
    reported: dict[str, Any] = subject.report.get("data") or {}
    problems = contradictions(stored, reported)
    if reported.get("key") != subject.data.key:
        problems.append(f"report.json is about the data {reported.get('key')}, the manifest about {subject.data.key}")
    sources = _sources(subject, stored)
    changed = [source for source in sources if source.now not in (None, source.sha256)]
    gone = [source for source in sources if source.now is None]
    problems += [
        f"{source.name} has changed since: its sha256 is {short(source.now)}, and {short(source.sha256)} was read"
        for source in changed
    ]
    if not changed and not gone:
        problems += _read_again(subject, stored)
    kept = f"{len(stored.records) - len(stored.rejects):,} kept, {len(stored.rejects):,} dropped with a reason"
    records = counted(len(stored.records), "record")
    if gone and not problems:
        missing = listing((f"{source.name} (sha256 {short(source.sha256)})" for source in gone), 5)
        return not_applicable(
            f"{missing} cannot be read again; the ledger's {records} agree with each other and the report ({kept})"
        )
    read = f"{records} of {counted(len(sources), 'source')}"
    return concluded(problems, f"{read} read again: every bucket, line and reason as in the ledger ({kept})")


def _sources(subject: Subject, stored: Stored) -> list[_Source]:
    """The sources of the data with their hashes of then and now."""
    described: list[dict[str, Any]] = stored.report["sources"]
    return [
        _Source(name=then["name"], path=source.path, sha256=then["sha256"], now=_digest(subject, source.path))
        for source, then in zip(subject.recipe.data.sources, described, strict=True)
    ]


def _digest(subject: Subject, path: str) -> str | None:
    from reglaj.models.starters import PREFIX, fetch

    try:
        file = fetch(path) if path.startswith(PREFIX) else subject.recipe.folder / Path(path).expanduser()
        return sha256_file(file)
    except (OSError, ReglajError):
        return None


def _read_again(subject: Subject, stored: Stored) -> list[str]:
    """The pipeline's own reading, into a folder that goes again, with the run's own tokenizer and template."""
    from reglaj.models.inspect import ModelFacts
    from reglaj.pipelines.data import read_data

    facts = None
    if subject.task_type.shapes:
        # Of the model only its tokenizer is asked here, so that an adapter's base may be gone.
        facts = ModelFacts(name=subject.recipe.model, folder=subject.model, config={}, tensors={})
    names = {
        source.path: then["name"]
        for source, then in zip(subject.recipe.data.sources, stored.report["sources"], strict=True)
    }
    with tempfile.TemporaryDirectory(prefix="reglaj-verify-") as folder:
        again = read_data(subject.recipe, Path(folder), subject.console, facts)
        return differences(stored, read_stored(again.folder), names)
