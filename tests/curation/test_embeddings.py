"""Vectors are computed once, kept by content, and never trusted when they are damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reglaj.core.console import Console
from reglaj.curation.embeddings import KeptEmbedder


class _Model:
    """A function of the text alone that counts its calls."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.seen: list[str] = []

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.seen += texts
        return np.array([[len(text) + 1, text.count("a"), self.scale] for text in texts], dtype=np.float32)


class _Said(Console):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def _embedder(folder: Path, model: _Model, fingerprint: str = "one", **keys: int) -> KeptEmbedder:
    return KeptEmbedder(name="tiny", fingerprint=fingerprint, embed=model, folder=folder, **keys)


TEXTS = ["a", "banana", "xyz", "a"]


def test_a_text_costs_one_pass_and_comes_back_bitwise(tmp_path: Path):
    model = _Model()
    first = _embedder(tmp_path, model).unit(TEXTS)
    assert model.seen == ["a", "banana", "xyz"]
    again = _embedder(tmp_path, model).unit(["xyz", "new", "banana"])
    assert model.seen == ["a", "banana", "xyz", "new"]
    assert np.array_equal(again[[0, 2]], first[[2, 1]])
    assert first.dtype == np.float32 and np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-3)
    assert np.array_equal(first[0], first[3])


def test_another_model_has_other_vectors(tmp_path: Path):
    one = _embedder(tmp_path, _Model()).unit(TEXTS)
    other = _embedder(tmp_path, _Model(scale=9.0), fingerprint="two").unit(TEXTS)
    assert not np.allclose(one, other)


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: data[:-1] + b"\x01", lambda data: b""])
def test_a_damaged_shard_is_made_again(tmp_path: Path, damage):
    model = _Model()
    whole = _embedder(tmp_path, model).unit(TEXTS)
    (shard,) = tmp_path.rglob("*.safetensors")
    shard.write_bytes(damage(shard.read_bytes()))
    assert np.array_equal(_embedder(tmp_path, model).unit(TEXTS), whole)
    assert model.seen == 2 * ["a", "banana", "xyz"]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_the_oldest_go_when_there_is_too_much(tmp_path: Path):
    model = _Model()
    _embedder(tmp_path, model).unit(["first"])
    size = next(tmp_path.rglob("*.safetensors")).stat().st_size
    for text in ("second", "third"):
        _embedder(tmp_path, model, most_bytes=2 * size + 10).unit([text])
    model.seen.clear()
    _embedder(tmp_path, model, most_bytes=0).unit(["third", "second", "first"])
    assert model.seen == ["first"]


def test_a_disk_that_refuses_costs_time_and_nothing_else(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    console, model = _Said(), _Model()
    found = _embedder(tmp_path / "file", model).unit(TEXTS, console)
    assert found.shape == (4, 3) and len(console.warnings) == 1


def test_no_texts_are_no_vectors(tmp_path: Path):
    model = _Model()
    assert len(_embedder(tmp_path, model).unit([])) == 0 and model.seen == []
