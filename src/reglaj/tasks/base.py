"""The contract of a task: the one place that knows columns, labels and metrics.

Pipelines, loop and methods never branch on a task's name; they ask the task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import Problem, listing, nearest, user_error
from reglaj.data.config import DataConfig
from reglaj.data.roles import ColumnRoles, Layout
from reglaj.evaluation.config import EvaluateConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from reglaj.core.config import Config
    from reglaj.data.examples import Examples, VisibleData
    from reglaj.data.shaping import Shaper
    from reglaj.evaluation.gates import Rule
    from reglaj.evaluation.report import ReportPlan
    from reglaj.evaluation.slices import ScoreGroup
    from reglaj.models.encoding import TokenRows
    from reglaj.models.inspect import ModelFacts
    from reglaj.models.storage import Storage
    from reglaj.objectives.base import Objective
    from reglaj.training.config import TrainConfig
    from reglaj.training.defaults import TaskDefaults
    from reglaj.training.learner import Head, Learner


class Sections(Protocol):
    """What a task may know of a recipe."""

    @property
    def data(self) -> DataConfig: ...
    @property
    def train(self) -> TrainConfig: ...
    @property
    def evaluate(self) -> EvaluateConfig: ...


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Examples as the model sees them: token ids, and what the task wants of each in its own form."""

    places: list[str]
    """File and line of each, for messages."""
    rows: TokenRows
    targets: Any
    cut: int
    """Texts longer than the context, cut at the end."""

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a final evaluation is given. `data` is None where an outside file is scored: then there are no baselines."""

    learner: Learner
    tokenizer: Any
    test: Examples
    config: EvaluateConfig
    max_tokens: int
    seed: int
    data: VisibleData | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Figures as in report.json; the worst mistakes, for the report; sentences about the figures."""

    test: dict[str, Any]
    baselines: dict[str, Any]
    mistakes: list[dict[str, Any]]
    notes: list[str]
    cut: int
    """Test texts longer than the context."""
    extras: dict[str, Any] = field(default_factory=dict)
    """What only the page shows; see `write_report`."""
    score_group: ScoreGroup | None = None
    """The figures of some of the test rows, for slices: those of the plan's `slice_figures`."""


class Task(ABC):
    """What the model learns to do. An instance knows the labels (or the scale) of its data."""

    name: ClassVar[str]
    summary: ClassVar[str]
    roles: ClassVar[ColumnRoles]
    headline: ClassVar[str]
    """The metric that `reglaj runs` shows."""
    defaults: ClassVar[TaskDefaults]
    """Values of `train` that are the task's own; the metric that early stopping watches is among them."""
    shapes: ClassVar[bool] = False
    """Whether records become examples only with the model's tokenizer (see `shaper`)."""
    unread: ClassVar[frozenset[str]] = frozenset()
    """Dotted keys of a recipe that mean nothing to this task, and are refused rather than ignored."""
    default_model: ClassVar[str] = "starter:minilm"
    default_method: ClassVar[str] = "full"
    default_split: ClassVar[str] = "stratified"
    baselines: ClassVar[tuple[str, ...]]
    trivial_baseline: ClassVar[str]

    question_roles: ClassVar[ColumnRoles] = ColumnRoles(inputs=())
    """What a file of inputs may look like, where that is more than a column for the only input."""
    says_how_sure: ClassVar[bool] = False
    """Whether each answer has a probability, below which it can be withheld."""
    table_columns: ClassVar[tuple[str, ...]] = ("line", "input", "prediction", "error")
    """Of predictions written as a table."""
    cut_words: ClassVar[str] = "texts are longer than the model's context and were answered from their beginning"
    """What is said, after a number, of inputs that were cut."""

    @classmethod
    def check_columns(cls, data: DataConfig) -> list[Problem]:
        """Roles in `data.sources[].columns` that this task does not have."""
        problems = []
        for number, source in enumerate(data.sources):
            for role in source.columns:
                if role not in cls.roles.source_names:
                    guess = nearest(role, cls.roles.source_names)
                    problems.append(
                        Problem(
                            where=f"data.sources.{number}.columns",
                            given=f"unknown role {role!r}",
                            allowed=listing(cls.roles.source_names),
                            why=f"the task {cls.name} reads these and nothing else",
                            remedy=f"did you mean {guess!r}?" if guess else "write `role: column`, not `column: role`",
                        )
                    )
        return problems

    @classmethod
    def check_baselines(cls, evaluate: EvaluateConfig) -> list[Problem]:
        """Baselines that this task does not have."""
        problems = []
        for name in evaluate.baselines or ():
            if name not in cls.baselines:
                guess = nearest(name, cls.baselines)
                problems.append(
                    Problem(
                        where="evaluate.baselines",
                        given=f"unknown baseline {name!r}",
                        allowed=listing(cls.baselines),
                        why=f"the task {cls.name} has no baseline of that name",
                        remedy=f"did you mean {guess!r}?" if guess else "remove it",
                    )
                )
        return problems

    @classmethod
    def read_gate(cls, evaluate: EvaluateConfig) -> tuple[list[Rule], list[Problem]]:
        """The rules of the gate, and what is wrong with those that this task cannot measure."""
        if not evaluate.gate:
            return [], []
        from reglaj.evaluation.gates import read_gate

        plan = cls.report_plan()
        return read_gate(evaluate.gate, evaluate.slices, plan.figures, plan.slice_figures)

    @classmethod
    def chosen_baselines(cls, evaluate: EvaluateConfig) -> tuple[str, ...]:
        """The baselines to run: the trivial one always, unless the list is empty."""
        if evaluate.baselines is None:
            return cls.baselines
        if not evaluate.baselines or cls.trivial_baseline in evaluate.baselines:
            return evaluate.baselines
        return (cls.trivial_baseline, *evaluate.baselines)

    @classmethod
    def check_unread(cls, sections: Mapping[str, Config | None]) -> list[Problem]:
        """Keys that were changed although the task does not read them. sections: by name, None where broken."""
        problems = []
        for key in sorted(cls.unread):
            section, *within, name = key.split(".")
            values: Any = sections.get(section)
            for part in within:
                values = getattr(values, part, None)
            if values is not None and getattr(values, name) != type(values).model_fields[name].get_default():
                problems.append(
                    Problem(
                        where=key,
                        given=f"{getattr(values, name)!r}",
                        allowed=f"nothing: the task {cls.name} does not read it",
                        why="it would change nothing, in silence",
                        remedy="remove the key",
                    )
                )
        return problems

    @classmethod
    @abstractmethod
    def check_model(cls, facts: ModelFacts) -> list[Problem]:
        """Why this model cannot do the task, told from its config."""

    @classmethod
    @abstractmethod
    def from_data(cls, data: VisibleData) -> Task:
        """The task on these data: takes its labels from the training part."""

    @classmethod
    def shaper(cls, load_tokenizer: Callable[[], Any], facts: ModelFacts, recipe: Sections) -> Shaper | None:
        """What turns records into examples where that takes the model's tokenizer; None where columns are enough."""
        return None

    def connect(self, tokenizer: Any, recipe: Sections) -> None:
        """Take the tokenizer of the model, before anything is encoded."""
        return None

    @abstractmethod
    def check_train(self, train: TrainConfig) -> list[Problem]:
        """Keys of `train` that name something the data does not have."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write task.json: everything `load` needs to predict again."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Task:
        """Read back what `save` wrote."""

    def settle(self, learner: Learner, validation: Encoded, recipe: Sections, console: Console = SILENT) -> None:
        """Take from validation what turns outputs into answers, once the weights are final and before they are saved.

        Every process calls it, and all of them then answer alike.
        """
        return None

    def sure_enough(self, target_error: float, confidence: float) -> float:
        """The probability from which on an answer is given, so that the error among those is at most `target_error`.

        Shown on validation, with `confidence`. Raises `UserError` where that cannot be had.
        """
        raise user_error(
            f"a target error for the task {self.name}",
            allowed="tasks whose answers have a probability, such as classify",
            why="nothing says how sure an answer is",
            remedy="leave the option out",
        )

    def verify(self, folder: Path) -> None:
        """Raise `UserError` where texts would become other tokens than when the model in `folder` was saved."""
        return None

    @classmethod
    def load_model(cls, facts: ModelFacts, dropout: float | None, storage: Storage | None, device: str) -> Any:
        """The model as it was pre-trained; by default without a head. storage: how it lies in memory on the device."""
        from reglaj.models.loading import load_backbone

        return load_backbone(facts, dropout=dropout, storage=storage, device=device)

    @abstractmethod
    def head(self, model: Any, facts: ModelFacts, dropout: float) -> Head:
        """What makes outputs of hidden states: a new head at random, or the model's own."""

    @abstractmethod
    def encode(self, examples: Examples, tokenizer: Any, max_tokens: int) -> Encoded:
        """Examples to token ids and targets."""

    def supervision(self, encoded: Encoded) -> dict[str, Any] | None:
        """What is learnt from, for supervision.json: counts, a digest, a few rows; None where no token is supervised.

        A run keeps it, so that whoever renders its data again can show that the same tokens come out.
        """
        return None

    @abstractmethod
    def show(self, examples: Examples, tokenizer: Any, max_tokens: int, count: int) -> list[list[tuple[str, bool]]]:
        """The first `count` examples as the model sees them: pieces of text, and whether they are learnt."""

    @abstractmethod
    def objective(self, train: TrainConfig, encoded: Encoded) -> Objective[Any]:
        """What training minimises."""

    def strata(self, encoded: Encoded) -> NDArray[np.int64] | None:
        """(N,) class of each row, for `train.sampling: balanced`; None where rows have none."""
        return None

    @abstractmethod
    def batch(self, encoded: Encoded, rows: list[int], device: str) -> Any:
        """Some rows as a batch of the objective's type."""

    @abstractmethod
    def cut_rows(self, batch: Any) -> list[Any]:
        """A batch as batches of one row."""

    @abstractmethod
    def row_places(self, batch: Any) -> tuple[str, ...]:
        """File and line of a batch's rows."""

    def written(self, examples: Examples) -> list[str]:
        """What a person wrote of each row: its length and language are those of the row."""
        columns = [examples.column(role) for role in self.roles.inputs]
        return ["\n".join(cells) for cells in zip(*columns, strict=True)]

    def accepts(self, target: str) -> bool:
        """Whether the trained model can be scored on a row with this target."""
        return True

    @abstractmethod
    def outputs(self, learner: Learner, batch: Any) -> Tensor:
        """The forward pass of a batch, with gradient."""

    @abstractmethod
    def validate(self, learner: Learner, encoded: Encoded) -> dict[str, float]:
        """`validation_...` figures, cheap enough for every epoch."""

    @abstractmethod
    def evaluate(self, evaluation: Evaluation, console: Console = SILENT) -> EvaluationResult:
        """The final figures with intervals, baselines and differences."""

    @classmethod
    @abstractmethod
    def report_plan(cls) -> ReportPlan:
        """How report.html and the model card tell the result."""

    def question(self, layout: Layout, cells: Mapping[str, str | None]) -> Any:
        """What `predict` takes, from the cells of a record. Raises `BrokenRecord` where nothing can be answered."""
        return next(iter(cells.values())) or ""

    @abstractmethod
    def predict(
        self, learner: Learner, tokenizer: Any, texts: list[Any], max_tokens: int, console: Console
    ) -> list[dict[str, Any]]:
        """One answer per input, in order: `input` with `prediction`, or with the `error` that refused it."""
