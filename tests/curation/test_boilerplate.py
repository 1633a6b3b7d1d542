"""Markup, signs and shared lines are seen; ordinary texts, short ones and other scripts are not taken for them."""

from __future__ import annotations

import numpy as np
import pytest

from reglaj.curation.boilerplate import find_boilerplate, is_markup, is_symbols


@pytest.mark.parametrize(
    "text",
    ["<div class='a'><p>Hello</p></div>", "<td>1</td><td>2</td>", "&nbsp;&nbsp;&#8220;hi&#8221;", "<!-- note -->"],
)
def test_markup_is_seen(text: str):
    assert is_markup(text)


@pytest.mark.parametrize(
    "text",
    [
        "if a < b and b > c then stop",
        "Why is x <3 and you &me?",
        "",
        "The <b>new</b> card has not arrived in two weeks",
    ],
)
def test_texts_with_a_sign_or_a_tag_are_not_markup(text: str):
    assert not is_markup(text)


@pytest.mark.parametrize(
    "text", ["-----=====-----", "https://example.org/a/b", "!!! ??? ...", "a@b.example  www.x.org", "| - | - |"]
)
def test_signs_and_addresses_are_seen(text: str):
    assert is_symbols(text)


@pytest.mark.parametrize(
    "text", ["ok", "5 + 7 = 12", "C++ or C#?", "日本語", "مرحبا", "see https://example.org for it"]
)
def test_short_texts_and_other_scripts_are_not_signs(text: str):
    assert not is_symbols(text)


def test_lines_that_many_texts_share_are_boilerplate_where_nothing_else_is_said():
    footer = "This message is confidential.\nPlease do not print this e-mail."
    own = [f"My card number {i} is lost, what shall I do now?\n{footer}" for i in range(8)]
    found = find_boilerplate([*own, footer, "My card is lost"])
    assert np.flatnonzero(found.kinds["repeated_lines"]).tolist() == [8]
    assert ("this message is confidential.", 9) in found.lines


def test_templates_are_named_and_drop_no_row():
    texts = [f"Below is an instruction that describes task {i}" for i in range(40)]
    found = find_boilerplate(texts)
    assert found.starts == [("below is an instruction that describes", 40)]
    assert not found.rows.any()


def test_no_texts_are_no_boilerplate():
    assert find_boilerplate([]).rows.tolist() == []


def test_long_runs_without_a_space_cost_no_more_than_their_length():
    import time

    began = time.perf_counter()
    for piece in ("a", "<a", "a.", "&a", "<!--", "a@a.a", "http://"):
        find_boilerplate([piece * (200_000 // len(piece))])
    assert time.perf_counter() - began < 20  # seconds; their squares would be minutes each
