"""The final evaluation of a task that answers with text: how likely the true answers are, and how generated ones read.

It knows conversations and figures, and nothing of models or templates: what touches the model is handed in as functions
(`Answerer`). The untouched model and few-shot prompting are scored on the very same answer tokens and the same drawn
rows, so that every difference is paired.

N test rows, G of them with a generated answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import user_error
from reglaj.core.seeding import derive_seed
from reglaj.data.conversation import BrokenRecord, Conversation
from reglaj.tasks.base import EvaluationResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.examples import Examples
    from reglaj.evaluation.baselines.answering import Exchange
    from reglaj.evaluation.config import EvaluateConfig
    from reglaj.evaluation.metrics.answers import JudgedAnswers
    from reglaj.evaluation.types import IntArray

UNTUNED = "untuned"
"""The name under which an `Answerer` knows the model as it was before training; None is the trained one."""
MOST_SHOWN = 25
_RENDERED = 3


class Answer(Protocol):
    """A generated answer. ended: `end` where the model itself ended it, `stop` or `length` otherwise."""

    @property
    def text(self) -> str:
        """What it says."""

    @property
    def ended(self) -> str:
        """Why it is over."""


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """What the task hands in; the second argument names the model, None or `UNTUNED`.

    token_losses: nats summed over the supervised tokens of each conversation (N,), and how many those are (N,): all
        answers or only the last, as the task trains. A conversation longer than the context gives 0 tokens.
    generate: an answer to each conversation; they end with a turn of the user or of a tool.
    render_spans: the pieces of a conversation as the model reads it, and whether each was trained on.
    """

    token_losses: Callable[[Sequence[Conversation], str | None, Console], tuple[NDArray[np.float64], NDArray[np.int64]]]
    generate: Callable[[Sequence[Conversation], str | None, Console], Sequence[Answer]]
    render_spans: Callable[[Conversation], list[tuple[str, bool]]]


@dataclass(frozen=True, kw_only=True)
class _Showing:
    """What one model made of the test rows. nll: (N,). answers, judged: G, or None where none were generated."""

    nll: NDArray[np.float64]
    answers: Sequence[Answer] | None
    judged: JudgedAnswers | None


def evaluate_answers(
    test: Examples,
    answerer: Answerer,
    config: EvaluateConfig,
    *,
    train: Sequence[Conversation] | None,
    baselines: Sequence[str],
    seed: int,
    console: Console = SILENT,
) -> EvaluationResult:
    """Loss, perplexity and text figures on the test rows, the same of each baseline, and their paired differences.

    test: conversations as JSON in the column `conversation`, each ending with the true answer. train: the training
    conversations, for baselines that show some; None leaves those out. In `extras`, for the report: `answers` (drawn
    rows side by side) and `rendered` (conversations as the model reads them). Raises `UserError` where no test row
    fits into the context.
    """
    return _AnswerEvaluation(test, answerer, config, seed, console).result(train, baselines)


class _AnswerEvaluation:
    """One evaluation: the rows that can be scored, those that are drawn, and the trained model's own showing."""

    def __init__(self, test: Examples, answerer: Answerer, config: EvaluateConfig, seed: int, console: Console) -> None:
        import numpy as np

        self.test, self.answerer, self.config, self.seed, self.console = test, answerer, config, seed, console
        self.conversations = [Conversation.from_json(text) for text in test.column("conversation")]
        nll, self.tokens = answerer.token_losses(self.conversations, None, console)
        scored: list[int] = np.flatnonzero(self.tokens).tolist()
        if not scored:
            raise user_error(
                f"none of the {len(self.conversations):,} test conversations can be scored",
                allowed="conversations that fit into the context, with an answer",
                why="a figure needs at least one answer token",
                remedy="raise train.max_tokens, or score on shorter conversations",
            )
        self.num_left_out = len(self.conversations) - len(scored)
        self.drawn = sorted(_draw(scored, config.generate_rows, derive_seed(seed, "generated rows")))
        self.ours = self._showing(nll, [self.conversations[row] for row in self.drawn], None)

    def result(self, train: Sequence[Conversation] | None, baselines: Sequence[str]) -> EvaluationResult:
        """Everything, in the form of report.json and of the page."""
        results, notes, untuned = self._baselines(train, baselines)
        num_scored = len(self.tokens) - self.num_left_out
        test = {
            **self._scores(self.ours),
            "rows": num_scored,
            "answer_tokens": int(self.tokens.sum()),
            "generated_rows": len(self.drawn),
            "max_new_tokens": self.config.max_new_tokens,
        }
        if self.num_left_out:
            are = "conversation is" if self.num_left_out == 1 else "conversations are"
            notes.append(f"{self.num_left_out:,} test {are} longer than the context and in no figure.")
        answers = self._side_by_side(untuned)
        return EvaluationResult(
            test=test,
            baselines=results,
            mistakes=answers,
            notes=notes,
            cut=self.num_left_out,
            extras={"answers": answers, "rendered": self._rendered(train)},
            score_group=self._score_group,
        )

    def _score_group(self, rows: IntArray) -> dict[str, dict[str, Any]]:
        """The figures of some test rows: the loss of those that can be scored, the others of those that are drawn."""
        import numpy as np

        from reglaj.evaluation.metrics.groups import answer_figures, loss_figures

        figures = loss_figures(self.ours.nll[rows], self.tokens[rows], **self._settings)
        if self.ours.judged is not None:
            places = np.flatnonzero(np.isin(self.drawn, rows))
            figures |= answer_figures(self.ours.judged, places, **self._settings)
        return figures

    def _showing(self, nll: NDArray[np.float64], asked: Sequence[Conversation], model: str | None) -> _Showing:
        """The losses with generated answers to the drawn rows. asked: those rows as the model is to see them."""
        if not asked:
            return _Showing(nll=nll, answers=None, judged=None)
        from reglaj.evaluation.metrics.answers import judge

        answers = self.answerer.generate([one.before_last_answer() for one in asked], model, self.console)
        references = [self.conversations[row].last_answer for row in self.drawn]
        judged = judge([one.text for one in answers], references, [one.ended for one in answers])
        return _Showing(nll=nll, answers=answers, judged=judged)

    @property
    def _settings(self) -> dict[str, Any]:
        return {
            "confidence": self.config.confidence,
            "samples": self.config.bootstrap_samples,
            "seed": derive_seed(self.seed, "bootstrap"),
        }

    def _scores(self, showing: _Showing) -> dict[str, Any]:
        from reglaj.evaluation.metrics.answers import answer_scores
        from reglaj.evaluation.metrics.likelihood import loss_scores

        scores: dict[str, Any] = dict(loss_scores(showing.nll, self.tokens, **self._settings))
        if showing.judged is not None:
            scores |= answer_scores(showing.judged, **self._settings)
        return scores

    def _differences(self, theirs: _Showing) -> dict[str, Any]:
        from reglaj.evaluation.metrics.answers import answer_differences
        from reglaj.evaluation.metrics.likelihood import loss_differences

        found: dict[str, Any] = dict(loss_differences(self.ours.nll, theirs.nll, self.tokens, **self._settings))
        if self.ours.judged is not None and theirs.judged is not None:
            found |= answer_differences(self.ours.judged, theirs.judged, **self._settings)
        return found

    def _baselines(
        self, train: Sequence[Conversation] | None, names: Sequence[str]
    ) -> tuple[dict[str, Any], list[str], _Showing | None]:
        """Figures by baseline, notes, and the untouched model's showing where it is among them."""
        from reglaj.evaluation.baselines import BASELINES
        from reglaj.evaluation.baselines.answering import AnswerBaseline, AnswerBaselineData

        data = AnswerBaselineData(
            train=train, examples=self.config.few_shot_examples, seed=derive_seed(self.seed, "baselines")
        )
        results: dict[str, Any] = {}
        notes: list[str] = []
        untuned = None
        for name in names:
            kind = BASELINES.get(name, where="evaluate.baselines")
            if not issubclass(kind, AnswerBaseline):
                raise ValueError(f"the baseline {name!r} does not answer with text")
            if kind.needs_training_rows and train is None:
                continue
            began = time.perf_counter()
            exchanges = kind().exchanges(data)
            if kind.needs_training_rows and not exchanges:
                notes.append(f"{kind.title}: left out, for no training conversation ends with a plain answer.")
                continue
            showing, used = self._untouched(exchanges)
            scores, differences = self._scores(showing), self._differences(showing)
            results[name] = {metric: {**scores[metric], "difference": differences[metric]} for metric in scores}
            notes += _told(kind.title, len(exchanges), used)
            untuned = showing if name == UNTUNED else untuned
            self.console.say(f"  baseline {name}: {time.perf_counter() - began:.1f} s")
        return results, notes, untuned

    def _untouched(self, exchanges: Sequence[Exchange]) -> tuple[_Showing, list[int]]:
        """The untouched model with exchanges in front of each question, and how many of them each scored row has.

        A row that becomes too long gets fewer; without any it is the row itself, which fits.
        """
        import numpy as np

        from reglaj.evaluation.baselines.answering import in_front

        asked = list(self.conversations)
        nll = np.zeros(len(asked))
        used: dict[int, int] = {}
        left: list[int] = np.flatnonzero(self.tokens).tolist()
        for count in range(len(exchanges), -1, -1):
            longer = {row: in_front(exchanges[:count], self.conversations[row]) for row in left}
            found = self._losses_of_own_answers(longer, count)
            for row, loss in found.items():
                nll[row], asked[row], used[row] = loss, longer[row], count
            left = [row for row in left if row not in found]
            if not left:
                break
        assert not left, "a row as it is has the tokens that it has"
        return self._showing(nll, [asked[row] for row in self.drawn], UNTUNED), list(used.values())

    def _losses_of_own_answers(self, longer: dict[int, Conversation], count: int) -> dict[int, float]:
        """By row, nats of the test row's own answers in a conversation with `count` exchanges before its turns.

        The answers of those exchanges are supervised too (unless only the last answer is). They come first, and a
        token's loss depends on nothing after it: scored by themselves once, they can be taken off. Rows that do not
        fit, or whose tokens do not come out the same, are not in what is returned.
        """
        rows = list(longer)
        nll, tokens = self.answerer.token_losses([longer[row] for row in rows], UNTUNED, self.console)
        found = {row: float(nll[i]) for i, row in enumerate(rows) if tokens[i] == self.tokens[row]}
        fuller = {row: i for i, row in enumerate(rows) if tokens[i] > self.tokens[row]}
        fronts = {row: _front(longer[row], self.conversations[row], count) for row in fuller}
        different = {front.to_json(): front for front in fronts.values()}
        if not different:
            return found
        front_nll, front_tokens = self.answerer.token_losses(list(different.values()), UNTUNED, self.console)
        place = {text: i for i, text in enumerate(different)}
        for row, i in fuller.items():
            front = place[fronts[row].to_json()]
            if tokens[i] - front_tokens[front] == self.tokens[row]:
                found[row] = float(nll[i] - front_nll[front])
        return found

    def _side_by_side(self, untuned: _Showing | None) -> list[dict[str, Any]]:
        """Drawn rows in their order, as they come: question, reference, answers before and after."""
        if self.ours.answers is None:
            return []
        before = untuned.answers if untuned is not None else None
        shown = []
        for place, row in enumerate(self.drawn[:MOST_SHOWN]):
            conversation, tokens = self.conversations[row], self.tokens[row]
            shown.append(
                {
                    "prompt": _transcript(conversation.before_last_answer()),
                    "reference": conversation.last_answer,
                    "before": before[place].text if before is not None else None,
                    "after": self.ours.answers[place].text,
                    "ended": self.ours.answers[place].ended,
                    "ended_before": before[place].ended if before is not None else None,
                    "nll_per_token": float(self.ours.nll[row] / tokens),
                    "nll_per_token_before": float(untuned.nll[row] / tokens) if untuned is not None else None,
                    "id": self.test.ids[row],
                    "source": self.test.source[row],
                    "line": self.test.line[row],
                }
            )
        return shown

    def _rendered(self, train: Sequence[Conversation] | None) -> list[list[list[Any]]]:
        """A few drawn conversations as the model reads them: pieces of text, and whether each was trained on."""
        conversations = train or self.conversations
        drawn = _draw(range(len(conversations)), 4 * _RENDERED, derive_seed(self.seed, "rendered rows"))
        rendered: list[list[list[Any]]] = []
        for row in drawn:
            try:
                pieces = self.answerer.render_spans(conversations[row])
            except BrokenRecord:
                continue
            rendered.append([[text, trained] for text, trained in pieces])
            if len(rendered) == _RENDERED:
                break
        return rendered


def _draw(rows: Sequence[int], count: int, seed: int) -> list[int]:
    """At most `count` of the rows, in the order of chance."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(rows))[:count]
    return [rows[place] for place in order.tolist()]


def _front(longer: Conversation, own: Conversation, count: int) -> Conversation:
    """What stands before a test row's own turns: its system prompt, and exchanges of two messages each."""
    has_system = own.messages[0]["role"] == "system"
    return Conversation(longer.messages[: 2 * count + has_system], longer.tools)


def _transcript(conversation: Conversation) -> str:
    """A lone question as it is; several turns with their roles."""
    messages = conversation.messages
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{message['role']}: {_said(message)}" for message in messages)


def _said(message: Any) -> str:
    return Conversation(({**message, "role": "assistant"},)).last_answer


def _told(title: str, examples: int, used: Sequence[int]) -> list[str]:
    """Sentences about what was put in front of the questions, and where less of it fitted."""
    if not examples:
        return []
    fewer = [count for count in used if count < examples]
    told = f"{title}: {examples} of the shortest training exchanges, the same in front of every question."
    if fewer:
        told += (
            f" Not all fit into the context of {len(fewer):,} of {len(used):,} test rows: those have {min(fewer)}"
            f"{f' to {max(fewer)}' if max(fewer) > min(fewer) else ''}."
        )
    return [told]
