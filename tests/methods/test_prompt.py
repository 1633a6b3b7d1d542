"""A learnt prompt is PEFT's, in files, in values and over twenty steps; and what it begins with."""

from __future__ import annotations

import warnings
from pathlib import Path

import peft
import pytest
import torch
from tests.methods.peers import COUNT, FAMILIES, attach, close, follow, load, opened, ours, saved, theirs, write

from reglaj.core.errors import UserError
from reglaj.methods.prompt import PromptTuning, PromptTuningConfig
from reglaj.methods.prompts import first_tokens
from reglaj.models.inspect import inspect_model
from reglaj.models.loading import load_tokenizer


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_peft_opens_what_we_save(family, tmp_path):
    facts = write(family, tmp_path)
    handle = attach("prompt", facts)
    assert close(theirs(opened(facts, saved(handle, tmp_path / "saved")), facts), ours(handle, facts))


@pytest.mark.parametrize("family", FAMILIES)
def test_we_open_what_plain_peft_saves(family, tmp_path):
    facts = write(family, tmp_path)
    handle = attach("prompt", facts)
    # PEFT cannot tell these from DistilBERT's config.
    sizes = {"num_attention_heads": 4, "num_layers": 2, "token_dim": 32} if family == "distilbert" else {}
    settings = peft.PromptTuningConfig(task_type=handle.config.task_type, num_virtual_tokens=COUNT, **sizes)
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(load(facts), settings)
        wrapped.save_pretrained(str(tmp_path / "theirs"))
    before = ours(handle, facts)
    handle.load(tmp_path / "theirs")
    assert close(ours(handle, facts), theirs(wrapped, facts))
    assert not close(ours(handle, facts), before)


@pytest.mark.parametrize("family", ["chat", "bert"])
def test_twenty_steps_are_those_of_plain_peft(family, tmp_path):
    apart = follow("prompt", write(family, tmp_path), {}, learning_rate=1e-3, weight_decay=0.01)
    assert apart.pop("moved") > 1e-3
    assert {key: value for key, value in apart.items() if value > 1e-5} == {}


@pytest.mark.parametrize("family", ["bert", "gemma"])
def test_it_begins_with_the_words_of_a_text(family, tmp_path):
    """As the model looks them up: Gemma scales what it looks up by the root of its width."""
    facts = write(family, tmp_path)
    handle = attach("prompt", facts, init_text="my card is lost", num_virtual_tokens=6)
    model = load(facts)
    ids = load_tokenizer(facts.folder, "")("my card is lost my card", add_special_tokens=False)["input_ids"]
    assert len(ids) == 6
    with torch.no_grad():
        looked_up = model.get_input_embeddings()(torch.tensor(ids))
    assert torch.equal(handle.prompt(), looked_up)
    if family == "gemma":
        assert torch.allclose(looked_up, model.get_input_embeddings().weight[ids] * 32**0.5, rtol=1e-3)


def test_vocabulary_is_words_drawn_by_the_seed(tiny_model):
    facts = inspect_model(str(tiny_model("bert")), folder=Path())
    tokenizer = load_tokenizer(facts.folder, "")
    torch.manual_seed(0)
    drawn = first_tokens("vocabulary", None, 50, facts)
    torch.manual_seed(0)
    assert torch.equal(first_tokens("vocabulary", None, 50, facts), drawn)
    torch.manual_seed(1)
    assert not torch.equal(first_tokens("vocabulary", None, 50, facts), drawn)
    assert len(set(drawn.tolist())) == 50, "no word twice while there are others"
    assert not set(drawn.tolist()) & set(tokenizer.all_special_ids)
    assert len(first_tokens("vocabulary", None, 200, facts)) == 200


@pytest.mark.parametrize("family", ["bert", "gemma"])
def test_random_values_have_the_spread_of_the_words(family, tiny_model):
    facts = inspect_model(str(tiny_model(family)), folder=Path())
    made = attach("prompt", facts, init="random", num_virtual_tokens=30).prompt()
    table = load(facts).get_input_embeddings()
    words = table(torch.arange(len(table.weight)))  # Gemma makes them longer than they lie
    assert 0.8 < made.std() / words.std() < 1.2
    assert torch.equal(made, attach("prompt", facts, init="random", num_virtual_tokens=30).prompt())


@pytest.mark.parametrize("family", ["bert", "gemma"])
def test_what_was_learnt_is_told_in_words(family, tmp_path):
    """A prompt that has not moved lies on the words that it began with."""
    facts = write(family, tmp_path)
    handle = attach("prompt", facts, init_text="lost card", num_virtual_tokens=2)
    told = handle.learnt(load_tokenizer(facts.folder, ""))
    assert [token["words"][0]["text"] for token in told["virtual_tokens"]] == ["lost", "card"]
    for token in told["virtual_tokens"]:
        assert token["words"][0]["cosine"] == pytest.approx(1.0, abs=1e-5)
        assert token["words"][0]["distance"] == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"init": "text"}, "init text without init_text"),
        ({"init": "vocabulary", "init_text": "please"}, "init_text with init vocabulary"),
        ({"num_virtual_tokens": 64}, "num_virtual_tokens 64"),
    ],
)
def test_what_cannot_be_is_refused(section, told, tiny_model):
    facts = inspect_model(str(tiny_model("bert")), folder=Path())
    (problem,) = PromptTuning.check(PromptTuningConfig(**section), facts)
    assert told in problem.given and problem.remedy
    with pytest.raises(UserError):
        PromptTuning.attach(PromptTuningConfig(**section), load(facts), facts)
