"""Virtual tokens before every prompt: the same answers as a loop that keeps nothing and computes all of it anew."""

from __future__ import annotations

import pytest
import torch
from tests.generation.models import build, load, prompts, tokenizer
from transformers import DynamicCache

from reglaj.core.errors import UserError
from reglaj.generation import GenerationConfig, Generator
from reglaj.models.virtual import VirtualTokens

NEW = 8
COUNT = 5
CLOSE = 1e-4
GREEDY = GenerationConfig(max_new_tokens=NEW)
CACHED = ["llama", "qwen2", "gpt2", "mistral", "mistral, window of 8", "qwen2, a layer with a window", "gemma3"]
PLAIN = ["gemma2", "bloom"]


def attentions(model):
    return sorted((m for m in model.modules() if hasattr(m, "layer_idx") and "Att" in type(m).__name__), key=index)


def index(module):
    return module.layer_idx


def random_embeddings(model, seed=1):
    torch.manual_seed(seed)
    table = model.get_input_embeddings().weight
    return VirtualTokens(count=COUNT, embeddings=torch.randn(COUNT, table.shape[1]) * table.std())


def keys_of_tokens(model, tokens):
    """The keys and values that a text leaves, as virtual tokens."""
    cache = DynamicCache()
    with torch.no_grad():
        model(input_ids=torch.tensor([tokens]), past_key_values=cache, use_cache=True)
    pairs = [(layer.keys[0], layer.values[0]) for layer in cache.layers]
    modules = attentions(model)
    return VirtualTokens(count=len(tokens), keys_values=[(m, *p) for m, p in zip(modules, pairs, strict=True)])


def random_keys(model, seed=1):
    torch.manual_seed(seed)
    learnt = keys_of_tokens(model, list(range(3, 3 + COUNT)))
    noisy = [(m, torch.randn_like(k) * k.std(), torch.randn_like(v) * v.std()) for m, k, v in learnt.keys_values]
    return VirtualTokens(count=COUNT, keys_values=noisy)


def logits_of(model, virtual, ids):
    """After a whole text, from nothing but the virtual tokens and the text."""
    given = torch.tensor([ids])
    with torch.no_grad():
        if virtual.embeddings is not None:
            words = model.get_input_embeddings()(given)
            both = torch.cat([virtual.embeddings[None], words], dim=1)
            return model(inputs_embeds=both, use_cache=False).logits[0, -1]
        cache = DynamicCache(config=model.config)
        for module, keys, values in virtual.keys_values:
            cache.update(keys[None], values[None], module.layer_idx)
        return model(input_ids=given, past_key_values=cache, use_cache=True).logits[0, -1]


def by_hand(model, virtual, prompt, count=NEW, end=2):
    """The greedy answer with its end token, and the smallest distance of the two best scores on the way."""
    answer, margin = [], float("inf")
    while len(answer) < count and end not in answer:
        best = logits_of(model, virtual, [*prompt, *answer]).topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        answer.append(int(best.indices[0]))
    return answer, margin


def with_end(answer, end=2):
    return [*answer.ids, end] if answer.ended == "end" else answer.ids


def check(model, virtual, asked, answers):
    clear = 0
    for prompt, answer in zip(asked, answers, strict=True):
        expected, margin = by_hand(model, virtual, prompt)
        clear += margin > CLOSE
        assert with_end(answer) == expected or margin <= CLOSE
        assert answer.prompt_tokens == len(prompt)
    assert clear > len(asked) // 2


@pytest.mark.parametrize("make", [random_embeddings, random_keys])
@pytest.mark.parametrize("name", [*CACHED, *PLAIN])
def test_greedy_equals_a_loop_that_keeps_nothing(name, make):
    model = build(name)
    virtual = make(model)
    generator = Generator(model, tokenizer(), end_ids={2}, context=256, virtual=lambda: virtual)
    assert generator.is_cached == (name in CACHED), generator.reason
    asked = prompts(6)
    answers = generator.generate(asked, GREEDY)
    check(model, virtual, asked, answers)
    assert len({tuple(answer.ids) for answer in answers}) > 2, "answers must differ for this to show anything"
    without = Generator(model, tokenizer(), end_ids={2}, context=256).generate(asked, GREEDY)
    if name != "bloom":  # with these weights it says its last word again, whatever stood before
        assert without != answers, "virtual tokens must show"
    few = Generator(model, tokenizer(), end_ids={2}, context=256, virtual=lambda: virtual, batch_tokens=120)
    assert few.generate(asked, GREEDY) == answers
    for prompt, answer in zip(asked[:2], answers, strict=False):
        stream = generator.stream(prompt, GREEDY)
        assert "".join(stream) == answer.text and stream.generated == answer


@pytest.mark.parametrize("make", [random_embeddings, random_keys])
@pytest.mark.parametrize("name", ["llama", "mistral, window of 8", "gpt2", "bloom"])
def test_a_common_beginning_stands_after_them(name, make):
    model = build(name)
    virtual = make(model)
    generator = Generator(model, tokenizer(), end_ids={2}, context=256, virtual=lambda: virtual)
    beginning = [*prompts(1, seed=11)[0], *[5] * 20]
    asked = [beginning + rest for rest in prompts(5, seed=12, longest=20)]
    check(model, virtual, asked, generator.generate(asked, GREEDY))


@pytest.mark.parametrize("name", [*CACHED, *PLAIN])
def test_virtual_tokens_that_are_words_are_those_words(name):
    """Their embeddings, or the keys they leave, before a prompt give what the words before it give: positions, windows
    and scales are those of any token."""
    model = build(name)
    words = [9, 200, 31, 77, 120, 54, 3]
    expected = Generator(model, tokenizer(), end_ids={2}, context=256)
    asked = prompts(5, seed=2)
    answers = expected.generate([[*words, *prompt] for prompt in asked], GREEDY)
    with torch.no_grad():
        looked_up = model.get_input_embeddings()(torch.tensor(words))
    for virtual in (VirtualTokens(count=len(words), embeddings=looked_up), keys_of_tokens(model, words)):
        generator = Generator(model, tokenizer(), end_ids={2}, context=256, virtual=lambda virtual=virtual: virtual)
        assert [one.ids for one in generator.generate(asked, GREEDY)] == [one.ids for one in answers]


def test_they_are_read_once_and_asked_for_anew():
    model = build("llama")
    first, second = random_embeddings(model, 1), random_embeddings(model, 2)
    current = [first]
    asked = prompts(4, seed=3)
    generator = Generator(model, tokenizer(), end_ids={2}, context=256, virtual=lambda: current[0])
    counted = []
    hook = model.model.register_forward_pre_hook(
        lambda _, given, options: counted.append(
            (options.get("input_ids") if options.get("input_ids") is not None else options["inputs_embeds"]).shape[1]
        ),
        with_kwargs=True,
    )
    check(model, first, asked, generator.generate(asked, GenerationConfig(max_new_tokens=NEW)))
    hook.remove()
    assert counted[:2] == [COUNT, sum(map(len, asked))], "one pass for them, one for all prompts"
    current[0] = second
    check(model, second, asked, generator.generate(asked, GREEDY))
    current[0] = None
    plain = Generator(model, tokenizer(), end_ids={2}, context=256)
    assert generator.generate(asked, GREEDY) == plain.generate(asked, GREEDY)


@pytest.mark.parametrize("make", [random_embeddings, random_keys])
def test_a_stream_goes_on_after_them(tmp_path, make):
    model, words = load(tmp_path)
    virtual = make(model)
    generator = Generator(model, words, end_ids={2}, context=256, virtual=lambda: virtual)
    stream = generator.stream([*prompts(1, seed=13)[0], *[5] * 20], GREEDY)
    assert "".join(stream)
    for asked in ([*stream.read, 7, 8], [*stream.read[:25], 9, 9], stream.read[:18], [9, 8, 7]):
        following = generator.stream(asked, GREEDY, after=stream)
        "".join(following)
        check(model, virtual, [asked], [following.generated])
        stream = following


def test_they_count_in_the_context(tmp_path):
    model, words = load(tmp_path)
    virtual = random_embeddings(model)
    small = Generator(model, words, end_ids=[], context=10, virtual=lambda: virtual)
    answers = small.generate([[5] * 3, [6] * 5, [7]], GenerationConfig(max_new_tokens=3))
    assert [len(answer.ids) for answer in answers] == [2, 0, 3]
    with pytest.raises(UserError, match="1 to 5 tokens beside 5 virtual tokens"):
        small.generate([[5] * 6], GREEDY)


@pytest.mark.parametrize("make", [random_embeddings, random_keys])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_half_precision(name, make):
    """Weights in half precision, and products in half precision, with what was learnt in full."""
    exact = build(name)
    virtual = make(exact)
    asked = prompts(12, seed=9)
    one = GenerationConfig(max_new_tokens=1)
    expected = Generator(exact, tokenizer(), end_ids={2}, context=256, virtual=lambda: virtual).generate(asked, one)

    def cast():
        return torch.autocast("cpu", torch.bfloat16)

    under = Generator(exact, tokenizer(), end_ids={2}, context=256, virtual=lambda: virtual, autocast=cast)
    assert under.is_cached == (name != "gemma2"), under.reason
    assert sum(a == b for a, b in zip(under.generate(asked, one), expected, strict=True)) >= 8
    half = build(name).to(torch.bfloat16)
    modules = dict(zip(map(id, attentions(exact)), attentions(half), strict=True))
    moved = VirtualTokens(
        count=COUNT,
        embeddings=virtual.embeddings,
        keys_values=[(modules[id(m)], k, v) for m, k, v in virtual.keys_values],
    )
    generator = Generator(half, tokenizer(), end_ids={2}, context=256, virtual=lambda: moved)
    assert generator.is_cached == (name != "gemma2"), generator.reason
    assert sum(a == b for a, b in zip(generator.generate(asked, one), expected, strict=True)) >= 8


def test_learnt_keys_of_some_layers_alone_are_not_served(tmp_path):
    model, words = load(tmp_path)
    whole = random_keys(model)
    partial = VirtualTokens(count=COUNT, keys_values=whole.keys_values[1:])
    with pytest.raises(NotImplementedError, match="not each of its layers"):
        Generator(model, words, end_ids={2}, context=256, virtual=lambda: partial)
