"""A recipe that explains itself: every key with its meaning above it, and what may be left out commented out.

Meanings, defaults and order come from the config classes themselves, so that there is no second list to keep.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from reglaj.core.config import Config, parse_yaml
from reglaj.core.errors import ReglajError

_WIDTH = 112


def comment(text: str, indent: int = 0) -> list[str]:
    """`text` as comment lines. Line breaks in it (a column's name may have some) become spaces."""
    start = " " * indent + "# "
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return textwrap.wrap(flat, _WIDTH, initial_indent=start, subsequent_indent=start, break_long_words=False) or []


def scalar(value: Any) -> str:
    """A value on one line that the recipe reader reads back as the same value: `'1e5'` must stay a text."""
    text = (
        yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1_000_000)
        .removesuffix("\n...\n")
        .strip()
    )
    if _reads_back(text, value):
        return text
    if isinstance(value, str):
        return yaml.safe_dump(value, default_style='"', allow_unicode=True, width=1_000_000).strip()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {scalar(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(scalar(item) for item in value) + "]"


def section(config: type[Config], *, indent: int, live: Mapping[str, Any], leave_out: Sequence[str] = ()) -> list[str]:
    """The keys of a section: those in `live` with their value, the others commented out with their default."""
    lines: list[str] = []
    for key, field in config.model_fields.items():
        if key in leave_out:
            continue
        lines += comment(_meaning(field), indent)
        if key in live:
            lines.append(f"{' ' * indent}{key}: {scalar(live[key])}")
        else:
            lines.append(f"{' ' * indent}# {key}: {scalar(_plain(field.get_default(call_default_factory=True)))}")
    return lines


def _meaning(field: FieldInfo) -> str:
    """A field's docstring; that of a section, with those of its keys."""
    default = field.get_default(call_default_factory=True)
    parts = [field.description or ""]
    if isinstance(default, Config):
        parts += [
            f"{key}: {inner.description}" for key, inner in type(default).model_fields.items() if inner.description
        ]
    return " ".join(part for part in parts if part)


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.model_dump(mode="json")
    return list(value) if isinstance(value, tuple) else value


def _reads_back(text: str, value: Any) -> bool:
    try:
        return bool(parse_yaml(f"key: {text}", where="") == {"key": value})
    except ReglajError:
        return False
