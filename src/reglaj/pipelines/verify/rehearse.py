"""The stage of the rehearsal: three short trainings on the first rows of a finished run, the second of which is killed.

`python -m reglaj.pipelines.verify.rehearse RUN FOLDER [PART...]`; leaves FOLDER/calm and FOLDER/killed, or a calm
training in a folder for each part. A process of its own: it loads the libraries once, and each training is a fork of it
in which no thread runs yet.
"""

from __future__ import annotations

import importlib
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.console import SILENT
from reglaj.core.files import write_json
from reglaj.core.runs import read_manifest
from reglaj.pipelines.recipe import Recipe
from reglaj.pipelines.verify.rehearsal import CALM, KILLED, KILLED_AFTER, RESULT, STEPS
from reglaj.pipelines.verify.subject import Subject

if TYPE_CHECKING:
    from reglaj.pipelines.assemble import Assembled
    from reglaj.tasks.base import Encoded

BATCH_SIZE = 2
_VALIDATION_ROWS = 4
_LOOK_EVERY_S = 0.02


def play(run: Path, folder: Path, parts: Sequence[str] = ()) -> int:
    """All three trainings, or a calm one for each part; the exit code."""
    _load_libraries(run)
    if parts:
        return max(_perform(run, folder / part) for part in parts)
    codes = [_perform(run, folder / CALM), _perform(run, folder / KILLED, dies=True), _perform(run, folder / KILLED)]
    return max(codes)


def _load_libraries(run: Path) -> None:
    """Once, for all of the forks: they take longer than the trainings themselves."""
    modules = ["pyarrow.dataset", "transformers.modeling_utils", "reglaj.pipelines.assemble", "reglaj.training.fit"]
    if (run / "model" / "adapter_config.json").is_file():
        modules.append("peft")
    for module in modules:
        importlib.import_module(module)
    assert _subject(run).task_type, "a recipe is read with all the tasks and methods that it may name"


def _perform(run: Path, folder: Path, *, dies: bool = False) -> int:
    """One training in a process of its own; 0 when it came to its end, or to its death."""
    from reglaj.training.checkpoints import FOLDER, checkpoint_path

    folder.mkdir(exist_ok=True)
    # Elsewhere than on Linux, a fork of a process with such libraries may not work.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    process = context.Process(target=rehearse, args=(run, folder, KILLED_AFTER if dies else None))
    process.start()
    awaited = checkpoint_path(folder / FOLDER, KILLED_AFTER)
    while dies and process.is_alive() and not awaited.is_dir():
        time.sleep(_LOOK_EVERY_S)
    if dies and process.is_alive():
        process.kill()
        process.join()
        return 0
    process.join()
    return 1 if dies else abs(process.exitcode or 0)


def rehearse(run: Path, folder: Path, wait_after: int | None = None) -> None:
    """Train `STEPS` steps, or go on with them, and write result.json.

    wait_after: steps after which it stands still, to be killed always at the same one.
    """
    from reglaj.pipelines.verify.one_number import supervise
    from reglaj.training.fit import fit
    from reglaj.training.learner import weights_sha256

    subject = _subject(run)
    assembled = _assemble(subject)
    rows = _encode(subject, assembled, "train", STEPS * BATCH_SIZE)
    assembled = replace(assembled, recipe=_shortened(assembled.recipe, len(rows)))
    supervision = supervise(assembled, rows, _encode(subject, assembled, "validation", _VALIDATION_ROWS))
    if wait_after is not None:
        supervision = replace(supervision, load=_waiting(supervision.load, wait_after * BATCH_SIZE))
    train = assembled.recipe.train
    fitted = fit(assembled.learner, supervision, train, folder, identity=str(subject.manifest.get("identity")))
    result = {"rows": len(rows), "steps": fitted.steps, "resumed_at": fitted.resumed_at}
    result["device"] = assembled.learner.engine.device
    write_json(folder / RESULT, result | {"weights_sha256": weights_sha256(assembled.learner.trained())})


def _subject(run: Path) -> Subject:
    return Subject(path=run, manifest=read_manifest(run), console=SILENT)


def _assemble(subject: Subject) -> Assembled:
    """The model as it was before the run's first step, on the engine that the run chose."""
    from reglaj.pipelines.assemble import assemble
    from reglaj.training.engine import go_on_with

    assembled = assemble(subject.recipe, subject.base, subject.task_type.load(subject.model), subject.model)
    learner = assembled.learner
    learner.engine, _ = go_on_with(learner.engine, subject.report.get("engine") or {})
    if subject.recipe.train.gradient_checkpointing:
        learner.checkpoint_gradients()
    return assembled


def _encode(subject: Subject, assembled: Assembled, part: str, count: int) -> Encoded:
    """The first rows of a part, as tokens."""
    import pyarrow.parquet as pq

    from reglaj.data.examples import Examples

    examples = Examples(pq.read_table(subject.data_folder / f"{part}.parquet").slice(0, count))
    return assembled.task.encode(examples, assembled.tokenizer, assembled.max_tokens)


def _shortened(recipe: Recipe, rows: int) -> Recipe:
    """The recipe with few and small steps, a checkpoint after each, and two evaluations."""
    epochs = math.ceil(STEPS / math.ceil(rows / BATCH_SIZE))
    short = {"max_steps": STEPS, "batch_size": BATCH_SIZE, "epochs": epochs, "evaluate_every": KILLED_AFTER}
    saving = {"checkpoint_every": 1, "checkpoint_minutes": None, "keep": 2}
    return replace(recipe, train=recipe.train.model_copy(update={**short, **saving}))


def _waiting(load: Callable[[list[int]], Any], rows: int) -> Callable[[list[int]], Any]:
    """`load`, standing still when more than so many rows are asked for, for as long as anybody watches."""
    parent, loaded = os.getppid(), 0

    def load_or_wait(some: list[int]) -> Any:
        nonlocal loaded
        while loaded >= rows:
            if os.getppid() != parent:
                sys.exit(1)
            time.sleep(_LOOK_EVERY_S)
        loaded += len(some)
        return load(some)

    return load_or_wait


if __name__ == "__main__":
    sys.exit(play(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
