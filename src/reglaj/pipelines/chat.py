"""A conversation with a finished run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.config import validate
from reglaj.core.console import SILENT, Console
from reglaj.core.errors import user_error
from reglaj.core.runs import find_run
from reglaj.data.conversation import BrokenRecord, Conversation

if TYPE_CHECKING:
    from reglaj.generation import Generated, GenerationConfig, Generator, Stream


class Chat:
    """What was said so far, and the model that goes on.

        with open_chat("runs/support-001") as chat:
            for piece in chat.answer("Where is my card?"):
                print(piece, end="", flush=True)

    renderer: as `data.rendering.Renderer`, the one that the model was trained with. context: tokens that prompt and
    answer may have together. The model's weights must stay as they are until the history is reset.
    """

    def __init__(
        self, generator: Generator, renderer: Any, context: int, settings: GenerationConfig, console: Console = SILENT
    ) -> None:
        self._generator = generator
        self._renderer = renderer
        self._context = context
        self._console = console
        self._has_told = False
        self._stream: Stream | None = None
        self.settings = settings
        self.system: str | None = None
        """The system prompt of the turns to come; it stays when the history is reset."""
        self.history: list[dict[str, str]] = []
        """Turns of user and assistant, the oldest first. All of them, also those that no longer fit the context."""
        self.last: Generated | None = None
        """The last answer with its tokens and why it ended."""

    def answer(self, text: str) -> Iterator[str]:
        """The answer to the next turn, in pieces as they come; both turns then belong to the history.

        An answer that is stopped early (the iterator is closed, or interrupted) stays in the history as far as it
        came. One without any text leaves no trace, for no template has a place for it. Raises `UserError` at once
        where the turn cannot be answered; the history is then as before.
        """
        turns = [*self.history, {"role": "user", "content": text}]
        head = [{"role": "system", "content": self.system}] if self.system else []
        prompt = self._fitted(text, Conversation.of([*head, *turns]))
        return self._pieces(turns, prompt)

    def reset(self) -> None:
        """Forget what was said."""
        self.history = []
        self.last = None
        self._has_told = False
        self._stream = None

    def _pieces(self, turns: list[dict[str, str]], prompt: list[int]) -> Iterator[str]:
        # The last turn's keys and values are there still: only what is new is read.
        stream = self._stream = self._generator.stream(prompt, self.settings, after=self._stream)
        said = ""
        try:
            for piece in stream:
                said += piece
                yield piece
        finally:
            stream.close()
            self.last = stream.generated
            if said.strip():
                self.history = [*turns, {"role": "assistant", "content": said}]

    def _fitted(self, text: str, conversation: Conversation) -> list[int]:
        """Token ids of the prompt, with room left for an answer: what was asked for, but at most half the context."""
        room = self._context - min(self.settings.max_new_tokens, self._context // 2)
        try:
            if not text.strip():
                raise BrokenRecord("empty_text", "it is empty")
            ids, was_cut = self._renderer.fit_prompt(conversation, room)
        except BrokenRecord as problem:
            raise user_error(
                "this turn cannot be answered",
                allowed=f"a text that fits into {room:,} tokens, with the system prompt",
                why=problem.reason,
                remedy="say it otherwise, or begin anew (/reset)",
            ) from problem
        if was_cut and not self._has_told:
            self._has_told = True
            self._console.warn(
                f"the conversation has outgrown the {self._context:,} tokens of the model's context: "
                "its oldest turns are no longer read"
            )
        tokens: list[int] = ids
        return tokens


@contextlib.contextmanager
def open_chat(
    run: str | Path, *, runs: str | Path = "runs", console: Console = SILENT, **settings: Any
) -> Iterator[Chat]:
    """A conversation with a run, whose method is folded into the base meanwhile.

    settings: keys of `GenerationConfig` that differ from how the run was evaluated. Raises `UserError` for a run that
    does not talk, before anything is loaded.
    """
    folder = find_run(str(run), Path(runs))
    _refuse_what_does_not_talk(folder)
    from reglaj.generation import GenerationConfig
    from reglaj.pipelines.assemble import load_run
    from reglaj.tasks.chat_answers import context_of, make_generator

    validate(GenerationConfig, settings, where="")  # before the model is loaded, which takes long
    assembled = load_run(folder, console)
    task: Any = assembled.task
    values = _settings(task, settings)
    with assembled.learner.handle.folded():
        generator = make_generator(task, assembled.learner, assembled.tokenizer)
        if generator.reason is not None:
            console.warn(f"answers take longer than they could: {generator.reason}")
        yield Chat(generator, task.renderer, context_of(assembled.learner), values, console)


def _settings(task: Any, changes: dict[str, Any]) -> GenerationConfig:
    from reglaj.generation import GenerationConfig

    values = validate(GenerationConfig, {**task.settings.model_dump(), **changes}, where="")
    assert isinstance(values, GenerationConfig)
    return values


def _refuse_what_does_not_talk(run: Path) -> None:
    from reglaj.pipelines.predict import load_recipe_of
    from reglaj.tasks import TASKS

    task = load_recipe_of(run).task
    if hasattr(TASKS.get(task), "renderer"):  # what turns conversations into tokens
        return
    raise user_error(
        f"{str(run)!r} does not talk: its task is {task}",
        allowed="a run of the task chat",
        why="it was not trained to answer in a conversation",
        remedy=f'ask it with `reglaj predict {run} "TEXT"`, or train a recipe with `task: chat`',
    )


def before_and_after(
    run: str | Path, question: str, *, runs: str | Path = "runs", console: Console = SILENT, **settings: Any
) -> tuple[str, str]:
    """The answers to one question of the model as it came and of the trained one, under the same settings."""
    folder = find_run(str(run), Path(runs))
    _refuse_what_does_not_talk(folder)
    from reglaj.pipelines.assemble import load_run
    from reglaj.tasks.chat_answers import context_of, make_generator, room_for_prompt

    assembled = load_run(folder, console)
    task: Any = assembled.task
    config: Any = _settings(task, settings)
    learner = assembled.learner
    room = room_for_prompt(context_of(learner), config.max_new_tokens)
    prompt, _ = task.renderer.fit_prompt(Conversation.of([{"role": "user", "content": question}]), room)
    answers = []
    for model in (learner.handle.using(None), learner.handle.folded()):
        with model:
            (answer,) = make_generator(task, learner, assembled.tokenizer).generate([prompt], config)
        answers.append(answer.text)
    return answers[0], answers[1]
