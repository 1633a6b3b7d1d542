"""chat: a decoder that learns the answers of conversations."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import Problem, listing, user_error
from reglaj.core.files import write_json
from reglaj.data.conversation import Conversation
from reglaj.data.formats import CHAT_ROLES
from reglaj.data.formats.questions import QUESTION_ROLES, read_question
from reglaj.data.roles import ColumnRoles, Layout
from reglaj.tasks import TASKS
from reglaj.tasks.base import Encoded, Evaluation, EvaluationResult, Sections, Task
from reglaj.training.defaults import TaskDefaults

if TYPE_CHECKING:
    from torch import Tensor

    from reglaj.data.examples import Examples, VisibleData
    from reglaj.data.rendering import Renderer
    from reglaj.data.shaping import Shaper
    from reglaj.evaluation.config import EvaluateConfig
    from reglaj.evaluation.gates import Rule
    from reglaj.evaluation.report import ReportPlan
    from reglaj.generation import GenerationConfig
    from reglaj.models.inspect import ModelFacts
    from reglaj.models.storage import Storage
    from reglaj.models.vocabulary import VocabularyHead
    from reglaj.objectives.next_token import NextToken, SupervisedBatch
    from reglaj.tasks.chat_records import TooLong
    from reglaj.training.config import TrainConfig
    from reglaj.training.learner import Learner

GOLDEN = "golden_prompts.json"


@TASKS.register("chat")
class Chat(Task):
    """The renderer belongs to the task: what it makes of a conversation is what is learnt, scored and answered."""

    name: ClassVar[str] = "chat"
    summary: ClassVar[str] = "answers in conversations"
    roles: ClassVar[ColumnRoles] = CHAT_ROLES
    headline: ClassVar[str] = "loss"
    defaults: ClassVar[TaskDefaults] = TaskDefaults(
        stopping_metric="validation_loss", longest_text=2048, epochs=3, has_new_head=False
    )
    default_model: ClassVar[str] = "starter:smollm2"
    default_method: ClassVar[str] = "lora"
    default_split: ClassVar[str] = "random"
    baselines: ClassVar[tuple[str, ...]] = ("untuned", "few_shot")
    trivial_baseline: ClassVar[str] = "untuned"
    shapes: ClassVar[bool] = True
    question_roles: ClassVar[ColumnRoles] = QUESTION_ROLES
    table_columns: ClassVar[tuple[str, ...]] = ("line", "input", "prediction", "ended", "tokens", "error")
    cut_words: ClassVar[str] = (
        "conversations are longer than the model's context and were answered without their beginning"
    )
    unread: ClassVar[frozenset[str]] = frozenset(
        {"train.class_weights", "train.sampling", "train.head_learning_rate", "evaluate.calibration",
         "evaluate.thresholds", "data.exclude_labels", "data.contradictory_labels",
         "data.min_label_rows", "data.clean.label_errors"}
    )  # fmt: skip

    def __init__(self) -> None:
        self._renderer: Renderer | None = None
        self._scoring: Renderer | None = None
        self._settings: GenerationConfig | None = None
        self._too_long: TooLong = "drop"

    @property
    def renderer(self) -> Renderer:
        """What turns conversations into tokens; there once a tokenizer is connected."""
        assert self._renderer is not None, "connect a tokenizer first"
        return self._renderer

    @property
    def scoring(self) -> Renderer:
        """The same with a mask of answers alone, for the final figures."""
        assert self._scoring is not None, "connect a tokenizer first"
        return self._scoring

    @property
    def settings(self) -> GenerationConfig:
        """How it answers unless told otherwise: as in its evaluation."""
        assert self._settings is not None, "connect a tokenizer first"
        return self._settings

    @classmethod
    def check_model(cls, facts: ModelFacts) -> list[Problem]:
        from reglaj.tasks.chat_model import model_problems

        return model_problems(facts)

    @classmethod
    def shaper(cls, load_tokenizer: Callable[[], Any], facts: ModelFacts, recipe: Sections) -> Shaper:
        from reglaj.data.rendering import Renderer
        from reglaj.tasks.chat_records import ConversationShaper

        assert recipe.train.max_tokens is not None, "the context is known before the data is read"
        renderer = Renderer(load_tokenizer(), on=recipe.train.on)
        return ConversationShaper(renderer, recipe.train.max_tokens, recipe.data.too_long, recipe.train.on)

    def connect(self, tokenizer: Any, recipe: Sections) -> None:
        from reglaj.data.rendering import Renderer
        from reglaj.tasks.chat_answers import settings_of

        self._renderer = Renderer(tokenizer, on=recipe.train.on)
        # Whatever is learnt, a figure is about answers: those of a run on all tokens compare with those of others.
        self._scoring = self._renderer if recipe.train.on != "all" else Renderer(tokenizer, on="answers")
        self._too_long = recipe.data.too_long
        self._settings = settings_of(recipe.evaluate, recipe.train.seed)

    @classmethod
    def from_data(cls, data: VisibleData) -> Chat:
        return cls()

    def check_train(self, train: TrainConfig) -> list[Problem]:
        metric = train.early_stopping.metric if train.early_stopping else None
        if metric in (None, "validation_loss"):
            return []
        return [
            Problem(
                where="train.early_stopping.metric",
                given=f"{metric}",
                allowed="validation_loss",
                why="answers are free text; only the loss is measured at every evaluation",
                remedy="remove the key",
            )
        ]

    def save(self, folder: Path) -> None:
        from reglaj.data.rendering import golden_prompts

        write_json(folder / "task.json", {"task": self.name})
        write_json(folder / GOLDEN, golden_prompts(self.renderer))

    @classmethod
    def load(cls, folder: Path) -> Chat:
        return cls()

    def verify(self, folder: Path) -> None:
        from reglaj.data.rendering import check_golden

        prompts = json.loads((folder / GOLDEN).read_text(encoding="utf-8"))
        differences = check_golden(self.renderer, prompts)
        if differences:
            raise user_error(
                f"the prompts of {folder} become other tokens than when it was trained",
                allowed=f"the token ids in {GOLDEN}",
                why=str(differences[0]),
                remedy="use the tokenizer and template that were saved with the model, and the same reglaj",
            )

    @classmethod
    def load_model(cls, facts: ModelFacts, dropout: float | None, storage: Storage | None, device: str) -> Any:
        from reglaj.models.loading import load_causal

        return load_causal(facts, dropout=dropout, storage=storage, device=device)

    def head(self, model: Any, facts: ModelFacts, dropout: float) -> VocabularyHead:
        from reglaj.models.vocabulary import VocabularyHead

        head = VocabularyHead(model)
        head.check(facts.name)
        return head

    def encode(self, examples: Examples, tokenizer: Any, max_tokens: int) -> Encoded:
        from reglaj.tasks.chat_records import encode_conversations

        conversations = [Conversation.from_json(text) for text in examples.column("conversation")]
        places = [f"{source}, line {line}" for source, line in zip(examples.source, examples.line, strict=True)]
        return encode_conversations(self.renderer, conversations, places, max_tokens, self._too_long)

    def supervision(self, encoded: Encoded) -> dict[str, Any]:
        from reglaj.tasks.chat_records import supervision_of

        return supervision_of(encoded)

    def show(self, examples: Examples, tokenizer: Any, max_tokens: int, count: int) -> list[list[tuple[str, bool]]]:
        from reglaj.data.rendering import spans

        shown = []
        for text in examples.column("conversation")[:count]:
            fit = self.renderer.fit(Conversation.from_json(text), max_tokens, self._too_long)
            shown += [spans(tokenizer, rendered) for rendered in fit.examples]
        return shown[:count]

    def objective(self, train: TrainConfig, encoded: Encoded) -> NextToken:
        from reglaj.objectives.next_token import NextToken

        return NextToken()

    def batch(self, encoded: Encoded, rows: list[int], device: str) -> SupervisedBatch:
        from reglaj.tasks.chat_records import supervised_batch

        return supervised_batch(encoded, rows, device)

    def cut_rows(self, batch: SupervisedBatch) -> list[SupervisedBatch]:
        from reglaj.tasks.chat_records import single_rows

        return single_rows(batch)

    def row_places(self, batch: SupervisedBatch) -> tuple[str, ...]:
        return batch.places

    def outputs(self, learner: Learner, batch: SupervisedBatch) -> Tensor:
        return learner.token_losses(batch.tokens, batch.predictors, batch.targets)

    def validate(self, learner: Learner, encoded: Encoded) -> dict[str, float]:
        import math

        from reglaj.tasks.chat_records import row_losses

        losses, tokens = row_losses(learner, encoded, SILENT)
        loss = float(losses.sum() / tokens.sum())
        return {"validation_loss": loss, "validation_perplexity": math.exp(min(loss, 100.0))}

    def written(self, examples: Examples) -> list[str]:
        conversations = [Conversation.from_json(text) for text in examples.column("conversation")]
        return ["\n".join(one.questions) for one in conversations]

    @classmethod
    def read_gate(cls, evaluate: EvaluateConfig) -> tuple[list[Rule], list[Problem]]:
        rules, problems = super().read_gate(evaluate)
        measured = ("loss", "perplexity")
        for rule in rules if not evaluate.generate_rows else ():
            if rule.figure not in measured:
                problems.append(
                    Problem(
                        where=f"evaluate.gate.{rule.key}",
                        given=f"{rule.figure}, and no answer is generated",
                        allowed=f"{listing(measured)} with `evaluate.generate_rows: 0`",
                        why="it is measured on generated answers",
                        remedy="set evaluate.generate_rows, or remove the rule",
                    )
                )
        return rules, problems

    def evaluate(self, evaluation: Evaluation, console: Console = SILENT) -> EvaluationResult:
        from reglaj.tasks.answering import evaluate_answers
        from reglaj.tasks.chat_answers import conversations_of, make_answerer

        names = self.chosen_baselines(evaluation.config) if evaluation.data else ()
        return evaluate_answers(
            evaluation.test,
            make_answerer(self, evaluation),
            evaluation.config,
            train=conversations_of(evaluation.data.train()) if evaluation.data else None,
            baselines=names,
            seed=evaluation.seed,
            console=console,
        )

    @classmethod
    def report_plan(cls) -> ReportPlan:
        from reglaj.evaluation.report.answers import ANSWERS

        return ANSWERS

    def question(self, layout: Layout, cells: Mapping[str, str | None]) -> Conversation:
        return read_question(layout, cells)

    def predict(
        self,
        learner: Learner,
        tokenizer: Any,
        texts: Sequence[str | Conversation],
        max_tokens: int,
        console: Console = SILENT,
    ) -> list[dict[str, Any]]:
        from reglaj.tasks.chat_answers import answer_inputs

        return answer_inputs(self, learner, tokenizer, texts, console)
