"""Learnt tokens before every text: what the methods that have such share. Files are PEFT's own.

Legend: P virtual tokens, D width of an embedding, V vocabulary.

PEFT's encoders of prompts are used as they are, but no `PeftModel` is wrapped around the model: what they give is
handed to each pass (`Handle.virtual`), which knows how to lay it before packed texts.
"""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field

from reglaj.core.errors import Problem, UserError
from reglaj.methods.base import Capabilities, Handle, Method
from reglaj.methods.config import MethodConfig
from reglaj.methods.injected import CONFIG, WEIGHTS, misfit, peft_task

if TYPE_CHECKING:
    import peft
    from torch import Tensor, nn

    from reglaj.models.inspect import ModelFacts

HOME = "virtual_prompts"
"""The attribute of a model under which its learnt prompts lie by the names of their handles."""
KEY = "prompt_embeddings"
REPARAMETRISATION = "reparametrisation.safetensors"
"""What a prompt is computed by, beside PEFT's files. PEFT never reads it; to go on with a training it is needed."""
MOST_TOKENS = 20
COMMON_WORDS = 5000
"""Vocabulary initialisation draws from so many of the most common tokens (Lester et al. 2021, section 3.2)."""
_HEAD_KEYS = ("num_attention_heads", "n_heads", "n_head", "num_heads", "decoder_attention_heads")
Init = Literal["random", "vocabulary", "text"]
C = TypeVar("C", bound=MethodConfig)


class PromptConfig(MethodConfig):
    """A method that puts learnt tokens before each text."""

    num_virtual_tokens: int | None = Field(None, ge=1)
    """How many there are. Each takes a place of the context. Null fits it to the model."""


def filled(method: type[Method[C]], config: C, facts: ModelFacts) -> C:
    """A config in which nothing is left open, for those who did not resolve their recipe."""
    derived = method.derive(config, facts, has_new_head=True)
    return config.model_copy(update={key: value for key, (value, _) in derived.items()})


def derive_count(config: PromptConfig, facts: ModelFacts, most: int = MOST_TOKENS) -> dict[str, tuple[Any, str]]:
    """`num_virtual_tokens` where it was left open."""
    if config.num_virtual_tokens is not None:
        return {}
    count = max(1, min(most, facts.context // 4))
    reason = f"{count} is enough for most tasks" if count == most else f"a quarter of {facts.context} tokens of context"
    return {"num_virtual_tokens": (count, reason)}


def room_problems(count: int, facts: ModelFacts) -> list[Problem]:
    """More virtual tokens than the model has places."""
    if count < facts.context:
        return []
    return [
        Problem(
            where="method.num_virtual_tokens",
            given=f"num_virtual_tokens {count:,}",
            allowed=f"fewer than the {facts.context:,} tokens that {facts.name} reads",
            why="each takes a place of the context, and none is left for the text",
            remedy="use fewer; 20 are enough for most tasks",
        )
    ]


def text_problems(init: Init | None, init_text: str | None) -> list[Problem]:
    """A text that is missing, or that nothing would read."""
    if init == "text" and not (init_text or "").strip():
        given, allowed = "init text without init_text", "init_text with the words to start from"
        why, remedy = "there is nothing to start from", "give init_text, or use init vocabulary"
    elif init != "text" and init_text is not None:
        given, allowed = f"init_text with init {init}", "init_text with init text only"
        why, remedy = "nothing would read it", "set init to text, or remove init_text"
    else:
        return []
    return [Problem(where="method.init_text", given=given, allowed=allowed, why=why, remedy=remedy)]


def _unknown_words(init_text: str, facts: ModelFacts) -> Problem:
    return Problem(
        where="method.init_text",
        given=f"{init_text[:60]!r}",
        allowed=f"words that the vocabulary of {facts.name} has",
        why="its tokenizer knows none of them, and every virtual token would begin as the token for unknown words",
        remedy="give words of the language that the model knows, or use init vocabulary",
    )


def embedding_width(facts: ModelFacts) -> int:
    """D of a model's word embeddings, from the shapes in its files: some are narrower than the layers."""
    vocabulary = facts.config.get("vocab_size")
    widths = (
        shape[1]
        for name, shape in facts.tensors.items()
        if len(shape) == 2 and shape[0] == vocabulary and any(part in name for part in ("embed", "wte", "shared"))
    )
    return next(widths, facts.hidden_size)


def attention_size(facts: ModelFacts) -> tuple[int, int]:
    """Key-value heads of a layer, and the width of each, from a model's config."""
    config = facts.config
    heads = next((int(config[key]) for key in _HEAD_KEYS if isinstance(config.get(key), int)), 1)
    width = config.get("head_dim") or config.get("d_kv") or facts.hidden_size // heads
    return int(config.get("num_key_value_heads") or heads), int(width)


def first_tokens(init: Init, init_text: str | None, count: int, facts: ModelFacts) -> Tensor:
    """(P,) long: the tokens of the text, repeated or cut to P of them; else common words, drawn by torch's seed."""
    import torch

    from reglaj.models.loading import load_tokenizer

    tokenizer: Any = load_tokenizer(facts.folder, facts.name)
    if init == "text":
        words = torch.tensor(tokenizer(init_text, add_special_tokens=False)["input_ids"], dtype=torch.long)
        if not len(words):
            raise UserError(*text_problems("text", ""))
        if bool((words == (-1 if tokenizer.unk_token_id is None else tokenizer.unk_token_id)).all()):
            raise UserError(_unknown_words(str(init_text), facts))
        return words.repeat(-(-count // len(words)))[:count]
    common = _common(tokenizer, min(len(tokenizer), int(facts.config.get("vocab_size", len(tokenizer)))))
    order = torch.randperm(len(common))[:count]
    return torch.tensor(common, dtype=torch.long)[order.repeat(-(-count // len(order)))[:count]]


def _common(tokenizer: Any, size: int) -> list[int]:
    """The lowest numbers that are words: vocabularies are sorted by how often a token comes."""
    special = set(tokenizer.all_special_ids)
    named = tokenizer.convert_ids_to_tokens(list(range(min(size, 2 * COMMON_WORDS))))
    words = [
        number
        for number, token in enumerate(named)
        if number not in special and token and not token.startswith(("[unused", "<extra_id", "<0x", "<unused"))
    ]
    return words[:COMMON_WORDS] or list(range(size))


def stored_layers(layers: int, *, is_encoder_decoder: bool) -> int:
    """How many layers a file of PEFT's has room for: twice as many where it deals two rows in four to the encoder."""
    return 2 * layers if is_encoder_decoder else layers


def peft_settings(model: Any, facts: ModelFacts, count: int, width: int) -> dict[str, Any]:
    """What the configs of PEFT's prompt methods have in common. width: of one token of the prompt."""
    return {
        "task_type": peft_task(model),
        "base_model_name_or_path": str(facts.folder),
        "num_virtual_tokens": count,
        "token_dim": width,
        "num_transformer_submodules": 1,
        # Read for a prefix alone, but PEFT insists on it, and cannot tell it from every config.
        "num_attention_heads": attention_size(facts)[0],
        "num_layers": facts.layers,
        "inference_mode": False,
    }


class PromptHandle(Handle):
    """A learnt prompt of a name, among others on the same base.

    encoder: makes the prompt from the numbers 0 to P - 1; PEFT's. config: PEFT's, from which files are written.
    """

    def __init__(self, model: nn.Module, name: str, config: peft.PromptLearningConfig, encoder: nn.Module) -> None:
        from torch import nn

        is_first = not getattr(model, "_reglaj_handles", None)
        super().__init__(model, name, Capabilities(virtual_tokens=config.num_virtual_tokens))
        if is_first:
            model.requires_grad_(False)
        self.config = config
        if not hasattr(model, HOME):
            model.add_module(HOME, nn.ModuleDict())
        device = next(model.parameters()).device
        self._home[name] = encoder.to(device)

    @property
    def _home(self) -> Any:
        return getattr(self.model, HOME)

    @property
    def encoder(self) -> Any:
        """Inside the model, so that it moves, trains and is counted with it."""
        return self._home[self.name]

    def switch(self, is_on: bool) -> None:
        """Passes ask the handle that is on; nothing of the model itself changes."""

    def parameters(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        prefix = f"{HOME}.{self.name}."
        return {"prompt": [(prefix + key, parameter) for key, parameter in self.encoder.named_parameters()]}

    def prompt(self) -> Tensor:
        """(P, ...) as the encoder makes it, with gradient."""
        import torch

        numbers = torch.arange(self.config.num_virtual_tokens, device=self.encoder.embedding.weight.device)
        # In float32 whatever the pass is in: what is saved is then what was evaluated, and a processor without bfloat16
        # units has no LSTM in it.
        with torch.autocast(numbers.device.type, enabled=False):
            made: Tensor = self.encoder(numbers[None])[0]
        return made

    def save(self, folder: Path) -> None:
        """adapter_config.json and adapter_model.safetensors as plain PEFT reads them, and what computes the prompt."""
        import torch
        from safetensors.torch import save_file

        with torch.no_grad():
            made = self.as_stored(self.prompt().float().cpu()).contiguous()
        save_file({KEY: made}, folder / WEIGHTS, metadata={"format": "pt"})
        state = {key: tensor.detach().cpu().contiguous() for key, tensor in self.encoder.state_dict().items()}
        if len(state) > 1:
            save_file(state, folder / REPARAMETRISATION, metadata={"format": "pt"})
        self.stored_config().save_pretrained(str(folder))

    def load(self, folder: Path) -> None:
        """Take over what `save` or plain PEFT wrote. PEFT keeps no reparametrisation; then there is none any more."""
        from safetensors.torch import load_file

        own = self.encoder.state_dict()
        if len(own) > 1 and (folder / REPARAMETRISATION).is_file():
            state = load_file(folder / REPARAMETRISATION)
            if {key: t.shape for key, t in state.items()} != {key: t.shape for key, t in own.items()}:
                raise misfit(folder)
            self.encoder.load_state_dict(state)
            return
        made = self.from_stored(load_file(folder / WEIGHTS)[KEY], json.loads((folder / CONFIG).read_text("utf-8")))
        if made is None or made.shape != self.prompt().shape:
            raise misfit(folder)
        if len(own) > 1:
            self._home[self.name] = plain_encoder(made.to(self.encoder.embedding.weight.device))
        else:
            self.encoder.embedding.weight.data.copy_(made)

    def stored_config(self) -> Any:
        """PEFT's config for the file."""
        stored = copy.copy(self.config)
        stored.inference_mode = True
        return stored

    def as_stored(self, made: Tensor) -> Tensor:
        """The prompt in the order of PEFT's file."""
        return made

    def from_stored(self, stored: Tensor, config: dict[str, Any]) -> Tensor | None:
        """And back, by the config beside the file; None where it does not fit."""
        return stored


def plain_encoder(made: Tensor) -> Any:
    """An encoder that gives these values, and learns them themselves; named as PEFT names its own."""
    from torch import nn

    embedding = nn.Embedding.from_pretrained(made.detach().clone().float(), freeze=False)
    return nn.Sequential(OrderedDict(embedding=embedding))


class EmbeddedHandle(PromptHandle):
    """A prompt of embeddings, at the input of the model (or of its encoder)."""

    def virtual(self) -> Any:
        from reglaj.models.virtual import VirtualTokens

        return VirtualTokens(count=self.config.num_virtual_tokens, embeddings=self.prompt())

    def from_stored(self, stored: Tensor, config: dict[str, Any]) -> Tensor | None:
        """PEFT keeps as many again for a decoder, and reads the first of them only."""
        return stored[: config["num_virtual_tokens"]]

    def learnt(self, tokenizer: Any) -> dict[str, Any]:
        """The vocabulary words nearest to each virtual token."""
        from reglaj.models.nearest_words import prompt_facts

        table = self.model.get_input_embeddings()
        # Gemma scales what it looks up, and the prompt stands beside what was looked up.
        scaled = table.weight.detach() * getattr(table, "scalar_embed_scale", 1.0)
        return prompt_facts(self.prompt().detach(), scaled, tokenizer)


def refuse(problems: Sequence[Problem]) -> None:
    """Raises `UserError` where there are any."""
    if problems:
        raise UserError(*problems)
