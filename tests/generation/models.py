"""Tiny decoders of many architectures, and what transformers' own `generate` answers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
import transformers as t
from tests.tiny_chat import chat_tokenizer, write_chat_model

VOCABULARY = 340
_SIZE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_MHA = {key: value for key, value in _SIZE.items() if key != "num_key_value_heads"}
CONFIGS: dict[str, Any] = {
    "llama": lambda: t.LlamaConfig(**_SIZE),
    "mistral": lambda: t.MistralConfig(**_SIZE, sliding_window=None),
    "mistral, window of 8": lambda: t.MistralConfig(**_SIZE, sliding_window=8),
    "qwen2": lambda: t.Qwen2Config(**_SIZE),
    "qwen2, a layer with a window": lambda: t.Qwen2Config(
        **_SIZE, use_sliding_window=True, sliding_window=6, layer_types=["full_attention", "sliding_attention"]
    ),
    "qwen3": lambda: t.Qwen3Config(**_SIZE, head_dim=8),
    "smollm3": lambda: t.SmolLM3Config(**_SIZE),
    "phi3": lambda: t.Phi3Config(**_SIZE),
    "olmo2": lambda: t.Olmo2Config(**_SIZE),
    "gemma3": lambda: t.Gemma3TextConfig(**_SIZE, head_dim=8, sliding_window=8),
    "mixtral": lambda: t.MixtralConfig(**_SIZE, num_local_experts=2, num_experts_per_tok=1, sliding_window=None),
    "gpt_neox": lambda: t.GPTNeoXConfig(**_MHA),
    "gpt2": lambda: t.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=None, eos_token_id=2
    ),
}
OTHERS: dict[str, Any] = {
    "bloom": lambda: t.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, eos_token_id=2),
    "gemma2": lambda: t.Gemma2Config(**_SIZE, head_dim=8),
    "phi3, long rope": lambda: t.Phi3Config(
        **(_SIZE | {"max_position_embeddings": 512}),
        original_max_position_embeddings=64,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4,
            "original_max_position_embeddings": 64,
        },
    ),
}
"""Architectures that the store does not serve."""


def build(name: str, seed: int = 0) -> Any:
    """A model in evaluation mode with weights large enough that texts differ."""
    torch.manual_seed(seed)
    model = t.AutoModelForCausalLM.from_config((CONFIGS | OTHERS)[name]())
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim == 2 and "wpe" not in key:
                parameter.normal_(std=0.15)
    return model.eval()


def load(folder: Path) -> tuple[Any, Any]:
    """The shared tiny chat model and its tokenizer, through the disk."""
    write_chat_model(folder)
    return t.AutoModelForCausalLM.from_pretrained(folder).eval(), t.AutoTokenizer.from_pretrained(folder)


def tokenizer() -> Any:
    return chat_tokenizer()


def prompts(count: int, seed: int = 0, longest: int = 40) -> list[list[int]]:
    """Token ids of unequal length, the special ones left out."""
    chance = random.Random(seed)
    return [[chance.randrange(3, VOCABULARY) for _ in range(chance.randint(1, longest))] for _ in range(count)]


def by_transformers(model: Any, prompt: list[int], count: int, **options: Any) -> tuple[list[int], float]:
    """What `generate` answers to one prompt, and the smallest distance between its two best scores on the way."""
    ids = torch.tensor([prompt])
    with torch.no_grad():
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
            pad_token_id=0,
            **options,
        )
    best = torch.cat(output.logits).float().topk(2).values
    answer = output.sequences[0, len(prompt) :].tolist()
    return answer, (best[:, 0] - best[:, 1]).min().item()
