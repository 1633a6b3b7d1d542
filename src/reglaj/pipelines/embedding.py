"""The frozen model that looks at texts for the quality report and for cleaning; kept vectors are asked first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reglaj.core.console import SILENT, Console
from reglaj.core.files import canonical_hash
from reglaj.core.run_listing import EMBEDDINGS
from reglaj.curation.cleaning import make_cleaner
from reglaj.curation.embeddings import Embedder, KeptEmbedder
from reglaj.models.inspect import ModelFacts, inspect_model
from reglaj.pipelines.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.cleaning import Cleaner

DEFAULT = "starter:minilm"
_MOST_PARAMETERS = 150_000_000
_MOST_TOKENS = 256
"""What is read of a text; what it is about is said by then, and longer texts cost by the token."""


def embedder_of(recipe: Recipe, runs: Path, console: Console = SILENT, facts: ModelFacts | None = None) -> Embedder:
    """The recipe's own model where it is a small encoder, else `starter:minilm`; loaded only when it is asked.

    facts: of the recipe's model, where they are known. Raises `EnvironmentFault` where the starter cannot be fetched.
    """
    facts = facts or inspect_model(recipe.model, folder=recipe.folder, console=console)
    if facts.is_decoder or facts.is_encoder_decoder or facts.parameters > _MOST_PARAMETERS:
        facts = inspect_model(DEFAULT, folder=recipe.folder, console=console)
    max_tokens = min(facts.context, _MOST_TOKENS)
    what = {"model": facts.fingerprint, "pooling": facts.pooling, "max_tokens": max_tokens}
    return KeptEmbedder(
        name=facts.name,
        fingerprint=canonical_hash(what),
        embed=_embed_with(facts, max_tokens, recipe, console),
        folder=runs / EMBEDDINGS,
    )


def cleaner_of(recipe: Recipe, runs: Path, console: Console = SILENT) -> Cleaner | None:
    """What carries out the recipe's `data.clean`, or None where it asks for nothing."""
    config = recipe.data.clean
    return make_cleaner(config, embedder_of(recipe, runs, console) if config.needs_embeddings else None)


def _embed_with(
    facts: ModelFacts, max_tokens: int, recipe: Recipe, console: Console
) -> Callable[[list[str]], NDArray[np.float32]]:
    def embed(texts: list[str]) -> NDArray[np.float32]:
        from reglaj.methods.linear_probe import LinearProbe, LinearProbeConfig
        from reglaj.models.encoding import encode_texts
        from reglaj.models.heads import ScoreHead
        from reglaj.models.loading import load_backbone, load_tokenizer
        from reglaj.models.packing import choose_layout
        from reglaj.pipelines.forecast import shape_of
        from reglaj.training.engine import choose_device, choose_engine
        from reglaj.training.learner import Learner

        # One precision on every machine: what is found must not depend on the processor.
        settings = recipe.train.model_copy(update={"precision": "float32", "micro_batch_tokens": None})
        device = choose_device(settings)
        backbone = load_backbone(facts).to(device)
        tokenizer = load_tokenizer(facts.folder, facts.name)
        layout, reason = choose_layout(
            backbone.base_model, facts.model_type, facts.position_offset, backbone.config.vocab_size, max_tokens
        )
        shape = shape_of(facts, is_frozen=True, is_computed_twice=False)
        engine = replace(choose_engine(settings, device, layout, reason, shape), processes=1)
        handle = LinearProbe.attach(LinearProbeConfig(), backbone, facts)
        learner = Learner(backbone, handle, ScoreHead(facts.hidden_size, 1, pooling=facts.pooling), facts, engine)
        rows, _ = encode_texts(tokenizer, texts, max_tokens)
        return learner.embeddings(rows, console)

    return embed
