"""Nothing that belongs together lies in two parts: it is kept together, dropped, refused or reported, as asked."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from tests.data.leaky import far_texts, near_copy, prepare_rows, write_jsonl
from tests.data.tables import parts, rejects

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import GateRefused, UserError
from reglaj.curation.near_duplicates import MinHashMatcher
from reglaj.data.cleaning import Cleaner, CleanRows
from reglaj.data.config import NearDuplicatesConfig
from reglaj.data.examples import PreparedData
from reglaj.data.others import EarlierRun
from reglaj.data.prepare import Looks

MATCHER = MinHashMatcher(NearDuplicatesConfig())


def labelled(texts: list[str], **columns: Any) -> list[dict[str, Any]]:
    """Rows with two labels by turns."""
    return [{"text": text, "label": "xy"[i % 2], **columns} for i, text in enumerate(texts)]


def part_of(data: PreparedData) -> dict[str, str]:
    return {text: part for part, rows in parts(data).items() for text, _ in rows}


def leaks(data: PreparedData) -> dict[str, int]:
    return {leak["kind"]: leak["count"] for leak in data.report["leakage"]["found"]}


@pytest.mark.parametrize("kind", ["auto", "stratified", "random"])
def test_near_duplicates_stay_in_one_part_where_the_split_is_ours(tmp_path: Path, kind: str) -> None:
    texts = far_texts(120)
    rows = labelled(texts) + labelled([near_copy(text) for text in texts])
    data = prepare_rows(tmp_path, rows, split={"kind": kind})
    home = part_of(data)
    assert len(home) == 240 and leaks(data) == {}
    assert all(home[text] == home[near_copy(text)] for text in texts)
    near = data.report["near_duplicates"]
    assert (near["clusters"], near["records"], near["sizes"]) == (120, 240, {"2": 120})
    without = prepare_rows(tmp_path, rows, split={"kind": kind}, looks=Looks())
    torn = part_of(without)
    assert any(torn[text] != torn[near_copy(text)] for text in texts), "without looking, some would be torn"


def test_the_order_of_the_rows_changes_no_part(tmp_path: Path) -> None:
    texts = far_texts(60)
    rows = labelled(texts) + labelled([near_copy(text) for text in texts])
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    straight = part_of(prepare_rows(tmp_path / "a", rows))
    assert straight == part_of(prepare_rows(tmp_path / "b", rows[::-1]))


def given_rows() -> list[dict[str, Any]]:
    texts = far_texts(100)
    rows = [row | {"part": "train" if i < 80 else "test"} for i, row in enumerate(labelled(texts))]
    # Five test texts stand in train as well, in other words and under any label.
    return rows + [{"text": near_copy(texts[80 + i]), "label": "xy"[i % 2], "part": "train"} for i in range(5)]


def test_a_given_split_that_leaks_is_refused_with_examples(tmp_path: Path) -> None:
    with pytest.raises(GateRefused) as error:
        prepare_rows(tmp_path, given_rows(), split={"column": "part"})
    (problem,) = error.value.problems
    assert error.value.exit_code == 3
    assert problem.given.startswith("5 records nearly repeat one in a later part")
    assert near_copy(far_texts(100)[80]) in problem.given and "line 81 of" in problem.given
    assert "data.leakage=repair" in problem.remedy and "remove `part` of the sources" in problem.remedy
    assert not (tmp_path / "runs").exists()


def test_repair_drops_the_earlier_member_and_moves_nothing(tmp_path: Path) -> None:
    data = prepare_rows(tmp_path, given_rows(), split={"column": "part"}, leakage="repair")
    assert data.report["dropped"] == {"near_duplicate_across_parts": 5}
    assert data.report["test"] == 20 and data.report["train"] + data.report["validation"] == 80
    home = part_of(data)
    assert all(home[text] == "test" for text in far_texts(100)[80:])
    reasons = {row["reason"] for row in rejects(data)}
    assert all(reason.startswith("nearly the same as line 8") and "in test" in reason for reason in reasons)
    (leak,) = data.report["leakage"]["found"]
    assert leak["count"] == 5 and leak["fate"] == "dropped as near_duplicate_across_parts"
    told = json.dumps(data.report)
    assert not any(text in told for text in far_texts(100)[80:]), "no text of the sealed test is quoted"


def test_report_counts_and_leaves_it(tmp_path: Path) -> None:
    data = prepare_rows(tmp_path, given_rows(), split={"column": "part"}, leakage="report")
    assert data.report["dropped"] == {} and leaks(data) == {"near_duplicate": 5}


def test_validation_is_taken_from_train_where_none_is_given(tmp_path: Path) -> None:
    texts = far_texts(60)
    train = write_jsonl(tmp_path / "train.jsonl", labelled([*texts[:40], *map(near_copy, texts[:40])]))
    test = write_jsonl(tmp_path / "test.jsonl", labelled(texts[40:]))
    sources = [{"path": str(train), "part": "train"}, {"path": str(test), "part": "test"}]
    data = prepare_rows(tmp_path, [{"text": "-", "label": "-"}], sources=sources)
    home = part_of(data)
    assert data.report["test"] == 20 and data.report["validation"] == 8
    assert all(home[text] == home[near_copy(text)] for text in texts[:40])
    assert any("8 are taken from train" in note for note in data.report["notes"])


def test_the_same_text_under_another_label_in_a_later_part(tmp_path: Path) -> None:
    texts = far_texts(60)
    rows = [row | {"part": "train" if i < 40 else "test"} for i, row in enumerate(labelled(texts))]
    rows += [{"text": texts[40].upper(), "label": "y", "part": "train"}]
    data = prepare_rows(tmp_path, rows, split={"column": "part"}, leakage="repair")
    assert leaks(data) == {"near_duplicate": 1, "contradictory_label": 1}
    assert data.report["dropped"] == {"near_duplicate_across_parts": 1}


def test_groups_stay_whole_or_leave_the_earlier_part(tmp_path: Path) -> None:
    texts = far_texts(90)
    rows = [row | {"patient": f"p{i // 3}"} for i, row in enumerate(labelled(texts))]
    data = prepare_rows(tmp_path, rows, split={"group": "patient"})
    home = part_of(data)
    assert data.report["split"]["kind"] == "group"
    assert all(len({home[text] for text in texts[i : i + 3]}) == 1 for i in range(0, 90, 3))
    table = pq.read_table(data.folder / "train.parquet")
    assert set(table["extra:patient"].to_pylist()) <= {f"p{i}" for i in range(30)}

    for row, part in zip(rows, ["train"] * 70 + ["test"] * 20, strict=True):
        row["part"] = part  # the group p23 has lines on both sides
    torn = prepare_rows(tmp_path, rows, split={"column": "part", "group": "patient"}, leakage="repair")
    assert torn.report["dropped"] == {"group_across_parts": 1} and leaks(torn) == {"group": 1}


def test_time_runs_forward_and_near_duplicates_leave_the_past(tmp_path: Path) -> None:
    texts = far_texts(100)
    rows = [row | {"day": f"2024-{1 + i // 28:02}-{1 + i % 28:02}"} for i, row in enumerate(labelled(texts))]
    rows.append({"text": near_copy(texts[99]), "label": "x", "day": "2024-01-05"})
    rows.append({"text": "a text without a day at all", "label": "x", "day": "soon"})
    data = prepare_rows(tmp_path, rows, split={"time": "day"})
    assert data.report["split"]["kind"] == "time"
    assert data.report["dropped"] == {"near_duplicate_across_parts": 1, "no_time": 1}
    days = {
        part: pq.read_table(data.folder / f"{part}.parquet")["extra:day"].to_pylist()
        for part in ("train", "validation", "test")
    }
    assert max(days["train"]) < min(days["validation"]) <= max(days["validation"]) < min(days["test"])


def test_a_given_split_in_which_time_runs_backwards(tmp_path: Path) -> None:
    texts = far_texts(40)
    rows = [row | {"part": "train" if i < 30 else "test", "year": 2000 + i} for i, row in enumerate(labelled(texts))]
    rows[3]["year"] = 2050
    with pytest.raises(GateRefused, match="1 records are later than the first one of a later part"):
        prepare_rows(tmp_path, rows, split={"column": "part", "time": "year"})
    data = prepare_rows(tmp_path, rows, split={"column": "part", "time": "year"}, leakage="repair")
    assert data.report["dropped"]["time_across_parts"] >= 1


def test_growing_data_change_no_side_under_hash(tmp_path: Path) -> None:
    texts = far_texts(600)
    copies = [near_copy(text) for text in texts[:60]]
    sides: list[Mapping[str, str]] = []
    for number, count in enumerate((500, 550, 600)):
        folder = tmp_path / str(number)
        folder.mkdir()
        data = prepare_rows(folder, labelled(texts[:count] + copies[: count // 10]), split={"kind": "hash"})
        sides.append(part_of(data))
        assert data.report["read"] == len(sides[-1]) + sum(data.report["dropped"].values())
        assert set(data.report["dropped"]) <= {"near_duplicate_across_parts"}
    for before, after in itertools.pairwise(sides):
        assert {text: after[text] for text in before if text in after} == {
            text: side for text, side in before.items() if text in after
        }


def test_evaluation_sets_are_kept_out(tmp_path: Path) -> None:
    texts = far_texts(80)
    write_jsonl(tmp_path / "mine.jsonl", [{"question": near_copy(text)} for text in texts[:7]])
    data = prepare_rows(tmp_path, labelled(texts), decontaminate=["mine.jsonl"])
    assert data.report["dropped"] == {"contaminated": 7} and leaks(data) == {"evaluation_set": 7}
    assert {row["reason"] for row in rejects(data)} == {
        f"nearly the same as line {i + 1} of mine.jsonl" for i in range(7)
    }
    with pytest.raises(GateRefused, match="7 records nearly repeat a text of an evaluation set"):
        prepare_rows(tmp_path, labelled(texts), decontaminate=["mine.jsonl"], leakage="stop")
    other = write_jsonl(tmp_path / "mine.jsonl", [{"question": text} for text in far_texts(3, seed=5)])
    assert prepare_rows(tmp_path, labelled(texts), decontaminate=[other.name]).report["dropped"] == {}
    with pytest.raises(UserError, match=r"nothing\.csv"):
        prepare_rows(tmp_path, labelled(texts), decontaminate=["nothing.csv"])


def test_what_an_earlier_run_learnt_is_in_no_test(tmp_path: Path) -> None:
    texts = far_texts(200)
    first = prepare_rows(tmp_path, labelled(texts), split={"seed": 1})
    learnt = {text for text, _ in parts(first)["train"]}
    looks = Looks(matcher=MATCHER, earlier=(EarlierRun(name="first-001", data=first.folder),))
    ours = prepare_rows(tmp_path, labelled(texts), split={"seed": 2}, looks=looks)
    assert ours.report["dropped"] == {} and ours.report["test"] >= 15
    assert not learnt & {text for text, _ in parts(ours)["test"] + parts(ours)["validation"]}
    free = prepare_rows(tmp_path, labelled(texts), split={"seed": 2})
    assert learnt & {text for text, _ in parts(free)["test"]}, "another seed alone would have leaked"

    hashed = prepare_rows(tmp_path, labelled(texts), split={"kind": "hash", "seed": 9}, looks=looks, min_label_rows=3)
    assert hashed.report["dropped"]["near_duplicate_across_parts"] == leaks(hashed)["earlier_run"] > 10
    assert not learnt & {text for text, _ in parts(hashed)["test"] + parts(hashed)["validation"]}
    assert all("has learnt from nearly the same text" in row["reason"] for row in rejects(hashed))


class _Cleaner(Cleaner):
    """Takes out texts with a z, and mends broken quotes."""

    repairs = True

    def __init__(self) -> None:
        self.seen: list[str] = []

    def identity(self) -> Mapping[str, Any]:
        return {"cleaner": "z"}

    def repair(self, text: str) -> str:
        return text.replace("â€™", "’")

    def drop(self, rows: CleanRows, console: Console = SILENT) -> dict[str, NDArray[np.bool_]]:
        self.seen = rows.texts
        assert rows.labels is not None and len(rows.labels) == len(rows.texts)
        return {"outlier": np.array(["z" in text for text in rows.texts])}


def test_cleaning_never_sees_the_test(tmp_path: Path) -> None:
    texts = [f"it â€™ {text}" for text in far_texts(100, words=3)]
    cleaner = _Cleaner()
    data = prepare_rows(tmp_path, labelled(texts), looks=Looks(matcher=MATCHER, cleaner=cleaner))
    plain = prepare_rows(tmp_path, labelled(texts))
    mended = {part: {text.replace("â€™", "’") for text, _ in rows} for part, rows in parts(plain).items()}
    assert len(parts(data)["test"]) == 10 and not set(cleaner.seen) & {text for text, _ in parts(data)["test"]}
    left = {text for part in ("train", "validation") for text, _ in parts(data)[part]}
    assert left and not any("z" in text for text in left) and data.report["dropped"]["outlier"] > 10
    assert any("z" in text for text, _ in parts(data)["test"] + [(t, "") for t in mended["test"]])
    assert all("’" in text and "â€™" not in text for text in left)
    assert data.key != plain.key


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"split": {"kind": "group"}}, "data.split.group: nothing, with the kind group"),
        ({"split": {"kind": "group", "group": "one"}}, "has one value"),
        ({"split": {"group": "onne"}}, "did you mean 'one'"),
        ({"split": {"kind": "time", "time": "text"}}, "holds no readable time in 60 of 60"),
        ({"split": {"kind": "random", "time": "day"}}, "'day' with the kind random"),
        ({"split": {"kind": "given"}}, "nothing, with the kind given"),
        ({"split": {"column": "one"}}, "'1'"),
        ({"split": {"kind": "tme"}}, "did you mean 'time'"),
        ({"split": {"validation": 40, "test": 30}}, "70 rows of 60"),
        ({"split": {"train": 0.8, "validation": 0.2, "test": 0.2}}, "must be 1, and are 1.2"),
        ({"split": {"validation": 1.5}}, "a number of rows is whole"),
        ({"near_duplicates": {"threshold": 0.2}}, "0.3"),
    ],
)
def test_bad_input_says_what_would_work(tmp_path: Path, section: dict[str, Any], message: str) -> None:
    rows = [row | {"one": "1", "day": "2024-01-01"} for row in labelled(far_texts(60))]
    with pytest.raises((UserError, ValueError)) as error:
        prepare_rows(tmp_path, rows, **section)
    assert message in str(error.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("split", [{}, {"kind": "hash"}, {"time": "day"}])
def test_everything_in_one_cluster(tmp_path: Path, split: dict[str, Any]) -> None:
    text = far_texts(1, words=60)[0]
    rows = [
        row | {"day": f"2024-03-{i % 28 + 1:02}"} for i, row in enumerate(labelled([f"{text} {i}" for i in range(40)]))
    ]
    with pytest.raises(UserError, match=r"belong together|nearly repeat one in a later part") as error:
        prepare_rows(tmp_path, rows, split={"kind": "stratified"} | split if "time" not in split else split)
    assert "data.near_duplicates.threshold" in error.value.problems[0].remedy


def test_the_sentence_is_of_this_recipe_whoever_read_the_data(tmp_path: Path) -> None:
    rows = [row | {"user_id": f"u{i // 4}"} for i, row in enumerate(labelled(far_texts(200)))]
    named = prepare_rows(tmp_path, rows, split={"kind": "group", "group": "user_id"})
    chosen = prepare_rows(tmp_path, rows)
    assert named.key == chosen.key and named.report["split"]["why"] == ""
    assert "'user_id'" in chosen.report["split"]["why"]


def test_a_given_split_whose_test_has_a_label_that_train_lacks(tmp_path: Path) -> None:
    rows = [row | {"part": "train" if i < 40 else "test"} for i, row in enumerate(labelled(far_texts(60)))]
    rows[-1]["label"] = "z"
    with pytest.raises(UserError, match=r"train lacks 1 label of 1 rows .*'z'"):
        prepare_rows(tmp_path, rows, split={"column": "part"})
    rows[0]["label"], rows[-1]["label"] = "z", "x"
    notes = prepare_rows(tmp_path, rows, split={"column": "part"}).report["notes"]
    assert "the given test part has no record of 1 labels of train: 'z'" in notes
