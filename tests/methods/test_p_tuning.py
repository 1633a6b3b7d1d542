"""What P-tuning's network makes is PEFT's, in files and in values, and its network trains as PEFT's does."""

from __future__ import annotations

import warnings

import peft
import pytest
import torch
from tests.methods.peers import COUNT, FAMILIES, attach, close, follow, load, opened, ours, saved, theirs, write

NETWORKS = ("mlp", "lstm")


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_plain_peft_opens_what_we_save(family, network, tmp_path):
    facts = write(family, tmp_path)
    handle = attach("p-tuning", facts, reparametrisation=network)
    assert close(theirs(opened(facts, saved(handle, tmp_path / "saved")), facts), ours(handle, facts))


@pytest.mark.parametrize("family", ["bert", "chat", "t5"])
def test_we_open_what_plain_peft_saves(family, tmp_path):
    """Its file holds what the network made; from there on the embeddings learn by themselves."""
    facts = write(family, tmp_path)
    handle = attach("p-tuning", facts)
    settings = peft.PromptEncoderConfig(
        task_type=handle.config.task_type, num_virtual_tokens=COUNT, encoder_hidden_size=8
    )
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(load(facts), settings)
        wrapped.save_pretrained(str(tmp_path / "theirs"))
    handle.load(tmp_path / "theirs")
    assert close(ours(handle, facts), theirs(wrapped, facts))
    assert handle.count() == COUNT * 32
    again = attach("p-tuning", facts, seed=4)
    again.load(saved(handle, tmp_path / "again"))
    assert torch.equal(ours(again, facts), ours(handle, facts))


@pytest.mark.parametrize("network", NETWORKS)
def test_the_network_is_kept_so_that_training_can_go_on(network, tmp_path):
    facts = write("bert", tmp_path)
    handle = attach("p-tuning", facts, reparametrisation=network)
    other = attach("p-tuning", facts, seed=1, reparametrisation=network)
    other.load(saved(handle, tmp_path / "saved"))
    state, expected = other.encoder.state_dict(), handle.encoder.state_dict()
    assert state.keys() == expected.keys() and len(state) > 1
    assert all(torch.equal(tensor, expected[key]) for key, tensor in state.items())


@pytest.mark.parametrize(("family", "network"), [("chat", "mlp"), ("bert", "lstm")])
def test_twenty_steps_are_those_of_plain_peft(family, network, tmp_path):
    section = {"reparametrisation": network, "hidden_size": 16}
    apart = follow("p-tuning", write(family, tmp_path), section, learning_rate=1e-3, weight_decay=0.01)
    assert apart.pop("moved") > 1e-4
    assert {key: value for key, value in apart.items() if value > 1e-5} == {}
