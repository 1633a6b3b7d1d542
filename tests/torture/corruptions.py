"""Ways in which a checkpoint is spoilt. Each changes what is on disk, and says what it did."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

PAGE = 4096
Corruption = Callable[[Path, Path, random.Random], str]
"""Spoils the newer of two checkpoints: (newer, older, chance) to what was done."""


def _some_file(folder: Path, chance: random.Random) -> Path:
    return chance.choice(sorted(folder.iterdir()))


def flip_bits(newer: Path, older: Path, chance: random.Random) -> str:
    """One to eight bits, anywhere in a file."""
    file = _some_file(newer, chance)
    content = bytearray(file.read_bytes())
    places = chance.sample(range(len(content)), chance.choice([1, 1, 1, 2, 8]))
    for place in places:
        content[place] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    return f"flipped a bit in each of the bytes {places} of {file.name}"


def truncate(newer: Path, older: Path, chance: random.Random) -> str:
    """The end of a file is gone: a byte, a page, or most of it."""
    file = _some_file(newer, chance)
    size = file.stat().st_size
    left = chance.choice([0, size - 1, max(0, size - PAGE), chance.randrange(size)])
    with file.open("r+b") as opened:
        opened.truncate(left)
    return f"cut {file.name} from {size} bytes to {left}"


def zero_pages(newer: Path, older: Path, chance: random.Random) -> str:
    """Pages that never reached the disk: zeros in their place, the size as it was."""
    file = _some_file(newer, chance)
    content = bytearray(file.read_bytes())
    # Of those that hold something else than zeros already.
    full = [start for start in range(0, len(content), PAGE) if any(content[start : start + PAGE])]
    starts = chance.sample(full, min(len(full), chance.randint(1, 3)))
    for start in starts:
        end = min(start + PAGE, len(content))
        content[start:end] = bytes(end - start)
    file.write_bytes(content)
    return f"zeroed the pages at {starts} of {file.name}"


def remove(newer: Path, older: Path, chance: random.Random) -> str:
    """A file is missing."""
    file = _some_file(newer, chance)
    file.unlink()
    return f"removed {file.name}"


def swap(newer: Path, older: Path, chance: random.Random) -> str:
    """A file is that of the checkpoint before, where the two differ."""
    differing = [
        file
        for file in sorted(newer.iterdir())
        if (older / file.name).is_file() and (older / file.name).read_bytes() != file.read_bytes()
    ]
    file = chance.choice(differing)
    shutil.copyfile(older / file.name, file)
    return f"put the older {file.name}"


def stale_manifest(newer: Path, older: Path, chance: random.Random) -> str:
    """The manifest is that of the checkpoint before, sometimes with the files that it lists."""
    for file in older.iterdir():
        if file.name == "manifest.json" or chance.random() < 0.5:
            shutil.copyfile(file, newer / file.name)
    return "put the older manifest.json, and some of the older files"


def append(newer: Path, older: Path, chance: random.Random) -> str:
    """Bytes after the end of a file, zeros or not."""
    file = _some_file(newer, chance)
    more = bytes(chance.choice([1, PAGE])) if chance.random() < 0.5 else chance.randbytes(chance.randint(1, 64))
    with file.open("ab") as opened:
        opened.write(more)
    return f"added {len(more)} bytes to {file.name}"


def empty(newer: Path, older: Path, chance: random.Random) -> str:
    """Only the folder is left."""
    for file in newer.iterdir():
        file.unlink()
    return "removed every file"


def add_file(newer: Path, older: Path, chance: random.Random) -> str:
    """A file that nobody wrote."""
    (newer / "more.safetensors").write_bytes(chance.randbytes(32))
    return "added more.safetensors"


CORRUPTIONS: tuple[Corruption, ...] = (
    *(flip_bits, flip_bits, flip_bits, truncate, truncate, zero_pages, zero_pages),
    *(remove, swap, swap, stale_manifest, append, empty, add_file),
)
"""Drawn from with equal chances: what happens more often stands here more often."""
