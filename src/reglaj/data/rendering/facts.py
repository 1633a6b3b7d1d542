"""What is known about a chat template: found by trying, never by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Beginning = Literal["template", "added", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateFacts:
    """How a template writes turns, and what the renderer does about it.

    system: it writes system prompts, refuses them (they go in front of the first question), or leaves them out.
    tools: it writes tools and calls, or they go into the turns as text; then results come in `tool_role`.
    arguments_as_text, call_ids: what it wants of native calls.
    keeps_prefix: a conversation's text begins with the text of its first turns, so that every answer can be trained.
    end_ids: ids of the end-of-turn token, of that after a call, and of the tokenizer's own end token.
    ends: the texts that end an answer; writes_end: the template writes one, else `ends` is put in after each answer.
    tail: what the template writes after an answer where it writes no end token.
    header: what is put after the prompt because the template has no generation prompt of its own.
    cut_back: the end of the generation prompt that finished conversations do not have, left out of prompts.
    beginning: who writes the one beginning token.
    """

    system: Literal["native", "merged", "dropped"]
    tools: Literal["native", "text"]
    tool_role: Literal["tool", "user"] = "tool"
    arguments_as_text: bool = False
    call_ids: bool = False
    keeps_prefix: bool = True
    end_ids: frozenset[int] = frozenset()
    ends: tuple[str, ...] = ()
    writes_end: bool = True
    tail: str = ""
    header: str = ""
    cut_back: str = ""
    beginning: Beginning = "none"
    has_date: bool = False

    def sentences(self) -> list[str]:
        """What a reader of the report should know, in words; empty where nothing is out of the ordinary."""
        told = {
            "The chat template takes no system prompt: it goes in front of the first question.": self.system
            == "merged",
            "The chat template leaves system prompts out: the model never sees them.": self.system == "dropped",
            "The chat template knows no tools: they are described in the system prompt, and calls are written as text "
            "between <tool_call> and </tool_call>.": self.tools == "text",
            "The chat template writes earlier turns differently once the conversation goes on: of those, the last "
            "answer is trained and the others are counted.": not self.keeps_prefix,
            f"The chat template writes no end token: {self.ends[0] if self.ends else ''!r} is put in after every "
            "answer.": not self.writes_end,
            f"The chat template has no generation prompt: {self.header!r} is put in before every answer.": bool(
                self.header
            ),
            f"The generation prompt ends with {self.cut_back!r}, which finished conversations do not have: prompts are "
            "made without it.": bool(self.cut_back),
            "The chat template writes today's date: it is pinned to 26 July 2024, so that equal turns give equal "
            "tokens on every day.": self.has_date,
        }
        return [sentence for sentence, holds in told.items() if holds]
