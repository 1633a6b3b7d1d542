"""What a new run does otherwise than an earlier one of its name: said, so that nobody wonders why it did not go on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reglaj.core.config import read_yaml_mapping
from reglaj.core.errors import UserError
from reglaj.core.runs import read_manifest
from reglaj.pipelines.recipe import Recipe

_MOST = 6
_BY_CONTENT = ("data.sources", "model", "name")
"""Not compared by their names: files may have moved, and what they hold has keys of its own."""


def what_changed(before: Path, plan: Recipe, facts: Mapping[str, Any]) -> list[str]:
    """Phrases such as `train.epochs (3, was 2)`.

    before: the folder of the earlier run. facts: `data_key` and `base` of the new one.
    """
    try:
        old = dict(_flat(read_yaml_mapping(before / "recipe.yaml")))
    except UserError:
        return []
    new = dict(_flat(plan.values()))
    keys = [key for key in sorted(old.keys() | new.keys()) if not key.startswith(_BY_CONTENT)]
    changes = [f"{key} ({_shown(new, key)}, was {_shown(old, key)})" for key in keys if old.get(key) != new.get(key)]
    manifest = read_manifest(before)
    if manifest.get("base") != facts["base"]:
        changes.append(f"the base ({plan.model}, fingerprint {str(facts['base'])[:12]})")
    if manifest.get("data_key") != facts["data_key"] and not any(change.startswith("data.") for change in changes):
        changes.append(f"the data (key {str(facts['data_key'])[:12]}, was {str(manifest.get('data_key'))[:12]})")
    return changes if len(changes) <= _MOST else [*changes[:_MOST], f"{len(changes) - _MOST} more keys"]


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _shown(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return "nothing" if value is None else str(value)
