"""A learner from a recipe, and a learner from a finished run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import ReglajError, user_error
from reglaj.core.files import sha256_file, write_json
from reglaj.core.runs import read_manifest
from reglaj.core.seeding import derive_seed, seed_everything
from reglaj.methods import METHODS
from reglaj.methods.base import Handle
from reglaj.models.inspect import ModelFacts, inspect_model
from reglaj.models.storage import storage_of
from reglaj.pipelines.forecast import shape_of
from reglaj.pipelines.recipe import Recipe, load_recipe
from reglaj.tasks import TASKS
from reglaj.tasks.base import Task
from reglaj.training.engine import Engine, choose_device, choose_engine
from reglaj.training.learner import Learner

_DROPOUT_KEYS = ("classifier_dropout", "seq_classif_dropout", "hidden_dropout_prob", "dropout", "resid_pdrop")


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """Everything that turns texts into answers."""

    recipe: Recipe
    task: Task
    facts: ModelFacts
    learner: Learner
    tokenizer: Any

    @property
    def max_tokens(self) -> int:
        assert self.recipe.train.max_tokens is not None
        return self.recipe.train.max_tokens


def assemble(recipe: Recipe, facts: ModelFacts, task: Task, tokenizer_folder: Path | None = None) -> Assembled:
    """Base, method and head as they are before the first step. The seed is set before anything is built.

    tokenizer_folder: where a finished run keeps its own; by default the base's.
    """
    from reglaj.models.loading import load_tokenizer
    from reglaj.models.packing import choose_layout

    device = choose_device(recipe.train)
    tokenizer = load_tokenizer(tokenizer_folder or facts.folder, facts.name)
    task.connect(tokenizer, recipe)
    seed_everything(derive_seed(recipe.train.seed, "weights"))
    method = METHODS.get(recipe.method.name)
    storage = method.storage(recipe.method)
    backbone: Any = task.load_model(facts, recipe.train.model_dropout, storage, device).to(device)
    trunk = backbone.base_model
    longest = (recipe.train.max_tokens or 0) + method.virtual_tokens(recipe.method, facts)
    layout, reason = choose_layout(trunk, facts.model_type, facts.position_offset, backbone.config.vocab_size, longest)
    head = task.head(backbone, facts, _head_dropout(recipe, facts))
    is_frozen = not method.trainable_parameters(recipe.method, facts)
    shape = shape_of(facts, is_frozen=is_frozen, is_computed_twice=recipe.train.gradient_checkpointing)
    engine = choose_engine(recipe.train, device, layout, reason, shape)
    handle = method.attach(recipe.method, backbone, facts)
    engine = _with_seen_kernel(engine, handle, facts)
    learner = Learner(backbone, handle, head, facts, engine)
    seed_everything(derive_seed(recipe.train.seed, "dropout"))
    return Assembled(recipe=recipe, task=task, facts=facts, learner=learner, tokenizer=tokenizer)


def _with_seen_kernel(engine: Engine, handle: Handle, facts: ModelFacts) -> Engine:
    """The engine without the variable-length kernel where that does not give what texts alone give."""
    from reglaj.models.packing import varlen_problem

    if engine.attention != "varlen" or engine.layout not in ("packed", "packed-causal"):
        return engine
    trunk = handle.model.base_model
    with engine.autocast():
        vocabulary, virtual = trunk.config.vocab_size, handle.virtual()
        problem = varlen_problem(trunk, engine.layout, facts.position_offset, vocabulary, virtual)
    if problem is None:
        return engine
    reason = f"{engine.layout_reason}; with the variable-length kernel {problem}"
    return replace(engine, attention="by-length", layout_reason=reason)


def _head_dropout(recipe: Recipe, facts: ModelFacts) -> float:
    if recipe.train.model_dropout is not None:
        return recipe.train.model_dropout
    return next((float(facts.config[key]) for key in _DROPOUT_KEYS if isinstance(facts.config.get(key), float)), 0.0)


def save_model(assembled: Assembled, folder: Path) -> None:
    """Write what is served into an existing folder: method, head, task, tokenizer, and which base it stands on."""
    assembled.learner.save(folder)
    assembled.task.save(folder)
    assembled.tokenizer.save_pretrained(folder)
    facts, storage = assembled.facts, storage_of(assembled.learner.backbone)
    is_starter_or_hub = facts.name.startswith("starter:") or not (assembled.recipe.folder / facts.name).exists()
    write_json(
        folder / "base.json",
        {
            "model": facts.name if is_starter_or_hub else str(facts.folder),
            "fingerprint": facts.fingerprint,
            "method": assembled.recipe.method.name,
            **({"storage": asdict(storage)} if storage else {}),
            "licence": facts.licence,
            "source": facts.source,
        },
    )


def load_run(run: Path, console: Console = SILENT) -> Assembled:
    """The learner of a finished run. Raises `UserError` when its base is gone or has changed."""
    folder = run / "model"
    if not (folder / "base.json").is_file():
        raise user_error(
            f"{str(run)!r} holds no model",
            allowed="a finished run",
            why="its training did not end, or was stopped by an error",
            remedy="run `reglaj train` on its recipe again",
        )
    _check_files(run)
    recipe = load_recipe(run / "recipe.yaml", ["train.device=auto"])
    task = TASKS.get(recipe.task).load(folder)
    assembled = assemble(recipe, base_of(run, recipe, console), task, folder)
    task.verify(folder)
    assembled.learner.load(folder)
    if recipe.train.frozen_weights == "auto":
        assembled.learner.narrow_frozen()
    return assembled


def _check_files(run: Path) -> None:
    """What is served is what was evaluated: every file of the model is compared with the manifest."""
    for name, digest in read_manifest(run).get("files", {}).items():
        file = run / name
        if name.startswith("model/") and (not file.is_file() or sha256_file(file) != digest):
            raise user_error(
                f"{file} {'is damaged or was changed' if file.is_file() else 'is missing'}",
                allowed="the files that the run's manifest.json lists, unchanged",
                why="answers would not be those of the model that was evaluated",
                remedy="bring the file back, or train again with --fresh",
            )


def base_of(run: Path, recipe: Recipe, console: Console) -> ModelFacts:
    """The base that a run stands on, or the run's own model where a base is not needed and no longer there."""
    folder = run / "model"
    base = json.loads((folder / "base.json").read_text(encoding="utf-8"))
    try:
        facts = inspect_model(base["model"], folder=Path.cwd(), console=console)
        if facts.fingerprint == base["fingerprint"]:
            return facts
        reason = f"it has the fingerprint {facts.fingerprint[:16]}: answers would differ from those that were evaluated"
    except ReglajError as error:
        if METHODS.get(recipe.method.name).stands_on_base:
            raise
        reason = str(error)
    if not METHODS.get(recipe.method.name).stands_on_base:
        return inspect_model(str(folder.resolve()), folder=Path.cwd(), console=console)
    raise user_error(
        f"the base {base['model']!r} is not the one that {run.name} was trained on",
        allowed=f"weights and config with the fingerprint {base['fingerprint'][:16]}",
        why=reason,
        remedy="bring the old base back, or train again on the new one",
    )
