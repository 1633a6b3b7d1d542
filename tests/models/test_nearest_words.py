"""Nearest words against a plain search over the whole table, and what their texts look like."""

from __future__ import annotations

import json

import pytest
import torch
from tests.tiny import write_tokenizer
from tests.tiny_chat import chat_tokenizer
from tokenizers import decoders
from transformers import AutoTokenizer

from reglaj.models import nearest_words as module
from reglaj.models.nearest_words import nearest_words, prompt_facts, word_text


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces")
    write_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.decoder = decoders.WordPiece()  # as BERT's own file has it
    return tokenizer


@pytest.fixture(scope="module")
def bytes_():
    return chat_tokenizer()


def tables(seed=0, words=340, width=16, count=7):
    torch.manual_seed(seed)
    return torch.randn(count, width), torch.randn(words, width)


@pytest.mark.parametrize("chunk", [3, 100, 10_000])
def test_equals_a_plain_search(bytes_, monkeypatch, chunk):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    ours, table = tables(words=len(bytes_))
    found = nearest_words(ours, table, bytes_, 4)
    assert [len(words) for words in found] == [4] * 7
    for vector, words in zip(ours, found, strict=True):
        cosines = torch.nn.functional.cosine_similarity(vector[None], table)
        expected = sorted(range(len(table)), key=lambda i: -cosines[i].item())[:4]
        assert [word.token for word in words] == expected
        for word in words:
            assert word.cosine == pytest.approx(cosines[word.token].item(), abs=1e-5)
            assert word.distance == pytest.approx((vector - table[word.token]).norm().item(), abs=1e-4)
            assert word.text == word_text(bytes_, word.token)


@pytest.mark.parametrize("chunk", [3, 10_000])
def test_of_equal_words_the_first_comes_first(bytes_, monkeypatch, chunk):
    """Rows that nobody trained are often equal."""
    monkeypatch.setattr(module, "_CHUNK", chunk)
    table = torch.ones(len(bytes_), 8)
    (words,) = nearest_words(torch.ones(1, 8), table, bytes_, 5)
    assert [word.token for word in words] == [0, 1, 2, 3, 4]


def test_rows_without_a_word_are_left_out(bytes_):
    ours, table = tables(words=len(bytes_) + 50)
    table[len(bytes_) :] = ours[0]  # nothing would be nearer
    assert all(word.token < len(bytes_) for words in nearest_words(ours, table, bytes_) for word in words)
    (few,) = nearest_words(ours[:1], table, bytes_, 10_000)
    assert len(few) == len(bytes_)


def test_half_precision_and_rows_of_nothing(bytes_):
    ours, table = tables(words=len(bytes_))
    table[0] = 0
    found = nearest_words(ours.bfloat16(), table.bfloat16(), bytes_)
    assert [words[0].token for words in found] == [words[0].token for words in nearest_words(ours, table, bytes_)]
    assert all(word.cosine == 0 for word in nearest_words(torch.zeros(1, 16), table, bytes_)[0])


def test_texts_of_pieces(pieces):
    """WordPiece marks what goes on with a word; a reader sees an ellipsis."""

    def text(piece):
        return word_text(pieces, pieces.convert_tokens_to_ids(piece))

    assert text("card") == "card"
    assert text("##b") == "…b"
    assert text("[CLS]") == "[CLS]"


def test_texts_of_bytes(bytes_):
    """Byte-level BPE marks what begins a word, and cuts characters."""

    def text(token):
        return word_text(bytes_, bytes_.convert_tokens_to_ids(token))

    assert text("Ġcard") == "card"
    assert text("a") == "…a"
    assert text("<|im_end|>") == "<|im_end|>"
    assert text("Ċ") == repr("\n")
    assert text("Ġ") == repr(" ")
    assert text("È") == "È", "half a character has no text"
    assert text(",") == ","
    texts = [word_text(bytes_, token) for token in range(len(bytes_))]
    assert all(text and text.isprintable() for text in texts)


def test_facts_are_json_and_tell_meaning_from_chance(bytes_):
    ours, table = tables(words=len(bytes_))
    ours[0] = 3 * table[42]
    facts = prompt_facts(ours, table, bytes_, 3)
    assert json.loads(json.dumps(facts)) == facts
    assert facts == prompt_facts(ours, table, bytes_, 3)
    first = facts["virtual_tokens"][0]
    assert first["words"][0]["token"] == 42 and first["words"][0]["cosine"] == pytest.approx(1, abs=1e-5)
    assert first["norm"] == pytest.approx(3 * table[42].norm().item(), rel=1e-5)
    assert facts["word_norm"] == pytest.approx(table.norm(dim=-1).mean().item(), rel=1e-5)
    others = [token["words"][0]["cosine"] for token in facts["virtual_tokens"][1:]]
    assert sum(others) / len(others) == pytest.approx(facts["random_cosine"], abs=0.1), "these were drawn at random"
    clustered = torch.cat([table, table + 0.01 * torch.randn_like(table)])[: len(bytes_)]
    clustered[::2] = clustered[1::2][: len(clustered[::2])] + 0.01
    assert prompt_facts(ours, clustered, bytes_)["neighbour_cosine"] > 0.9 > facts["neighbour_cosine"]
