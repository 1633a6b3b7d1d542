"""Finds out how a template works by rendering a few turns whose texts are easy to find again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from reglaj.core.errors import UserError, user_error
from reglaj.data.rendering.answers import AnswerFinder
from reglaj.data.rendering.dialect import adapt
from reglaj.data.rendering.facts import TemplateFacts
from reglaj.data.rendering.template import TemplateRaised, TemplateText

Turn = dict[str, Any]

# Words that no template writes by itself, in a case that `| trim` and `| capitalize` leave alone.
SYSTEM: Turn = {"role": "system", "content": "Qzsystem"}
QUESTION: Turn = {"role": "user", "content": "Qzquestion"}
ANSWER: Turn = {"role": "assistant", "content": "Qzanswer"}
AGAIN: list[Turn] = [{"role": "user", "content": "Qzagain"}, {"role": "assistant", "content": "Qzlast"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "qztool",
        "description": "Qzdescription",
        "parameters": {"type": "object", "properties": {"qzplace": {"type": "string", "description": "Qzplace"}}},
    },
}
CALL: Turn = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "qztool", "arguments": {"qzplace": "Qzargument"}}}],
}
RESULT: Turn = {"role": "tool", "name": "qztool", "content": "Qzresult"}


def added_tokens(tokenizer: Any) -> dict[str, bool]:
    """Every token that stands outside the ordinary vocabulary, by its text: whether it is special."""
    found = {token.content: bool(token.special) for token in getattr(tokenizer, "added_tokens_decoder", {}).values()}
    return {**found, **dict.fromkeys(tokenizer.all_special_tokens, True)}


def probe(tokenizer: Any, template: TemplateText) -> TemplateFacts:
    """What the template does. Raises `UserError` for one that cannot be trained with."""
    whole, asked, open_ended = _plain(template)
    facts = TemplateFacts(system=_system(template), tools="text", has_date=template.has_date)
    header, cut_back = _borders(whole, asked, open_ended)
    facts = replace(facts, header=header, cut_back=cut_back)
    facts = _tools(template, facts)
    facts = _ends(tokenizer, template, facts, whole)
    return replace(facts, keeps_prefix=_keeps_prefix(template, facts))


def _plain(template: TemplateText) -> tuple[str, str, str]:
    """One question with its answer; the question alone, with a generation prompt and without."""
    try:
        whole = template.render([QUESTION, ANSWER])
        asked, open_ended = template.render([QUESTION], prompt=True), template.render([QUESTION])
    except TemplateRaised as error:
        raise _unusable(f"the chat template refuses a question with its answer ({error})") from error
    for text, turn in ((whole, ANSWER), (whole, QUESTION), (asked, QUESTION)):
        if turn["content"] not in text:
            raise _unusable(f"the chat template leaves out the text of the {turn['role']}")
    return whole, asked, open_ended


def _unusable(given: str) -> UserError:
    return user_error(
        given,
        allowed="a template that writes user and assistant turns in their order",
        why="what is trained, and what is asked later, is the text that the template makes of the turns",
        remedy="use a chat model whose template works, or take chat_template.jinja out of the model's folder: "
        "then a plain default is used and saved",
    )


def _borders(whole: str, asked: str, open_ended: str) -> tuple[str, str]:
    """What to put behind the template's prompt, and what to take off, so that an answer can follow it.

    A space between prompt and answer belongs to the answer: the model writes it, in the same token as its first word.
    """
    answer = whole.rindex(ANSWER["content"])
    pairs = enumerate(zip(whole[:answer], asked, strict=False))
    shared = next((place for place, (one, other) in pairs if one != other), min(answer, len(asked)))
    cut_back = asked[shared:]
    between = whole[shared:answer]
    if shared <= asked.find(QUESTION["content"]):
        raise _unusable("the chat template writes a question differently once it is answered")
    writes_prompt = asked != open_ended and not cut_back
    header = "" if writes_prompt or not between.strip() else between
    return header, cut_back


def _system(template: TemplateText) -> Literal["native", "merged", "dropped"]:
    try:
        finished, asked = template.render([SYSTEM, QUESTION, ANSWER]), template.render([SYSTEM, QUESTION], prompt=True)
    except TemplateRaised:
        return "merged"
    shown = [SYSTEM["content"] in text for text in (finished, asked)]
    # Some write it into prompts only: then no answer could follow the prompt that it was given to.
    return "native" if all(shown) else "merged" if any(shown) else "dropped"


def _tools(template: TemplateText, facts: TemplateFacts) -> TemplateFacts:
    turns = [QUESTION, CALL, RESULT, ANSWER]
    shown = ("qztool", "Qzdescription", "Qzargument", "Qzresult")
    for as_text in (False, True):
        for call_ids in (False, True):
            native = replace(facts, tools="native", arguments_as_text=as_text, call_ids=call_ids)
            text = _try(template, turns, [TOOL], native)
            # A template that joins the arguments as text writes an object as Python does, which is no JSON.
            if all(word in text for word in shown) and "'qzplace'" not in text:
                return native
    plain = [QUESTION, ANSWER, RESULT, ANSWER]
    takes_results = "Qzresult" in _try(template, plain, [], replace(facts, tools="text", tool_role="tool"))
    return replace(facts, tools="text", tool_role="tool" if takes_results else "user")


def _try(
    template: TemplateText, turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]], facts: TemplateFacts
) -> str:
    try:
        return template.render(*adapt(turns, tools, facts))
    except TemplateRaised:
        return ""


def _ends(tokenizer: Any, template: TemplateText, facts: TemplateFacts, whole: str) -> TemplateFacts:
    """The token that ends an answer: the first one that the template writes behind it."""
    tail = whole[whole.rindex(ANSWER["content"]) + len(ANSWER["content"]) :]
    turn_end = _first_token(tokenizer, tail)
    if turn_end is None:
        if tokenizer.eos_token is None or tokenizer.eos_token_id is None:
            raise user_error(
                "neither the chat template nor the tokenizer has an end token",
                allowed="a template that ends an answer with a special token, or a tokenizer with an eos_token",
                why="a model that never saw the end of an answer never stops",
                remedy="set eos_token in tokenizer_config.json to a token that the model knows",
            )
        return replace(
            facts, ends=(tokenizer.eos_token,), end_ids=frozenset([tokenizer.eos_token_id]), writes_end=False, tail=tail
        )
    ends = [turn_end]
    if facts.tools == "native":
        text = _try(template, [QUESTION, CALL], [TOOL], facts)
        behind = text[text.rfind("Qzargument") :]
        call_end = None if turn_end in behind else _first_token(tokenizer, behind, special=True)
        ends += [call_end] if call_end else []
    ids = {tokenizer.convert_tokens_to_ids(text) for text in ends}
    ids |= {tokenizer.eos_token_id} - {None}
    return replace(facts, ends=tuple(ends), end_ids=frozenset(ids))


def _first_token(tokenizer: Any, tail: str, *, special: bool = False) -> str | None:
    tokens = [
        text for text, is_special in added_tokens(tokenizer).items() if text.strip() and (is_special or not special)
    ]
    pattern = "|".join(re.escape(text) for text in sorted(tokens, key=lambda text: (-len(text), text)))
    found = re.search(pattern, tail) if tokens else None
    return found.group() if found else None


def _keeps_prefix(template: TemplateText, facts: TemplateFacts) -> bool:
    finder = AnswerFinder(template, facts)
    for turns in ([QUESTION, ANSWER, *AGAIN], [SYSTEM, QUESTION, ANSWER, *AGAIN]):
        try:
            located = finder.whole(*adapt(turns, (), facts))
        except TemplateRaised:
            return False
        if any(answer.end is None for answer in located.answers):
            return False
    return True


def written_tokens(template: TemplateText, facts: TemplateFacts, tokens: Sequence[str]) -> list[str]:
    """Those of the tokens that the template writes around plain turns."""
    text = _try(template, [SYSTEM, QUESTION, ANSWER, *AGAIN], (), facts)
    return [token for token in tokens if token.strip() and token in text]
