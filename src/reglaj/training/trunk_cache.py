"""Frozen work is not done twice: what the layers below the lowest trained one make of the rows is kept on disk.

Decided by recipe, model and data alone, never by a stopwatch or by free memory, and stored with the run: a run that
goes on decides the same, and what it has to make again comes out bitwise the same, for the rows run in the same groups.
Where the disk refuses, training goes on without.

Legend: N states, D width, F layers below the lowest trained one, of L.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import EnvironmentFault, is_out_of_memory
from reglaj.core.files import canonical_hash, disk_faults
from reglaj.core.kept_sets import is_too_much, make_room, sweep_sets, throw_away
from reglaj.core.run_listing import STATES
from reglaj.core.runs import software
from reglaj.data.batching import micro_batches
from reglaj.models.encoding import TokenRows
from reglaj.models.heads import ScoreHead, pool
from reglaj.models.packing import TokenBatch
from reglaj.models.storage import storage_of
from reglaj.models.trunk import RowStates, choose_cut, is_random_below, probe_batch
from reglaj.training.config import TrainConfig
from reglaj.training.engine import using_threads
from reglaj.training.fit import plan_for
from reglaj.training.learner import Learner
from reglaj.training.state_files import (
    FORMAT,
    Add,
    DamagedError,
    StoredStates,
    open_states,
    write_states,
)

GROUP_TOKENS = 4096
"""Tokens of one pass that fills the cache. Fixed, for it decides the last digits; a smaller micro-batch is kept to."""
WORTHWHILE = 0.25
"""Whole passes over the rows that must be saved, by count: below it, writing and reading eat up what is won."""
_NO_DIGITS = ("layout_reason", "micro_batch_tokens", "halved_at", "processes", "trunk_cache")
"""Choices of the engine that do not change what a frozen layer makes of a row."""


class _Off(Exception):
    """Why there is no cache."""


def attach_states(
    learner: Learner,
    parts: Sequence[TokenRows],
    config: TrainConfig,
    runs: Path,
    console: Console = SILENT,
    *,
    data_key: str = "",
) -> list[TokenRows]:
    """The training and the validation rows, with their kept states where that pays; decided, made, opened and printed.

    config: a resolved `train` section. runs: the folder under which the states lie. data_key: of the data that the rows
    are of. The decision and its reason go into the learner's engine; one that is there already, as in a run that goes
    on, is taken. Raises nothing for a disk that is full or a cache that is broken: then the rows come back as they are.
    """
    before = learner.engine.trunk_cache
    with using_threads(learner.engine.threads):
        done, decision = _attach(learner, parts, config, _Place(runs / STATES, data_key), console)
    learner.engine = replace(learner.engine, trunk_cache=decision)
    if learner.handle.capabilities.lowest_trained_layer:
        console.say(f"  trunk cache {decision}")
    if before.startswith("on") and decision.startswith("off"):
        console.warn("the run was begun with a trunk cache and goes on without: the last digits may differ")
    return done


@dataclass(frozen=True)
class _Place:
    """Where states lie, and of which data they are."""

    store: Path
    data_key: str


def _attach(
    learner: Learner, parts: Sequence[TokenRows], config: TrainConfig, place: _Place, console: Console
) -> tuple[list[TokenRows], str]:
    before, ranks = learner.engine.trunk_cache, learner.ranks
    if before.startswith("off"):
        return list(parts), before
    fault, told, done = "", "", list(parts)
    try:
        source, told = _decide(learner, parts, config)
    except _Off as off:
        fault = str(off)
    # All or none: rows are shared out to the processes anew in every step.
    fault = next((one for one in ranks.gather(fault) if one), "")
    if not fault:
        cache = _Cache(learner, source, config, place, console)
        done, fault = ranks.first_then_rest(lambda: cache.attached(parts))
        fault = next((one for one in ranks.gather(fault) if one), "")
    if fault:
        learner.cut = None
        return list(parts), f"off: {fault}"
    return done, before or f"on: {told}"


@dataclass(frozen=True)
class _Source:
    """How states are made. layer: F. pooling: of the head, where one vector per text is enough."""

    layer: int
    pooling: str | None
    states: Callable[[TokenBatch], Tensor]
    width: int = 0
    itemsize: int = 0

    def measured(self, learner: Learner) -> _Source:
        """With D and the bytes of a value, as a pass shows them."""
        device = torch.device(learner.engine.device)
        states = self.states(probe_batch(learner.backbone.config.vocab_size, device))
        return replace(self, width=states.shape[1], itemsize=states.element_size())

    def num_states(self, rows: TokenRows) -> int:
        """N of these rows."""
        return len(rows) if self.pooling else len(rows.flat)


def _decide(learner: Learner, parts: Sequence[TokenRows], config: TrainConfig) -> tuple[_Source, str]:
    """How states are made, and in words what it saves. Raises `_Off` with the reason where there are to be none."""
    able = learner.handle.capabilities
    layer, layers = able.lowest_trained_layer, learner.facts.layers
    if config.trunk_cache == "off":
        raise _Off("train.trunk_cache is off")
    if not layer:
        raise _Off("the lowest layer learns")
    if able.virtual_tokens:
        raise _Off("virtual tokens are learnt below the layers")
    passes = _planned_passes(config, parts)
    if layer / layers * (passes - 1) < WORTHWHILE:
        raise _Off(f"{passes:.1f} passes over the rows are planned, too few to pay for one more that is kept")
    with learner.evaluating():
        source = (_pooled(learner, layer) if learner.trunk_is_frozen else _cut(learner, layer)).measured(learner)
    size = sum(map(source.num_states, parts)) * source.width * source.itemsize
    if size > config.trunk_cache_gb * 1e9:
        raise _Off(f"{size / 1e9:.3g} GB of states, and train.trunk_cache_gb allows {config.trunk_cache_gb:g}")
    what = "the whole model runs" if layer == layers else f"the lower {layer} of {layers} layers run"
    return source, f"{what} once, not {passes:.1f} times ({size / 1e9:.2g} GB)"


def _planned_passes(config: TrainConfig, parts: Sequence[TokenRows]) -> float:
    """How often the rows are run at most: training rows by the plan, validation rows at each evaluation."""
    train, validation = parts
    plan = plan_for(config, train)
    evaluations = math.ceil(plan.total_steps / (config.evaluate_every or plan.steps_per_epoch))
    epochs = plan.total_steps / plan.steps_per_epoch
    tokens = len(train.flat), len(validation.flat)
    return (epochs * tokens[0] + evaluations * tokens[1]) / max(1, sum(tokens))


def _pooled(learner: Learner, layer: int) -> _Source:
    """Nothing of the model learns: one vector per text is all that its head needs."""
    head = learner.head
    if not isinstance(head, ScoreHead):
        raise _Off("the head wants every token")
    return _Source(layer, head.pooling, lambda batch: pool(learner.hidden(batch), batch.lengths, head.pooling))


def _cut(learner: Learner, layer: int) -> _Source:
    trunk, vocabulary = learner.backbone.base_model, learner.backbone.config.vocab_size
    cut, reason = choose_cut(trunk, layer, learner.hidden, vocabulary)
    if cut is None:
        raise _Off(reason)

    def training_pass(batch: TokenBatch) -> Tensor:
        learner.train(True)
        try:
            return learner.hidden(batch)
        finally:
            learner.train(False)

    # Layers that are left out by chance are too rare to be met in a few passes.
    drops_layers = getattr(learner.backbone.config, "layerdrop", 0.0)
    if drops_layers or is_random_below(cut, learner.hidden, training_pass, vocabulary):
        raise _Off("dropout reaches below the lowest trained layer (train.model_dropout=0 would allow it)")
    learner.cut = cut
    return _Source(layer, None, lambda batch: cut.lower_states(batch, learner.hidden))


class _Cache:
    """The states of some rows of one training: found, or made."""

    def __init__(self, learner: Learner, source: _Source, config: TrainConfig, place: _Place, console: Console) -> None:
        self.learner, self.source, self.console = learner, source, console
        self.store, self.data_key = place.store, place.data_key
        # Never the engine's own figure: that is halved where memory does not suffice.
        most = 1 if learner.engine.layout == "alone" else GROUP_TOKENS
        self.budget = min(most, config.micro_batch_tokens or most)
        self.most = int(config.trunk_cache_gb * 1e9)
        self._keep: set[str] = set()

    def attached(self, parts: Sequence[TokenRows]) -> tuple[list[TokenRows], str]:
        """The parts with their states, and no fault; or as they are, and what went wrong."""
        try:
            sweep_sets(self.store)
            wanted = [_Wanted(self, rows) for rows in parts]
            self._keep = {one.key for one in wanted}
            return [one.rows if not len(one.rows) else self._with_states(one) for one in wanted], ""
        except _Off as off:
            fault = told = str(off)
        except EnvironmentFault as error:
            given, why = error.problems[0].given, error.problems[0].why
            fault, told = f"the states cannot be written ({why})", f"{given}: {why}"
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            fault = told = "out of memory while the frozen layers ran"
        self.console.warn(f"no trunk cache: {told}; the training goes on without")
        return list(parts), fault

    def _with_states(self, wanted: _Wanted) -> TokenRows:
        stored = self._found(wanted) or self._made(wanted)
        states = RowStates(stored.values, wanted.starts, wanted.counts, stored.dtype)
        return replace(wanted.rows, states=states)

    def _found(self, wanted: _Wanted) -> StoredStates | None:
        folder = self.store / wanted.key
        try:
            return open_states(folder, wanted.key, wanted.shape, self.console)
        except DamagedError as error:
            self.console.warn(f"kept states in {folder} are thrown away and made anew: {error}")
            with disk_faults(folder):
                throw_away(folder)
            return None

    def _made(self, wanted: _Wanted) -> StoredStates:
        learner, folder = self.learner, self.store / wanted.key
        size = math.prod(wanted.shape) * self.source.itemsize
        gone = make_room(self.store, size, self.most, self._keep)
        if is_too_much(self.store, size):
            raise _Off("the states would take more than half of what is free on the disk")
        if gone:
            self.console.say(f"  {gone} sets of states of earlier trainings make room for new ones")

        def fill(add: Add) -> None:
            with learner.evaluating(), self.console.progress("frozen layers", len(wanted.rows)) as advance:
                for group in wanted.groups:
                    add(self.source.states(wanted.rows.batch(group, learner.engine.device)))
                    advance(len(group))

        write_states(folder, wanted.key, wanted.shape, {"data_key": self.data_key}, fill)
        try:
            stored = open_states(folder, wanted.key, wanted.shape, is_new=True)
        except DamagedError:
            stored = None
        if stored is None:  # somebody clears the folder while we write to it
            with disk_faults(folder):
                raise OSError(0, "what was written is not there any more", str(folder))
        return stored


class _Wanted:
    """What is asked of the disk for some rows: groups in which they run, where each row's states lie, and the key."""

    def __init__(self, cache: _Cache, rows: TokenRows) -> None:
        engine, source = cache.learner.engine, cache.source
        lengths = rows.lengths
        self.rows = rows
        self.groups = micro_batches(range(len(rows)), lengths, cache.budget, is_padded=engine.is_padded)
        self.counts = np.ones_like(lengths) if source.pooling else lengths
        order = np.array([row for group in self.groups for row in group], dtype=np.int64)
        self.starts = np.zeros_like(lengths)
        self.starts[order] = np.concatenate(([0], np.cumsum(self.counts[order])))[:-1]
        self.shape = (source.num_states(rows), source.width)
        self.key = _key(cache, rows, order, [len(group) for group in self.groups])


def _key(cache: _Cache, rows: TokenRows, order: np.ndarray[tuple[int], np.dtype[np.int64]], sizes: list[int]) -> str:
    """Everything that decides the bits of the states and their order."""
    learner = cache.learner
    digest = hashlib.sha256()
    for array in (rows.flat, rows.starts, order, np.array(sizes)):
        digest.update(np.ascontiguousarray(array).astype("<i8").tobytes() + b"|")
    engine = {name: value for name, value in learner.engine.facts().items() if name not in _NO_DIGITS}
    storage = storage_of(learner.backbone)
    facts = {
        "format": FORMAT,
        "base": learner.facts.fingerprint,
        **({"storage": asdict(storage)} if storage else {}),
        "rows": digest.hexdigest(),
        "layer": cache.source.layer,
        "pooling": cache.source.pooling,
        "engine": engine,
        "software": software(),
    }
    return canonical_hash(facts)[:32]
