"""What the engine runs on: decided by recipe, model and hardware alone, printed, and stored with the run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from reglaj.core.errors import environment_fault
from reglaj.models.attention import Attention
from reglaj.models.packing import Layout
from reglaj.training.budget import WIDE, ModelShape, machine_memory_bytes, micro_batch_tokens
from reglaj.training.config import TrainConfig
from reglaj.training.parallel import wanted_processes

EVALUATION_FACTOR = 2  # no gradients are kept, so a pass can be larger


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The choices that decide speed but, beyond rounding, not the result."""

    device: str
    precision: Literal["float32", "bfloat16"]
    layout: Layout
    layout_reason: str
    attention: Attention = "by-length"
    """How packed texts attend; no effect on other layouts."""
    operations: Literal["fused", "plain"] = "plain"
    """Of the method: a frozen layer and its low-rank update in one operation, or one by one."""
    micro_batch_tokens: int
    threads: int
    hardware: str
    processes: int = 1
    halved_at: tuple[int, ...] = ()
    """Steps at which memory did not suffice and the micro-batch was halved."""
    trunk_cache: str = ""
    """Whether frozen layers are run once (`on` or `off`) and why; empty until it is decided."""

    def facts(self) -> dict[str, Any]:
        """For the manifest, as JSON values."""
        return asdict(self) | {"halved_at": list(self.halved_at)}

    @property
    def is_padded(self) -> bool:
        """Whether a batch costs as much as its longest row in every place."""
        return not self.layout.startswith("packed")

    def __str__(self) -> str:
        """One line for the screen."""
        packed = f", attention {self.attention}" if self.layout in ("packed", "packed-causal") else ""
        several = f", {self.processes} processes" if self.processes > 1 else ""
        return (
            f"{self.device}, {self.precision}, {self.layout} rows ({self.layout_reason}){packed}, {self.operations}"
            f" operations, micro-batches of {self.micro_batch_tokens:,} tokens, {self.threads} threads{several}"
        )

    @property
    def remark(self) -> str:
        """What a user who forced a choice should know, or nothing."""
        if self.device != "cpu" or self.precision != "bfloat16" or _has_bfloat16_units():
            return ""
        return (
            "train.precision is bfloat16, which this processor emulates: several times as slow as float32 (`auto` takes"
            " what it is fast at)"
        )

    def autocast(self) -> torch.autocast:
        """The context of a forward pass: multiplies in bfloat16 where that was chosen, weights stay float32."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.precision == "bfloat16")


def go_on_with(engine: Engine, before: Mapping[str, Any]) -> tuple[Engine, list[str]]:
    """The choices that a run was begun with, where this machine can do the same; what it cannot is said.

    before: `Engine.facts` of then. Another number of processes has its own threads.
    """
    if before.get("device") != engine.device:
        told = f"begun on {before.get('device')}, goes on on {engine.device}: the last digits may differ from one run"
        return engine, [told]
    names = ["precision", "layout", "layout_reason", "attention", "operations", "micro_batch_tokens", "halved_at"]
    if not engine.trunk_cache:  # what was decided on this start is what is so
        names.append("trunk_cache")
    remarks = []
    if before.get("processes") == engine.processes:
        names.append("threads")
    else:
        remarks.append(f"begun with {before.get('processes')} processes, goes on with {engine.processes}")
    if before.get("hardware") != engine.hardware:
        remarks.append(f"begun on {before.get('hardware')}, goes on on {engine.hardware}: the last digits may differ")
    # What runs were made with before there was a choice.
    before = {"attention": "by-length", "operations": "plain", **before}
    kept = {name: before[name] for name in names if name in before}
    if "halved_at" in kept:
        kept["halved_at"] = tuple(kept["halved_at"])
    return replace(engine, **kept), remarks


@contextlib.contextmanager
def using_threads(count: int) -> Iterator[None]:
    """So many threads inside the block: sums are made in the same order on every start of a run."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_device(config: TrainConfig) -> str:
    """`cuda` where there is one, unless the recipe names another. Raises `EnvironmentFault` when it is missing."""
    has_cuda = torch.cuda.is_available()
    if config.device == "cuda" and not has_cuda:
        raise environment_fault(
            "train.device is cuda, and there is no CUDA device",
            allowed="auto or cpu on this machine",
            why="torch sees no GPU (no driver, no device, or a CPU build of torch)",
            remedy="use train.device=auto, or install a CUDA build of torch",
            where="train.device",
        )
    return "cuda" if config.device != "cpu" and has_cuda else "cpu"


def choose_engine(
    config: TrainConfig, device: str, layout: Layout, layout_reason: str, shape: ModelShape | None = None
) -> Engine:
    """Fill in what the recipe leaves open. shape: of the model; without one its size does not count."""
    on_cuda = device == "cuda"
    width = shape.width if shape else 0
    precision = _choose_precision(device, width) if config.precision == "auto" else config.precision
    memory = torch.cuda.get_device_properties().total_memory if on_cuda else machine_memory_bytes()
    tokens = config.micro_batch_tokens or micro_batch_tokens(device, memory, shape)
    return Engine(
        device=device,
        precision=precision,
        layout=layout,
        layout_reason=layout_reason,
        attention="varlen" if on_cuda and precision == "bfloat16" else "by-length",
        micro_batch_tokens=1 if layout == "alone" else tokens,
        threads=torch.get_num_threads(),
        hardware=torch.cuda.get_device_name() if on_cuda else _processor(),
        processes=wanted_processes(),
    )


def _choose_precision(device: str, width: int) -> Literal["float32", "bfloat16"]:
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if _has_bfloat16_units() and width >= WIDE else "float32"


def _has_bfloat16_units() -> bool:
    return any(torch.cpu.get_capabilities().get(unit) for unit in ("avx512_bf16", "amx_bf16"))


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    import platform

    return platform.processor() or platform.machine()


def peak_memory_bytes(device: str) -> int:
    """The most memory this process has held: of the device on CUDA, else resident memory."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    try:
        # Not `ru_maxrss`: on Linux a process begins with the peak of the one that started it.
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
        import sys
    except ImportError:  # not on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
