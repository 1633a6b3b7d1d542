"""One door for every model, and what it refuses; none of it loads a weight."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reglaj.core.errors import EnvironmentFault, UserError
from reglaj.models.inspect import inspect_model
from reglaj.models.loading import load_backbone, load_seq2seq, load_tokenizer


@pytest.fixture
def folder(tiny_model, tmp_path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(tiny_model("bert"), tmp_path / "model"))


def edit_config(folder: Path, **keys: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | keys))


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "llama"])
def test_facts_agree_with_the_loaded_model(tiny_model, family):
    facts = inspect_model(str(tiny_model(family)), folder=Path())
    model = load_backbone(facts)
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert (facts.hidden_size, facts.layers, facts.context) == (32, 2, 64)
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert {name for name in facts.linear_modules() if "layer" in name} == {name for name in linear if "layer" in name}
    assert facts.pooling == ("last" if family == "llama" else "mean")
    assert load_tokenizer(facts.folder, facts.name)("card")["input_ids"]


def test_buffers_in_old_files_are_no_parameters(tiny_model, tmp_path):
    folder = Path(shutil.copytree(tiny_model("gpt2"), tmp_path / "model"))
    before = inspect_model(str(folder), folder=Path()).parameters
    tensors = load_file(folder / "model.safetensors")
    masks = {"h.0.attn.bias": torch.ones(1, 1, 64, 64), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    save_file(tensors | masks | {"embeddings.position_ids": torch.arange(64)[None]}, folder / "model.safetensors")
    assert inspect_model(str(folder), folder=Path()).parameters == before


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "mistral", "gemma", "gemma2", "gemma3"])
def test_facts_of_a_decoders_trunk(tiny_model, family):
    facts = inspect_model(str(tiny_model(family)), folder=Path())
    model = load_backbone(facts)
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert (facts.hidden_size, facts.layers, facts.decoder_layers, facts.context) == (32, 2, 0, 64)
    assert facts.is_decoder and not facts.is_encoder_decoder and facts.pooling == "last"
    assert len(facts.linear_modules()) == 2 * (4 if family == "gpt2" else 7)


@pytest.mark.parametrize("family", ["t5", "t5-gated"])
def test_facts_of_an_encoder_decoder(tiny_model, family):
    facts = inspect_model(str(tiny_model(family)), folder=Path())
    model = load_seq2seq(facts)
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert (facts.hidden_size, facts.layers, facts.decoder_layers, facts.context) == (32, 2, 2, 512)
    assert facts.is_encoder_decoder and not facts.is_decoder and facts.pooling == "mean"
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert set(facts.linear_modules()) == linear - {"lm_head"}
    words = torch.tensor([[5, 6, 7]])
    assert model(input_ids=words, decoder_input_ids=words).logits.shape == (1, 3, 120)


def test_a_relative_folder_starts_from_the_recipe(folder):
    assert inspect_model("./model", folder=folder.parent).folder == folder.resolve()
    assert inspect_model("model", folder=folder.parent).folder == folder.resolve()


def test_inspecting_imports_no_torch(folder):
    code = (
        "import sys; from pathlib import Path; from reglaj.models.inspect import inspect_model; "
        f"inspect_model({str(folder)!r}, folder=Path()); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pickle_weights_are_refused(folder):
    torch.save({"weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"pickle weights only: pytorch_model.bin") as caught:
        inspect_model(str(folder), folder=Path())
    assert "run any code" in str(caught.value)


def test_safetensors_beside_a_pickle_are_taken(folder):
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    assert inspect_model(str(folder), folder=Path()).parameters


def test_remote_code_is_refused(folder):
    edit_config(folder, auto_map={"AutoModel": "modeling_evil.EvilModel"})
    (folder / "modeling_evil.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(UserError, match=r"remote code \(modeling_evil.EvilModel\)"):
        inspect_model(str(folder), folder=Path())


def test_a_model_without_a_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="has no tokenizer"):
        inspect_model(str(folder), folder=Path())
    (folder / "vocab.txt").write_text("")
    with pytest.raises(UserError, match=r"knows no words|cannot be loaded"):
        load_tokenizer(folder, "tiny")


def test_remote_code_of_a_tokenizer_is_refused(folder):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": "tok.Evil"}}))
    with pytest.raises(UserError, match=r"remote code \(tok.Evil\)"):
        inspect_model(str(folder), folder=Path())


def test_another_tokenizer_is_another_base(folder):
    before = inspect_model(str(folder), folder=Path()).fingerprint
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " ")
    assert inspect_model(str(folder), folder=Path()).fingerprint != before


def test_damaged_weights_are_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        inspect_model(str(folder), folder=Path())
    file.write_bytes(b"\xff" * 4)
    with pytest.raises(UserError, match="damaged"):
        inspect_model(str(folder), folder=Path())


def test_missing_weights_do_not_start_at_random(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 weights, 'encoder.layer.1.output.dense.weight'"):
        load_backbone(inspect_model(str(folder), folder=Path()))


def test_an_unknown_architecture_is_refused(folder):
    edit_config(folder, model_type="quantumbert")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_backbone(inspect_model(str(folder), folder=Path()))


def test_a_folder_that_is_no_model_and_a_path_that_is_not_there(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no model folder"):
        inspect_model(str(tmp_path / "empty"), folder=Path())
    with pytest.raises(UserError, match="did you mean 'model'"):
        inspect_model("./modle", folder=tmp_path)


def test_a_data_starter_is_no_model_and_an_unknown_starter_is_named(reglaj_home):
    with pytest.raises(UserError, match="is a data set"):
        inspect_model("starter:medical", folder=Path())
    with pytest.raises(UserError, match="did you mean 'minilm'"):
        inspect_model("starter:minilmm", folder=Path())


def test_a_hub_id_opens_from_the_hubs_cache_and_is_an_environment_fault_without_network(folder, tmp_path):
    """The hub client itself, offline, on a cache laid out as it lays it out."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    code = (
        "from pathlib import Path; from reglaj.models.inspect import inspect_model; "
        "print(inspect_model('someone/tiny', folder=Path()).parameters)"
    )
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) == inspect_model(str(folder), folder=Path()).parameters
    with pytest.raises(EnvironmentFault, match="cannot fetch the model 'nobody/nothing'"):
        inspect_model("nobody/nothing", folder=Path())
