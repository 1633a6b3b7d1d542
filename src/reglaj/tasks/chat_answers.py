"""Answers of a chat model: for its final evaluation, and for the inputs of a user."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from reglaj.core.console import Console
from reglaj.data.conversation import BrokenRecord, Conversation
from reglaj.data.formats.questions import question_of
from reglaj.data.rendering import spans
from reglaj.generation.config import GenerationConfig
from reglaj.tasks.answering import Answerer
from reglaj.tasks.chat_records import row_losses, try_encode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.examples import Examples
    from reglaj.data.rendering import Renderer
    from reglaj.evaluation.config import EvaluateConfig
    from reglaj.generation import Generated, Generator
    from reglaj.tasks.base import Evaluation
    from reglaj.training.learner import Learner
    from reglaj.training.parallel import Ranks


class Talks(Protocol):
    """A task with a renderer, and with settings by which it answers."""

    @property
    def renderer(self) -> Renderer: ...
    @property
    def scoring(self) -> Renderer: ...
    @property
    def settings(self) -> GenerationConfig: ...


def conversations_of(examples: Examples) -> list[Conversation]:
    """The stored conversations of a part."""
    return [Conversation.from_json(text) for text in examples.column("conversation")]


def make_generator(task: Talks, learner: Learner, tokenizer: Any) -> Generator:
    """The one generator, on this learner's model. Fold the method in around it (`Handle.folded`)."""
    from reglaj.generation import Generator

    engine = learner.engine
    # On a CPU decoding waits for weights, not for products: converting them at every step would only cost.
    autocast = engine.autocast if engine.device == "cuda" else contextlib.nullcontext
    return Generator(
        learner.backbone,
        tokenizer,
        end_ids=task.renderer.facts.end_ids,
        context=learner.facts.context,
        autocast=autocast,
        virtual=learner.handle.current_virtual,
    )


def context_of(learner: Learner) -> int:
    """Tokens that a prompt and its answer may have together: the context, without what virtual tokens take of it."""
    return learner.facts.context - learner.handle.capabilities.virtual_tokens


def room_for_prompt(context: int, max_new_tokens: int) -> int:
    """Tokens that a prompt may have so that the answer has room too; never less than half of the context."""
    return context - min(max_new_tokens, context // 2)


def settings_of(config: EvaluateConfig, seed: int) -> GenerationConfig:
    """How answers are generated in the evaluation, and by default afterwards."""
    return GenerationConfig(
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        repetition_penalty=config.repetition_penalty,
        seed=seed,
    )


def make_answerer(task: Talks, evaluation: Evaluation) -> Answerer:
    """What the evaluation of answers asks of a chat model."""
    from reglaj.models.packing import steady_context

    learner, tokenizer, config = evaluation.learner, evaluation.tokenizer, evaluation.config
    context = context_of(learner)
    if learner.engine.layout != "alone":  # rows longer than those of training must not share a pass by that
        steady = steady_context(learner.backbone.config, learner.facts.context)
        context = max(evaluation.max_tokens, steady - learner.handle.capabilities.virtual_tokens)

    def as_model(which: str | None) -> contextlib.AbstractContextManager[None]:
        return learner.handle.using(None) if which else learner.handle.folded()

    def token_losses(
        conversations: Sequence[Conversation], which: str | None, console: Console
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        import numpy as np

        places = [str(number) for number in range(len(conversations))]
        encoded, kept = try_encode(task.scoring, conversations, places, context)
        losses, tokens = np.zeros(len(conversations)), np.zeros(len(conversations), dtype=np.int64)
        if kept:
            model = learner.handle.using(None) if which else contextlib.nullcontext()
            with model:
                losses[kept], tokens[kept] = row_losses(learner, encoded, console, f"testing {which or 'the model'}")
        return losses, tokens

    def generate(conversations: Sequence[Conversation], which: str | None, console: Console) -> list[Generated]:
        # Each of them fits the context together with its true answer, or would not be a test row.
        prompts = [task.renderer.prompt(one) for one in conversations]
        settings = settings_of(config, evaluation.seed)
        with as_model(which):
            generator = make_generator(task, learner, tokenizer)
            made = generator.generate(learner.ranks.share(prompts), settings, console)
        return _put_together(learner.ranks, made, len(prompts))

    def render_spans(conversation: Conversation) -> list[tuple[str, bool]]:
        return spans(tokenizer, task.renderer.render(conversation))

    return Answerer(token_losses=token_losses, generate=generate, render_spans=render_spans)


def _put_together(ranks: Ranks, made: list[Generated], count: int) -> list[Generated]:
    """The answers of all processes in the order of the prompts, which `Ranks.share` dealt out."""
    from reglaj.generation import Generated

    if not ranks.is_shared:
        return made
    parts = ranks.gather([vars(one) for one in made])
    return [Generated(**parts[place % ranks.size][place // ranks.size]) for place in range(count)]


def answer_inputs(
    task: Talks,
    learner: Learner,
    tokenizer: Any,
    inputs: Sequence[Any],
    console: Console,
) -> list[dict[str, Any]]:
    """One answer per input, in order: a text is a user's turn; conversations and lists of messages end with one."""
    answers: list[dict[str, Any]] = []
    prompts: list[list[int]] = []
    places: list[int] = []
    settings = task.settings
    room = room_for_prompt(context_of(learner), settings.max_new_tokens)
    for number, one in enumerate(inputs):
        answer: dict[str, Any] = {"input": one if isinstance(one, str) else ""}
        try:
            conversation = _as_conversation(one)
            answer["input"] = conversation.questions[-1]
            ids, was_cut = task.renderer.fit_prompt(conversation, room)
            prompts.append(ids)
            places.append(number)
            answer |= {"cut": True} if was_cut else {}
        except BrokenRecord as problem:
            answer["error"] = problem.reason
        answers.append(answer)
    if not prompts:
        return answers
    with learner.handle.folded():
        generated = make_generator(task, learner, tokenizer).generate(prompts, settings, console)
    for place, made in zip(places, generated, strict=True):
        answers[place] |= {"prediction": made.text, "ended": made.ended, "tokens": len(made.ids)}
    return answers


def _as_conversation(one: Any) -> Conversation:
    if isinstance(one, Conversation):
        return one
    if isinstance(one, str):
        return question_of([{"role": "user", "content": one}])
    if isinstance(one, list | tuple):
        return question_of(list(one))
    raise BrokenRecord("unreadable", "neither a text nor a list of messages")
