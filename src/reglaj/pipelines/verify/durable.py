"""Promise 5: a run can die at any moment. What the run kept to go on from, and that it ended where it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from reglaj.pipelines.verify.served import weights_of
from reglaj.pipelines.verify.subject import Subject, unreadable
from reglaj.pipelines.verify.verdicts import Finding, concluded, counted, not_applicable

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "checkpoints"


def kept_whole(subject: Subject) -> Finding:
    """Every checkpoint is whole and the run's own, the newest one is its end, and the metrics have every step once."""
    from reglaj.training.checkpoints import damage_of, list_checkpoints

    steps = [line.get("step") for line in subject.metrics if line.get("event") in ("step", "skipped")]
    problems = list(_wrong_steps(steps, subject.report.get("training", {}).get("steps")))
    checkpoints = list_checkpoints(subject.path / FOLDER)
    if not checkpoints:
        problems += subject.changed_files(5)
        told = f"no checkpoint is left to look at; metrics.jsonl has the steps 1 to {len(steps):,}, each once"
        return concluded(problems, "") if problems else not_applicable(told)
    identity = str(subject.manifest.get("identity"))
    damaged = [f"{path.name}: {reason}" for path in checkpoints if (reason := damage_of(path, identity))]
    problems += damaged
    newest = checkpoints[-1]
    if not any(one.startswith(f"{newest.name}:") for one in damaged):
        problems += _wrong_end(subject, newest, max((step for step in steps if isinstance(step, int)), default=0))
    problems += subject.changed_files(5)
    names = ", ".join(path.name for path in checkpoints)
    aside = len(list((subject.path / FOLDER).glob("damaged-*")))
    return concluded(
        problems,
        f"{counted(len(checkpoints), 'checkpoint')} ({names}) whole and of this run"
        f"{f' ({aside} set aside as damaged while it was trained)' if aside else ''}, the newest at the last step with "
        f"bitwise the model's weights; metrics.jsonl has the steps 1 to {len(steps):,}, each once",
    )


def _wrong_steps(steps: list[object], told: object) -> Iterator[str]:
    expected = list(range(1, len(steps) + 1))
    if steps != expected:
        place = next(place for place, pair in enumerate(zip(steps, expected, strict=True)) if pair[0] != pair[1])
        yield f"metrics.jsonl has step {steps[place]} where step {expected[place]} belongs"
    if told != len(steps):
        yield f"metrics.jsonl has {len(steps):,} steps, and report.json says {told}"


def _wrong_end(subject: Subject, newest: Path, last: int) -> Iterator[str]:
    """What is wrong with the newest checkpoint as the end of this training."""
    from reglaj.training.learner import weights_sha256

    if newest.name != f"step-{last:06d}":
        yield f"the newest checkpoint is {newest.name}, and the last step of metrics.jsonl is {last}"
    told = (newest / "metrics.jsonl").read_bytes()
    if (subject.path / "metrics.jsonl").read_bytes() != told:
        yield f"{newest.name} tells other metrics than metrics.jsonl"
    best = newest / "best.safetensors"
    digest = weights_sha256(_tensors(best if best.is_file() else newest / "weights.safetensors"))
    # A weight that was changed in the model alone is nothing that a checkpoint can help: promise 7 finds it.
    if digest != subject.manifest.get("weights_sha256") and digest != weights_of(subject):
        yield f"the best weights of {newest.name} are not those of the model"


def _tensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise unreadable(file, error) from error
    return tensors
