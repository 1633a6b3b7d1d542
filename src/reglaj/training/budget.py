"""How many tokens one pass may have, told from the model's shape and the machine's memory. Needs no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

FLOAT_BYTES = 4
ACTIVATIONS_PER_LAYER = {"encoder": 16, "decoder": 22}
"""Values of the model's width that a transformer layer keeps per token for its backward pass (with fused attention).
A decoder's was counted on SmolLM2: 20 under LoRA, 22 in full; most of it are the wide tensors of the gated part."""
MOST_TOKENS = {"cpu": 1024, "cuda": 16_384}
"""Beyond these, a larger pass brings nothing. On a processor it takes the tensors between two products out of its
caches: LoRA on SmolLM2 was 7 to 12% slower with 2,048 tokens, and no faster with 512 (2 cores, 32 MB of cache; one
process beside other work)."""
FEWEST_TOKENS = 256
WIDE = 512
"""Width from which a processor with bfloat16 units is faster in it, conversions included (2.2 times at 576)."""
_CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_SHARE = 4
"""Activations may take this part of all memory; weights, optimizer and what the forecast does not see have the rest."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What decides how much a pass keeps for its backward.

    is_frozen: nothing of the trunk learns. is_computed_twice: gradient checkpointing.
    """

    layers: int
    width: int
    is_decoder: bool
    is_frozen: bool = False
    is_computed_twice: bool = False

    @property
    def bytes_per_token(self) -> int:
        """That wait for the backward pass, in float32."""
        per_layer = ACTIVATIONS_PER_LAYER["decoder" if self.is_decoder else "encoder"]
        if self.is_frozen:  # keeps nothing but what one layer needs at a time
            return per_layer * self.width * FLOAT_BYTES
        if self.is_computed_twice:  # each layer's input, and one layer whole
            return (self.layers + per_layer) * self.width * FLOAT_BYTES
        return self.layers * per_layer * self.width * FLOAT_BYTES


def micro_batch_tokens(device: str, memory: int, shape: ModelShape | None) -> int:
    """Tokens of one pass: as many as bring speed, halved until they fit into a share of all memory (bytes).

    It is told from the whole memory, not from what happens to be free: the same machine always chooses alike.
    """
    tokens = MOST_TOKENS[device]
    if shape is not None and memory:
        while tokens > FEWEST_TOKENS and tokens * shape.bytes_per_token > memory // _SHARE:
            tokens //= 2
    return tokens


def machine_memory_bytes() -> int:
    """All memory of this machine, or of the container where that has less; 0 where it cannot be told."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return 0
    for file in _CONTAINER_LIMITS:
        try:
            memory = min(memory, int(file.read_text(encoding="ascii")))
        except (OSError, ValueError):  # there is no such file, or it says "max"
            continue
    return memory


def has_bfloat16_units() -> bool:
    """Whether the processor says that it multiplies in bfloat16; False where it does not tell (not Linux)."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags.split())


def device_memory_bytes() -> int:
    """All memory of the first GPU, as its driver tells it; 0 where it does not. torch would take seconds to load."""
    import ctypes

    class Memory(ctypes.Structure):
        _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]

    try:
        driver = ctypes.CDLL("libnvidia-ml.so.1")
        handle, memory = ctypes.c_void_p(), Memory()
        if driver.nvmlInit_v2():
            return 0
        if driver.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)):
            return 0
        failed = driver.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
        driver.nvmlShutdown()
    except (OSError, AttributeError):  # no driver here, or one without these names
        return 0
    return 0 if failed else int(memory.total)
