"""The page about methods names all of them, and its table of defaults is the code's."""

from __future__ import annotations

import re
from pathlib import Path

from reglaj.methods import METHODS
from reglaj.models.inspect import ModelFacts

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
SIZES = (30_000_000, 135_000_000, 1_000_000_000)
"""Parameters of a small, a middle and a large model."""


def facts_of(parameters: int) -> ModelFacts:
    return ModelFacts(name="some", folder=Path(), config={"model_type": "llama"}, tensors={"all": (parameters,)})


def table() -> str:
    """Defaults as the code has them."""
    lines = [
        "| method | classify: up to 60 M parameters, up to 200 M, above | chat: the same | of a new head | epochs |",
        "|---|---|---|---|---|",
    ]
    for name in METHODS.names():
        method = METHODS.get(name)
        if not method.__module__.startswith("reglaj.methods."):
            continue
        classify, chat = (
            ", ".join(f"{method.default_learning_rate(facts_of(size), has_new_head=new):g}" for size in SIZES)
            for new in (True, False)
        )
        if name == "linear-probe":  # nothing of the model learns
            classify = chat = "-"
        head = f"{method.default_head_learning_rate(facts_of(SIZES[0])):g}"
        lines.append(f"| `{name}` | {classify} | {chat} | {head} | {method.default_epochs()} |")
    return "\n".join(lines)


def test_every_method_has_its_paragraph() -> None:
    told = set(re.findall(r"^\*\*`([\w-]+)`\*\*", PAGE, flags=re.MULTILINE))
    ours = {name for name in METHODS.names() if METHODS.get(name).__module__.startswith("reglaj.methods.")}
    assert len(ours) > 10 and told == ours


def test_the_defaults_are_the_code_s() -> None:
    found = re.search(r"<!-- defaults -->\n(.*?)\n<!-- /defaults -->", PAGE, flags=re.DOTALL)
    assert found and found.group(1) == table(), f"the table should be\n{table()}"
