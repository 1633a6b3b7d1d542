"""The base of every recipe section, and the reading of YAML that never guesses.

PyYAML follows YAML 1.1, where `no` is a boolean and `3e-4` a text. Recipes follow the YAML 1.2 core
schema instead: only `true` and `false` are booleans, `3e-4` is a number, and a key given twice is an error.
"""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from reglaj.core.errors import Problem, UserError, listing, nearest, user_error


class Config(BaseModel):
    """A frozen section of a recipe. Unknown keys are refused; booleans are not numbers."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", coerce_numbers_to_str=True, protected_namespaces=(), use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _booleans_are_not_numbers(cls, values: Any) -> Any:
        """`epochs: true` would count as 1: as a text it is refused by the field itself, beside all other problems."""
        if not isinstance(values, dict):
            return values
        return {key: str(value).lower() if cls._is_wrong(key, value) else value for key, value in values.items()}

    @classmethod
    def _is_wrong(cls, key: Any, value: Any) -> bool:
        field = cls.model_fields.get(key) if isinstance(value, bool) else None
        kinds = _kinds(field.annotation) if field else set()
        return bool(kinds & {int, float}) and bool not in kinds


def _kinds(annotation: Any) -> set[Any]:
    """The plain types inside an annotation such as `int | None`."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return set().union(*(_kinds(part) for part in typing.get_args(annotation)))
    return {annotation} if isinstance(annotation, type) else set()


class _Loader(yaml.SafeLoader):
    """YAML 1.2 core schema, with duplicate keys refused."""

    yaml_implicit_resolvers = {
        first: [(tag, regexp) for tag, regexp in entries if not tag.endswith((":bool", ":int", ":float", ":timestamp"))]
        for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                mark = key_node.start_mark
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


# Integers first: what is one would also pass for a float.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$|^0o[0-7]+$|^0x[0-9a-fA-F]+$"), list("-+0123456789")
)
_Loader.add_constructor(
    "tag:yaml.org,2002:int", lambda _, node: int(node.value, 0 if node.value[:2] in ("0o", "0x") else 10)
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str, *, where: str) -> Any:
    """The value of a YAML text. Raises `UserError` with line and column when it is broken."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise user_error(
            f"broken YAML: {getattr(error, 'problem', None) or error}",
            allowed="one YAML mapping with the recipe's keys, indented by spaces",
            why="the file cannot be understood from this place on",
            remedy="mend the line, or start from `reglaj new FILE`",
            where=place,
        ) from error


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would read as something else: `no`, `1e5`, `0o7`, `2026-11-22`."""

    yaml_implicit_resolvers = {
        first: yaml.SafeLoader.yaml_implicit_resolvers.get(first, []) + _Loader.yaml_implicit_resolvers.get(first, [])
        for first in yaml.SafeLoader.yaml_implicit_resolvers.keys() | _Loader.yaml_implicit_resolvers.keys()
    }


def dump_yaml(values: Any) -> str:
    """Plain values as YAML that `parse_yaml` reads back as the same values."""
    text = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return str(text)


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises `UserError` when it is missing, unreadable or no mapping."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else (error.strerror or str(error))
        raise user_error(
            f"cannot read the recipe {str(path)!r}",
            allowed="a readable YAML file in UTF-8",
            why=reason,
            remedy="check the path, or write a recipe with `reglaj new FILE`",
        ) from error
    value = parse_yaml(text, where=str(path))
    if not isinstance(value, dict):
        raise user_error(
            f"{path} holds {type(value).__name__ if value is not None else 'nothing'}, not a mapping",
            allowed="top-level keys such as `task:` and `data:`",
            why="a recipe is one YAML mapping",
            remedy="start from `reglaj new FILE`",
        )
    return value


def apply_override(values: dict[str, Any], assignment: str) -> None:
    """Set `a.b.c=value` inside nested mappings, in place; the value is read as YAML."""
    key, equals, text = assignment.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise user_error(
            f"cannot understand {assignment!r}",
            allowed="dotted.key=value, for example train.epochs=3",
            why="an override names one key of the recipe and its new value",
            remedy="write it without spaces, or quote it in the shell",
        )
    set_dotted(values, parts, parse_yaml(text, where=f"override {assignment!r}"))


def set_dotted(values: dict[str, Any], parts: list[str], value: Any) -> None:
    """Set one nested value, in place; list items are named by their number (`data.sources.0.path`)."""
    place: Any = values
    for i, part in enumerate(parts):
        is_last = i == len(parts) - 1
        if isinstance(place, list):
            if not part.isdigit() or int(part) >= len(place):
                raise user_error(
                    f"{'.'.join(parts)}: there is no item {part!r}",
                    allowed=f"0 to {len(place) - 1}",
                    why="that part of the recipe is a list",
                    remedy="name the item by its number",
                )
            key: Any = int(part)
        elif isinstance(place, dict):
            key = part
        else:
            raise user_error(
                f"{'.'.join(parts)}: {'.'.join(parts[:i])} has no keys",
                allowed="keys below a mapping or a list",
                why=f"its value is {place!r}",
                remedy="set that key as a whole",
            )
        if is_last:
            place[key] = value
        else:
            if isinstance(place, dict):
                child = place.get(key)
                if isinstance(child, str) and key == "method":
                    child = {"name": child}  # `method: lora` is short for `method: {name: lora}`
                place[key] = {} if child is None else child
            place = place[key]


def validate(config: type[Config], values: Any, *, where: str) -> Config:
    """`values` as a `config`. Raises `UserError` with every problem at once, each naming its dotted key."""
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise user_error(
            f"{where} is {values!r}",
            allowed="a mapping with " + listing(config.model_fields),
            why=f"the section {where} has keys",
            remedy=f"write `{where}:` with its keys indented below",
            where=where,
        )
    try:
        return config.model_validate(values)
    except ValidationError as error:
        raise UserError(*(_problem(config, item, where) for item in error.errors())) from error


def _problem(config: type[Config], item: Any, section: str) -> Problem:
    location = [str(part) for part in item["loc"] if not str(part).startswith(("function-", "tuple["))]
    where = ".".join([section, *location]) if section else ".".join(location)
    if item["type"] == "extra_forbidden":
        known = sorted(_fields_at(config, location[:-1]))
        guess = nearest(location[-1], known)
        return Problem(
            where=where,
            given=f"unknown key {location[-1]!r}",
            allowed=listing(known),
            why="a key that nothing reads would be ignored in silence",
            remedy=f"did you mean {guess!r}?" if guess else "remove it",
        )
    if item["type"] == "missing":
        return Problem(
            where=where,
            given="missing",
            allowed="a value",
            why="it has no default",
            remedy=f"add `{location[-1]}:`",
        )
    return Problem(
        where=where,
        given=f"{item['input']!r}",
        allowed=item["msg"].removeprefix("Value error, "),
        why="the value has the wrong type or lies outside its range",
        remedy="change the value, or remove the key to take the default",
    )


def _fields_at(config: type[Config], location: list[str]) -> list[str]:
    """The known keys of the section that `location` leads to, from `config` down."""
    place: Any = config
    for part in location:
        if part.isdigit():
            continue
        field = place.model_fields.get(part)
        place = _model_in(field.annotation) if field else None
        if place is None:
            return []
    return list(place.model_fields)


def _model_in(annotation: Any) -> type[Config] | None:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return annotation
    for part in typing.get_args(annotation):
        found = _model_in(part)
        if found is not None:
            return found
    return None
