"""Tokens are kept by content: the same texts, tokenizer and limit are not tokenised twice.

A store lies beside the runs; inside `keeping_tokens` what is encoded is looked up there first. On disk a set is a
folder with `tokens.safetensors` and a manifest with the digest of its bytes: what is damaged is thrown away and made
anew. A disk that refuses costs time, never the result.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import EnvironmentFault
from reglaj.core.files import canonical_hash, disk_faults, new_folder, write_bytes, write_json
from reglaj.core.kept_sets import MANIFEST, is_too_much, make_room, sweep_sets, throw_away
from reglaj.models.encoding import TokenRows, encode_texts

FORMAT = 1
FILE = "tokens.safetensors"
MOST_BYTES = 2_000_000_000
LEAST_CHARACTERS = 100_000
"""Shorter texts are tokenised in less time than a set takes to be written safely."""

Arrays = dict[str, NDArray[Any]]


class _DamagedError(Exception):
    """A set that does not hold what was asked for; the text says why."""


@dataclass(frozen=True, kw_only=True)
class TokenStore:
    """folder: where the sets lie. data_key: of the data that the texts are of, with which the sets go."""

    folder: Path
    data_key: str
    console: Console = SILENT
    most_bytes: int = MOST_BYTES
    _known: dict[int, str] = field(default_factory=dict)

    def arrays(self, facts: Mapping[str, Any], texts: Sequence[str], make: Callable[[], Arrays]) -> Arrays:
        """What `make` gives for the texts, or what it gave before. facts: all else that decides it, as JSON."""
        if sum(map(len, texts)) < LEAST_CHARACTERS:
            return make()
        key = canonical_hash({"format": FORMAT, **facts, "texts": digest_of(texts)})[:32]
        found = self._found(key)
        if found is None:
            found = make()
            self._keep(key, found)
        return found

    def fingerprint(self, tokenizer: Any) -> str:
        """`fingerprint_of`, worked out once for each tokenizer."""
        if id(tokenizer) not in self._known:
            self._known[id(tokenizer)] = fingerprint_of(tokenizer)
        return self._known[id(tokenizer)]

    def _found(self, key: str) -> Arrays | None:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        folder = self.folder / key
        if not folder.exists() and not folder.is_symlink():
            return None
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            data = (folder / FILE).read_bytes()
            if manifest["key"] != key or manifest["sha256"] != hashlib.sha256(data).hexdigest():
                raise _DamagedError("its bytes are not those that were written")
            arrays = load(data)
            with contextlib.suppress(OSError):
                (folder / MANIFEST).touch()  # used just now: others go first when room is needed
            return arrays
        except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError, _DamagedError) as error:
            self.console.warn(f"kept tokens in {folder} are thrown away and made anew: {error}")
            with contextlib.suppress(EnvironmentFault), disk_faults(folder):
                throw_away(folder)
            return None

    def _keep(self, key: str, arrays: Arrays) -> None:
        from safetensors.numpy import save

        size = sum(array.nbytes for array in arrays.values())
        try:
            sweep_sets(self.folder)
            if size > self.most_bytes or is_too_much(self.folder, size):
                return
            make_room(self.folder, size, self.most_bytes, {key})
            data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
            with new_folder(self.folder / key) as temporary:
                write_bytes(temporary / FILE, data)
                facts = {"format": FORMAT, "key": key, "data_key": self.data_key}
                write_json(temporary / MANIFEST, {**facts, "sha256": hashlib.sha256(data).hexdigest()})
        except EnvironmentFault as fault:
            self.console.warn(f"tokens are not kept: {fault.problems[0].given} ({fault.problems[0].why})")


_STORE: ContextVar[TokenStore | None] = ContextVar("reglaj_token_store", default=None)


@contextlib.contextmanager
def keeping_tokens(store: TokenStore) -> Iterator[None]:
    """Inside the block, what is encoded is looked up in the store and kept there."""
    before = _STORE.set(store)
    try:
        yield
    finally:
        _STORE.reset(before)


def encode_kept(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> tuple[TokenRows, list[int]]:
    """`encode_texts`, through the store inside `keeping_tokens`."""
    store = _STORE.get()
    if store is None:
        return encode_texts(tokenizer, texts, max_tokens)

    def make() -> Arrays:
        rows, cut = encode_texts(tokenizer, texts, max_tokens)
        return {"flat": rows.flat, "starts": rows.starts, "cut": np.array(cut, dtype=np.int64)}

    facts = {"kind": "texts", "tokenizer": store.fingerprint(tokenizer), "max_tokens": max_tokens}
    arrays = store.arrays(facts, texts, make)
    return TokenRows(arrays["flat"], arrays["starts"]), arrays["cut"].tolist()


def kept_arrays(facts: Callable[[], Mapping[str, Any]], texts: Sequence[str], make: Callable[[], Arrays]) -> Arrays:
    """Arrays that texts are turned into in another way, through the store inside `keeping_tokens`.

    facts: everything but the texts that decides the arrays; asked for only where there is a store.
    """
    store = _STORE.get()
    return make() if store is None else store.arrays(facts(), texts, make)


def digest_of(texts: Iterable[str]) -> str:
    """BLAKE2b over texts and their lengths; ("ab", "c") and ("a", "bc") differ."""
    digest = hashlib.blake2b(digest_size=32)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def fingerprint_of(tokenizer: Any) -> str:
    """SHA-256 over everything that decides the tokens of a text: the whole tokenizer, and the versions that run it."""
    import tokenizers
    import transformers

    from reglaj.models.encoding import untruncated

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if isinstance(backend, tokenizers.Tokenizer):
        with untruncated(backend):
            contents = backend.to_str()
    else:  # one that is written in Python
        contents = json.dumps([tokenizer.get_vocab(), sorted(tokenizer.init_kwargs.items(), key=str)], default=str)
    asks = [type(tokenizer).__qualname__, tokenizer.truncation_side, tokenizer.eos_token_id, tokenizer.unk_token_id]
    asks += [tokenizer.split_special_tokens, transformers.__version__, tokenizers.__version__]
    return hashlib.sha256(json.dumps([contents, asks], default=str).encode("utf-8", "surrogatepass")).hexdigest()
