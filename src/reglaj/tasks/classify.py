"""classify: one label out of a fixed set for each text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import Problem, UserError, listing, nearest
from reglaj.core.files import write_json
from reglaj.core.seeding import derive_seed
from reglaj.data.roles import ColumnRoles
from reglaj.tasks import TASKS
from reglaj.tasks.base import Encoded, Evaluation, EvaluationResult, Sections, Task
from reglaj.training.defaults import TaskDefaults

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from reglaj.data.examples import Examples, VisibleData
    from reglaj.evaluation.report import ReportPlan
    from reglaj.models.heads import ScoreHead
    from reglaj.models.inspect import ModelFacts
    from reglaj.objectives.cross_entropy import CrossEntropy, LabelledBatch
    from reglaj.tasks.classify_calibration import Calibration
    from reglaj.training.config import TrainConfig
    from reglaj.training.learner import Learner


@TASKS.register("classify")
class Classify(Task):
    """labels: sorted names; a class is a number into them. C of them."""

    name: ClassVar[str] = "classify"
    summary: ClassVar[str] = "one label out of a fixed set for each text"
    roles: ClassVar[ColumnRoles] = ColumnRoles(inputs=("text",), target="label")
    headline: ClassVar[str] = "accuracy"
    # Not the loss: a classifier that overfits grows too sure long before it is more often wrong. On the demo's data
    # (validation, full fine-tuning) the lowest loss is at epoch 2 with 0.556 right, the best accuracy 0.589 at epoch 5.
    defaults: ClassVar[TaskDefaults] = TaskDefaults(stopping_metric="validation_accuracy")
    unread: ClassVar[frozenset[str]] = frozenset(
        {"train.on", "data.too_long", "evaluate.generate_rows", "evaluate.max_new_tokens", "evaluate.temperature",
         "evaluate.few_shot_examples", "evaluate.repetition_penalty"}
    )  # fmt: skip
    baselines: ClassVar[tuple[str, ...]] = ("majority", "tfidf_word", "tfidf_char", "frozen_probe")
    trivial_baseline: ClassVar[str] = "majority"
    says_how_sure: ClassVar[bool] = True
    # `probability` is that of the prediction, `probabilities` a JSON object of all.
    table_columns: ClassVar[tuple[str, ...]] = ("line", "input", "prediction", "probability", "probabilities", "error")

    def __init__(self, labels: list[str], calibration: Calibration | None = None) -> None:
        self.labels = labels
        self.calibration = calibration
        self._number = {label: number for number, label in enumerate(labels)}

    @classmethod
    def check_model(cls, facts: ModelFacts) -> list[Problem]:
        if not facts.is_encoder_decoder:
            return []
        return [
            Problem(
                where="model",
                given=f"{facts.name} is an encoder-decoder ({facts.model_type})",
                allowed="encoders (BERT-like) and decoders (GPT-like)",
                why="a classifier reads one stack of hidden states",
                remedy="choose an encoder such as starter:minilm",
            )
        ]

    @classmethod
    def from_data(cls, data: VisibleData) -> Classify:
        return cls(sorted(set(data.train().column("label"))))

    def check_train(self, train: TrainConfig) -> list[Problem]:
        weights = train.class_weights
        problems = []
        if weights == "balanced" and train.sampling == "balanced":
            problems.append(
                Problem(
                    where="train.sampling",
                    given="balanced, and train.class_weights is balanced too",
                    allowed="one of the two",
                    why="each of them makes up for the frequency of a label: with both, rare ones would count too much",
                    remedy="leave one of the keys out",
                )
            )
        if not isinstance(weights, dict):
            return problems
        for label, weight in weights.items():
            guess = nearest(label, self.labels)
            if label not in self._number:
                problems.append(
                    Problem(
                        where="train.class_weights",
                        given=f"no label is called {label!r}",
                        allowed=listing(self.labels),
                        why="the weight would change nothing",
                        remedy=f"did you mean {guess!r}?" if guess else "name a label of the data",
                    )
                )
            elif not 0 < weight < float("inf"):
                problems.append(
                    Problem(
                        where="train.class_weights",
                        given=f"{label}: {weight}",
                        allowed="a number above 0",
                        why="a class without weight is not learnt",
                        remedy="use data.exclude_labels to leave a label out",
                    )
                )
        return problems

    def save(self, folder: Path) -> None:
        write_json(folder / "task.json", {"task": self.name, "labels": self.labels})
        if self.calibration:
            self.calibration.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Classify:
        from reglaj.tasks.classify_calibration import load_calibration

        labels: list[str] = json.loads((folder / "task.json").read_text(encoding="utf-8"))["labels"]
        return cls(labels, load_calibration(folder, labels))

    def settle(self, learner: Learner, validation: Encoded, recipe: Sections, console: Console = SILENT) -> None:
        from reglaj.tasks.classify_calibration import settle

        scores = learner.scores(validation.rows, console, "calibrating")
        seed = derive_seed(recipe.train.seed, "calibration")
        self.calibration = settle(self.labels, scores, validation.targets, recipe.evaluate, seed, learner.ranks)
        for told in self.calibration.in_words():
            console.say(f"  {told}")

    def sure_enough(self, target_error: float, confidence: float) -> float:
        from reglaj.tasks.classify_calibration import without_calibration

        if self.calibration is None:
            raise without_calibration()
        return self.calibration.sure_enough(target_error, confidence)

    def head(self, model: Any, facts: ModelFacts, dropout: float) -> ScoreHead:
        from reglaj.models.heads import ScoreHead

        return ScoreHead(facts.hidden_size, len(self.labels), pooling=facts.pooling, dropout=dropout)

    def encode(self, examples: Examples, tokenizer: Any, max_tokens: int) -> Encoded:
        import numpy as np

        from reglaj.models.token_cache import encode_kept

        rows, cut = encode_kept(tokenizer, examples.column("text"), max_tokens)
        targets = np.array([self._number[label] for label in examples.column("label")], dtype=np.int64)
        places = [f"{source}, line {line}" for source, line in zip(examples.source, examples.line, strict=True)]
        return Encoded(places=places, rows=rows, targets=targets, cut=len(cut))

    def show(self, examples: Examples, tokenizer: Any, max_tokens: int, count: int) -> list[list[tuple[str, bool]]]:
        from reglaj.models.encoding import encode_texts

        rows, _ = encode_texts(tokenizer, examples.column("text")[:count], max_tokens)
        labels = examples.column("label")
        return [[(tokenizer.decode(rows[i]), False), (f" -> {labels[i]}", True)] for i in range(len(rows))]

    def objective(self, train: TrainConfig, encoded: Encoded) -> CrossEntropy:
        import numpy as np
        import torch

        from reglaj.objectives.cross_entropy import CrossEntropy, balanced_weights

        if train.class_weights == "none":
            return CrossEntropy()
        if train.class_weights == "balanced":
            return CrossEntropy(balanced_weights(np.bincount(encoded.targets, minlength=len(self.labels)).tolist()))
        return CrossEntropy(torch.tensor([float(train.class_weights.get(label, 1.0)) for label in self.labels]))

    def strata(self, encoded: Encoded) -> NDArray[np.int64]:
        targets: NDArray[np.int64] = encoded.targets
        return targets

    def batch(self, encoded: Encoded, rows: list[int], device: str) -> LabelledBatch:
        from reglaj.models.laying import on_device
        from reglaj.objectives.cross_entropy import LabelledBatch

        return LabelledBatch(
            tokens=encoded.rows.batch(rows, device),
            labels=on_device(encoded.targets[rows], device),
            classes=tuple(encoded.targets[rows].tolist()),
            places=tuple(encoded.places[row] for row in rows),
        )

    def cut_rows(self, batch: LabelledBatch) -> list[LabelledBatch]:
        from reglaj.models.trunk import single_texts
        from reglaj.objectives.cross_entropy import LabelledBatch

        return [
            LabelledBatch(
                tokens=text, labels=batch.labels[i : i + 1], classes=batch.classes[i : i + 1], places=(batch.places[i],)
            )
            for i, text in enumerate(single_texts(batch.tokens))
        ]

    def row_places(self, batch: LabelledBatch) -> tuple[str, ...]:
        return batch.places

    def outputs(self, learner: Learner, batch: LabelledBatch) -> Tensor:
        return learner.outputs(batch.tokens)

    def validate(self, learner: Learner, encoded: Encoded) -> dict[str, float]:
        from reglaj.evaluation.metrics.calibration import softmax
        from reglaj.evaluation.metrics.classification import point_metrics

        metrics = point_metrics(encoded.targets, softmax(learner.scores(encoded.rows)))
        return {
            "validation_loss": metrics["log_loss"],
            "validation_accuracy": metrics["accuracy"],
            "validation_macro_f1": metrics["macro_f1"],
        }

    def evaluate(self, evaluation: Evaluation, console: Console = SILENT) -> EvaluationResult:
        from reglaj.tasks.classify_scores import evaluate_classifier

        self._refuse_unknown_labels(evaluation.test)
        encoded = self.encode(evaluation.test, evaluation.tokenizer, evaluation.max_tokens)
        baselines = self.chosen_baselines(evaluation.config)
        return evaluate_classifier(self.labels, encoded, baselines, evaluation, self.calibration, console)

    def accepts(self, target: str) -> bool:
        return target in self._number

    def _refuse_unknown_labels(self, examples: Examples) -> None:
        unknown = sorted(set(examples.column("label")) - set(self.labels))
        if unknown:
            raise UserError(*(self._unknown_label(label) for label in unknown[:10]))

    def _unknown_label(self, label: str) -> Problem:
        guess = nearest(label, self.labels)
        return Problem(
            where="label",
            given=f"the label {label!r}",
            allowed=listing(self.labels),
            why="the model was not trained on it and cannot answer it",
            remedy=f"did you mean {guess!r}? Otherwise leave those rows out, or train on data that has it"
            if guess
            else "leave those rows out, or train on data that has it",
        )

    @classmethod
    def report_plan(cls) -> ReportPlan:
        from reglaj.evaluation.report.classification import CLASSIFICATION

        return CLASSIFICATION

    def predict(
        self, learner: Learner, tokenizer: Any, texts: list[str], max_tokens: int, console: Console = SILENT
    ) -> list[dict[str, Any]]:
        from reglaj.tasks.classify_answers import answer_texts

        return answer_texts(self.labels, self.calibration, learner, tokenizer, texts, max_tokens, console)
