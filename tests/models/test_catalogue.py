"""The real starters: opened by plain libraries, and the same on every machine. Fetched once into the user's cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reglaj.core.errors import EnvironmentFault
from reglaj.core.files import sha256_file
from reglaj.models.conversion import convert_gguf
from reglaj.models.starters import fetch


def test_minilm_opens_in_plain_transformers(reglaj_home: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = fetch("starter:minilm", verify=True)
    assert folder == reglaj_home / "starters" / "minilm"
    model, loading = AutoModel.from_pretrained(folder, output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert not any(loading.values())
    texts = ["The dog barks.", "A hound makes noise.", "Interest rates rose by two points."]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    mean = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    assert mean.shape == (3, 384)
    assert mean[0] @ mean[1] > 0.4 > 0.2 > mean[0] @ mean[2], "the weights are the trained ones"


def test_medical_is_the_same_everywhere(reglaj_home: Path) -> None:
    path = fetch("medical", verify=True)
    assert path == reglaj_home / "starters" / "medical" / "medical.jsonl"
    assert sha256_file(path) == "e38b97389e9418a08ea9722f1c556240595f34ac33a082fa39f85cda1495ae7a"
    rows = [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
    assert len(rows) == 10_333
    assert all(list(row) == ["text", "label"] and row["text"].strip() for row in rows)
    labels = [row["label"] for row in rows]
    assert len(set(labels)) == 21 and labels.count("Unknown") == 684 and "Forensic Medicine" in labels


def test_smollm2_opens_in_plain_transformers_and_talks(reglaj_home: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = fetch("starter:smollm2", verify=True)
    assert folder == reglaj_home / "starters" / "smollm2" and not list(folder.glob("*.gguf"))
    model, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()) and model.dtype == torch.float32
    tokenizer = AutoTokenizer.from_pretrained(folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        answer = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer), "the weights are the trained ones"
    assert answer[-1] == tokenizer.eos_token_id, "it ends by itself"


def test_smollm2_is_the_same_everywhere(reglaj_home: Path) -> None:
    """What the libraries' versions write into configs is left out: one model has one fingerprint."""
    folder = fetch("smollm2")
    digest = "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"
    assert sha256_file(folder / "model.safetensors") == digest
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["max_position_embeddings"] == 8192
    assert not {"quantization_config", "transformers_version"} & config.keys() and "Lc100K" not in str(config)
    assert (folder / "LICENSE").read_text().strip().startswith("Apache License")


def test_the_tokenizer_of_smollm2_is_the_published_one(reglaj_home: Path) -> None:
    """Ids, cuts and template as the model was trained with; the cuts at digits are what GGUF readers forget."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(fetch("smollm2"))
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, len(tokenizer)) == (2, 2, 49152)
    assert tokenizer.model_max_length == 8192
    assert tokenizer("Hi")["input_ids"] == tokenizer("Hi", add_special_tokens=False)["input_ids"], (
        "nothing is put before"
    )
    assert tokenizer.tokenize("a  12") == ["a", "\u0120\u0120", "1", "2"]
    for text in ["  Grüße, 1 234 lei și 😀\n\n", "<|im_start|>user\n3.14<|im_end|>", "a\tb\r\n"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    shape = system + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
    assert tokenizer.apply_chat_template(turns, tokenize=False) == shape
    ids = tokenizer.apply_chat_template(turns, return_dict=False)
    assert tokenizer.decode(ids) == shape and ids.count(1) == ids.count(2) == 3


def test_finance_is_the_same_everywhere(reglaj_home: Path) -> None:
    path = fetch("finance", verify=True)
    assert path == reglaj_home / "starters" / "finance" / "finance.jsonl"
    assert sha256_file(path) == "e2d749ba41b0bee7cebe65d9270c6f877835a62061916ee631cedcda3bee287b"
    rows = [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
    assert len(rows) == len({row["prompt"] for row in rows}) == 648
    assert all(list(row) == ["prompt", "completion"] and row["completion"].strip() for row in rows)


def test_a_file_that_cannot_be_converted_is_an_environment_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(EnvironmentFault, match=r"constraints\.txt") as caught:
        convert_gguf(tmp_path / "model.gguf", tmp_path / "out")
    assert caught.value.exit_code == 4
    assert capsys.readouterr() == ("", ""), "silent by default"
