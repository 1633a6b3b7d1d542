"""Promise 9: loading runs no code. Every file of the model and of the checkpoints is read as what it claims to be."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reglaj.models.inspect import TOKENIZER_FILES
from reglaj.pipelines.verify.subject import Subject
from reglaj.pipelines.verify.verdicts import Finding, concluded, counted

_TEXTS = (".jinja", ".txt", ".md")
_DOCUMENTS = (".json", ".jsonl")
_CODE_KEYS = ("auto_map", "trust_remote_code", "custom_pipelines")
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
"""How pickles begin, and the archives that torch.save makes of them."""


def runs_no_code(subject: Subject) -> Finding:
    """Only safetensors, JSON, templates and texts, and no key that names code."""
    from reglaj.training.checkpoints import list_checkpoints

    # What was set aside as damaged is nothing that would be loaded, and may hold anything.
    folders = [subject.model, *list_checkpoints(subject.path / "checkpoints")]
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
    problems = []
    kinds: Counter[str] = Counter()
    for file in files:
        name = str(file.relative_to(subject.path))
        problems += [f"{name} {problem}" for problem in _problems(file)]
        kinds[file.suffix.lstrip(".")] += 1
    shown = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return concluded(problems, f"{counted(len(files), 'file')} ({shown}), each read as such; no auto_map, no pickle")


def _problems(file: Path) -> Iterator[str]:
    """What speaks against a file, in the second half of a sentence."""
    with file.open("rb") as opened:
        beginning = opened.read(8)
    if beginning.startswith(_PICKLES):
        yield "holds a pickle or an archive"
    elif file.suffix == ".safetensors":
        if not _is_safetensors(file, beginning):
            yield "is no safetensors file"
    elif file.suffix in _DOCUMENTS + _TEXTS:
        yield from _in_text(file)
    elif file.name not in TOKENIZER_FILES:
        yield "is neither safetensors, JSON, template nor text"


def _is_safetensors(file: Path, beginning: bytes) -> bool:
    """Whether it begins with the length of a table of contents, and that table."""
    if len(beginning) < 8:
        return False
    (length,) = struct.unpack("<Q", beginning)
    if length > file.stat().st_size - 8:
        return False
    with file.open("rb") as opened:
        opened.seek(8)
        try:
            return isinstance(json.loads(opened.read(length)), dict)
        except ValueError:
            return False


def _in_text(file: Path) -> Iterator[str]:
    try:
        text = file.read_text(encoding="utf-8")
        documents = {".json": lambda: [json.loads(text)], ".jsonl": lambda: list(map(json.loads, text.splitlines()))}
        read = documents[file.suffix]() if file.suffix in documents else []
    except ValueError:
        yield f"is not the {'JSON' if file.suffix in _DOCUMENTS else 'text'} that its name says"
        return
    if "\0" in text:
        yield "is no text"
    # Whole vocabularies are in tokenizer.json, where a word may be called anything.
    if file.name != "tokenizer.json":
        yield from (f"has the key {key!r}, which names code" for key in sorted(_code_keys(read)))


def _code_keys(value: Any) -> set[str]:
    if isinstance(value, list):
        return {key for inner in value for key in _code_keys(inner)}
    if isinstance(value, dict):
        named = {key for key in _CODE_KEYS if value.get(key)}
        return named | {key for inner in value.values() for key in _code_keys(inner)}
    return set()
