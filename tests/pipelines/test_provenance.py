"""From a row back to file and line: whatever is asked for, and whatever became of the row."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.tiny_chat import write_chat_model, write_conversations

from reglaj import prepare_data
from reglaj.core.errors import EnvironmentFault, UserError
from reglaj.pipelines.provenance import where

WORDS = ["card", "refund", "login", "transfer", "limit", "fee", "loan", "branch", "cheque", "pin", "rate", "statement"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Sixty texts that share nothing, a repeated one, one without a label and one that is broken."""
    folder = tmp_path_factory.mktemp("data")
    lines = ["text,label"]
    for number in range(60):
        word, other = WORDS[number % 12], WORDS[(number // 12 + number + 1) % 12]
        lines.append(f"Question {number} about {word} and {other} of client {number * 7919},{'ab'[number % 2]}")
    lines += [lines[5], "a text that nobody labelled,", "too,many,cells,here"]
    (folder / "tickets.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text("task: classify\nmodel: starter:minilm\ndata: {sources: [{path: tickets.csv}]}\n")
    answer = prepare_data(recipe, runs=folder / "runs", quality=False)
    return Path(answer["folder"])


def rows(folder: Path, part: str) -> list[dict]:
    return pq.read_table(folder / f"{part}.parquet").to_pylist()


def line_of(folder: Path, line: int) -> str:
    return (folder.parents[2] / "tickets.csv").read_text(encoding="utf-8").splitlines()[line - 1]


@pytest.mark.parametrize("part", ["train", "validation"])
def test_every_visible_row_leads_to_its_line(prepared, part):
    for row in rows(prepared, part):
        found = where(prepared, f"  {row['text'].upper()} ")
        exact = [one for one in found["records"] if one["match"] == "exact"]
        assert {"source": "tickets.csv", "line": row["line"], "bucket": part, "label": row["label"]}.items() <= exact[
            0
        ].items()
        assert line_of(prepared, exact[0]["line"]).startswith(row["text"])


def test_a_test_row_is_placed_and_never_quoted(prepared):
    before = {file.name: file.read_bytes() for file in prepared.parent.iterdir() if file.is_file()}
    for row in rows(prepared, "test"):
        found = where(prepared, row["text"])
        assert found["found"] == {"exact": 1}
        (one,) = found["records"]
        assert (one["bucket"], one["source"], one["line"]) == ("test", "tickets.csv", row["line"])
        assert one["text"] is one["label"] is one["reason"] is None
        by_id = where(prepared, row["id"])["records"][0]
        assert by_id["bucket"] == "test" and by_id["text"] is by_id["label"] is None
    # Nothing of a test row was shown: that is no opening, and none is counted.
    assert before == {file.name: file.read_bytes() for file in prepared.parent.iterdir() if file.is_file()}


def test_dropped_records_say_why(prepared):
    found = where(prepared, "nobody labelled")
    assert found["found"] == {"inside": 1}
    assert found["records"][0]["bucket"] == "empty_label" and "empty" in found["records"][0]["reason"]
    ragged = where(prepared, "too,many")["records"][0]
    assert (ragged["bucket"], ragged["line"]) == ("ragged", 64)
    repeated = where(prepared, line_of(prepared, 6).rsplit(",", 1)[0])
    assert repeated["found"] == {"exact": 2}
    assert {one["bucket"] for one in repeated["records"]} > {"exact_duplicate"}


def test_exact_ones_come_first_and_long_lists_are_counted(prepared):
    text = rows(prepared, "train")[0]["text"]
    assert where(prepared, text)["records"][0]["text"] == text
    found = where(prepared, "question", most=5)
    assert found["found"] == {"inside": 61} and len(found["records"]) == 5


def test_an_id_or_its_beginning_and_the_id_of_an_example(prepared):
    row = rows(prepared, "train")[3]
    for asked in (row["id"], row["id"][:12].upper(), f"{row['id']}#2"):
        (one,) = where(prepared, asked)["records"]
        assert (one["match"], one["line"], one["text"], one["label"]) == ("id", row["line"], row["text"], row["label"])


def test_file_and_line(prepared):
    assert where(prepared, "tickets.csv:64")["records"][0]["bucket"] == "ragged"
    row = rows(prepared, "validation")[0]
    (one,) = where(prepared, f"tickets.csv:{row['line']}")["records"]
    assert (one["match"], one["bucket"], one["text"]) == ("place", "validation", row["text"])


def test_labels_are_no_texts(prepared):
    with pytest.raises(UserError):
        where(prepared, "label a is nowhere")
    assert "exact" not in where(prepared, "a")["found"]


def test_nothing_found_names_the_nearest_visible_row(prepared):
    row = rows(prepared, "train")[0]
    with pytest.raises(UserError) as caught:
        where(prepared, f"zebra {row['text']}")
    (problem,) = caught.value.problems
    assert row["text"] in problem.remedy and f"tickets.csv:{row['line']}" in problem.remedy
    hidden = rows(prepared, "test")[0]["text"]
    with pytest.raises(UserError) as caught:
        where(prepared, f"zebra {hidden}")
    assert hidden not in caught.value.problems[0].remedy
    with pytest.raises(UserError, match="nothing at all"):
        where(prepared, " \n ")


def test_a_recipe_a_key_and_a_run_stand_for_their_data(prepared, tmp_path):
    runs, folder = prepared.parents[1], prepared.parents[2]
    assert where(folder / "recipe.yaml", "nobody labelled", runs=runs)["key"] == prepared.name
    assert where(prepared.name, "nobody labelled", runs=runs)["key"] == prepared.name
    (runs / "talk-001").mkdir()
    (runs / "talk-001" / "manifest.json").write_text(
        json.dumps({"data_key": prepared.name, "status": "finished", "identity": "x"})
    )
    for run in ("talk", "talk-001", runs / "talk-001"):
        assert where(run, "nobody labelled", runs=runs)["key"] == prepared.name
    with pytest.raises(UserError, match="KEY=VALUE after a recipe"):
        where("talk", "nobody", runs=runs, overrides=["data.split.seed=3"])
    with pytest.raises(UserError, match="is not a run"):
        where("tlak", "nobody", runs=runs)
    (runs / "talk-001" / "manifest.json").write_text(json.dumps({"data_key": "gone", "status": "finished"}))
    with pytest.raises(UserError, match="moved or removed"):
        where("talk", "nobody", runs=runs)


def test_conversations_are_searched_turn_by_turn(tmp_path):
    model, file = write_chat_model(tmp_path / "model"), write_conversations(tmp_path / "rows.jsonl", 30)
    recipe = tmp_path / "talk.yaml"
    recipe.write_text(f"task: chat\nmodel: {model}\ndata: {{sources: [{{path: {file}}}]}}\n")
    lines = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
    folder = Path(prepare_data(recipe, runs=tmp_path / "runs", quality=False)["folder"])
    train = {row["line"] for row in rows(folder, "train")}
    line = min(train)
    found = where(folder, lines[line - 1]["prompt"])
    assert any(one["match"] == "exact" and one["line"] == line for one in found["records"])
    assert all("{" not in (one["text"] or "") for one in found["records"])


def test_a_damaged_folder_is_the_machines_fault(prepared, tmp_path):
    import shutil

    copy = Path(shutil.copytree(prepared, tmp_path / "copy"))
    (copy / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(EnvironmentFault, match=r"train\.parquet"):
        where(copy, "nobody labelled")
