"""When a checkpoint is due, what is in it, and the second thread that writes it while the training goes on."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reglaj.core.errors import environment_fault, is_out_of_memory, listing
from reglaj.core.runs import software
from reglaj.core.signals import StopRequest
from reglaj.training.checkpoints import Checkpoint, prune, write_checkpoint
from reglaj.training.parallel import Ranks
from reglaj.training.step import FinishedStep, Step

_OF_METHOD = "method."
_DECIDING = ("torch", "transformers", "peft")


Take = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""How the tensors of a checkpoint are taken: as copies, or `as_they_are` where nothing moves until they are written."""


class CheckpointWriter:
    """Writes one checkpoint at a time. What goes wrong in its thread is raised by the next call."""

    def __init__(self, folder: Path, identity: str, keep: int) -> None:
        self.folder = folder
        self.identity = identity
        self.keep = keep
        self._is_abandoned = False
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def submit(self, checkpoint: Checkpoint) -> None:
        """Write it while the caller goes on; waits for the one before."""
        self.wait()
        # A daemon: a process that is told to stop at once leaves a temporary folder, which the next start removes.
        self._thread = threading.Thread(target=self._write, args=(checkpoint,), daemon=True, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Until everything submitted is on disk. Raises `EnvironmentFault` where it could not be written."""
        self.settle()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def settle(self) -> None:
        """Until nothing is being written any more, whatever came of it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def abandon(self) -> None:
        """What is being written is not to appear any more: others may be in the run before it would."""
        self._is_abandoned = True

    def _write(self, checkpoint: Checkpoint) -> None:
        try:
            write_checkpoint(self.folder, checkpoint, self.identity, is_wanted=lambda: not self._is_abandoned)
            if not self._is_abandoned:
                prune(self.folder, self.keep)
        except BaseException as error:
            self._error = error


class Saving:
    """Hangs on the loop: saves when it is time, and ends the loop where a signal has asked for it.

    state: everything but the tensors, after asking all processes. fill: a checkpoint of a step with that state and its
    tensors taken that way; called where it is written. every: steps between checkpoints; minutes: the longest time
    between them. Both may be None. saved: the step of the last one, found or begun, the same in every process.
    asked: the signal that ends the training, the same in every process. seconds: what the training has waited.
    """

    def __init__(
        self,
        writer: CheckpointWriter,
        state: Callable[[int], dict[str, Any]],
        fill: Callable[[int, dict[str, Any], Take], Checkpoint],
        *,
        every: int | None,
        minutes: float | None,
        request: StopRequest,
        ranks: Ranks,
    ) -> None:
        self.writer = writer
        self.state = state
        self.fill = fill
        self.every = every
        self.minutes = minutes
        self.request = request
        self.ranks = ranks
        self.saved = 0
        self.asked: signal.Signals | None = None
        self.seconds = 0.0
        self._since = time.monotonic()
        self._copies = Copies()

    def after_step(self, finished: FinishedStep) -> bool:
        is_due = self._is_due(finished.step)
        # All processes stop and save after the same step, whichever of them the signal or the clock has reached.
        asked, due = self.ranks.most([float(self.request.number or 0), float(is_due)])
        if asked:
            self.asked = signal.Signals(int(asked))
        elif due:
            self.save(finished.step)
        return bool(asked)

    def save(self, step: int) -> None:
        """Begin a checkpoint of this step, unless it is there already."""
        started = time.perf_counter()
        self.writer.wait()  # the copy goes where the one before it lay
        if step != self.saved:
            self._submit(step, self._copies.take)
        self._since = time.monotonic()
        self.seconds += time.perf_counter() - started

    def finish(self, step: int) -> None:
        """A checkpoint of this step, on disk when this returns in any process; and whether a stop was asked for."""
        started = time.perf_counter()
        self.writer.wait()
        if step != self.saved:
            self._submit(step, as_they_are)  # nothing moves any more
        self.ranks.together(self.writer.wait)  # a process that left before would have the others ended
        (asked,) = self.ranks.most([float(self.request.number or 0)])
        self.asked = signal.Signals(int(asked)) if asked else None
        self.seconds += time.perf_counter() - started

    def _submit(self, step: int, take: Take) -> None:
        state = self.state(step)
        self.saved = step
        if not self.ranks.is_first:
            return
        try:
            self.writer.submit(self.fill(step, state, take))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # No room for a copy: then the training waits until the tensors themselves are written.
            self._copies = Copies()
            self.writer.submit(self.fill(step, state, as_they_are))
            self.writer.wait()

    def _is_due(self, step: int) -> bool:
        if self.every is not None and step % self.every == 0:
            return True
        # Never less than nothing: a monotonic clock does not care what the wall's one is set to.
        return self.minutes is not None and time.monotonic() - self._since >= self.minutes * 60


class Copies:
    """Memory for the tensors of a checkpoint, taken once: new memory for each would leave holes among the others."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def take(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors as they are now, on the processor; until the next call with these names."""
        for name, tensor in tensors.items():
            if name not in self._held:
                # From pinned memory a device copies at its full pace.
                self._held[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._held[name].copy_(tensor.detach())
        return {name: self._held[name] for name in tensors}


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they are now, in memory of their own on the processor."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def as_they_are(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors themselves, on the processor."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def optimizer_tensors(step: Step[Any], names: Mapping[int, str]) -> dict[str, Tensor]:
    """What the optimizer keeps of each parameter, and how often each was moved, in the order of the sorted names.

    names: id of a parameter to its name.
    """
    named = {names[id(p)]: step.optimizer.state[p] for p in step.parameters}
    tensors = {f"{name}.{key}": state[key] for name, state in named.items() for key in state if key != "step"}
    return tensors | {"steps": torch.stack([named[name]["step"].detach().cpu() for name in sorted(named)])}


def restore_optimizer(step: Step[Any], names: Mapping[int, str], tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    named = {names[id(p)]: step.optimizer.state[p] for p in step.parameters}
    for number, name in enumerate(sorted(named)):
        state = named[name]
        state["step"].fill_(float(tensors["steps"][number]))
        for key in state.keys() - {"step"}:
            state[key].copy_(tensors[f"{name}.{key}"])


def method_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a method keeps beside its parameters, by the names that a checkpoint has beside the optimizer's moments."""
    return {_OF_METHOD + key: tensor for key, tensor in state.items()}


def restore_method(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copy into a method's own tensors what `method_tensors` gave."""
    for key, tensor in state.items():
        tensor.copy_(tensors[_OF_METHOD + key])


def refuse_other_tensors(found: Checkpoint, trained: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
    """Raises `EnvironmentFault` where libraries name or shape what is trained otherwise than when it was saved."""
    for ours, theirs in ((trained, found.weights), (optimizer, found.optimizer)):
        expected, saved = ({name: tuple(t.shape) for name, t in tensors.items()} for tensors in (ours, theirs))
        different = sorted(name for name in expected.keys() | saved.keys() if expected.get(name) != saved.get(name))
        if different:
            raise environment_fault(
                f"the checkpoint of step {found.step} has other tensors than this model: {listing(different, 4)}",
                allowed="the libraries that it was begun with",
                why=f"it was written with {found.state['software']}, and here are {software()}",
                remedy="install those versions and give the same command, or take a new run with --fresh",
            )


def other_versions(found: Checkpoint) -> list[str]:
    """A sentence where libraries that decide the last digits are not those of the checkpoint."""
    now, then = software(), found.state["software"]
    changed = [
        f"{name} {now.get(name)} (was {then.get(name)})" for name in _DECIDING if now.get(name) != then.get(name)
    ]
    return [f"goes on with {', '.join(changed)}: the last digits may differ"] if changed else []


def random_state(device: str) -> dict[str, Any]:
    """Everything that chance hangs on in this process, as JSON values."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, list(numbers), gauss],
        "numpy": [str(kind), np.asarray(keys).tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
    }
    return state | ({"cuda": torch.cuda.get_rng_state().numpy().tobytes().hex()} if device == "cuda" else {})


def set_random_state(state: Mapping[str, Any], device: str) -> None:
    """Take up what `random_state` gave."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(_bytes(state["torch"]))
    if device == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(_bytes(state["cuda"]))


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
