"""The demo's own questions, and its recipe. `make demo` itself runs in CI."""

from __future__ import annotations

import importlib.util
import json
import unicodedata
from pathlib import Path

from reglaj.models.starters import fetch
from reglaj.pipelines.recipe import load_recipe

ROOT = Path(__file__).parents[2]


def fold(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def test_the_questions_are_not_in_the_data(reglaj_home: Path) -> None:
    spec = importlib.util.spec_from_file_location("demo", ROOT / "scripts" / "demo.py")
    assert spec and spec.loader
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    assert len(demo.QUESTIONS) == 3
    for starter, column, questions in (
        ("medical", "text", demo.QUESTIONS),
        ("finance", "prompt", (demo.MONEY_QUESTION,)),
    ):
        known = {fold(json.loads(line)[column]) for line in fetch(starter).read_bytes().split(b"\n") if line}
        words = [set(text.split()) for text in known]
        for question in questions:
            asked = set(fold(question).split())
            closest = max(len(asked & other) / len(asked | other) for other in words)
            assert closest < 0.5, f"{question!r} is close to a row of the data ({closest:.2f} of the words in common)"


def test_every_recipe_of_ours_is_valid() -> None:
    recipes = sorted((ROOT / "recipes").glob("*.yaml"))
    assert recipes
    for recipe in recipes:
        assert load_recipe(recipe).name == recipe.stem
