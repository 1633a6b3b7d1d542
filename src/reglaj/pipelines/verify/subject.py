"""The run that is looked at: its files, read once, and what stands on them.

Nothing here trusts the run: what cannot be read is an error of the check that asked for it. Nor does it refuse what
was changed, as `load_run` does: a promise that a change has nothing to do with is still shown.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.console import Advance, Console
from reglaj.core.errors import ReglajError, UserError, listing, user_error
from reglaj.core.files import sha256_file
from reglaj.core.runs import find_run, read_manifest
from reglaj.pipelines.recipe import Recipe, load_recipe
from reglaj.tasks import TASKS

if TYPE_CHECKING:
    from reglaj.data.examples import Examples, PreparedData
    from reglaj.models.inspect import ModelFacts
    from reglaj.pipelines.assemble import Assembled
    from reglaj.pipelines.verify.stored import Stored
    from reglaj.tasks.base import Encoded, Task

_WHOLE = ("recipe.yaml", "metrics.jsonl", "report.json", "report.html", "README.md", "model/task.json")
_PROMISE_OF = {"metrics.jsonl": 5, "supervision.json": 3}
_PROMISE_OF_FOLDER = {"model": 7, "checkpoints": 5}
_PROMISE_OF_OTHERS = 8


@dataclass
class Subject:
    """A finished run. console: shows progress and nothing else."""

    path: Path
    manifest: dict[str, Any]
    console: Console

    @property
    def model(self) -> Path:
        return self.path / "model"

    @cached_property
    def recipe(self) -> Recipe:
        return load_recipe(self.path / "recipe.yaml", ["train.device=auto"])

    @cached_property
    def task_type(self) -> type[Task]:
        return TASKS.get(self.recipe.task)

    @cached_property
    def report(self) -> dict[str, Any]:
        """The document of report.json."""
        value = read_json(self.path / "report.json")
        return value if isinstance(value, dict) else {}

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return read_json_lines(self.path / "metrics.jsonl")

    @property
    def data_folder(self) -> Path:
        return self.path.parent / ".data" / str(self.manifest.get("data_key") or "KEY")

    @cached_property
    def data(self) -> PreparedData | None:
        """The run's data, None where it is not here."""
        from reglaj.data.examples import load_prepared

        return load_prepared(self.data_folder)

    @property
    def no_data(self) -> str:
        """What is said where the data is gone."""
        sources = [f"{s.get('name')} (sha256 {short(s.get('sha256'))})" for s in self._sources]
        return f"the data is gone: {self.data_folder} is not here; it was made of {listing(sources, 5)}"

    @property
    def _sources(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.report.get("data", {}).get("sources", [])
        return found

    @cached_property
    def test(self) -> tuple[Examples, int]:
        """The test rows, and how often they have been opened: one opening for all checks, recorded before they are
        read."""
        assert self.data is not None, "ask for the data first"
        with reading(self.data.folder / "test.parquet"):
            return self.data.open_test(opened_by=f"verify {self.path.name}")

    @cached_property
    def train(self) -> Examples:
        """The training rows."""
        assert self.data is not None, "ask for the data first"
        with reading(self.data.folder / "train.parquet"):
            return self.data.train()

    @cached_property
    def stored(self) -> Stored:
        """Every file of the data folder."""
        from reglaj.pipelines.verify.stored import read_stored

        assert self.data is not None and self.test, "the opening is recorded before the test part is read"
        return read_stored(self.data.folder)

    @cached_property
    def connected(self) -> tuple[Task, Any]:
        """The task with the run's own tokenizer and template, and that tokenizer; no weights are loaded for it."""
        from reglaj.models.loading import load_tokenizer

        task = self.task_type.load(self.model)
        tokenizer = load_tokenizer(self.model, self.path.name)
        task.connect(tokenizer, self.recipe)
        return task, tokenizer

    @cached_property
    def encoded(self) -> Encoded:
        """The training rows as the run's own tokenizer makes them."""
        task, tokenizer = self.connected
        return task.encode(self.train, tokenizer, self.max_tokens)

    @property
    def max_tokens(self) -> int:
        assert self.recipe.train.max_tokens is not None, "a resolved recipe says how long an example may be"
        return self.recipe.train.max_tokens

    @cached_property
    def base(self) -> ModelFacts:
        """The base that the run stands on. Raises `UserError` where it is needed and is gone or has changed."""
        from reglaj.pipelines.assemble import base_of

        return base_of(self.path, self.recipe, self.console)

    @cached_property
    def assembled(self) -> Assembled:
        """The trained model, whatever its files' hashes are, on the engine that the run chose."""
        from reglaj.pipelines.assemble import assemble
        from reglaj.training.engine import go_on_with

        assembled = assemble(self.recipe, self.base, self.task_type.load(self.model), self.model)
        learner = assembled.learner
        learner.load(self.model)
        learner.engine, _ = go_on_with(learner.engine, self.report.get("engine") or {})
        return assembled

    def listed(self, promise: int) -> dict[str, str]:
        """The files of the manifest that stand for a promise, with their hashes."""
        files: dict[str, str] = self.manifest.get("files") or {}
        return {name: digest for name, digest in files.items() if promise_of(name) == promise}

    def changed_files(self, promise: int) -> list[str]:
        """A sentence for each of those files that is not as the manifest says, or that it does not list."""
        listed = self.listed(promise)
        problems = []
        for name, digest in listed.items():
            file = self.path / name
            if not file.is_file():
                problems.append(f"{name} is missing")
            elif sha256_file(file) != digest:
                problems.append(f"{name} was changed: its sha256 is not that of the manifest")
        wanted = [name for name in _WHOLE if promise_of(name) == promise]
        return problems + [f"the manifest does not list {name}" for name in wanted if name not in listed]


def open_subject(run: str | Path, runs: Path, console: Console) -> Subject:
    """The finished run that `run` names. Raises `UserError` for what is none, or is not whole."""
    path = find_run(str(run), runs)
    manifest = read_manifest(path)
    status = manifest.get("status")
    missing = [name for name in _WHOLE if not (path / name).is_file()]
    if status == "finished" and not missing:
        return Subject(path=path, manifest=manifest, console=_Bars(console))
    if not manifest:
        given, why = f"{str(path)!r} is not a run", "its manifest.json cannot be read"
    elif status != "finished":
        given, why = f"{str(path)!r} is not finished", f"its manifest says {status!r}{_because(manifest)}"
    else:
        given, why = f"{str(path)!r} is half a run", f"it has no {listing(missing)}"
    raise user_error(
        given,
        allowed="a finished run, whole",
        why=why,
        remedy="run `reglaj train` on its recipe: an unfinished run goes on; or bring back the files that are missing",
    )


def _because(manifest: dict[str, Any]) -> str:
    reason = str(manifest.get("reason") or "").strip()
    return f" ({reason.splitlines()[0]})" if reason else ""


def promise_of(name: str) -> int:
    """The promise that a file of a run stands for."""
    folder = name.partition("/")[0] if "/" in name else ""
    return _PROMISE_OF.get(name) or _PROMISE_OF_FOLDER.get(folder, _PROMISE_OF_OTHERS)


class _Bars(Console):
    """Progress as it was handed in; what the parts of a check would say besides stays out of the table's way."""

    def __init__(self, inner: Console) -> None:
        self._inner = inner

    @contextlib.contextmanager
    def progress(
        self, description: str, total: int | None = None, unit: str = "rows", done: int = 0
    ) -> Iterator[Advance]:
        with self._inner.progress(description, total, unit, done) as advance:
            yield advance


def read_json(path: Path) -> Any:
    """A JSON document. Raises `UserError`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """A JSON object per line. Raises `UserError`."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if not all(isinstance(line, dict) for line in lines):
        raise unreadable(path, "a line is no object")
    return lines


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What the libraries raise about a file that is damaged or gone becomes a `UserError`."""
    import pyarrow as pa

    try:
        yield
    except ReglajError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: object) -> UserError:
    """A file of the run, or of its data, that cannot be read."""
    why = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)
    return user_error(
        f"{path.parent.name}/{path.name} cannot be read",
        allowed="the file as it was written",
        why=why.splitlines()[0],
        remedy="bring the file back, or train again with --fresh",
    )


def short(digest: Any) -> str:
    """The beginning of a hash: enough to tell two apart."""
    return str(digest or "?")[:12]
