"""Several processes that train one model: who they are, and what they tell each other.

Data parallel: every process holds the whole model and works on a part of each step's rows. What is summed is summed
once, over all of them, so nothing that is divided afterwards knows how many there were. Numbers and JSON travel, and
nothing that would have to be unpickled. Importing this costs nothing: torch is loaded where there are several.

Legend: W processes.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from reglaj.core.errors import (
    EnvironmentFault,
    GateRefused,
    Problem,
    ReglajError,
    SaidElsewhere,
    UserError,
    environment_fault,
    is_out_of_memory,
    user_error,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

T = TypeVar("T")
BUCKET_VALUES = 1 << 23
"""Gradient values that travel at once: 32 MB in float32."""
_PATIENCE = datetime.timedelta(hours=24)
"""The first process may read data or run baselines for long. One that has died is noticed by its closed connection."""
_FAMILIES: dict[int, type[ReglajError]] = {2: UserError, 3: GateRefused, 4: EnvironmentFault}


class Ranks:
    """This process among W. With one process every call is the identity and costs nothing."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self._alone = 0

    @property
    def is_first(self) -> bool:
        """The one that speaks, writes and decides."""
        return self.rank == 0

    @property
    def is_shared(self) -> bool:
        """Whether other processes take part in what is done now."""
        return self.size > 1 and not self._alone

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """What this process does inside, the others do not do with it."""
        self._alone += 1
        try:
            yield
        finally:
            self._alone -= 1

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of `items`: every W-th one."""
        return list(items[self.rank :: self.size]) if self.is_shared else list(items)

    def sum_values(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the processes, in float64."""
        return self._reduce(values, "SUM") if self.is_shared else list(values)

    def most(self, values: Sequence[float]) -> list[float]:
        """The largest of each value over the processes."""
        return self._reduce(values, "MAX") if self.is_shared else list(values)

    def sum_array(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array summed over the processes; where each filled rows of its own, all of them have all rows."""
        if not self.is_shared:
            return array
        import numpy as np
        import torch

        tensor = torch.from_numpy(np.ascontiguousarray(array))
        with _peers():
            torch.distributed.all_reduce(tensor)
        return tensor.numpy()

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Each gradient summed over the processes, in place. One that a process does not have counts as zero there."""
        if not self.is_shared:
            return
        import torch

        for bucket in _buckets(parameters):
            gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in bucket]
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            with _peers():
                torch.distributed.all_reduce(flat)
            for parameter, piece in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                parameter.grad = piece.view_as(parameter)

    def gather(self, value: Any) -> list[Any]:
        """A JSON value of every process, by rank."""
        if not self.is_shared:
            return [value]
        import torch

        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [int(size) for size in self._gather_tensor(torch.tensor([len(data)]))]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(data)] = data
        rows = self._gather_tensor(padded)
        return [json.loads(row[:size].numpy().tobytes()) for row, size in zip(rows, sizes, strict=True)]

    def from_first(self, value: Any) -> Any:
        """The first process's JSON value; that of the others is not looked at."""
        return self.gather(value if self.is_first else None)[0]

    def share_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite each tensor with the first process's, in place."""
        if not self.is_shared:
            return
        import torch

        for name in sorted(tensors):
            with _peers():
                torch.distributed.broadcast(tensors[name], src=0)

    def together(self, work: Callable[[], T]) -> T:
        """What `work` gives in each process. Where it fails in one, it has failed in all, and the first tells of it.

        `work` itself must not speak with the other processes: the one that fails would not listen any more.
        """
        result, fault = _attempt(work)
        self._raise_first(fault)
        return result  # type: ignore[return-value]

    def first_then_rest(self, work: Callable[[], T]) -> T:
        """`work` in the first process, then in the others, which find what it has left."""
        result, fault = _attempt(work) if self.is_first else (None, None)
        self._raise_first(fault)
        if not self.is_first:
            result, fault = _attempt(work)
        self._raise_first(fault)
        return result  # type: ignore[return-value]

    def _raise_first(self, fault: BaseException | None) -> None:
        if not self.is_shared:
            if fault:
                raise fault
            return
        faults = self.gather(_as_json(fault))
        found = next(((rank, one) for rank, one in enumerate(faults) if one), None)
        if found is None:
            return
        rank, one = found
        if self.rank != 0:
            raise SaidElsewhere(one["code"])
        if fault is not None:
            raise fault
        there = f"process {rank} of {self.size}"
        problems = [problem | {"where": f"{there}, {problem['where']}".rstrip(", ")} for problem in one["problems"]]
        raise _FAMILIES.get(one["code"], ReglajError)(*(Problem(**problem) for problem in problems))

    def _reduce(self, values: Sequence[float], operation: str) -> list[float]:
        import torch

        tensor = torch.tensor(list(values), dtype=torch.float64)
        with _peers():
            torch.distributed.all_reduce(tensor, getattr(torch.distributed.ReduceOp, operation))
        reduced: list[float] = tensor.tolist()
        return reduced

    def _gather_tensor(self, tensor: Tensor) -> list[Tensor]:
        import torch

        gathered = [torch.empty_like(tensor) for _ in range(self.size)]
        with _peers():
            torch.distributed.all_gather(gathered, tensor)
        return gathered


ALONE = Ranks()


def wanted_processes() -> int:
    """How many processes the launcher started, by its environment; 1 without a launcher."""
    size = os.environ.get("WORLD_SIZE", "1")
    return int(size) if size.isdecimal() and os.environ.get("RANK", "").isdecimal() else 1


@contextlib.contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """The processes that a launcher (torchrun, or `reglaj train --processes`) started; one alone without it.

    device: `train.device` of the recipe. On CUDA each process takes the GPU of its number on its machine.
    """
    size = wanted_processes()
    if size == 1:
        yield Ranks()
        return
    import torch

    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))
    on_cuda = device != "cpu" and torch.cuda.is_available()
    if on_cuda:
        if local >= torch.cuda.device_count():
            raise environment_fault(
                f"process {rank} wants the GPU number {local}",
                allowed=f"at most {torch.cuda.device_count()} processes on this machine, one a GPU",
                why="two processes on one GPU would only take turns, and NCCL refuses them",
                remedy="start as many processes as there are GPUs, or set train.device=cpu",
            )
        torch.cuda.set_device(local)
    # Both: gradients travel where they lie, and the small things from the processor.
    backend = "cpu:gloo,cuda:nccl" if on_cuda else "gloo"
    with _peers():
        torch.distributed.init_process_group(backend, rank=rank, world_size=size, timeout=_PATIENCE)
    try:
        yield Ranks(rank, size)
    finally:
        with contextlib.suppress(Exception):  # a peer that died first must not hide why
            torch.distributed.destroy_process_group()


def check_batch_size(batch_size: int, ranks: Ranks) -> None:
    """Raises `UserError` where processes would have nothing to do in every step."""
    if ranks.size > batch_size:
        raise user_error(
            f"{ranks.size} processes for steps of {batch_size} examples",
            allowed=f"1 to {batch_size} processes",
            why="an example is worked on by one process: the others would wait in every step",
            remedy="start fewer processes, or raise train.batch_size",
            where="--processes",
        )


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters of one kind after the other, as many as travel at once."""
    bucket: list[nn.Parameter] = []
    used = 0
    for parameter in parameters:
        is_other = bool(bucket) and (bucket[0].dtype, bucket[0].device) != (parameter.dtype, parameter.device)
        if bucket and (is_other or used + parameter.numel() > BUCKET_VALUES):
            yield bucket
            bucket, used = [], 0
        bucket.append(parameter)
        used += parameter.numel()
    if bucket:
        yield bucket


def _attempt(work: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error


def _as_json(fault: BaseException | None) -> dict[str, Any] | None:
    if fault is None:
        return None
    if isinstance(fault, ReglajError):
        return {"code": fault.exit_code, "problems": [vars(problem) for problem in fault.problems]}
    problem = Problem(given=f"{type(fault).__name__}: {fault}", allowed="no fault", why="see above", remedy="report it")
    return {"code": 1, "problems": [vars(problem)]}


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    """Turn a broken connection into an `EnvironmentFault`: another process of this training has died."""
    try:
        yield
    except RuntimeError as error:  # also what torch.distributed has of its own
        if is_out_of_memory(error):
            raise
        if os.environ.get("RANK", "0") != "0":
            raise SaidElsewhere(EnvironmentFault.exit_code) from error
        raise environment_fault(
            "another process of this training has ended",
            allowed="all processes running until the end",
            why=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
            remedy="look at what it said, then give the same command: the run goes on from its last checkpoint",
        ) from error
