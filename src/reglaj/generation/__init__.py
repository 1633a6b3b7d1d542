"""Floor 3: the one generator: cache, sampling, streaming. Evaluation, prediction and chat all use it.

    generator = Generator(model, tokenizer, end_ids={2}, context=2048)
    answers = generator.generate(prompts, GenerationConfig(max_new_tokens=64))

Names are loaded when they are first used: a config alone needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reglaj.generation.config import GenerationConfig
    from reglaj.generation.generator import Generated, Generator, Stream

__all__ = ["Generated", "GenerationConfig", "Generator", "Stream"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'reglaj.generation' has no attribute {name!r}")
    import importlib

    module = "reglaj.generation.config" if name == "GenerationConfig" else "reglaj.generation.generator"
    return getattr(importlib.import_module(module), name)
