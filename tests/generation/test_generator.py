"""Answers against transformers' own, and everything that must not show in them."""

from __future__ import annotations

import contextlib

import pytest
import torch
from tests.generation.models import CONFIGS, OTHERS, build, by_transformers, load, prompts, tokenizer

from reglaj.core.console import Console
from reglaj.core.errors import ReglajError, UserError
from reglaj.generation import GenerationConfig, Generator
from reglaj.generation.generator import common_prefix

NEW = 12
CLOSE = 1e-4
SAMPLED = GenerationConfig(max_new_tokens=NEW, temperature=1.5, seed=7)


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    return load(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def generator(chat):
    return Generator(*chat, end_ids={2}, context=256)


def with_end(answer, end=2):
    """As transformers gives it: with the token that ended it."""
    return [*answer.ids, end] if answer.ended == "end" else answer.ids


@pytest.mark.parametrize("name", [*CONFIGS, *OTHERS])
def test_greedy_equals_transformers_alone_and_in_batches(name):
    model = build(name)
    generator = Generator(model, tokenizer(), end_ids={2}, context=256)
    assert generator.is_cached == (name in CONFIGS), generator.reason
    asked = prompts(8)
    config = GenerationConfig(max_new_tokens=NEW)
    together = generator.generate(asked, config)
    few = Generator(model, tokenizer(), end_ids={2}, context=256, batch_tokens=120).generate(asked, config)
    for prompt, one, other in zip(asked, together, few, strict=True):
        expected, margin = by_transformers(model, prompt, NEW)
        alone = generator.generate([prompt], config)[0]
        if margin > CLOSE:
            assert with_end(one) == with_end(other) == with_end(alone) == expected
        assert one.prompt_tokens == len(prompt)
    assert len({tuple(answer.ids) for answer in together}) > 4, "answers must differ for this to show anything"


def test_fifty_prompts_equal_transformers(chat, generator):
    model, _ = chat
    asked = prompts(50, seed=1, longest=120)
    answers = generator.generate(asked, GenerationConfig(max_new_tokens=24))
    close = 0
    for prompt, answer in zip(asked, answers, strict=True):
        expected, margin = by_transformers(model, prompt, 24)
        close += margin <= CLOSE
        assert with_end(answer) == expected or margin <= CLOSE
    assert close <= 5
    assert {answer.ended for answer in answers} == {"end", "length"}


def test_repetition_penalty_equals_transformers(chat, generator):
    model, _ = chat
    config = GenerationConfig(max_new_tokens=NEW, repetition_penalty=1.7)
    asked = prompts(6, seed=2)
    for prompt, answer in zip(asked, generator.generate(asked, config), strict=True):
        assert with_end(answer) == by_transformers(model, prompt, NEW, repetition_penalty=1.7)[0]


@pytest.mark.parametrize("budget", [1, 90, 300, 100_000])
def test_an_answer_depends_on_nothing_but_its_prompt(chat, budget):
    asked = prompts(9, seed=3)
    alone = Generator(*chat, end_ids={2}, context=256)
    expected = [alone.generate([prompt], SAMPLED)[0] for prompt in asked]
    batched = Generator(*chat, end_ids={2}, context=256, batch_tokens=budget)
    assert batched.generate(asked, SAMPLED) == expected
    assert batched.generate(asked[::-1], SAMPLED) == expected[::-1]
    doubled = batched.generate([asked[0], *asked, asked[0]], SAMPLED)
    assert doubled[0] == doubled[1] == doubled[-1] == expected[0]


def test_the_seed_decides(generator):
    asked = prompts(6, seed=4)
    first = generator.generate(asked, SAMPLED)
    assert first == generator.generate(asked, SAMPLED)
    assert first != generator.generate(asked, SAMPLED.model_copy(update={"seed": 8}))
    assert first != generator.generate(asked, GenerationConfig(max_new_tokens=NEW))


@pytest.mark.parametrize(
    "config", [SAMPLED, GenerationConfig(max_new_tokens=NEW), SAMPLED.model_copy(update={"stop": ("e", "a")})]
)
def test_a_stream_gives_the_same_answer(generator, config):
    for prompt in prompts(5, seed=5):
        (expected,) = generator.generate([prompt], config)
        stream = generator.stream(prompt, config)
        assert "".join(stream) == expected.text
        assert stream.generated == expected


def test_a_stop_string_ends_the_answer_before_it(generator):
    for prompt in prompts(5, seed=6):
        (whole,) = generator.generate([prompt], SAMPLED)
        middle = whole.text[4:7]
        (cut,) = generator.generate([prompt], SAMPLED.model_copy(update={"stop": ("never there", middle)}))
        assert cut.text == whole.text[: whole.text.index(middle)]
        assert cut.ended == "stop"
        assert cut.ids == whole.ids[: len(cut.ids)]


def test_the_end_of_the_context_ends_an_answer(chat):
    small = Generator(*chat, end_ids=[], context=10)
    answers = small.generate([[5] * 7, [6] * 10, [7] * 2], GenerationConfig(max_new_tokens=5))
    assert [len(answer.ids) for answer in answers] == [3, 0, 5]
    assert {answer.ended for answer in answers} == {"length"}
    assert answers[1].text == ""


def test_nothing_asked_nothing_answered(generator):
    assert generator.generate([], SAMPLED) == []
    (answer,) = generator.generate([[5, 6]], GenerationConfig(max_new_tokens=0))
    assert (answer.ids, answer.text, answer.ended, answer.prompt_tokens) == ([], "", "length", 2)
    assert list(generator.stream([5, 6], GenerationConfig(max_new_tokens=0))) == []


@pytest.mark.parametrize("prompt", [[], [5] * 257])
def test_a_prompt_that_does_not_fit_is_refused(generator, prompt):
    for ask in (lambda: generator.generate([[5], prompt], SAMPLED), lambda: generator.stream(prompt, SAMPLED)):
        with pytest.raises(UserError) as caught:
            ask()
        assert "1 to 256 tokens" in str(caught.value)


def test_the_model_is_afterwards_what_it_was(chat):
    model, tokens = chat
    generator = Generator(model, tokens, end_ids={2}, context=256)
    modes = state(model, training=True)
    generator.generate(prompts(3), SAMPLED)
    assert state(model) == modes
    stream = generator.stream([5, 6, 7], SAMPLED)
    next(stream)
    assert state(model) == modes, "between two pieces the model is the listener's"
    assert not torch.is_inference_mode_enabled()
    stream.close()
    assert list(stream) == []

    class Interrupting(Console):
        @contextlib.contextmanager
        def progress(self, *_, **__):
            def advance(count: int) -> None:
                if count:
                    raise KeyboardInterrupt

            yield advance

    with pytest.raises(KeyboardInterrupt):
        generator.generate(prompts(3), SAMPLED, Interrupting())
    assert state(model) == modes
    model.eval()


def state(model, training=None):
    if training is not None:
        model.train(training)
        model.model.layers[0].eval()
    return [module.training for module in model.modules()], model.config._attn_implementation


def test_progress_counts_answers(generator):
    counted = []

    class Counting(Console):
        @contextlib.contextmanager
        def progress(self, description, total=None, unit="rows"):
            assert (description, total, unit) == ("generating", 9, "answers")
            yield counted.append

    generator.generate(prompts(9), SAMPLED, Counting())
    assert sum(counted) == 9


def test_slow_generation_says_why():
    said = []

    class Listening(Console):
        def warn(self, text):
            said.append(text)

    Generator(build("bloom"), tokenizer(), end_ids={2}, context=256).generate([[5]], SAMPLED, Listening())
    assert len(said) == 1 and "attention interface" in said[0]


def test_a_broken_model_does_not_talk():
    model = build("llama")
    generator = Generator(model, tokenizer(), end_ids={2}, context=256)
    with torch.no_grad():
        model.lm_head.weight[9] = float("nan")
    with pytest.raises(ReglajError, match="not finite"):
        generator.generate(prompts(2), SAMPLED)


def test_autocast_is_entered_for_every_pass(chat):
    generator = Generator(*chat, end_ids={2}, context=256, autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    assert generator.is_cached, generator.reason
    exact = Generator(*chat, end_ids={2}, context=256)
    asked = prompts(8, seed=9)
    config = GenerationConfig(max_new_tokens=1)
    equal = [a == b for a, b in zip(generator.generate(asked, config), exact.generate(asked, config), strict=True)]
    assert sum(equal) >= 6


def test_an_end_token_in_the_prompt_does_not_keep_an_answer_from_ending(chat, generator):
    """The penalty is on what was said; that an earlier turn ended says nothing about this one."""
    harsh, plain = GenerationConfig(repetition_penalty=50.0, max_new_tokens=1), GenerationConfig(max_new_tokens=1)
    asked = prompts(60, seed=5, longest=120)
    firsts = [answer.ids for answer in generator.generate(asked, plain)]
    repeated = [(prompt, ids[0]) for prompt, ids in zip(asked, firsts, strict=True) if ids and ids[0] in prompt]
    assert len(repeated) > 3
    for prompt, token in repeated[:4]:
        assert generator.generate([prompt], harsh)[0].ids != [token], "a penalised token is not said again"
        ending = Generator(*chat, end_ids={token}, context=256)
        assert ending.generate([prompt], harsh)[0].ended == "end"


@contextlib.contextmanager
def counting(model):
    """Tokens of each forward pass."""
    counted = []
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda _, given: counted.append(given[0].numel()))
    yield counted
    hook.remove()


@pytest.mark.parametrize("name", ["llama", "mistral, window of 8", "gpt2", "bloom"])
def test_a_common_beginning_is_read_once_and_changes_nothing(name):
    model = build(name)
    generator = Generator(model, tokenizer(), end_ids={2}, context=256)
    beginning = prompts(1, seed=11)[0] + [5] * 20
    asked = [beginning + rest for rest in prompts(7, seed=12, longest=20)]
    with counting(model) as counted:
        together = generator.generate(asked, GenerationConfig(max_new_tokens=NEW))
    if generator.is_cached:
        assert counted[:2] == [len(beginning), sum(map(len, asked)) - 7 * len(beginning)]
    for prompt, answer in zip(asked, together, strict=True):
        expected, margin = by_transformers(model, prompt, NEW)
        assert with_end(answer) == expected or margin <= CLOSE
        assert answer.prompt_tokens == len(prompt)


@pytest.mark.parametrize("closes_early", [False, True])
def test_a_stream_goes_on_from_an_earlier_one(chat, generator, closes_early):
    model, _ = chat
    prompt = prompts(1, seed=13)[0] + [5] * 20
    config = GenerationConfig(max_new_tokens=NEW)
    stream = generator.stream(prompt, config)
    if closes_early:
        next(stream)
        stream.close()
    else:
        assert "".join(stream)
    # What an interrupted pass has written last is never relied upon.
    assert stream.read == [*prompt, *stream.generated.ids][:-1]
    for continued in ([*stream.read, 7, 8], [*prompt[:30], 9, 9], prompt, prompt[:20], [9, 8, 7]):
        with counting(model) as counted:
            following = generator.stream(continued, config, after=stream)
            text = "".join(following)
        (expected,) = generator.generate([continued], config)
        assert (text, following.generated) == (expected.text, expected)
        known = sum(a == b for a, b in zip(stream.read, continued[:-1], strict=False)) if len(continued) > 10 else 0
        assert counted[0] <= len(continued) - min(known, 16)
        stream = following


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        ([[1, 2, 3], [1, 2, 4], [1, 2]], 2),
        ([[1], [2]], 0),
        ([[], [1]], 0),
        ([[1, 2]], 2),
        ([[3, 1], [3, 1], [3, 1]], 2),
    ],
)
def test_common_prefix(rows, count):
    assert common_prefix(rows) == count
