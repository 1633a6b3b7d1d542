"""What every method keeps when a decoder answers: the product's cached generator says what a plain loop says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.methods.settings import DECODER, rest_under_torture, with_variants_on
from tests.methods.trainings import Training, trains

from reglaj.generation import GenerationConfig
from reglaj.models.packing import TokenBatch
from reglaj.tasks.chat_answers import make_generator

NEW = 10
CLOSE = 1e-4
"""Two best scores nearer than this may change places by rounding."""
PROMPTS = [[7, 40, 41, 9, 60], [12, 13], [5] * 20 + [33], [5] * 20 + [34, 35, 90]]


def plain_answer(learner: Any, prompt: list[int], end: set[int]) -> tuple[list[int], float]:
    """The likeliest token again and again, the whole text read anew for each; and the smallest margin on the way."""
    ids, margin = list(prompt), float("inf")
    while len(ids) < len(prompt) + NEW:
        tokens = TokenBatch.of([torch.tensor(ids).numpy()])
        best = learner.head.scores(learner.hidden(tokens)[-1:])[0].topk(2)
        margin = min(margin, float(best.values[0] - best.values[1]))
        if int(best.indices[0]) in end:
            break
        ids.append(int(best.indices[0]))
    return ids[len(prompt) :], margin


@pytest.mark.parametrize(("case", "family"), rest_under_torture(with_variants_on(DECODER, "gpt2"), DECODER))
def test_answers_with_a_cache_are_those_of_a_plain_loop(case: str, family: str, subject: Any) -> None:
    """Packed prompts, a common beginning that is read once, folded or not; and the base's own answers under it."""
    training = Training(case, family, trains(case, family, subject))
    training.stir()
    learner, task = training.learner, training.assembled.task
    learner.train(False)
    config = GenerationConfig(max_new_tokens=NEW)
    end = set(task.renderer.facts.end_ids)

    def hidden() -> torch.Tensor:
        with torch.no_grad():
            return learner.hidden(TokenBatch.of([torch.tensor(PROMPTS[0]).numpy()]))

    def check(told: str) -> list[list[int]]:
        generator = make_generator(task, learner, training.assembled.tokenizer)
        assert generator.is_cached, generator.reason
        answers = generator.generate(PROMPTS, config)
        sure = 0
        with torch.no_grad():
            for prompt, answer in zip(PROMPTS, answers, strict=True):
                expected, margin = plain_answer(learner, prompt, end)
                sure += margin > CLOSE
                assert answer.ids == expected or margin <= CLOSE, told
        assert sure >= len(PROMPTS) - 1, "most answers must be beyond doubt for this to show anything"
        return [answer.ids for answer in answers]

    ours, states = check("apart"), hidden()
    with learner.handle.folded():
        assert check("folded") == ours
    with learner.handle.using(None):
        check("base")
        assert not torch.allclose(hidden(), states, atol=1e-3), "the method must matter for this to show anything"
    assert check("again") == ours
    assert torch.equal(hidden(), states)
