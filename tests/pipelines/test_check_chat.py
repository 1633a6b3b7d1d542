"""`check` on conversations: the layout it found, what is broken early, and exit 2 where nothing can be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_chat import write_chat_model

from reglaj.core.errors import UserError
from reglaj.pipelines.check import check


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_model(tmp_path_factory.mktemp("chat"))


@pytest.fixture
def recipe(tmp_path: Path, model: Path) -> Callable[..., dict[str, Any]]:
    """A recipe over files of records, by name; columns of a source as `{"name": {...}}`."""

    def make(columns: dict[str, dict[str, str]] | None = None, **files: list[dict[str, Any]]) -> dict[str, Any]:
        sources = []
        for name, records in files.items():
            path = tmp_path / f"{name}.jsonl"
            path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
            sources.append({"path": str(path), "columns": (columns or {}).get(name, {})})
        return {"task": "chat", "model": str(model), "data": {"sources": sources}}

    return make


def turns(*texts: str) -> dict[str, Any]:
    return {"messages": [{"role": "user" if i % 2 == 0 else "assistant", "content": t} for i, t in enumerate(texts)]}


def test_the_layout_of_each_source_is_said(recipe: Callable[..., dict[str, Any]]) -> None:
    pairs = [{"question": f"q {i}", "answer": "yes"} for i in range(30)]
    values = recipe(
        {"pairs": {"prompt": "question", "completion": "answer"}},
        pairs=pairs,
        chats=[turns(f"m {i}", "a" * 100) for i in range(10)],
    )
    found = check(values)
    notes = "\n".join(found["notes"])
    assert "pairs.jsonl: read as prompt_completion (prompt from 'question', completion from 'answer')" in notes
    assert "chats.jsonl: read as messages (messages from 'messages')" in notes
    assert " among " not in notes
    forecast = found["forecast"]
    assert forecast["rows"] == 40 and forecast["rows_are_exact"]
    longer = check(recipe(chats=[turns(f"m {i}", "a" * 1000) for i in range(40)]))
    assert longer["forecast"]["tokens"] > 2 * forecast["tokens"] > 0


def test_broken_turns_are_noted_early(recipe: Callable[..., dict[str, Any]]) -> None:
    bad = [turns("Unde e?", "x", "Alo?"), turns("no answer"), turns("a", "b", "c")]
    notes = check(recipe(chats=[*bad, *(turns(f"m {i}", "b") for i in range(20))]))["notes"]
    found = next(note for note in notes if " among " in note)
    assert "chats.jsonl: 2 broken_turns, 1 no_supervised_token among the first 23 records" in found
    assert "'Unde e?': the last turn (3) is the user's" in found


def test_nothing_to_learn_from_is_a_problem(recipe: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(UserError) as caught:
        check(recipe(chats=[turns(f"m {i}") for i in range(5)]))
    message = str(caught.value)
    assert "none of the first 5 records can be used" in message and caught.value.exit_code == 2
    assert "5 no_supervised_token" in message and "'m 0': no turn is the assistant's" in message


def test_one_bad_source_beside_a_good_one_is_a_remark(recipe: Callable[..., dict[str, Any]]) -> None:
    found = check(recipe(bad=[turns("m")] * 5, good=[turns(f"m {i}", "b") for i in range(20)]))
    assert any("5 no_supervised_token among the first 5 records" in note for note in found["notes"])


def test_columns_that_suit_no_layout_come_with_other_problems(recipe: Callable[..., dict[str, Any]]) -> None:
    values = recipe({"a": {"promt": "q"}}, a=[{"q": "a", "r": "b"}], b=[{"q": "a", "r": "b"}])
    with pytest.raises(UserError) as caught:
        check(values, ["train.epoch=3"])
    message = str(caught.value)
    assert message.count("unknown role 'promt'") == 1 and "did you mean 'prompt'?" in message
    assert "b.jsonl' has the columns q, r, which are those of no layout" in message
    assert "did you mean 'epochs'?" in message


def test_settings_of_labels_are_refused(recipe: Callable[..., dict[str, Any]]) -> None:
    values = recipe(chats=[turns(f"m {i}", "b") for i in range(20)])
    with pytest.raises(UserError) as caught:
        check(values, ["data.min_label_rows=5", "data.exclude_labels=[a]", "data.contradictory_labels=keep"])
    assert [problem.where for problem in caught.value.problems] == [
        "data.contradictory_labels",
        "data.exclude_labels",
        "data.min_label_rows",
    ]
