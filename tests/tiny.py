"""Models that fit in a test: real architectures from a config, with random weights and a real tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

WORDS = [
    "card",
    "payment",
    "transfer",
    "lost",
    "late",
    "money",
    "bank",
    "account",
    "fee",
    "refund",
    "help",
    "please",
    "my",
    "the",
    "a",
    "is",
    "not",
    "where",
    "when",
    "why",
    "limba",
    "banii",
    "cardul",
    "pierdut",
    "vreau",
    "unde",
    "este",
    "cont",
    "taxa",
    "ajutor",
]
ENCODERS = frozenset({"bert", "roberta", "distilbert", "electra"})
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_tokenizer(folder: Path, *, closing: bool = True) -> None:
    """A WordPiece tokenizer over `WORDS`, with [CLS] and [SEP] where the architecture is an encoder."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(c) for c in range(97, 123)]
    pieces = [*SPECIAL, *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if closing:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        eos_token="[SEP]",
    ).save_pretrained(folder)


def tiny_config(family: str) -> Any:
    """A config of two layers, width 32, of the family's own architecture."""
    import transformers as t

    size = {"vocab_size": 120}
    if family == "bert":
        return t.BertConfig(
            **size,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=64,
        )
    if family == "roberta":
        return t.RobertaConfig(
            **size,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=66,
            pad_token_id=1,
        )
    if family == "distilbert":
        return t.DistilBertConfig(**size, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=64)
    if family == "electra":
        return t.ElectraConfig(
            **size,
            embedding_size=32,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=64,
        )
    if family == "gpt2":
        return t.GPT2Config(**size, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=None, eos_token_id=3)
    if family in ("t5", "t5-gated"):
        return t.T5Config(
            **size,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_decoder_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu" if family == "t5-gated" else "relu",
            tie_word_embeddings=family == "t5",
            decoder_start_token_id=0,
            eos_token_id=3,
        )
    return _decoder_config(family, size)


def _decoder_config(family: str, size: dict[str, Any]) -> Any:
    """Those that share Llama's keys."""
    import transformers as t

    kinds: dict[str, Any] = {
        "llama": t.LlamaConfig,
        "qwen2": t.Qwen2Config,
        "mistral": t.MistralConfig,
        "gemma": t.GemmaConfig,
        "gemma2": t.Gemma2Config,
        "gemma3": t.Gemma3TextConfig,
    }
    extra: dict[str, Any] = {"sliding_window": None} if family == "mistral" else {}
    if family.startswith("gemma"):
        extra = {"head_dim": 8, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 3}
    return kinds[family](
        **size,
        **extra,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )


def write_model(folder: Path, family: str = "bert", seed: int = 0) -> Path:
    """A model folder as `save_pretrained` writes it. Weights are large enough that texts differ in float32."""
    from transformers import AutoModel, AutoModelForSeq2SeqLM

    torch.manual_seed(seed)
    config = tiny_config(family)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModel
    model = kind.from_config(config, **({"add_pooling_layer": False} if family in {"bert", "roberta"} else {}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.1 if config.is_encoder_decoder else 0.3)
    model.save_pretrained(folder)
    write_tokenizer(folder, closing=family in ENCODERS)
    return folder


def write_rows(path: Path, count: int = 240, seed: int = 0) -> Path:
    """A JSONL file with three labels that the words give away, most of the time."""
    import random

    chance = random.Random(seed)
    topics = {
        "cards": ["card", "cardul", "lost", "pierdut"],
        "fees": ["fee", "taxa", "refund"],
        "transfers": ["transfer", "money", "banii", "late"],
    }
    plain = [word for word in WORDS if not any(word in words for words in topics.values())]
    lines = []
    for i in range(count):
        label = list(topics)[i % 3]
        words = (
            chance.choices(topics[label], k=2)
            + chance.choices(plain, k=chance.randint(0, 6))
            + chance.choices("abcdefghijklmnopqrstuvwxyz", k=3)
        )
        chance.shuffle(words)
        lines.append(json.dumps({"text": " ".join(words), "label": label}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def recipe_for(model: Path, data: Path, **sections: Any) -> dict[str, Any]:
    """A recipe that trains in about a second."""
    return {
        "name": "tiny",
        "task": "classify",
        "model": str(model),
        "data": {"sources": [{"path": str(data)}], **sections.pop("data", {})},
        "method": sections.pop("method", {"name": "full"}),
        "train": {
            "epochs": 4,
            "batch_size": 16,
            "learning_rate": 2e-3,
            "head_learning_rate": 1e-2,
            **sections.pop("train", {}),
        },
        "evaluate": {"baselines": [], "bootstrap_samples": 100, **sections.pop("evaluate", {})},
        **sections,
    }
