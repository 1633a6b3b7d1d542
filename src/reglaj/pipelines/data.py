"""Read, account, clean, split: what `reglaj data` does, and what every training begins with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import environment_fault
from reglaj.core.files import write_json
from reglaj.data.belonging import SameWhenFolded
from reglaj.data.examples import PreparedData
from reglaj.data.prepare import Looks, prepare
from reglaj.methods import METHODS
from reglaj.models.inspect import ModelFacts, inspect_model
from reglaj.models.starters import fetch
from reglaj.pipelines.recipe import Recipe, load_recipe
from reglaj.tasks import TASKS

if TYPE_CHECKING:
    from reglaj.data.shaping import Shaper


def prepare_data(
    recipe: str | Path | Mapping[str, Any],
    *,
    runs: str | Path = "runs",
    show: int = 0,
    quality: bool = True,
    console: Console = SILENT,
    overrides: Iterable[str] = (),
    **keys: Any,
) -> dict[str, Any]:
    """The account of a recipe's data, and the report on their quality; trains nothing.

    keys: overrides as `data__split__seed=3`. show: that many training examples as the model will see them. quality:
    whether the texts are looked at, with a model too; the report is then written beside the data, for programs
    (quality.json) and for people (report.html).
    Returns `data` as in report.json, with `key`, `folder` and `quality`, and `shown`: lists of (text, is trained).
    """
    loaded = load_recipe(recipe, overrides, keys)
    task = TASKS.get(loaded.task)
    # Columns are enough for the account of some tasks; others need the model's tokenizer to say what can be learnt.
    needs_model = task.shapes or show > 0 or quality
    facts = inspect_model(loaded.model, folder=loaded.folder, console=console) if needs_model else None
    if facts:
        loaded = with_context(loaded.with_method(facts), facts)
    data = read_data(loaded, Path(runs), console, facts if task.shapes else None)
    answer = {"data": data.report, "key": data.key, "folder": str(data.folder)}
    if facts and quality:
        answer["quality"] = _look_at(loaded, facts, data, Path(runs), console)
    return answer | {"shown": _shown(loaded, facts, data, show)} if facts and show else answer


def _look_at(recipe: Recipe, facts: ModelFacts, data: PreparedData, runs: Path, console: Console) -> dict[str, Any]:
    """The quality report, written beside the data."""
    from reglaj.evaluation.report.quality import write_quality_page
    from reglaj.pipelines.quality import quality_report

    report = quality_report(recipe, data.visible, facts, runs, console)
    write_json(data.folder / "quality.json", report)
    write_quality_page(data.folder, data.report, report, name=recipe.name, facts=(recipe.task, recipe.model))
    return report


def with_context(recipe: Recipe, facts: ModelFacts) -> Recipe:
    """The recipe with the longest example that its model and task allow: data may depend on it."""
    from reglaj.training.defaults import derive_context

    taken = METHODS.get(recipe.method.name).virtual_tokens(recipe.method, facts)
    defaults = TASKS.get(recipe.task).defaults
    return recipe.with_train(derive_context(recipe.train, facts, defaults, virtual_tokens=taken))


def read_data(recipe: Recipe, runs: Path, console: Console, facts: ModelFacts | None = None) -> PreparedData:
    """The prepared data of a valid recipe, read now or found in the store.

    facts: of the recipe's model, needed where the task shapes records with its tokenizer.
    """
    from reglaj.curation.near_duplicates import MinHashMatcher
    from reglaj.pipelines.embedding import cleaner_of
    from reglaj.pipelines.lineage import earlier_runs

    task, near = TASKS.get(recipe.task), recipe.data.near_duplicates
    looks = Looks(
        matcher=MinHashMatcher(near) if near else SameWhenFolded(),
        cleaner=cleaner_of(recipe, runs, console),
        earlier=earlier_runs(recipe),
        keep=dict.fromkeys(recipe.evaluate.slice_columns, "evaluate.slices"),
    )
    return prepare(
        recipe.data,
        task.roles,
        folder=recipe.folder,
        store=runs / ".data",
        task=recipe.task,
        default_split=task.default_split,
        resolve_starter=lambda name: fetch(name, console),
        console=console,
        shaper=shaper_of(recipe, facts) if facts else None,
        looks=looks,
    )


def refuse_missing_data(data: PreparedData) -> None:
    """Raises `EnvironmentFault` where the data went away between two looks: somebody removed the runs that had them."""
    if not (data.folder / "report.json").is_file():
        raise environment_fault(
            f"the prepared data {data.key} are gone",
            allowed="data that stay while a run begins",
            why="another process has removed them, with the last run that needed them",
            remedy="give the same command: they are read again",
        )


def shaper_of(recipe: Recipe, facts: ModelFacts, tokenizer_folder: Path | None = None) -> Shaper | None:
    """What turns the records of a recipe into examples, or None where its task needs nothing of the kind."""

    def load() -> Any:
        from reglaj.models.loading import load_tokenizer  # brings torch, which tasks without a shaper need not wait for

        return load_tokenizer(tokenizer_folder or facts.folder, facts.name)

    return TASKS.get(recipe.task).shaper(load, facts, recipe)


def _shown(recipe: Recipe, facts: ModelFacts, data: PreparedData, count: int) -> list[list[tuple[str, bool]]]:
    from reglaj.models.loading import load_tokenizer

    task = TASKS.get(recipe.task).from_data(data.visible)
    tokenizer = load_tokenizer(facts.folder, facts.name)
    task.connect(tokenizer, recipe)
    return task.show(data.train(), tokenizer, recipe.train.max_tokens or facts.context, count)
