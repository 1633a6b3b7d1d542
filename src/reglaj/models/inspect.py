"""What a model folder holds, read without loading it: config, tensor shapes, and the reasons to refuse it.

One door for starters, local folders and hub ids. Nothing here imports torch: a safetensors file begins with
its own table of contents (8 bytes of length, then JSON).
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import environment_fault, nearest, user_error
from reglaj.core.files import sha256_file

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
# Beside weights and config, what decides a model's answers.
_ALSO_DECIDE = (
    *TOKENIZER_FILES,
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
)
NOT_BASE_WEIGHTS = frozenset(
    {"head.safetensors", "adapter_model.safetensors", "adapter.safetensors", "trained.safetensors"}
)
"""What methods and heads write beside a base."""
_OFFSET_POSITIONS = frozenset(
    {"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "data2vec-text", "mpnet", "ibert", "xmod", "longformer",
     "roberta-prelayernorm"}
)  # fmt: skip
_NOT_LINEAR = (
    "embed", "norm", "pooler", "lm_head", "cls.", "wte", "wpe", "classifier", "score", "shared.",
    "relative_attention_bias",
)  # fmt: skip
_BUFFERS = ("position_ids", "masked_bias", "rotary_emb.inv_freq")
_DECODERS = (
    "gpt", "llama", "qwen", "mistral", "gemma", "phi", "olmo", "smollm", "granite", "cohere", "starcoder", "stablelm",
    "falcon", "bloom", "opt", "helium", "ministral",
)  # fmt: skip
"""How the model types of those begin whose saved trunk may not say that it is a causal model's."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model on disk. `tensors` maps each name in its safetensors files to its shape, buffers left out."""

    name: str
    """As the user wrote it."""
    folder: Path
    config: dict[str, Any]
    tensors: dict[str, tuple[int, ...]]
    licence: str = ""
    source: str = ""

    @property
    def model_type(self) -> str:
        return str(self.config.get("model_type", ""))

    @property
    def is_encoder_decoder(self) -> bool:
        return bool(self.config.get("is_encoder_decoder"))

    @property
    def parameters(self) -> int:
        """Number of values in all tensors."""
        return sum(_size(shape) for shape in self.tensors.values())

    @property
    def layers(self) -> int:
        """Of an encoder-decoder, those of the encoder."""
        return self._number("num_hidden_layers", "n_layers", "n_layer", "num_layers", "encoder_layers")

    @property
    def decoder_layers(self) -> int:
        """Of an encoder-decoder, those of the decoder; 0 for every other model."""
        return self._number("num_decoder_layers", "decoder_layers") or self.layers if self.is_encoder_decoder else 0

    @property
    def hidden_size(self) -> int:
        return self._number("hidden_size", "dim", "n_embd", "d_model")

    @property
    def context(self) -> int:
        """Most tokens a text may have. RoBERTa's positions start after its padding index.

        512 where the config has no bound, as of T5, whose positions are relative: what it was trained on.
        """
        places = self._number("max_position_embeddings", "n_positions")
        return places - self.position_offset if places else 512

    def _number(self, *keys: str) -> int:
        """The first of these keys of the config that holds a number; 0 where none does."""
        return next((int(self.config[key]) for key in keys if isinstance(self.config.get(key), int)), 0)

    @property
    def position_offset(self) -> int:
        """The position id of a text's first token."""
        if self.model_type in _OFFSET_POSITIONS:
            return int(self.config.get("pad_token_id") or 0) + 1
        return 0

    @property
    def pooling(self) -> Literal["cls", "mean", "last"]:
        """How a text becomes one vector: as sentence-transformers wrote down, else `last` (decoders) or `mean`."""
        try:
            pooling = json.loads((self.folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            pooling = {}
        if pooling.get("pooling_mode_cls_token"):
            return "cls"
        if pooling.get("pooling_mode_lasttoken"):
            return "last"
        return "mean" if pooling or not self.is_decoder else "last"

    @property
    def is_decoder(self) -> bool:
        """Whether a token sees only those before it."""
        architectures = " ".join(self.config.get("architectures") or [])
        return "CausalLM" in architectures or "LMHead" in architectures or self.model_type.startswith(_DECODERS)

    def linear_modules(self) -> dict[str, tuple[int, int]]:
        """Weight matrices that a method can target: module name to shape."""
        return self._linear_modules

    @cached_property
    def _linear_modules(self) -> dict[str, tuple[int, int]]:
        return {
            name.removesuffix(".weight"): (shape[0], shape[1])
            for name, shape in self.tensors.items()
            if name.endswith(".weight") and len(shape) == 2 and not any(part in name for part in _NOT_LINEAR)
        }

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 over config, weights and tokenizer: another base is another run."""
        digest = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode())
        for file in (self.folder / name for name in _ALSO_DECIDE):
            if file.is_file():
                digest.update(f"{file.name}:{sha256_file(file)}".encode())
        for file in _weight_files(self.name, self.folder):
            digest.update(sha256_file(file).encode())
        return digest.hexdigest()


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def inspect_model(model: str, *, folder: Path, console: Console = SILENT) -> ModelFacts:
    """The facts of a model: `starter:NAME`, a folder (relative to `folder`), or a hub id.

    Raises `UserError` for what is no model, has pickle weights only or needs remote code; `EnvironmentFault`
    when it has to be fetched and cannot be. A hub id is fetched into the hub's own cache.
    """
    path, licence, source = _resolve(model, folder, console)
    config = _read_config(model, path)
    _check_tokenizer(model, path)
    tensors: dict[str, tuple[int, ...]] = {}
    for file in _weight_files(model, path):
        tensors |= {name: shape for name, shape in read_safetensors_shapes(file).items() if not _is_buffer(name, shape)}
    return ModelFacts(name=model, folder=path, config=config, tensors=tensors, licence=licence, source=source)


def _is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """Whether an old file has here what nobody learns: an attention mask, numbers of positions, rotary frequencies."""
    return name.endswith(_BUFFERS) or (name.endswith(".bias") and len(shape) == 4)


def _resolve(model: str, folder: Path, console: Console) -> tuple[Path, str, str]:
    if model.startswith("starter:"):
        from reglaj.models.starters import STARTERS, fetch

        name = model.removeprefix("starter:")
        path = fetch(model, console)
        if STARTERS[name].kind != "model":
            raise user_error(
                f"{model!r} is a data set",
                allowed=", ".join(f"starter:{n}" for n, s in STARTERS.items() if s.kind == "model"),
                why="`model` needs a model",
                remedy="use it under data.sources, and a model starter here",
                where="model",
            )
        return path, STARTERS[name].licence, STARTERS[name].source
    local = (folder / model).expanduser()
    if local.is_dir():
        return local.resolve(), "as stated by its owner", str(local)
    looks_local = model.startswith((".", "/", "~")) or model.count("/") != 1 or local.exists() or local.parent.is_dir()
    if looks_local:
        siblings = [entry.name for entry in local.parent.iterdir()] if local.parent.is_dir() else []
        guess = None if local.exists() else nearest(local.name, siblings)
        raise user_error(
            f"no model folder {str(local)!r}",
            allowed="a folder with config.json and safetensors, a hub id (owner/name), or one of `reglaj starters`",
            why="it is a file, not a folder"
            if local.exists()
            else "it does not exist (paths start from the recipe's folder)",
            remedy=f"did you mean {guess!r}?" if guess else "check the path",
            where="model",
        )
    return _from_hub(model), "see its page on the hub", model


def _from_hub(model: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            model,
            allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "1_Pooling/*"],
            ignore_patterns=["onnx/*", "openvino/*"],
        )
    except Exception as error:  # the hub client raises many kinds: offline, not found, gated, no disk
        raise environment_fault(
            f"cannot fetch the model {model!r} from the hub",
            allowed="a hub id that exists and can be reached, a local folder, or a starter (`reglaj starters`)",
            why=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}",
            remedy="check the name and the network, or download it and give the folder's path",
            where="model",
        ) from error
    return Path(found)


def _read_config(model: str, path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        config = None
    except (OSError, ValueError) as error:
        raise user_error(
            f"{path / 'config.json'} cannot be read",
            allowed="the model's config as JSON",
            why=str(error),
            remedy="fetch the model again",
            where="model",
        ) from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise user_error(
            f"{model!r} is no model folder",
            allowed="a folder as `save_pretrained` writes it",
            why="it has no config.json that names a model_type",
            remedy="train that run with method full, or start from its base again: its model/ folder holds what was "
            "learnt beside the base"
            if (path / "base.json").is_file()
            else "point `model` to the folder that holds config.json; for a run of ours, to its model/ folder",
            where="model",
        )
    _refuse_remote_code(model, config)
    return config


def _refuse_remote_code(model: str, config: dict[str, Any]) -> None:
    if config.get("auto_map"):
        raise user_error(
            f"{model!r} asks for remote code ({', '.join(map(str, config['auto_map'].values()))})",
            allowed="architectures that transformers itself has",
            why="loading a model must run no code that came with it",
            remedy="choose another; where transformers has the architecture itself, remove `auto_map` from config.json",
            where="model",
        )


def _check_tokenizer(model: str, path: Path) -> None:
    """transformers makes an empty tokenizer where there is none, and training on unknown tokens looks like training."""
    if not any((path / name).is_file() for name in TOKENIZER_FILES):
        raise user_error(
            f"{model!r} has no tokenizer",
            allowed="one of " + ", ".join(TOKENIZER_FILES),
            why="without it no text can be read, and every word would be the unknown token",
            remedy="save it beside the model with `tokenizer.save_pretrained(folder)`",
            where="model",
        )
    try:
        config = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(config, dict) and isinstance(config.get("auto_map"), dict):
        _refuse_remote_code(model, config)


def _weight_files(model: str, path: Path) -> list[Path]:
    files = sorted(file for file in path.glob("*.safetensors") if file.name not in NOT_BASE_WEIGHTS)
    if files:
        return files
    pickles = sorted(file.name for file in path.iterdir() if file.suffix in PICKLE_SUFFIXES)
    raise user_error(
        f"{model!r} has {'pickle weights only: ' + ', '.join(pickles) if pickles else 'no weights'}",
        allowed="model.safetensors, or model-00001-of-0000N.safetensors with its index",
        why="a pickle can run any code when it is loaded" if pickles else "there is nothing to start from",
        remedy="convert it where it is trusted: `AutoModel.from_pretrained(...).save_pretrained(folder)`",
        where="model",
    )


def read_safetensors_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name to shape, from a safetensors header. Raises `UserError` when it is damaged."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            size = file.stat().st_size
            if length > size - 8:
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(length))
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        if 8 + length + end != size:
            raise ValueError(f"it has {size:,} bytes where its header promises {8 + length + end:,}")
    except (OSError, ValueError, struct.error, KeyError, TypeError) as error:
        raise user_error(
            f"{file} is damaged",
            allowed="a whole safetensors file",
            why=str(error),
            remedy="fetch or save the model again",
            where="model",
        ) from error
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
