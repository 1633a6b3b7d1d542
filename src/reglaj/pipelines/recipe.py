"""A recipe: read from YAML or a mapping, overridden by dotted keys, validated as a whole, resolved, written out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from reglaj.core.config import Config, apply_override, dump_yaml, read_yaml_mapping, set_dotted, validate
from reglaj.core.errors import Problem, UserError, listing, nearest
from reglaj.data.config import DataConfig
from reglaj.evaluation.config import EvaluateConfig
from reglaj.methods import METHODS
from reglaj.methods.config import MethodConfig
from reglaj.tasks import TASKS
from reglaj.training.config import TrainConfig

if TYPE_CHECKING:
    from reglaj.models.inspect import ModelFacts
    from reglaj.tasks.base import Task

KEYS = ("name", "task", "model", "data", "method", "train", "evaluate")
_NAME = re.compile(r"\w(?:[\w.\- ]{0,79}[\w.\-])?")
C = TypeVar("C", bound=Config)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A valid recipe. `folder` is what relative paths in it start from; `derived` says which values were not given."""

    name: str
    task: str
    model: str
    data: DataConfig
    method: MethodConfig
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    folder: Path = Path()
    derived: Mapping[str, str] = field(default_factory=dict)
    """Dotted key to a sentence about the value that was derived for it."""

    def values(self) -> dict[str, Any]:
        """The recipe as plain values, every default written out."""
        return {
            "name": self.name,
            "task": self.task,
            "model": self.model,
            "data": self.data.model_dump(mode="json"),
            "method": self.method.model_dump(mode="json"),
            "train": self.train.model_dump(mode="json"),
            "evaluate": self.evaluate.model_dump(mode="json"),
        }

    def with_train(self, derived: Mapping[str, tuple[Any, str]]) -> Recipe:
        """This recipe with keys of `train` filled in; `derived` maps a (dotted) key to its value and the reason."""
        values = self.train.model_dump()
        for key, (value, _) in derived.items():
            set_dotted(values, key.split("."), value)
        reasons = {f"train.{key}": f"{value} ({why})" for key, (value, why) in derived.items()}
        return replace(self, train=TrainConfig.model_validate(values), derived={**self.derived, **reasons})

    def with_method(self, facts: ModelFacts) -> Recipe:
        """This recipe with what its method derives from the model."""
        config, reasons = resolve_method(self.method, facts, TASKS.get(self.task))
        derived = {f"method.{key}": f"{value} ({why})" for key, (value, why) in reasons.items()}
        return replace(self, method=config, derived={**self.derived, **derived}) if reasons else self

    def with_split(self, used: Mapping[str, Any], leakage: str) -> Recipe:
        """This recipe with the split that was used in place of `auto`, and what became of leakage.

        used: the split as the report of the data has it, with `why`, a sentence about the choice.
        """
        update = {key: used[key] for key in ("kind", "group", "time")}
        changed = {key: value for key, value in update.items() if getattr(self.data.split, key) != value}
        split = self.data.split.model_copy(update=update)
        reasons = {f"data.split.{key}": f"{value} ({used['why']})" for key, value in changed.items()}
        if self.data.leakage is None:
            reasons["data.leakage"] = f"{leakage} (what a {used['kind']} split proposes)"
        data = self.data.model_copy(update={"split": split, "leakage": leakage})
        return replace(self, data=data, derived={**self.derived, **reasons})

    def to_yaml(self) -> str:
        """The resolved recipe as YAML that can be trained from anywhere: derived values named above, paths absolute."""
        values = self.values()
        if (self.folder / self.model).is_dir():
            values["model"] = str((self.folder / self.model).resolve())
        for source in values["data"]["sources"]:
            if not source["path"].startswith("starter:"):
                source["path"] = str((self.folder / source["path"]).resolve())
        values["data"]["decontaminate"] = [
            path if path.startswith("starter:") else str((self.folder / path).resolve())
            for path in values["data"]["decontaminate"]
        ]
        lines = [f"# derived: {key} = {why}" for key, why in self.derived.items()]
        return "\n".join([*lines, dump_yaml(values)])


def resolve_method(
    config: MethodConfig, facts: ModelFacts, task: type[Task]
) -> tuple[MethodConfig, dict[str, tuple[Any, str]]]:
    """A method's section with everything filled in that depends on model and task; and what that was, with reasons."""
    derived = METHODS.get(config.name).derive(config, facts, has_new_head=task.defaults.has_new_head)
    values = config.model_dump()
    for key, (value, _) in derived.items():
        set_dotted(values, key.split("."), value)
    return (type(config).model_validate(values), derived) if derived else (config, {})


def load_recipe(
    source: str | Path | Mapping[str, Any], overrides: Iterable[str] = (), keys: Mapping[str, Any] | None = None
) -> Recipe:
    """The recipe in a YAML file or a mapping, with overrides applied, then keys.

    overrides: `key=value` texts as on the command line. keys: dotted (or `__`-joined) keys to values.
    Raises `UserError` with every problem of every section at once; nothing but the recipe is read.
    """
    if isinstance(source, Mapping):
        values, folder, default_name = _plain(source), Path.cwd(), None
    else:
        path = Path(source)
        values, folder, default_name = read_yaml_mapping(path), path.resolve().parent, _slug(path.stem)
    for assignment in overrides:
        apply_override(values, assignment)
    for key, value in (keys or {}).items():
        set_dotted(values, key.replace("__", ".").split("."), _plain(value))
    return _build(values, folder, default_name)


def _plain(value: Any) -> Any:
    """A copy in which paths are texts: `Path` is what Python users have at hand."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _slug(stem: str) -> str:
    """A file's name as the name of a run."""
    return re.sub(r"[^\w.\-]+", "-", stem)[:80].strip("-. ")


def _build(values: dict[str, Any], folder: Path, default_name: str | None) -> Recipe:
    problems: list[Problem] = [_unknown_key(key) for key in values if key not in KEYS]
    task = _task_name(values, problems)
    method = values.get("method")
    if isinstance(method, str):
        method = {"name": method}
    data = _section(DataConfig, values.get("data"), "data", problems)
    train = _section(TrainConfig, values.get("train"), "train", problems)
    evaluate = _section(EvaluateConfig, values.get("evaluate"), "evaluate", problems)
    name = _text(values, "name", problems) or default_name or "model"
    if not _NAME.fullmatch(name):
        problems.append(
            Problem(
                where="name",
                given=f"{name!r}",
                allowed="letters, digits, dots, dashes, underscores and spaces inside, at most 81 of them",
                why="the run's folder is called after it",
                remedy="choose a plain name",
            )
        )
    model = _text(values, "model", problems)
    task_type = TASKS.get(task) if task else None
    if task_type and method is None:
        method = {"name": task_type.default_method}
    method_config = _method(method, problems)
    if task_type and data:
        problems += task_type.check_columns(data)
    if task_type and evaluate:
        problems += task_type.check_baselines(evaluate)
        problems += task_type.read_gate(evaluate)[1]
    if task_type:
        problems += task_type.check_unread({"data": data, "train": train, "evaluate": evaluate})
    if problems:
        raise UserError(*problems)
    assert data and train and evaluate and method_config and task_type and task
    return Recipe(
        name=name,
        task=task,
        model=model or task_type.default_model,
        data=data,
        method=method_config,
        train=train,
        evaluate=evaluate,
        folder=folder,
        derived={} if model else {"model": f"{task_type.default_model} (the default of {task})"},
    )


def _unknown_key(key: Any) -> Problem:
    guess = nearest(str(key), KEYS)
    return Problem(
        where=str(key),
        given=f"unknown key {key!r}",
        allowed=listing(KEYS),
        why="a key that nothing reads would be ignored in silence",
        remedy=f"did you mean {guess!r}?" if guess else "remove it",
    )


def _task_name(values: dict[str, Any], problems: list[Problem]) -> str | None:
    task = _text(values, "task", problems)
    if task is None:
        if "task" not in values:
            problems.append(
                Problem(
                    where="task",
                    given="missing",
                    allowed=listing(TASKS.names()),
                    why="it says what the model learns to do",
                    remedy="add `task: classify`, or let `reglaj new FILE` propose it",
                )
            )
        return None
    try:
        TASKS.get(task, where="task")
    except UserError as error:
        problems += error.problems
        return None
    return task


def _method(values: Any, problems: list[Problem]) -> MethodConfig | None:
    if values is None:
        return None
    name = values.get("name") if isinstance(values, dict) else None
    if not isinstance(name, str):
        problems.append(
            Problem(
                where="method.name",
                given=f"{values!r}" if not isinstance(values, dict) else f"{name!r}",
                allowed=listing(METHODS.names()),
                why="the other keys of the section depend on it",
                remedy="write `method: {name: lora}` or `method: lora`",
            )
        )
        return None
    try:
        config = METHODS.get(name, where="method.name").config_type
    except UserError as error:
        problems += error.problems
        return None
    return cast("MethodConfig | None", _section(config, values, "method", problems))


def _section(config: type[C], values: Any, name: str, problems: list[Problem]) -> C | None:
    try:
        return cast("C", validate(config, values, where=name))
    except UserError as error:
        problems += error.problems
        return None


def _text(values: dict[str, Any], key: str, problems: list[Problem]) -> str | None:
    value = values.get(key)
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    problems.append(
        Problem(
            where=key,
            given=f"{value!r}",
            allowed="a text",
            why=f"`{key}` names something",
            remedy="put it in quotes, or remove the key to take the default",
        )
    )
    return None
