"""Models and tokenizers through transformers: safetensors only, no remote code, always from a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from reglaj.core.errors import user_error
from reglaj.models.inspect import ModelFacts
from reglaj.models.storage import Storage, mark_storage

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_DROPOUT_KEYS = ("dropout", "_dropout", "_pdrop", "dropout_prob", "dropout_rate")


def load_backbone(
    facts: ModelFacts, *, dropout: float | None = None, storage: Storage | None = None, device: str = "cpu"
) -> PreTrainedModel:
    """The model without a head, in evaluation mode, on the CPU and in float32 where no storage is given.

    dropout: overrides every dropout probability of the config; None keeps the model's own.
    storage: how linear layers lie in memory. They become so on the device while they are read, one by one: the model is
    never whole in float32.
    Raises `UserError` when transformers does not know the architecture or the weights do not fit it.
    """
    from transformers import AutoModel

    extra: dict[str, Any] = {"add_pooling_layer": False} if _has_pooler(facts) else {}
    return _load(facts, AutoModel, dropout, extra, (storage, device))


def load_causal(
    facts: ModelFacts, *, dropout: float | None = None, storage: Storage | None = None, device: str = "cpu"
) -> PreTrainedModel:
    """The model with its output matrix, as transformers has it. Otherwise as `load_backbone`."""
    from transformers import AutoModelForCausalLM

    return _load(facts, AutoModelForCausalLM, dropout, {}, (storage, device))


def load_seq2seq(
    facts: ModelFacts, *, dropout: float | None = None, storage: Storage | None = None, device: str = "cpu"
) -> PreTrainedModel:
    """An encoder and a decoder with its output matrix. Otherwise as `load_backbone`."""
    from transformers import AutoModelForSeq2SeqLM

    return _load(facts, AutoModelForSeq2SeqLM, dropout, {}, (storage, device))


def _load(
    facts: ModelFacts, kind: Any, dropout: float | None, extra: dict[str, Any], stored: tuple[Storage | None, str]
) -> PreTrainedModel:
    """stored: how linear layers lie in memory, and where."""
    from transformers import AutoConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # the load report speaks of heads that we replace on purpose
    transformers_logging.disable_progress_bar()
    storage, device = stored
    if storage is not None:
        extra = {**extra, **_stored(storage, device)}
    try:
        config = AutoConfig.from_pretrained(facts.folder, trust_remote_code=False, local_files_only=True)
        if dropout is not None:
            _set_dropout(config, dropout)
        model, report = kind.from_pretrained(
            facts.folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **extra,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise user_error(
            f"the model {facts.name!r} cannot be loaded",
            allowed="architectures and weights that the installed transformers can open",
            why=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}",
            remedy="try another model, or save it again with the current transformers",
            where="model",
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise user_error(
            f"the model {facts.name!r} lacks {len(missing)} weights, {missing[0]!r} first",
            allowed="weights for every parameter of its architecture",
            why="the missing ones would start at random, in silence",
            remedy="fetch or save the model again",
            where="model",
        )
    model.eval()
    if storage is not None:
        from reglaj.models.quantised import adopt

        adopt(model)
        mark_storage(model, storage)
    return model


def _stored(storage: Storage, device: str) -> dict[str, Any]:
    from reglaj.models.quantised import quantisation_config

    return {"quantization_config": quantisation_config(storage), "device_map": {"": device}}


def load_tokenizer(folder: Path, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder; `name` is how messages call the model. Raises `UserError` when it cannot be used."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise user_error(
            f"the tokenizer of {name!r} cannot be loaded",
            allowed="tokenizer.json (or what transformers can make one of) in the model's folder",
            why=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}",
            remedy="save it beside the model with `tokenizer.save_pretrained(folder)`",
            where="model",
        ) from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise user_error(
            f"the tokenizer of {name!r} knows no words, only {len(tokenizer)} special tokens",
            allowed="a tokenizer with its vocabulary",
            why="every word would be the unknown token",
            remedy="save it again beside the model with `tokenizer.save_pretrained(folder)`",
            where="model",
        )
    return tokenizer


def _has_pooler(facts: ModelFacts) -> bool:
    """Models with BERT's pooler build it unless told not to; our heads pool by themselves."""
    return any("pooler.dense" in name for name in facts.tensors) or facts.model_type in {
        "bert",
        "roberta",
        "xlm-roberta",
    }


def _set_dropout(config: Any, value: float) -> None:
    for key, old in list(vars(config).items()):
        if key.endswith(_DROPOUT_KEYS) and isinstance(old, (int, float)) and not isinstance(old, bool):
            setattr(config, key, value)
