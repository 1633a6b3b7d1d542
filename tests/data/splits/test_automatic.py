"""What `auto` chooses, and what it says about it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from tests.data.tables import public

from reglaj.data.splits.automatic import candidate_columns, choose

ROWS = 600


def column(count: int, form: str = "v{}", seed: int = 0) -> list[str | None]:
    """So many different values in random order."""
    return [form.format(number) for number in np.random.default_rng(seed).integers(0, count, ROWS).tolist()]


def dates(form: str = "2024-{:02}-{:02}") -> list[str | None]:
    return [form.format(i % 12 + 1, i % 28 + 1) for i in range(ROWS)]


@pytest.mark.parametrize(
    "name", ["user_id", "customerId", "Patient", "document", "url", "Thread ID", "source", "sessions"]
)
def test_a_column_that_is_clearly_a_group(name: str) -> None:
    choice = choose({"note": column(500), name: column(100)}, default="stratified")
    assert (choice.kind, choice.group, choice.time) == ("group", name, None)
    assert choice.sentence.startswith(f"split by group: '{name}' has 100 values in 600 rows")


@pytest.mark.parametrize(
    "name, cells, why",
    [
        ("user_id", [str(i) for i in range(ROWS)], "nearly every row has a value of its own"),
        ("source", column(5), "only 5 values"),
        ("user", [*column(100)[:300], *["anonymous"] * 300], "50% of the rows have one value"),
        ("thread", [*column(100)[:500], *[""] * 50, *[None] * 50], "empty in 100 of 600 rows"),
    ],
)
def test_a_column_that_is_only_named_like_a_group(name: str, cells: list[str | None], why: str) -> None:
    choice = choose({name: cells}, default="random")
    assert (choice.kind, choice.group, choice.time) == ("random", None, None)
    assert choice.sentence.endswith(f"; seen and not taken: '{name}' ({why})")


@pytest.mark.parametrize("name", ["score", "text", "id", "category_id", "topic", "language_id"])
def test_repeated_values_alone_make_no_group(name: str) -> None:
    choice = choose({name: column(100)}, default="stratified")
    assert choice.kind == "stratified"
    assert name not in choice.sentence


def test_of_two_groups_the_one_that_keeps_more_together() -> None:
    choice = choose({"session_id": column(200), "user_id": column(60), "date": dates()}, default="random")
    assert choice.group == "user_id"
    assert "'session_id' (18" in choice.sentence or "'session_id' (19" in choice.sentence
    assert "'date' (ISO dates" in choice.sentence and "data.split.kind time" in choice.sentence


@pytest.mark.parametrize(
    "name, form", [("anything", "2024-{:02}-{:02}"), ("Created At", "2024-{:02}-{:02} 10:00"), ("day", "{1}/{0}/2024")]
)
def test_a_column_of_dates(name: str, form: str) -> None:
    choice = choose({"rating": column(5), name: dates(form)}, default="stratified")
    assert (choice.kind, choice.group, choice.time) == ("time", None, name)
    assert f"split by time: '{name}' has" in choice.sentence
    assert "different ones in 600 rows, and validation and test are the latest rows" in choice.sentence


def test_bare_numbers_are_times_only_where_they_are_called_so() -> None:
    seconds = [str(1_700_000_000 + 1000 * i) for i in range(ROWS)]
    assert choose({"timestamp": seconds}, default="random").time == "timestamp"
    assert choose({"views": seconds}, default="random").kind == "random"
    years = [str(1900 + i % 100) for i in range(ROWS)]
    assert choose({"year": years}, default="random").time == "year"
    assert choose({"price": years}, default="random").kind == "random"


@pytest.mark.parametrize(
    "name, cells, why",
    [
        ("date_of_birth", dates(), "its name says that it is not when the row was made"),
        ("date", [*dates()[:570], *["unknown"] * 30], "no readable time in 30 of 600 rows"),
        ("date", ["2024-05-31"] * ROWS, "only 1 different times"),
        ("date", [*dates()[:400], *["2024-05-31"] * 200], "33% of the rows have one time"),
    ],
)
def test_dates_that_are_not_taken(name: str, cells: list[str | None], why: str) -> None:
    choice = choose({name: cells}, default="random")
    assert (choice.kind, choice.time) == ("random", None)
    assert choice.sentence.endswith(f"'{name}' ({why})")


def test_when_a_row_was_made_comes_before_when_it_was_changed() -> None:
    preview = {"updated_at": dates(), "remark": dates(), "created_at": dates()}
    assert choose(preview, default="random").time == "created_at"
    assert candidate_columns(preview) == ["created_at", "updated_at", "remark"]


def test_nothing_to_look_at() -> None:
    for preview in ({}, {"user_id": []}, {"date": [None] * 50, "user": [""] * 50}):
        choice = choose(preview, default="random")
        assert choice.kind == "random"
        assert choice.sentence.startswith("random split: no column says which rows belong together")


def test_public_data() -> None:
    advisories = [json.loads(line) for line in (public("rustsec") / "advisories.jsonl").open(encoding="utf-8")]
    names = ("id", "date", "package", "informational", "cvss")
    preview = {name: [None if row[name] is None else str(row[name]) for row in advisories] for name in names}
    assert choose(preview, default="stratified").time == "date"

    questions = [json.loads(line) for line in (public("medquad") / "qa.jsonl").open(encoding="utf-8")]
    preview = {name: [row[name] for row in questions] for name in ("source", "url", "focus", "type")}
    choice = choose(preview, default="random")
    assert choice.group == "url"
    assert "'source' (only" in choice.sentence

    with (public("banking77") / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert choose({"text": [row["text"] for row in rows]}, default="stratified").kind == "stratified"
