"""Chat models that fit in a test: real CausalLM architectures from a config, random weights, a byte-level tokenizer."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "where is my card and when will it arrive",
    "please help me with the late transfer of money",
    "your card is on its way, it takes three days",
    "assistant user system",
    "unde este cardul meu și când ajunge banii",
    "transferul întârzie, vă rugăm să așteptați trei zile",
]


def chat_tokenizer(template: str | None = CHATML, special: list[str] | None = None, eos: str = "<|im_end|>") -> Any:
    """A byte-level BPE tokenizer: every text goes through it unchanged."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=special or SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, pad_token=(special or SPECIAL)[0])
    fast.chat_template = template
    return fast


def chat_config(family: str, vocabulary: int, context: int) -> Any:
    """Two layers, width 32."""
    import transformers as t

    size: dict[str, Any] = {"vocab_size": vocabulary, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    if family == "gpt2":
        return t.GPT2Config(**size, n_embd=32, n_layer=2, n_head=4, n_positions=context)
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": context,
    }
    if family == "qwen2":
        return t.Qwen2Config(**size, **shape, tie_word_embeddings=True)
    if family == "mistral":
        return t.MistralConfig(**size, **shape, sliding_window=None)
    assert family == "llama", family
    return t.LlamaConfig(**size, **shape, tie_word_embeddings=True)


def write_chat_model(
    folder: Path, family: str = "llama", template: str | None = CHATML, seed: int = 0, context: int = 256
) -> Path:
    """A model folder as `save_pretrained` writes it. Weights are large enough that texts differ in float32."""
    from transformers import AutoModelForCausalLM

    tokenizer = chat_tokenizer(template)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(chat_config(family, len(tokenizer), context))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "wpe" not in name:
                parameter.normal_(std=0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_conversations(path: Path, count: int = 120, seed: int = 0) -> Path:
    """JSONL of prompt and completion; the answer follows from the prompt, so that something can be learnt."""
    chance = random.Random(seed)
    answers = {
        "card": "your card is on its way",
        "money": "the transfer takes three days",
        "banii": "vă rugăm să așteptați",
    }
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            topic = chance.choice(list(answers))
            words = chance.choices(
                ["where", "when", "please", "help", "me", "late", "my", "with", "the"], k=chance.randint(1, 6)
            )
            prompt = f"{' '.join(words)} {topic} {number}"
            file.write(json.dumps({"prompt": prompt, "completion": answers[topic]}, ensure_ascii=False) + "\n")
    return path
