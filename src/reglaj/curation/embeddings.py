"""Embeddings of texts, computed once and kept by content: a text that was seen before costs no pass of the model.

On disk: a folder per model, and in it shards, each a safetensors file of digests and vectors with the digest of its own
bytes in its name. A shard is whole or it is thrown away and its texts are embedded again. The oldest go when the folder
grows beyond its limit. Legend: N texts, D width.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import EnvironmentFault
from reglaj.core.files import disk_faults, write_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

FORMAT = 1
MOST_BYTES = 2_000_000_000
_DIGEST_BYTES = 16
_ABANDONED_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """A frozen model as a function. name: how a person calls it. fingerprint: everything that decides its vectors.

    embed: N texts to (N, D) float32 of any length.
    """

    name: str
    fingerprint: str
    embed: Callable[[list[str]], Vectors]

    def unit(self, texts: Sequence[str], console: Console = SILENT) -> Vectors:
        """(N, D) float32 of length 1 each, rounded to 16 bits: what is kept is then what is computed."""
        import numpy as np

        vectors = np.asarray(self.embed(list(texts)), dtype=np.float32)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.maximum(length, 1e-12)).astype(np.float16).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class KeptEmbedder(Embedder):
    """An embedder that asks its folder first. A disk that refuses costs time, never the result."""

    folder: Path
    most_bytes: int = MOST_BYTES

    def unit(self, texts: Sequence[str], console: Console = SILENT) -> Vectors:
        import numpy as np

        digests = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts]
        wanted = dict.fromkeys(digests)
        found = {key: row for key, row in self._kept() if key in wanted}
        first = {key: place for place, key in reversed(list(enumerate(digests)))}
        missing = [first[key] for key in wanted if key not in found]
        if missing:
            vectors = super().unit([texts[place] for place in missing])
            found |= {digests[place]: vector for place, vector in zip(missing, vectors, strict=True)}
            self._keep([digests[place] for place in missing], vectors, console)
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        return np.stack([found[key] for key in digests]).astype(np.float32)

    @property
    def _store(self) -> Path:
        return self.folder / hashlib.sha256(f"{FORMAT}:{self.fingerprint}".encode()).hexdigest()[:32]

    def _kept(self) -> Iterator[tuple[bytes, Any]]:
        """Digest and vector of every text of the shards that are whole; the others are removed."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        for path in sorted(self._store.glob("*.safetensors")):
            try:
                data = path.read_bytes()
                if _name(data) != path.name:
                    raise ValueError("its bytes are not those that were written")
                tensors = load(data)
                digests, vectors = tensors["digests"], tensors["vectors"]
            except (OSError, ValueError, KeyError, SafetensorError):
                with contextlib.suppress(OSError):  # a store that is read-only: then it is passed over each time
                    path.unlink(missing_ok=True)
                continue
            yield from zip((row.tobytes() for row in digests), vectors, strict=True)

    def _keep(self, digests: list[bytes], vectors: Vectors, console: Console) -> None:
        import numpy as np
        from safetensors.numpy import save

        rows = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, _DIGEST_BYTES)
        data = save({"digests": rows, "vectors": vectors.astype(np.float16)})
        try:
            with disk_faults(self._store):
                self._store.mkdir(parents=True, exist_ok=True)
                self._sweep()
                self._make_room(len(data))
            if len(data) <= self.most_bytes:
                write_bytes(self._store / _name(data), data)
        except EnvironmentFault as fault:
            console.warn(f"embeddings are not kept: {fault.problems[0].given} ({fault.problems[0].why})")

    def _sweep(self) -> None:
        """Remove what killed writers left; living ones may be at work in a store that processes share."""
        for left in self._store.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _ABANDONED_S:
                    left.unlink()

    def _make_room(self, size: int) -> None:
        """Remove the oldest shards of all models until `size` more bytes are within the limit."""
        shards = sorted((path.stat().st_mtime_ns, path) for path in self.folder.glob("*/*.safetensors"))
        total = sum(path.stat().st_size for _, path in shards) + size
        for _, path in shards:
            if total <= self.most_bytes:
                return
            total -= path.stat().st_size
            path.unlink(missing_ok=True)


def _name(data: bytes) -> str:
    return f"{hashlib.sha256(data).hexdigest()[:32]}.safetensors"
