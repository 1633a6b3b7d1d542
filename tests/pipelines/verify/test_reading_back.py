"""Supervised tokens read back as answers: with every template and tokenizer, and never where the mask is off by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.chat_templates import ODD, SHAPES
from tests.data.rendering.conversations import TALKS, WITH_TOOL, renderer_for, talk

from reglaj.data.conversation import BrokenRecord, Conversation
from reglaj.data.rendering import Rendered
from reglaj.pipelines.verify.reading_back import Reader, Row

EVERY = {**SHAPES, **ODD}


def rows(examples: Sequence[Rendered]) -> list[Row]:
    """As encoded: nothing stands before a first token that could predict it."""
    return [Row("rows.jsonl, line 1", 0, one.ids, [False, *one.mask[1:]]) for one in examples]


def problems(shape: str, tokenizer: str, conversation: Conversation, some: list[Row], **keys: Any) -> list[str]:
    renderer, made = renderer_for(shape, tokenizer)
    return list(Reader(made, renderer).problems(conversation, some, every=keys.get("every", False)))


@pytest.mark.parametrize("tokenizer", ["bytes", "legacy+"])
@pytest.mark.parametrize("shape", EVERY)
def test_every_answer_is_read_back_and_no_shifted_mask_is(shape: str, tokenizer: str):
    renderer, _ = renderer_for(shape, tokenizer)
    seen = 0
    for conversation in (*TALKS.values(), WITH_TOOL):
        try:
            (row,) = rows([renderer.render(conversation)])
        except BrokenRecord:
            continue
        seen += 1
        every = renderer.facts.keeps_prefix
        assert problems(shape, tokenizer, conversation, [row], every=every) == []
        for mask in ([False, *row.mask[:-1]], [*row.mask[1:], False]):
            assert problems(shape, tokenizer, conversation, [Row(row.place, 0, row.ids, mask)]), "off by one"
    assert seen > 5


def test_a_prompt_that_is_learnt_along_is_found():
    renderer, _ = renderer_for("chatml")
    (row,) = rows([renderer.render(TALKS["one turn"])])
    start = row.mask.index(True)
    for more in range(1, start + 1):
        mask = [(place >= start - more and place > 0) or flag for place, flag in enumerate(row.mask)]
        assert problems("chatml", "bytes", TALKS["one turn"], [Row(row.place, 0, row.ids, mask)]), more


def test_an_answer_that_is_not_learnt_is_found():
    renderer, _ = renderer_for("chatml")
    (row,) = rows([renderer.render(TALKS["many turns"])])
    first, *_, last = row.runs()
    for (start, end), every in ((first, True), (last, False)):
        mask = [flag and not start <= place < end for place, flag in enumerate(row.mask)]
        told = problems("chatml", "bytes", TALKS["many turns"], [Row(row.place, 0, row.ids, mask)], every=every)
        assert len(told) == 1 and "is not learnt" in told[0]
    assert not problems("chatml", "bytes", TALKS["many turns"], [row], every=True)


@pytest.mark.parametrize("too_long", ["truncate_prompt", "split_turns"])
@pytest.mark.parametrize("shape", ["chatml", "qwen3", "mistral", "no_end"])
def test_windows_and_cut_prompts_are_read_back(shape: str, too_long: Any):
    long = talk(*(f"{word} {number}" for number in range(12) for word in ("question", "answer")))
    renderer, made = renderer_for(shape)
    fit = renderer.fit(long, len(renderer.render(long).ids) // 3, too_long)
    reader = Reader(made, renderer, may_be_cut=True)
    every = too_long == "split_turns" and renderer.facts.keeps_prefix
    assert not list(reader.problems(long, rows(fit.examples), every=every))
    assert reader.answers + reader.untrained == 12


def test_what_a_template_adds_is_said():
    renderer, made = renderer_for("qwen3")
    reader = Reader(made, renderer)
    assert not list(reader.problems(TALKS["many turns"], rows([renderer.render(TALKS["many turns"])]), every=False))
    assert "1 have '<think></think>' in front" in reader.remarks() and "2 are not learnt" in reader.remarks()
