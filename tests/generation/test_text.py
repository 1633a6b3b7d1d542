"""Text as it comes: whole characters, no stop strings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_chat import chat_tokenizer

from reglaj.generation.text import TextStream, decode

TOKENIZER = chat_tokenizer()


def sentencepiece():
    """A tokenizer that drops the space before a first word, as Llama's old one does, with bytes for rare letters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁the", "▁card", "s", "a", "b", "c"]
    tokenizer = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def run(ids, stop=(), tokenizer=TOKENIZER):
    stream = TextStream(tokenizer, stop)
    pieces = [stream.push(token) for token in ids]
    pieces.append(stream.finish())
    assert "".join(pieces) == stream.text
    return pieces, stream


@pytest.mark.parametrize("text", ["unde este cardul meu, și când?", "🙂🇷🇴 👩‍👩‍👧 ok", "日本語", "a\n\n b  c"])
def test_never_half_a_character(text):
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    pieces, stream = run(ids)
    assert stream.text == text
    assert all("\ufffd" not in piece for piece in pieces)


@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=30))
def test_pieces_are_the_whole(ids):
    assert run(ids)[1].text == decode(TOKENIZER, ids)


SENTENCEPIECE = sentencepiece()


@given(st.lists(st.sampled_from(["▁", "▁the", "▁card", "s", "a"]) | st.characters(codec="utf-8"), max_size=20))
def test_pieces_are_the_whole_where_a_first_space_is_dropped(pieces):
    known = SENTENCEPIECE.get_vocab()
    ids = [
        token
        for piece in pieces
        for token in ([known[piece]] if piece in known else [1 + byte for byte in piece.encode()])
    ]
    assert run(ids, tokenizer=SENTENCEPIECE)[1].text == decode(SENTENCEPIECE, ids)


@given(st.text("ab", min_size=1, max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_stop_string_is_never_shown(text, stops):
    ids = [token for letter in text for token in TOKENIZER.encode(letter, add_special_tokens=False)]
    stream = TextStream(TOKENIZER, stops)
    shown = ""
    for token in ids:
        shown += stream.push(token)
        if stream.is_stopped:
            break
    shown += stream.finish()
    places = [text.find(stop) for stop in stops if stop in text]
    # What is found first is what is complete first: a longer stop that began before it has not been seen yet.
    assert stream.is_stopped == bool(places)
    assert text.startswith(shown) and not any(stop in shown for stop in stops)
    if not places:
        assert shown == text


def test_what_may_become_a_stop_is_held_back():
    stream = TextStream(TOKENIZER, ["\nUser:"])
    shown = []
    for letter in "hi\nUse it\nUser: no":
        for token in TOKENIZER.encode(letter, add_special_tokens=False):
            shown.append(stream.push(token))
        if stream.is_stopped:
            break
    assert stream.text == "hi\nUse it" and stream.is_stopped
    assert shown[:3] == ["h", "i", ""]
    assert "\nUse " in shown


def test_special_tokens_are_not_text():
    ids = TOKENIZER.encode("ab", add_special_tokens=False)
    assert run([ids[0], 1, *ids[1:]])[1].text == "ab"
