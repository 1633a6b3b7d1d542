"""Records that take a shaper: layouts per source, its refusals in the ledger, groups, examples, and the key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.tables import rejects

from reglaj.core.console import SILENT
from reglaj.core.errors import UserError
from reglaj.data.config import DataConfig
from reglaj.data.conversation import BrokenRecord, Conversation
from reglaj.data.examples import PreparedData
from reglaj.data.folding import fold
from reglaj.data.formats import CHAT_ROLES, num_characters, read_conversation
from reglaj.data.prepare import prepare
from reglaj.data.roles import Layout
from reglaj.data.shaping import Shaped, Shaper
from reglaj.data.splits.base import PARTS


class Words(Shaper):
    """Counts words where the real one counts tokens: three examples of what has over ten, refuses what has over 20."""

    def __init__(self, version: int = 1) -> None:
        self.version = version
        self.records = 0

    def identity(self) -> Mapping[str, Any]:
        return {"version": self.version}

    def shape(self, layout: Layout, cells: Mapping[str, str | None]) -> Shaped:
        conversation = read_conversation(layout, cells)
        words = len(conversation.last_answer.split())
        if words > 20:
            raise BrokenRecord("too_long", f"{words} words")
        self.records += 1
        return Shaped(
            (conversation.to_json(),),
            conversation.questions,
            examples=3 if words > 10 else 1,
            characters=num_characters(conversation),
        )

    def remarks(self) -> tuple[dict[str, Any], list[str]]:
        return {"records": self.records}, [f"{self.records} were shaped"]


def prepare_chat(
    folder: Path, *sources: str | dict[str, Any], shaper: Shaper | None = None, **section: Any
) -> PreparedData:
    listed = [source if isinstance(source, dict) else {"path": source} for source in sources]
    return prepare(
        DataConfig.model_validate({"sources": listed} | section),
        CHAT_ROLES,
        folder=folder,
        store=folder / ".data",
        task="chat",
        default_split="random",
        resolve_starter=Path,
        console=SILENT,
        shaper=shaper or Words(),
    )


def write_lines(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path.name


def pairs(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(start, start + count)]


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(texts)]


def conversations(data: PreparedData, part: str) -> list[Conversation]:
    return [
        Conversation.from_json(text)
        for text in pq.read_table(data.folder / f"{part}.parquet")["conversation"].to_pylist()
    ]


def test_every_layout_in_one_recipe(tmp_path: Path) -> None:
    write_lines(tmp_path / "one.jsonl", pairs(10))
    write_lines(tmp_path / "two.jsonl", [{"messages": turns(f"m {i}", "b")} for i in range(10)])
    (tmp_path / "three.json").write_text(
        json.dumps([{"instruction": f"i {i}", "input": "x", "output": "b"} for i in range(10)]), encoding="utf-8"
    )
    values = [[{"from": "human", "value": f"c {i}"}, {"from": "gpt", "value": "b"}] for i in range(10)]
    pq.write_table(pa.table({"dialog": values, "tools": ["[]"] * 10}), tmp_path / "four.parquet")
    rows = "".join(f'"f {i}",b\n' for i in range(10))
    (tmp_path / "five.csv").write_text("question,answer\n" + rows, encoding="utf-8")
    data = prepare_chat(
        tmp_path,
        "one.jsonl",
        "two.jsonl",
        "three.json",
        {"path": "four.parquet", "columns": {"messages": "dialog"}},
        {"path": "five.csv", "columns": {"prompt": "question", "completion": "answer"}},
    )
    report = data.report
    assert [source["layout"] for source in report["sources"]] == [
        "prompt_completion",
        "messages",
        "alpaca",
        "messages",
        "prompt_completion",
    ]
    assert report["sources"][2]["columns"] == ["instruction", "output", "input"]
    assert (report["read"], report["train"], report["validation"], report["test"]) == (50, 40, 5, 5)
    questions = {one.questions[0] for part in PARTS for one in conversations(data, part)}
    assert {"question 3", "m 3", "i 3\n\nx", "c 3", "f 3"} <= questions and len(questions) == 50
    assert report["split"]["kind"] == "random" and report["labels"] == {}


def test_refusals_are_buckets_with_line_reason_and_beginning(tmp_path: Path) -> None:
    bad = [
        {"messages": turns("too much", "word " * 21)},
        {"messages": turns("no answer")},
        {"messages": turns("one", "two", "three")},
        {"messages": [{"role": "usr", "content": "Cine?"}]},
        {"messages": turns(" ", "b")},
        {"messages": 7},
        {"text": "another file's record"},
        {"messages": [{"role": "user", "content": "\ud83d"}]},
        {"messages": turns("twice", "b")},
        {"messages": turns("twice", "b")},
    ]
    name = write_lines(tmp_path / "a.jsonl", [{"messages": turns(f"m {i}", "b")} for i in range(10)] + bad)
    data = prepare_chat(tmp_path, name)
    found = {row["line"] - 10: (row["bucket"], row["text"]) for row in rejects(data)}
    assert found == {
        1: ("too_long", "too much"),
        2: ("no_supervised_token", "no answer"),
        3: ("broken_turns", "one"),
        4: ("broken_turns", '[{"role":"usr","content":"Cine?"}]'),
        5: ("empty_text", " "),
        6: ("broken_turns", "7"),
        7: ("ragged", '{"text": "another file\'s record"}'),
        8: ("unreadable", '{"messages": [{"role": "user", "content": "\\ud83d"}]}'),
        10: ("exact_duplicate", "twice"),
    }
    reasons = {row["bucket"]: row["reason"] for row in rejects(data)}
    assert reasons["too_long"] == "21 words"
    report = data.report
    kept = sum(report[part] for part in PARTS)
    assert report["read"] == 20 == kept + sum(report["dropped"].values())
    records = pq.read_table(data.folder / "records.parquet").to_pylist()
    assert len(records) == 20 and sum(record["reason"] is not None for record in records) == 9


def test_a_record_may_give_several_examples(tmp_path: Path) -> None:
    long = {"prompt": "long", "completion": " ".join("abcdefghijkl")}
    data = prepare_chat(tmp_path, write_lines(tmp_path / "a.jsonl", [*pairs(20), long]))
    examples = pq.read_table(data.folder / "examples.parquet").to_pylist()
    records = {row["id"]: row["bucket"] for row in pq.read_table(data.folder / "records.parquet").to_pylist()}
    assert len(examples) == 20 + 3
    assert {example["record"] for example in examples} == set(records)
    assert all(example["part"] == records[example["record"]] for example in examples)
    several = [example["id"] for example in examples if example["id"] != example["record"]]
    assert [name.partition("#")[2] for name in several] == ["0", "1", "2"]
    assert len({name.partition("#")[0] for name in several}) == 1


def test_same_questions_share_a_part_whatever_the_answers(tmp_path: Path) -> None:
    records = [
        {"prompt": f"{'Ask' if j else 'ASK'}  {i}", "completion": f"{i} {j}"} for i in range(30) for j in range(3)
    ]
    data = prepare_chat(tmp_path, write_lines(tmp_path / "a.jsonl", records))
    assert data.report["dropped"] == {}
    assert data.report["split"]["distinct_folded_texts"] == 30
    where: dict[str, set[str]] = {}
    for part in PARTS:
        for one in conversations(data, part):
            where.setdefault(fold(one.questions[0]), set()).add(part)
    assert len(where) == 30 and all(len(parts) == 1 for parts in where.values())


def test_lengths_are_those_of_the_texts(tmp_path: Path) -> None:
    data = prepare_chat(tmp_path, write_lines(tmp_path / "a.jsonl", pairs(10)))
    assert data.report["lengths"]["conversation"]["max"] == len("question 3answer 3")


def test_the_shaper_decides_the_key_and_speaks_in_the_report(tmp_path: Path) -> None:
    name = write_lines(tmp_path / "a.jsonl", pairs(10))
    first = prepare_chat(tmp_path, name)
    assert first.report["rendering"] == {"records": 10} and "10 were shaped" in first.report["notes"]
    assert prepare_chat(tmp_path, name).key == first.key
    assert prepare_chat(tmp_path, name, shaper=Words(version=2)).key != first.key
    assert prepare_chat(tmp_path, name, too_long="split_turns").key != first.key


def test_turns_as_text_are_read_and_said(tmp_path: Path) -> None:
    rows = [{"messages": json.dumps(turns(f"m {i}", "b"))} for i in range(5)]
    name = write_lines(tmp_path / "a.jsonl", [*rows, *({"messages": turns(f"n {i}", "b")} for i in range(5))])
    quoted = "".join('"' + row["messages"].replace('"', '""').replace("m ", "o ") + '"\n' for row in rows)
    (tmp_path / "b.csv").write_text("messages\n" + quoted, encoding="utf-8")
    data = prepare_chat(tmp_path, name, "b.csv")
    assert sum(data.report[part] for part in PARTS) == 15
    assert data.report["notes"][:2] == [
        "a.jsonl: 'messages' is a text in 5 records: read as JSON",
        "b.csv: 'messages' is a text in 5 records: read as JSON",
    ]


def test_optional_columns_are_read_where_they_come_late(tmp_path: Path) -> None:
    records = [*pairs(2500), {"prompt": "late", "completion": "b", "system": "Be brief."}]
    data = prepare_chat(tmp_path, write_lines(tmp_path / "a.jsonl", records))
    every = [one for part in PARTS for one in conversations(data, part)]
    assert sum(one.messages[0]["role"] == "system" for one in every) == 1


@pytest.mark.parametrize(
    ("record", "section", "expected"),
    [
        (
            {"messages": turns("a", "word " * 21)},
            {},
            ["3 too_long", "at line 1: 21 words", "train.max_tokens", "truncate_prompt"],
        ),
        (
            {"messages": turns("a")},
            {},
            ["3 no_supervised_token", "at line 1: no turn is the assistant's", "mend the turns"],
        ),
        (
            {"messages": turns("a", "b", "c")},
            {},
            ["3 broken_turns", "the last turn (3) is the user's", "mend the turns"],
        ),
        ({"messages": turns("", "b")}, {}, ["3 empty_text", "data.sources.columns"]),
    ],
)
def test_where_nothing_is_left_the_first_reason_is_told(
    tmp_path: Path, record: dict[str, Any], section: dict[str, Any], expected: list[str]
) -> None:
    name = write_lines(tmp_path / "a.jsonl", [record] * 3)
    with pytest.raises(UserError, match="none of the 3 records can be used") as caught:
        prepare_chat(tmp_path, name, **section)
    assert [words for words in expected if words not in str(caught.value)] == []
    assert "with a text and a label" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_shortening_that_is_on_already_is_not_advised(tmp_path: Path) -> None:
    name = write_lines(tmp_path / "a.jsonl", [{"messages": turns("a", "word " * 21)}])
    with pytest.raises(UserError) as caught:
        prepare_chat(tmp_path, name, too_long="truncate_prompt")
    assert "raise train.max_tokens" in str(caught.value) and "truncate_prompt" not in str(caught.value)


def test_problems_of_all_sources_at_once(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"q": "a"}])
    write_lines(tmp_path / "b.jsonl", [{"messages": [], "conversations": []}])
    (tmp_path / "c.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        prepare_chat(tmp_path, "a.jsonl", "b.jsonl", "c.json")
    assert [problem.where for problem in caught.value.problems] == [
        "data.sources.0.columns",
        "data.sources.1.columns",
        "",
    ]


RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "messages": st.lists(
                st.fixed_dictionaries(
                    {
                        "role": st.sampled_from(["system", "user", "assistant", "tool", "user", "assistant", "nobody"]),
                        "content": st.sampled_from(["a", "A", "b", "c", " ", "ș 🚚", "word " * 12, "word " * 30]),
                    }
                ),
                max_size=4,
            )
        }
    ),
    max_size=40,
)


@given(records=RECORDS)
@settings(max_examples=40)
def test_whatever_comes_every_record_is_in_one_bucket(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("records")
    good = [{"messages": turns(f"question {i}", "b")} for i in range(10)]
    data = prepare_chat(folder, write_lines(folder / "a.jsonl", records + good))
    report = data.report
    assert report["read"] == len(records) + 10
    assert report["read"] == sum(report[part] for part in PARTS) + sum(report["dropped"].values())
    assert [row["line"] for row in rejects(data)] == sorted({row["line"] for row in rejects(data)})
    assert len(rejects(data)) == sum(report["dropped"].values())
    groups = [{tuple(map(fold, one.questions)) for one in conversations(data, part)} for part in PARTS]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
