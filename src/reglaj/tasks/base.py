"""The contract of a task: the one place that knows columns, labels and metrics.

Pipelines, loop and methods never branch on a task's name; they ask the task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import Problem, listing, nearest
from reglaj.data.config import DataConfig
from reglaj.data.roles import ColumnRoles
from reglaj.evaluation.config import EvaluateConfig

if TYPE_CHECKING:
    from torch import Tensor

    from reglaj.data.examples import Examples, PreparedData
    from reglaj.evaluation.report import ReportPlan
    from reglaj.models.encoding import TokenRows
    from reglaj.models.heads import ScoreHead
    from reglaj.models.inspect import ModelFacts
    from reglaj.objectives.base import Objective
    from reglaj.training.config import TrainConfig
    from reglaj.training.learner import Learner


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
    data: PreparedData | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Figures as in report.json; the worst mistakes, for the report; sentences about the figures."""

    test: dict[str, Any]
    baselines: dict[str, Any]
    mistakes: list[dict[str, Any]]
    notes: list[str]
    cut: int
    """Test texts longer than the context."""


class Task(ABC):
    """What the model learns to do. An instance knows the labels (or the scale) of its data."""

    name: ClassVar[str]
    summary: ClassVar[str]
    roles: ClassVar[ColumnRoles]
    headline: ClassVar[str]
    """The metric that `reglaj runs` shows."""
    stopping_metric: ClassVar[str]
    """What early stopping watches by default."""
    default_model: ClassVar[str] = "starter:minilm"
    default_method: ClassVar[str] = "full"
    default_split: ClassVar[str] = "stratified"
    baselines: ClassVar[tuple[str, ...]]
    trivial_baseline: ClassVar[str]

    @classmethod
    def check_columns(cls, data: DataConfig) -> list[Problem]:
        """Roles in `data.sources[].columns` that this task does not have."""
        problems = []
        for number, source in enumerate(data.sources):
            for role in source.columns:
                if role not in cls.roles.names:
                    guess = nearest(role, cls.roles.names)
                    problems.append(
                        Problem(
                            where=f"data.sources.{number}.columns",
                            given=f"unknown role {role!r}",
                            allowed=listing(cls.roles.names),
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
    def chosen_baselines(cls, evaluate: EvaluateConfig) -> tuple[str, ...]:
        """The baselines to run: the trivial one always, unless the list is empty."""
        if evaluate.baselines is None:
            return cls.baselines
        if not evaluate.baselines or cls.trivial_baseline in evaluate.baselines:
            return evaluate.baselines
        return (cls.trivial_baseline, *evaluate.baselines)

    @classmethod
    @abstractmethod
    def check_model(cls, facts: ModelFacts) -> list[Problem]:
        """Why this model cannot do the task, told from its config."""

    @classmethod
    @abstractmethod
    def from_data(cls, data: PreparedData) -> Task:
        """The task on these data: takes its labels from the training part."""

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

    @abstractmethod
    def head(self, facts: ModelFacts, dropout: float) -> ScoreHead:
        """A new head for this task, at random."""

    @abstractmethod
    def encode(self, examples: Examples, tokenizer: Any, max_tokens: int) -> Encoded:
        """Examples to token ids and targets."""

    @abstractmethod
    def objective(self, train: TrainConfig, encoded: Encoded) -> Objective[Any]:
        """What training minimises."""

    @abstractmethod
    def batch(self, encoded: Encoded, rows: list[int], device: str) -> Any:
        """Some rows as a batch of the objective's type."""

    @abstractmethod
    def cut_rows(self, batch: Any) -> list[Any]:
        """A batch as batches of one row."""

    @abstractmethod
    def row_places(self, batch: Any) -> tuple[str, ...]:
        """File and line of a batch's rows."""

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

    @abstractmethod
    def predict(
        self, learner: Learner, tokenizer: Any, texts: list[str], max_tokens: int, console: Console
    ) -> list[dict[str, Any]]:
        """One answer per text, in order: `input` with `prediction`, or with the `error` that refused it."""
