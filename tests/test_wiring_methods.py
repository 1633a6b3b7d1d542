"""The keys of a method's section: changing one changes what is learnt, or the files of what was.

Trained without a recipe on disk, a few steps each: a whole run for each of so many keys would take minutes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.training.harness import learner_for, some_rows, supervise

from reglaj.models.encoding import TokenRows
from reglaj.training.fit import fit
from reglaj.training.learner import Learner, weights_sha256

Look = Callable[[Learner, TokenRows, Path], Any]


def learnt(learner: Learner, rows: TokenRows, folder: Path) -> Any:
    """The trained weights, and what the model makes of its rows with them."""
    return weights_sha256(learner.trained()), learner.scores(rows).tobytes()


def stored(learner: Learner, rows: TokenRows, folder: Path) -> Any:
    """Bytes on disk."""
    learner.handle.save(folder)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


SMALL = {"rank": 4, "target_modules": ["query", "value"]}
LOW_RANK: dict[str, tuple[Any, dict[str, Any]]] = {
    "rank": (8, {}),
    "ranks": ({"query": 2}, {}),
    "alpha": (3.0, {}),
    "is_rank_stabilised": (True, {}),
    "b_rate_factor": (16.0, {}),
    "dropout": (0.5, {}),
    "target_modules": (["query", "key"], {}),
    "layers": (1, {}),
}
NETWORK = {"reparametrisation": True}
FEW = {"num_virtual_tokens": 3}
METHOD_CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    **{f"{name}.{key}": (value, SMALL | beside) for name in ("lora", "dora", "qlora") for key, (value, beside) in
       LOW_RANK.items()},
    "lora.init": ("pissa", SMALL),
    "qlora.is_double_quantised": (False, SMALL),
    "adalora.init_rank": (6, {"target_rank": 4}),
    "adalora.target_rank": (4, {}),
    "adalora.alpha": (3.0, {}),
    "adalora.dropout": (0.5, {}),
    "adalora.orthogonality_weight": (0.0, {}),
    "adalora.initial_ratio": (0.5, {}),
    "adalora.final_ratio": (0.6, {}),
    "adalora.target_modules": (["query"], {}),
    "adalora.layers": (1, {}),
    "vera.rank": (64, {}),
    "vera.initial_d": (1.0, {}),
    "vera.dropout": (0.5, {}),
    "vera.projection_seed": (5, {}),
    "vera.save_projections": (False, {}),
    "vera.target_modules": (["query"], {}),
    "vera.layers": (1, {}),
    "ia3.target_modules": (["query"], {}),
    "ia3.layers": (1, {}),
    "peft.type": ("LOKR", {"type": "LOHA", "r": 4}),
    "peft.target_modules": (["query"], {"type": "LOHA", "r": 4}),
    "peft.layers": (1, {"type": "LOHA", "r": 4}),
    "adapter.variant": ("pfeiffer", {}),
    "adapter.bottleneck_dim": (2, {}),
    "adapter.activation": ("tanh", {}),
    "adapter.scale": (3.0, {}),
    "adapter.layers": (1, {}),
    "adapter.dropout": (0.5, {}),
    "bitfit.norms": (True, {}),
    "freeze.layers": (2, {}),
    "prompt.num_virtual_tokens": (5, FEW),
    "prompt.init": ("random", FEW),
    "prompt.init_text": ("help please", FEW),
    "p-tuning.num_virtual_tokens": (5, FEW),
    "p-tuning.reparametrisation": ("lstm", FEW),
    "p-tuning.hidden_size": (7, FEW),
    "prefix.num_virtual_tokens": (5, FEW),
    "prefix.init": ("random", FEW),
    "prefix.init_text": ("help please", FEW),
    "prefix.reparametrisation": (True, FEW | {"init": "random"}),
    "prefix.hidden_size": (7, FEW | NETWORK),
}  # fmt: skip
"""Key of a method: what is changed; the rest of the section on both sides."""
LOOKS: dict[str, Look] = {"vera.save_projections": stored}


@pytest.fixture(scope="module")
def trained(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """What a training with a section gives; the same section is trained once."""
    made: dict[str, Any] = {}

    def train(section: dict[str, Any], look: Look) -> Any:
        known = json.dumps([section, look.__name__], sort_keys=True)
        if known not in made:
            epochs = 4 if section["name"] == "adalora" else 1  # its budget falls over some steps
            settings: dict[str, Any] = {"epochs": epochs, "learning_rate": 3e-3, "max_tokens": 40, "batch_size": 8}
            settings |= {"precision": "float32", "early_stopping": None}
            assembled = learner_for(tiny_model("bert"), section, **settings)
            supervision, encoded = supervise(assembled, some_rows(24))
            fit(assembled.learner, supervision, assembled.recipe.train, tmp_path_factory.mktemp("run"))
            made[known] = look(assembled.learner, encoded.rows, tmp_path_factory.mktemp("model"))
        return made[known]

    return train


@pytest.mark.parametrize("key", METHOD_CHANGES)
def test_changing_the_key_changes_what_is_learnt(key: str, trained: Callable[..., Any]) -> None:
    value, beside = METHOD_CHANGES[key]
    name, _, field = key.partition(".")
    before = {"name": name, **beside}
    look = LOOKS.get(key, learnt)
    assert trained(before, look) != trained(before | {field: value}, look)


def test_a_section_that_says_the_same_gives_the_same(trained: Callable[..., Any]) -> None:
    """Else every key would seem to be read."""
    for name, beside in (("lora", {"layers": None}), ("adalora", {"alpha": 32.0}), ("prompt", {"init": "vocabulary"})):
        assert trained({"name": name}, learnt) == trained({"name": name, **beside}, learnt)
