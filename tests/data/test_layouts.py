"""Which layout a source is in: by the roles that are named, else by the columns that are there; never by a guess."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from reglaj.data.formats import CHAT_ROLES
from reglaj.data.layouts import Chosen, choose_layout
from reglaj.data.roles import ColumnRoles

PLAIN = ColumnRoles(inputs=("text",), target="label")


@dataclass
class File:
    columns: list[str]
    notes: list[str] = field(default_factory=list)


def choose(columns: str, roles: ColumnRoles = CHAT_ROLES, *, may_have_more: bool = False, **given: str) -> Chosen:
    found = choose_layout(File(columns.split()), "f.csv", given, roles, where="columns", may_have_more=may_have_more)
    assert isinstance(found, Chosen), found
    return found


def refuse(columns: str, roles: ColumnRoles = CHAT_ROLES, **given: str) -> str:
    found = choose_layout(File(columns.split()), "f.csv", given, roles, where="columns")
    assert isinstance(found, list) and found
    return "\n".join(map(str, found))


@pytest.mark.parametrize(
    ("columns", "given", "layout", "expected"),
    [
        ("prompt completion id", {}, "prompt_completion", {"prompt": "prompt", "completion": "completion"}),
        ("messages label", {}, "messages", {"messages": "messages"}),
        ("conversations tools", {}, "conversations", {"conversations": "conversations", "tools": "tools"}),
        (
            "instruction input output",
            {},
            "alpaca",
            {"instruction": "instruction", "output": "output", "input": "input"},
        ),
        ("q a", {"prompt": "q", "completion": "a"}, "prompt_completion", {"prompt": "q", "completion": "a"}),
        ("prompt answer", {"completion": "answer"}, "prompt_completion", {"prompt": "prompt", "completion": "answer"}),
        ("messages turns", {"conversations": "turns"}, "conversations", {"conversations": "turns"}),
        ("messages prompt completion", {"prompt": "prompt"}, "prompt_completion", None),
        ("messages sys", {"system": "sys"}, "messages", {"messages": "messages", "system": "sys"}),
        ("instruction input response", {"output": "response"}, "alpaca", None),
    ],
)
def test_the_layout_is_found(columns: str, given: dict[str, str], layout: str, expected: dict[str, str] | None) -> None:
    found = choose(columns, **given)
    assert found.layout.name == layout
    assert expected is None or found.columns == expected


def test_nested_and_optional_columns_are_named_as_in_the_file() -> None:
    found = choose("dialog werkzeuge", messages="dialog", tools="werkzeuge")
    assert (found.nested, found.optional) == ({"dialog", "werkzeuge"}, {"werkzeuge"})
    found = choose("instruction output input")
    assert (found.nested, found.optional) == (set(), {"input"})


def test_optional_columns_may_come_later_in_the_file() -> None:
    assert choose("messages", may_have_more=True).columns == {r: r for r in ("messages", "system", "tools")}
    assert choose("messages").columns == {"messages": "messages"}


@pytest.mark.parametrize(
    ("columns", "given", "expected"),
    [
        (
            "messages conversations",
            {},
            ["can be read in 2 ways", "messages (messages)", "columns: {messages: messages}"],
        ),
        ("question answer", {}, ["those of no layout", "alpaca (instruction, output)", "reglaj new FILE"]),
        ("q a", {"prompt": "q", "output": "a"}, ["the roles prompt, output together", "one of these"]),
        ("q a", {"promt": "q"}, ["unknown role 'promt'", "did you mean 'prompt'?"]),
        ("prompt answer", {"prompt": "prompt"}, ["no column 'completion'", "columns: {completion: ...}"]),
        ("messages", {"messages": "mesages"}, ["no column 'mesages'", "did you mean 'messages'?"]),
        ("messages", {"tools": "functions"}, ["no column 'functions'"]),
        ("prompt completion", {"system": "sys"}, ["no column 'sys'"]),
    ],
)
def test_what_is_not_plain_is_refused(columns: str, given: dict[str, str], expected: list[str]) -> None:
    message = refuse(columns, **given)
    assert [words for words in expected if words not in message] == [], message


def test_a_task_without_layouts_has_one() -> None:
    assert choose("label text id", PLAIN).columns == {"text": "text", "label": "label"}
    assert PLAIN.names == PLAIN.source_names == ("text", "label")
    message = refuse("a b", PLAIN)
    assert "no column 'text'" in message and "no column 'label'" in message, "all problems at once"


def test_the_stored_column_is_no_role_of_a_source() -> None:
    assert CHAT_ROLES.names == ("conversation",)
    assert "unknown role 'conversation'" in refuse("conversation", conversation="conversation")
