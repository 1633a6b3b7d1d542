"""A prefix is PEFT's, in files, in values and over twenty steps; and what it begins with."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file
from tests.methods.peers import COUNT, FAMILIES, attach, close, follow, load, opened, ours, saved, theirs, write
from tests.training.harness import learner_for

from reglaj.core.errors import UserError
from reglaj.methods.prefix import PrefixConfig, PrefixTuning
from reglaj.models.inspect import inspect_model
from reglaj.models.loading import load_tokenizer
from reglaj.models.prefixed import attentions

PLAIN = [family for family in FAMILIES if family != "distilbert"]
"""Where plain PEFT does the same: DistilBERT has no cache, and PEFT leaves a prefix out there without a word."""


@pytest.mark.parametrize("section", [{}, {"reparametrisation": True, "hidden_size": 16}], ids=["plain", "mlp"])
@pytest.mark.parametrize("family", PLAIN)
def test_plain_peft_opens_what_we_save(family, section, tmp_path):
    facts = write(family, tmp_path)
    handle = attach("prefix", facts, **section)
    assert close(theirs(opened(facts, saved(handle, tmp_path / "saved")), facts), ours(handle, facts))


@pytest.mark.parametrize("family", PLAIN)
def test_we_open_what_plain_peft_saves(family, tmp_path):
    """Of T5 too, where PEFT lets two layers share one prefix: here each layer gets its copy."""
    facts = write(family, tmp_path)
    handle = attach("prefix", facts)
    theirs_config = peft.PrefixTuningConfig(task_type=handle.config.task_type, num_virtual_tokens=COUNT)
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(load(facts), theirs_config)
        wrapped.save_pretrained(str(tmp_path / "theirs"))
    before = ours(handle, facts)
    handle.load(tmp_path / "theirs")
    assert close(ours(handle, facts), theirs(wrapped, facts))
    assert not close(ours(handle, facts), before)


def test_a_reparametrised_prefix_becomes_a_plain_one_where_its_network_is_not_there(tmp_path):
    facts = write("bert", tmp_path)
    handle = attach("prefix", facts, reparametrisation=True, hidden_size=16)
    folder = saved(handle, tmp_path / "saved")
    other = attach("prefix", facts, seed=1, reparametrisation=True, hidden_size=16)
    other.load(folder)
    assert torch.equal(ours(other, facts), ours(handle, facts))
    assert other.count() == handle.count()
    (folder / "reparametrisation.safetensors").unlink()
    other.load(folder)
    assert torch.equal(ours(other, facts), ours(handle, facts))
    assert other.count() == COUNT * 2 * facts.layers * 32
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    assert config["peft_type"] == "PREFIX_TUNING" and config["prefix_projection"] is False
    assert set(load_file(folder / "adapter_model.safetensors")) == {"prompt_embeddings"}


@pytest.mark.parametrize("section", [{}, {"reparametrisation": True, "hidden_size": 16}], ids=["plain", "mlp"])
@pytest.mark.parametrize("family", ["chat", "bert"])
def test_twenty_steps_are_those_of_plain_peft(family, section, tmp_path):
    apart = follow("prefix", write(family, tmp_path), section, learning_rate=1e-3, weight_decay=0.01)
    assert apart.pop("moved") > 1e-3
    assert {key: value for key, value in apart.items() if value > 1e-5} == {}


def test_a_prefix_of_words_is_what_the_model_makes_of_them(tmp_path):
    """And it is what the model would read: see tests/models/test_virtual.py."""
    facts = write("chat", tmp_path)
    handle = attach("prefix", facts, num_virtual_tokens=6, init_text="please help")
    words = load_tokenizer(facts.folder, "chat")("please help", add_special_tokens=False)["input_ids"]
    assert 1 < len(words) < 6
    seen = attentions(load(facts), torch.tensor((words * 6)[:6]))
    for one, (_, key, value) in zip(seen, handle.virtual().keys_values, strict=True):
        assert torch.allclose(key, one.key, atol=1e-6) and torch.allclose(value, one.value, atol=1e-6)


def test_what_it_begins_with_follows_the_seed(tmp_path):
    facts = write("bert", tmp_path)
    for init in ("vocabulary", "random"):
        first, same, other = (attach("prefix", facts, seed=seed, init=init).prompt() for seed in (0, 0, 1))
        assert torch.equal(first, same) and not torch.allclose(first, other)
    words, noise = (attach("prefix", facts, init=init).prompt().std() for init in ("vocabulary", "random"))
    assert 0.5 < noise / words < 2


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"reparametrisation": True, "init": "vocabulary"}, "init vocabulary with reparametrisation true"),
        ({"init": "text"}, "init text without init_text"),
        ({"init": "random", "init_text": "please"}, "init_text with init random"),
        ({"num_virtual_tokens": 64}, "num_virtual_tokens 64"),
    ],
)
def test_what_cannot_be_is_refused(section, told, tiny_model):
    facts = inspect_model(str(tiny_model("bert")), folder=Path())
    (problem,) = PrefixTuning.check(PrefixConfig(**section), facts)
    assert told in problem.given and problem.remedy
    with pytest.raises(UserError):
        PrefixTuning.attach(PrefixConfig(**section), load(facts), facts)


def test_attention_of_its_own_is_refused_before_a_model_is_loaded(tiny_model):
    facts = inspect_model(str(tiny_model("bert")), folder=Path())
    strange = type(facts)(**{**vars(facts), "config": {**facts.config, "model_type": "deberta-v2"}})
    (problem,) = PrefixTuning.check(PrefixConfig(), strange)
    assert "deberta-v2" in problem.given and "prompt" in problem.remedy


def test_a_model_whose_attention_is_not_reached_is_refused_at_attach(tiny_model):
    facts = inspect_model(str(tiny_model("bert")), folder=Path())
    model = load(facts)
    for layer in model.encoder.layer:
        layer.attention.self.forward = lambda hidden, *_, **__: (hidden, None)
    with pytest.raises(UserError, match="0 of its 2 layers attend"):
        PrefixTuning.attach(PrefixConfig(), model, facts)


def test_a_training_begins_from_its_seed_and_counts_virtual_tokens(tiny_model):
    learner = learner_for(tiny_model("bert"), {"name": "prefix", "num_virtual_tokens": 8}).learner
    again = learner_for(tiny_model("bert"), {"name": "prefix", "num_virtual_tokens": 8}).learner
    ones, others = learner.trained(), again.trained()
    assert all(torch.equal(tensor, others[key]) for key, tensor in ones.items() if "virtual" in key)
    assert learner.costs(np.array([3, 5])).tolist() == [11, 13]
