"""What PEFT offers, read from its source: importing it would load torch, which checking a recipe does without.

A type is one folder of `peft/tuners`: its `__init__.py` registers a name and a config class, whose annotated fields are
the type's keys. What an update of PEFT adds or takes away is seen here without a list of ours.
"""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class PeftType:
    """fields: keys of its config, those of its base classes too. takes_conv1d: whether GPT-2's layers can have it."""

    name: str
    fields: frozenset[str]
    takes_conv1d: bool


@cache
def peft_types() -> dict[str, PeftType]:
    """Every type that the installed PEFT registers, by its name in capitals."""
    root = _root()
    classes = _config_classes(root)
    found = {}
    for file in sorted((root / "tuners").glob("*/__init__.py")):
        for name, config in _registered(file):
            model = file.with_name("model.py")
            takes = model.is_file() and "Conv1D" in model.read_text(encoding="utf-8")
            found[name] = PeftType(name=name, fields=frozenset(_fields(config, classes)), takes_conv1d=takes)
    return found


def _root() -> Path:
    found = importlib.util.find_spec("peft")
    assert found and found.origin, "peft is one of our dependencies"
    return Path(found.origin).parent


def _registered(file: Path) -> list[tuple[str, str]]:
    """(name, config class) of each `register_peft_method` in a file."""
    calls = [node for node in ast.walk(_tree(file)) if isinstance(node, ast.Call) and _is_register(node.func)]
    found = []
    for call in calls:
        keys = {keyword.arg: keyword.value for keyword in call.keywords}
        name, config = keys.get("name"), keys.get("config_cls")
        if isinstance(name, ast.Constant) and isinstance(config, ast.Name):
            found.append((str(name.value).upper(), config.id))
    return found


def _is_register(function: ast.expr) -> bool:
    return isinstance(function, ast.Name) and function.id == "register_peft_method"


def _config_classes(root: Path) -> dict[str, ast.ClassDef]:
    files = [root / "config.py", *(root / "tuners").glob("*/config.py"), root / "tuners" / "lycoris_utils.py"]
    nodes = [node for file in files if file.is_file() for node in _tree(file).body]
    return {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}


def _fields(name: str, classes: dict[str, ast.ClassDef]) -> set[str]:
    node = classes.get(name)
    if node is None:
        return set()
    own = {
        item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
    return own.union(*(_fields(base, classes) for base in bases))


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))
