"""What the conformance suite runs: every registered method with small settings, variants of some, on which models.

A method that is not named here runs with its defaults on every model; nothing has to be added for a new one.
"""

from __future__ import annotations

from typing import Any

import pytest

from reglaj.methods import METHODS

FAMILIES = ("bert", "distilbert", "llama-trunk", "llama", "gpt2", "t5")
"""Encoders; a decoder's trunk; decoders with their output matrix, without biases and with; an encoder-decoder."""
ENCODER, DECODER, BOTH = "bert", "llama", "t5"
THREE = (ENCODER, DECODER, BOTH)
SETTINGS: dict[str, dict[str, Any]] = {
    "prefix": {"num_virtual_tokens": 4},
    "prompt": {"num_virtual_tokens": 4},
    "p-tuning": {"num_virtual_tokens": 4},
    "peft": {"type": "LOHA"},
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "full, embeddings frozen": ("full", {"train_embeddings": False}),
    "lora, one layer": ("lora", {"layers": 1, "rank": 4}),
    "lora, principal part": ("lora", {"init": "pissa", "rank": 4}),
    "lora, plus": ("lora", {"is_rank_stabilised": True, "b_rate_factor": 16.0, "rank": 4}),
    "qlora, scales as they are": ("qlora", {"is_double_quantised": False, "rank": 4}),
    "prefix, by a network": ("prefix", {"num_virtual_tokens": 3, "reparametrisation": True, "hidden_size": 16}),
    "prompt, at random": ("prompt", {"num_virtual_tokens": 3, "init": "random"}),
    "prompt, from a text": ("prompt", {"num_virtual_tokens": 5, "init_text": "help please"}),
    "p-tuning, lstm": ("p-tuning", {"num_virtual_tokens": 3, "reparametrisation": "lstm", "hidden_size": 16}),
    "adapter, pfeiffer": ("adapter", {"variant": "pfeiffer", "layers": 1}),
    "adapter, parallel": ("adapter", {"variant": "parallel"}),
    "bitfit, norms": ("bitfit", {"norms": True}),
}
"""Other settings of a method: what they are called, the method, its section."""
REQUIRED = {
    *((name, family) for name in (
        "full", "lora", "qlora", "dora", "prefix", "prompt", "p-tuning", "adapter", "ia3", "adalora", "vera", "freeze",
        "peft",
    ) for family in THREE),
    ("bitfit", ENCODER),
    ("bitfit, norms", DECODER),
    ("bitfit, norms", BOTH),
    ("linear-probe", ENCODER),
}  # fmt: skip
"""What must be supported: a method that refuses everything would pass everything else."""
ALSO = ("lora", "full", "prompt", "prefix", "adapter", "p-tuning, lstm", "lora, principal part")
"""One of each kind, which run on a second model too where a test is dear."""
ROUNDED = ("dora", "qlora")
"""These begin as the base up to rounding."""


def cases() -> list[str]:
    """Every registered method by its name, and the variants."""
    return [*METHODS.names(), *(case for case, (name, _) in VARIANTS.items() if name in METHODS)]


def on_every_model() -> list[tuple[str, str]]:
    """Methods on every model; their variants on the three kinds."""
    return [(case, family) for case in cases() for family in (THREE if case in VARIANTS else FAMILIES)]


def on_each_kind() -> list[tuple[str, str]]:
    """All cases on the three kinds of models, for what costs more."""
    return [(case, family) for case in cases() for family in THREE]


def with_variants_on(first: str, second: str) -> list[tuple[str, str]]:
    """Methods on two models, their variants on the first: for what takes a second each."""
    return [(case, family) for case in cases() for family in ((first,) if case in VARIANTS else (first, second))]


def rest_under_torture(pairs: list[tuple[str, str]], first: str) -> list[Any]:
    """These pairs, of which those of the `ALSO` kinds and all on the first model run at every commit."""
    return [
        pytest.param(case, family, marks=[] if case in ALSO or (family == first and case not in VARIANTS) else later)
        for later in (pytest.mark.torture,)
        for case, family in pairs
    ]


def section(case: str) -> dict[str, Any]:
    """The recipe's method section of a case."""
    name, settings = VARIANTS.get(case, (case, SETTINGS.get(case, {})))
    return {"name": name, **settings}
