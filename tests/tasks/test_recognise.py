"""Roles are recognised by names and shapes, with reasons; what is equally good is reported as such."""

from __future__ import annotations

import pytest

from reglaj.data.roles import ColumnRoles
from reglaj.tasks.columns import describe_column
from reglaj.tasks.recognise import candidates, recognise

ROLES = ColumnRoles(inputs=("text",), target="label")
WORDS = ("unde", "este", "cardul", "meu", "nou", "pe", "care", "l-am", "cerut", "acum", "două", "săptămâni")


def texts(count: int) -> list[str]:
    return [f"{WORDS[i % 11]} {WORDS[(i // 11) % 11]} {WORDS[(i + 3) % 11]} numărul {i}" for i in range(count)]


def best(columns: dict[str, list[str]], role: str, **options: bool) -> list[str]:
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    guesses = recognise(ROLES, list(columns), rows, **options)
    taken = [guess.column for guess in candidates(guesses, "text")] if role == "label" else []
    return [guess.column for guess in candidates(guesses, role, without=taken)]


def cycle(values: str, count: int) -> list[str]:
    options = values.split()
    return [options[i % len(options)] for i in range(count)]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("message", "intent"),
        ("mesaj", "etichetă"),
        ("întrebare", "categorie"),
        ("mesajClient", "clasa_finală"),
        ("a", "b"),
        ("Customer Message", "Ticket Category"),
    ],
)
def test_names_and_shapes_are_enough(text, label):
    columns = {text: texts(60), label: cycle("card refund login", 60)}
    assert best(columns, "text") == [text]
    assert best(columns, "label") == [label]


def test_what_describes_a_row_is_not_what_is_learnt():
    columns = {
        "id": [str(i) for i in range(60)],
        "limba": cycle("ro en", 60),
        "date": cycle("2024-01-02 2024-01-03 2024-01-04", 60),
        "url": cycle("https://a.example/1 https://a.example/2", 60),
        "score": cycle("0.5 1.5 2.25", 60),
        "text": texts(60),
        "label": cycle("card refund login", 60),
    }
    assert best(columns, "text") == ["text"]
    assert best(columns, "label") == ["label"]


def test_equally_good_columns_are_all_named():
    columns = {"text_a": texts(60), "text_b": texts(60)[::-1], "x": cycle("a b c", 60), "y2": cycle("d e", 60)}
    assert best(columns, "text") == ["text_a", "text_b"]
    assert best(columns, "label") == ["x", "y2"]


def test_counters_beside_a_class_do_not_win():
    columns = {"votes": cycle("1 2 3", 60), "agree": cycle("0 1", 60), "class": cycle("0 1 2", 60), "tweet": texts(60)}
    assert best(columns, "label") == ["class"]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["same"] * 60, "nothing to tell apart"),
        ([f"value {i}" for i in range(60)], "hardly repeat"),
        (cycle("1.5 2.5 3.5", 60), "decimals"),
        (['["a", "b"]', '["c"]'] * 30, "lists"),
        ([""] * 60, "is empty"),
        (["x" * 150, "y" * 150] * 30, "too long"),
    ],
)
def test_what_cannot_be_a_label_says_why(cells, reason):
    guesses = recognise(ROLES, ["label"], [{"label": cell} for cell in cells])
    guess = next(guess for guess in guesses if guess.role == "label")
    assert guess.score == 0
    assert reason in guess.reason


def test_a_file_sorted_by_label_is_not_refused_for_its_beginning():
    columns = {"text": texts(60), "label": ["card"] * 60}
    assert best(columns, "label") == []
    assert best(columns, "label", is_complete=False) == ["label"]


def test_texts_without_spaces_are_texts():
    facts = describe_column("text", ["我的银行卡还没有到", "请问什么时候可以退款"])
    assert facts.words >= 4


def test_the_explanation_has_the_figures():
    rows = [{"message": text, "intent": label} for text, label in zip(texts(60), cycle("a b c", 60), strict=True)]
    reasons = {(guess.role, guess.column): guess.reason for guess in recognise(ROLES, ["message", "intent"], rows)}
    assert "characters on average, nearly all different" in reasons["text", "message"]
    assert "has 3 different values, each 20 times on average" in reasons["label", "intent"]
