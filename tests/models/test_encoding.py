"""Texts to ids: the backend asked directly gives what a call of the tokenizer gives, in less time."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import WORDS, write_tokenizer
from tests.tiny_chat import chat_tokenizer
from transformers import AutoTokenizer

from reglaj.models import encoding
from reglaj.models.encoding import encode_texts

PLAIN = {"return_attention_mask": False, "return_token_type_ids": False}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """With special tokens around a text, without, byte-level, and one that cuts at the beginning."""
    made = {}
    for name, closing in (("encoder", True), ("bare", False)):
        folder = tmp_path_factory.mktemp(name)
        write_tokenizer(folder, closing=closing)
        made[name] = AutoTokenizer.from_pretrained(folder)
    made["bytes"] = chat_tokenizer()
    made["left"] = AutoTokenizer.from_pretrained(folder.parent / folder.name)
    made["left"].truncation_side = "left"
    return made


def called(tokenizer: Any, texts: list[str], max_tokens: int) -> tuple[list[list[int]], list[int]]:
    """The plain way: every text by itself, whole to see whether it is too long, and cut."""
    rows, cut = [], []
    for place, text in enumerate(texts):
        if len(tokenizer(text, **PLAIN)["input_ids"]) > max_tokens:
            cut.append(place)
        row = tokenizer(text, truncation=True, max_length=max_tokens, **PLAIN)["input_ids"]
        rows.append(row or [tokenizer.eos_token_id])
    return rows, cut


TEXTS = st.lists(
    st.text(max_size=30)
    | st.lists(st.sampled_from([*WORDS, "[SEP]", "<|im_end|>", "qu1te?"]), max_size=20).map(" ".join),
    max_size=12,
)


@pytest.mark.parametrize("name", ["encoder", "bare", "bytes", "left"])
@pytest.mark.parametrize("max_tokens", [3, 7, 64])
@given(texts=TEXTS)
@settings(max_examples=25)
def test_ids_are_those_of_a_call(tokenizers: dict[str, Any], name: str, max_tokens: int, texts: list[str]) -> None:
    rows, cut = encode_texts(tokenizers[name], texts, max_tokens)
    expected, too_long = called(tokenizers[name], texts, max_tokens)
    assert [row.tolist() for row in rows] == expected
    assert cut == too_long


def test_a_tokenizer_with_ways_of_its_own_is_called(tokenizers: dict[str, Any], tmp_path: Path) -> None:
    plain = tokenizers["encoder"]

    class Shouting(type(plain)):  # type: ignore[misc]
        def __call__(self, text: Any, *args: Any, **more: Any) -> Any:
            return super().__call__([one.replace("card", "bank") for one in text], *args, **more)

    plain.save_pretrained(tmp_path)
    texts = ["my card is lost", "card " * 40, ""]
    rows, cut = encode_texts(Shouting.from_pretrained(tmp_path), texts, 8)
    expected, _ = encode_texts(plain, [text.replace("card", "bank") for text in texts], 8)
    assert [row.tolist() for row in rows] == [row.tolist() for row in expected]
    assert cut == [1]


def test_many_texts_go_in_pieces(tokenizers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(0)
    texts = [" ".join(chance.choices(WORDS, k=chance.randrange(12))) for _ in range(300)]
    whole, cut = encode_texts(tokenizers["encoder"], texts, 10)
    for name, size in (("CHUNK_TEXTS", 7), ("CHUNK_CHARACTERS", 50)):
        monkeypatch.setattr(encoding, name, size)
        rows, places = encode_texts(tokenizers["encoder"], texts, 10)
        assert (rows.flat == whole.flat).all() and (rows.starts == whole.starts).all()
        assert places == cut and len(cut) > 20


@pytest.mark.parametrize("before", [None, 5])
def test_the_tokenizer_is_left_as_it_was(tokenizers: dict[str, Any], before: int | None) -> None:
    backend = tokenizers["encoder"].backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    if before:
        backend.enable_truncation(before)
        backend.enable_padding(length=9)
    contents = backend.to_str()
    encode_texts(tokenizers["encoder"], ["my card is lost and late"], 4)
    assert backend.to_str() == contents
    with pytest.raises(TypeError):
        encode_texts(tokenizers["encoder"], [None], 4)  # type: ignore[list-item]
    assert backend.to_str() == contents


def test_no_texts(tokenizers: dict[str, Any]) -> None:
    rows, cut = encode_texts(tokenizers["bytes"], [], 8)
    assert len(rows) == 0 and cut == []
    assert rows.flat.dtype == "int32" and rows.lengths.tolist() == []


def test_the_real_ones(tiny_model: Callable[[str], Path]) -> None:
    """Every architecture of the tests, with texts that are cut and texts that are not."""
    for family in ("bert", "llama"):
        tokenizer = AutoTokenizer.from_pretrained(tiny_model(family))
        texts = [" ".join(WORDS[:size]) for size in range(20)]
        rows, cut = encode_texts(tokenizer, texts, 9)
        expected, too_long = called(tokenizer, texts, 9)
        assert [row.tolist() for row in rows] == expected and cut == too_long
