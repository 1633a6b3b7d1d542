"""Tiny models of four layers, so that there are some below, at and above a cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tests.tiny import tiny_config, write_tokenizer
from tests.tiny_chat import chat_config, chat_tokenizer

LAYERS = 4
ENCODERS = ["bert", "distilbert", "roberta", "electra"]
DECODERS = ["llama", "qwen2", "mistral", "gpt2"]


def deep_config(family: str, vocabulary: int = 120, **changes: Any) -> Any:
    config = tiny_config(family) if family in ENCODERS else chat_config(family, vocabulary, 256)
    values = config.to_dict()
    values.pop("layer_types", None)  # of two layers
    depth = next(key for key in ("num_hidden_layers", "n_layers", "n_layer") if key in values)
    return type(config).from_dict({**values, depth: LAYERS, **changes})


def deep_trunk(family: str, **changes: Any) -> Any:
    """The bare trunk, in evaluation mode."""
    from transformers import AutoModel

    torch.manual_seed(0)
    options = {"add_pooling_layer": False} if family in ("bert", "roberta") else {}
    trunk = AutoModel.from_config(deep_config(family, **changes), **options)
    return _spread(trunk).eval()


def write_deep_model(folder: Path, family: str, **changes: Any) -> Path:
    """A folder as `save_pretrained` writes it: an encoder with its tokenizer, or a decoder that chats."""
    from transformers import AutoModelForCausalLM

    if family in ENCODERS:
        deep_trunk(family, **changes).save_pretrained(folder)
        write_tokenizer(folder)
        return folder
    tokenizer = chat_tokenizer()
    torch.manual_seed(0)
    _spread(AutoModelForCausalLM.from_config(deep_config(family, len(tokenizer), **changes))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _spread(model: Any) -> Any:
    """Weights large enough that texts differ in float32."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "wpe" not in name:
                parameter.normal_(std=0.15)
    return model
