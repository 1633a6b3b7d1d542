"""Any other method of PEFT: which work on what, what is refused, and what is read from PEFT's source."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from tests.methods.peft_parity import ours_opens_there, targets_of, theirs_opens_here
from tests.methods.subjects import Subject, move

from reglaj.core.errors import UserError
from reglaj.methods.peft import Peft, PeftMethodConfig
from reglaj.methods.peft_types import peft_types

SMALL: dict[str, dict[str, Any]] = {
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 8},
    "FOURIERFT": {"n_frequency": 100},
    "GRALORA": {"r": 8, "gralora_k": 2},
    "MISS": {"r": 8},
    "PSOFT": {"r": 8},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 4},
    "VBLORA": {"vector_length": 16, "num_vectors": 20, "r": 4},
    "WAVEFT": {"n_frequency": 100},
}
"""Keys that PEFT's defaults are too large for on layers of 32."""
WORK = (
    "BEFT", "BOFT", "C3A", "DEFT", "DELORA", "FOURIERFT", "GRALORA", "HIRA", "HRA", "LILY", "LN_TUNING", "LOHA", "LOKR",
    "MISS", "OFT", "OSF", "PEANUT", "PSOFT", "PVERA", "RANDLORA", "ROAD", "SHIRA", "SUPERTUNING", "TINYLORA", "UNILORA",
    "VBLORA", "WAVEFT",
)  # fmt: skip
"""ADAMSS and GLORA too, which take seconds a model."""
ON_GPT2 = ("DEFT", "FOURIERFT", "GRALORA", "HIRA", "LN_TUNING", "PVERA", "RANDLORA", "TINYLORA", "UNILORA", "VBLORA",
           "WAVEFT")  # fmt: skip
NAMED = ("OFT", "LOKR", "HRA", "LN_TUNING", "FOURIERFT", "VBLORA", "TINYLORA")
"""LOHA is in the conformance suite on all kinds of models; those of `ON_GPT2` are tried there."""


def config_for(kind: str, **keys: Any) -> PeftMethodConfig:
    return PeftMethodConfig(type=kind, **SMALL.get(kind, {}) | keys)


def moved(here: Subject, config: PeftMethodConfig) -> Any:
    torch.manual_seed(0)
    handle = Peft.attach(config, here.model("full"), here.facts)
    move(handle, here.facts, lambda: here.look(handle.model, handle))
    return handle


def promises(here: Subject, config: PeftMethodConfig, folder: Path) -> None:
    """Only what is declared moves, nothing of the base; saved, opened in plain PEFT, loaded, switched off, folded."""
    torch.manual_seed(0)
    handle: Any = Peft.attach(config, here.model("full"), here.facts)
    declared = {key for group in handle.parameters().values() for key, _ in group}
    assert declared == {key for key, p in handle.model.named_parameters() if p.requires_grad}
    assert Peft.trainable_parameters(config, here.facts) == handle.count() > 0
    before = {key: p.detach().clone() for key, p in handle.model.named_parameters()}
    move(handle, here.facts, lambda: here.look(handle.model, handle))
    moving = {key for key, p in handle.model.named_parameters() if not torch.equal(p, before[key])}
    assert moving <= declared and len(moving) >= 0.8 * len(declared)
    ours_opens_there(here, "full", handle, folder)
    size = (folder / "adapter_model.safetensors").stat().st_size
    assert 0 <= size - Peft.stored_bytes(config, here.facts) < 40_000, "but for names"
    torch.manual_seed(1)
    other: Any = Peft.attach(config, here.model("full"), here.facts)
    other.load(folder)
    with torch.no_grad():
        ours = here.look(handle.model, handle)
        assert torch.equal(here.look(other.model, other), ours)
        with handle.using(None):
            assert torch.equal(here.look(handle.model, handle), here.expected("full"))
        with handle.folded():
            assert torch.allclose(here.look(handle.model, handle), ours, atol=1e-4 * float(ours.abs().max()))
        assert torch.equal(here.look(handle.model, handle), ours)
        if handle.capabilities.linear_deltas:
            handle.merge()
            assert torch.allclose(here.look(handle.model, handle), ours, atol=1e-4 * float(ours.abs().max()))


@pytest.mark.parametrize("kind", sorted({*WORK} - {*ON_GPT2} | {*NAMED}))
def test_on_an_encoder(kind, subject, tmp_path):
    promises(subject("bert"), config_for(kind), tmp_path)


@pytest.mark.parametrize(("kind", "family"), [(kind, family) for family in ("llama", "t5") for kind in NAMED])
def test_on_a_decoder_and_on_both(kind, family, subject, tmp_path):
    promises(subject(family), config_for(kind), tmp_path)


@pytest.mark.parametrize("kind", ON_GPT2)
def test_on_matrices_that_lie_the_other_way_round(kind, subject, tmp_path):
    promises(subject("gpt2"), config_for(kind), tmp_path)


def test_what_cannot_have_such_matrices_is_refused_by_pefts_source(subject):
    facts = subject("gpt2").facts
    for kind in {*WORK} - {*ON_GPT2}:
        (problem,) = Peft.check(config_for(kind), facts)
        assert problem.where == "method.type" and "FOURIERFT" in problem.allowed
    assert all(Peft.check(config_for(kind), facts) == [] for kind in ON_GPT2)


@pytest.mark.parametrize("kind", ["OFT", "LOKR", "LN_TUNING", "VBLORA"])
def test_we_open_what_plain_peft_saves(kind, subject, tmp_path):
    here = subject("bert")
    handle = Peft.attach(config_for(kind), here.model("full"), here.facts)
    theirs = PEFT_TYPE_TO_CONFIG_MAPPING[handle.config.peft_type](  # type: ignore[attr-defined]
        target_modules=targets_of(handle), **SMALL.get(kind, {})
    )
    theirs_opens_here(here, "full", theirs, handle, tmp_path)


def test_types_and_fields_are_those_of_the_installed_peft():
    found = peft_types()
    assert found.keys() == {kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING} and len(found) > 30
    for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items():
        assert found[kind.value].fields == {field.name for field in dataclasses.fields(config)}, kind


def test_checking_loads_neither_torch_nor_peft(tiny_model):
    code = (
        "import sys; from pathlib import Path; from reglaj.models.inspect import inspect_model\n"
        "from reglaj.methods.peft import Peft, PeftMethodConfig\n"
        f"facts = inspect_model({str(tiny_model('bert'))!r}, folder=Path())\n"
        "assert Peft.check(PeftMethodConfig(type='OFT', oft_block_size=8), facts) == []\n"
        "assert len(Peft.check(PeftMethodConfig(type='OFT', blocksize=8), facts)) == 1\n"
        "assert 'torch' not in sys.modules and 'peft' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (None, "choose among"),
        ("OFTT", "did you mean 'OFT'?"),
        ("lokra", "did you mean 'LOKR'?"),
        ("LORA", "write `method: lora`"),
        ("prompt-tuning", "write `method: prompt`"),
        ("P_TUNING", "write `method: p-tuning`"),
        ("PREFIX_TUNING", "write `method: prefix`"),
        ("XLORA", "choose among"),
    ],
)
def test_a_type_that_cannot_be_had_is_told_another(kind, remedy, subject):
    (problem,) = Peft.check(PeftMethodConfig(type=kind), subject("bert").facts)
    assert problem.where == "method.type" and remedy in problem.remedy and "OFT" in problem.allowed


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("oft_blok_size", "did you mean 'oft_block_size'?"),
        ("rank", "did you mean 'r'?"),
        ("layers_to_transform", "use `layers`"),
        ("dropout", "did you mean 'module_dropout'?"),
        ("modules_to_save", "head learns anyway"),
        ("bias", "bitfit"),
        ("inference_mode", "it is set"),
    ],
)
def test_an_unknown_key_is_told_the_nearest_and_one_of_ours_where_it_is(key, said, subject):
    (problem,) = Peft.check(PeftMethodConfig(type="oft", **{key: 4}), subject("bert").facts)
    assert problem.where == f"method.{key}" and "oft_block_size" in problem.allowed
    assert said in f"{problem.why} {problem.remedy}"


def test_what_peft_says_of_a_value_is_handed_on(subject):
    here = subject("bert")
    config = PeftMethodConfig(type="MISS", r=64)
    assert Peft.check(config, here.facts) == []
    for work in (
        lambda: Peft.attach(config, here.model("full"), here.facts),
        lambda: Peft.trainable_parameters(config, here.facts),
    ):
        with pytest.raises(UserError, match=r"PEFT says: `r` \(64\) must be less than or equal to in_features"):
            work()


def test_targets_and_layers(subject):
    here = subject("bert")
    handle: Any = Peft.attach(config_for("LOHA", target_modules=["query"], layers=1), here.model("full"), here.facts)
    assert len(handle.layers()) == 1 and handle.capabilities.lowest_trained_layer == 1
    norms: Any = Peft.attach(config_for("LN_TUNING"), here.model("full"), here.facts)
    assert len(norms.layers()) == 4
    (problem,) = Peft.check(config_for("LN_TUNING", target_modules="query"), here.facts)
    assert "LayerNorm" in problem.allowed


def test_two_whose_layers_share_tensors_are_refused_on_one_base(subject):
    here = subject("bert")
    first = Peft.attach(config_for("VBLORA"), here.model("full"), here.facts)
    with pytest.raises(UserError, match="two handles of type VBLORA"):
        Peft.attach(config_for("VBLORA"), first.model, here.facts, "second")


def test_a_value_that_peft_would_change_in_silence_is_refused(subject):
    here = subject("bert")
    with pytest.raises(UserError, match="Adjusted `oft_block_size`"):
        Peft.attach(PeftMethodConfig(type="OFT", oft_block_size=5), here.model("full"), here.facts)
