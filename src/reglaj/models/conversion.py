"""A GGUF file made into a folder that plain transformers opens: float32 safetensors, config, tokenizer, chat template.

transformers reads GGUF itself (`gguf_file=`), with four gaps that are closed here: it skips the rule by which the
tokenizer cuts a text before merging, it keeps a quantisation config that forbids saving, it takes the file's title
for the model's path, and it writes its own version into each config, which would give one model many fingerprints.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import environment_fault
from reglaj.core.files import write_json

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

_NOT_OF_THE_MODEL = ("_name_or_path", "_model_name_or_path", "transformers_version", "_from_model_config")


def convert_gguf(file: Path, folder: Path, console: Console = SILENT) -> None:
    """Write the model in `file` into `folder`; the same file gives the same bytes.

    Needs about twice the memory of the float32 weights. Raises `EnvironmentFault` when the installed libraries
    cannot read it.
    """
    try:
        # transformers draws bars of its own; ours says as much in one line.
        with (
            contextlib.redirect_stderr(io.StringIO()),
            console.progress("converting to safetensors", 2, "parts") as done,
        ):
            context = _write_model(file, folder)
            done(1)
            _write_tokenizer(file, folder, context)
            done(1)
    except (ImportError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise environment_fault(
            f"cannot convert {file.name}",
            allowed="a GGUF file that the installed transformers and gguf can read",
            why=f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else 'no reason given'}",
            remedy="install the versions of constraints.txt, then run the same command",
        ) from error
    for name in ("config.json", "generation_config.json"):
        path = folder / name
        content = json.loads(path.read_text(encoding="utf-8"))
        write_json(path, {key: value for key, value in content.items() if key not in _NOT_OF_THE_MODEL})
    # safetensors makes its files readable by their owner alone; a cache may be shared.
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)


def _write_model(file: Path, folder: Path) -> int:
    """Weights and configs; returns the context in tokens."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, local_files_only=True
    )
    # The weights are no longer quantised, and a model that says they are is not saved.
    del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    return int(model.config.max_position_embeddings)


def _write_tokenizer(file: Path, folder: Path, context: int) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    read = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    backend = read.backend_tokenizer
    backend.pre_tokenizer = _pre_tokenizer(file)
    special = {key: getattr(read, key) for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
    written = PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=context, clean_up_tokenization_spaces=False, **special
    )
    written.chat_template = read.chat_template
    written.save_pretrained(folder)


def _pre_tokenizer(file: Path) -> PreTokenizer:
    """How texts are cut before merging, by the name that the file gives (`tokenizer.ggml.pre`)."""
    from gguf import GGUFReader

    name = GGUFReader(file).fields["tokenizer.ggml.pre"].contents()
    if name not in _PRE_TOKENIZERS:
        raise ValueError(f"the tokenizer's rule {name!r} is not known here")
    return _PRE_TOKENIZERS[name]()


def _smollm() -> PreTokenizer:
    """Every digit by itself, then GPT-2's rule. By the latter alone "a  2" would be cut between its two spaces."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])


_PRE_TOKENIZERS: dict[str, Callable[[], PreTokenizer]] = {"smollm": _smollm}
