"""Leaks that hide: exact copies, groups bound by a text, built-in groups, what an earlier run knew, cleaning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
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
from reglaj.data.others import EarlierRun
from reglaj.data.prepare import Looks

MATCHER = MinHashMatcher(NearDuplicatesConfig())


def labelled(texts: list[str], **columns: Any) -> list[dict[str, Any]]:
    return [{"text": text, "label": "xy"[i % 2], **columns} for i, text in enumerate(texts)]


def test_exact_copies_in_two_given_parts_are_leakage(tmp_path: Path) -> None:
    texts = far_texts(100)
    rows = labelled(texts[:60], part="train") + labelled(texts[60:], part="test")
    rows += [row | {"part": "train"} for row in labelled(texts[60:])[:10]]
    rows += [{"text": texts[75], "label": "x", "part": "train"}]  # under another label than in test
    with pytest.raises(GateRefused, match="11 records nearly repeat one in a later part"):
        prepare_rows(tmp_path, rows, split={"column": "part"})
    data = prepare_rows(tmp_path, rows, split={"column": "part"}, leakage="repair")
    assert data.report["test"] == 40, "no row of the test is lost for what stands in train"
    assert data.report["dropped"] == {"near_duplicate_across_parts": 11}
    assert data.report["leakage"]["records"] == 11
    assert {leak["kind"]: leak["count"] for leak in data.report["leakage"]["found"]} == {
        "near_duplicate": 11,
        "contradictory_label": 1,
    }
    (tmp_path / "turned").mkdir()
    turned = prepare_rows(tmp_path / "turned", rows[::-1], split={"column": "part"}, leakage="repair")
    assert turned.report["test_hash"] == data.report["test_hash"]


@pytest.mark.parametrize("key", ["time", "group"])
def test_copies_at_other_times_or_under_other_users_do_not_make_the_order_matter(tmp_path: Path, key: str) -> None:
    texts = far_texts(200)
    rows = [
        row | {"time": 10**9 + 86_400 * i, "group": f"u{i // 4:02}"}
        for i, row in enumerate(labelled(texts) + labelled(texts[:40]))
    ]
    found = []
    for name, order in (("a", rows), ("b", rows[::-1])):
        (tmp_path / name).mkdir()
        found.append(prepare_rows(tmp_path / name, order, split={key: key}).report)
    assert found[0]["dropped"] == found[1]["dropped"] and found[0]["test_hash"] == found[1]["test_hash"]
    assert [found[0][part] for part in ("train", "validation", "test")] == [
        found[1][part] for part in ("train", "validation", "test")
    ]
    assert found[0]["split"]["units"] == found[1]["split"]["units"]


def test_a_file_is_a_group(tmp_path: Path) -> None:
    texts = far_texts(90)
    paths = [write_jsonl(tmp_path / f"{i}.jsonl", labelled(texts[i * 10 : i * 10 + 10])) for i in range(9)]
    sources = [{"path": str(path)} for path in paths]
    data = prepare_rows(tmp_path, [{"text": "-", "label": "-"}], sources=sources, split={"group": "source"})
    homes = {text: part for part, rows in parts(data).items() for text, _ in rows}
    assert len(homes) == 90 and data.report["split"]["units"] == 9
    assert all(len({homes[text] for text in texts[i : i + 10]}) == 1 for i in range(0, 90, 10))


def test_a_text_that_looks_like_a_template_is_no_conversation(tmp_path: Path) -> None:
    rows = labelled([f"{{name}} {text}" for text in far_texts(40)])
    data = prepare_rows(tmp_path, rows, split={"group": "conversation"})
    assert data.report["train"] + data.report["validation"] + data.report["test"] == 40


class _Drops(Cleaner):
    """Drops texts with a mark; mends another."""

    repairs = True

    def identity(self) -> Mapping[str, Any]:
        return {"drops": "marked"}

    def repair(self, text: str) -> str:
        return text.replace("È™", "ș")

    def drop(self, rows: CleanRows, console: Console = SILENT) -> dict[str, NDArray[np.bool_]]:
        return {"boilerplate": np.array([text.startswith("<b>") for text in rows.texts])}


def test_cleaning_may_not_take_a_label_from_train_alone(tmp_path: Path) -> None:
    rows = labelled(far_texts(60)) + [{"text": f"<b>{text}", "label": "z"} for text in far_texts(20, seed=3)]
    with pytest.raises(UserError, match="takes every training row of 1 label: 'z'"):
        prepare_rows(tmp_path, rows, looks=Looks(matcher=MATCHER, cleaner=_Drops()))
    assert not (tmp_path / "runs").exists()


def test_evaluation_sets_are_mended_as_the_data_are(tmp_path: Path) -> None:
    rows = labelled([f"È™i {text}" for text in far_texts(60, words=3)])
    write_jsonl(tmp_path / "mine.jsonl", [{"text": row["text"]} for row in rows[:9]])
    looks = Looks(matcher=MATCHER, cleaner=_Drops())
    data = prepare_rows(tmp_path, rows, decontaminate=["mine.jsonl"], looks=looks)
    assert data.report["dropped"] == {"contaminated": 9}
    (leak,) = data.report["leakage"]["found"]
    assert {example["part"] for example in leak["examples"]} == {"in no part"}
    assert all("ș" in example["text"] for example in leak["examples"])


def test_an_evaluation_set_without_texts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("text\n \n")
    with pytest.raises(UserError, match=r"mine\.csv"):
        prepare_rows(tmp_path, labelled(far_texts(40)), decontaminate=["mine.csv"])


def test_an_earlier_run_whose_data_are_gone_is_said_and_looked_for_again(tmp_path: Path) -> None:
    texts = far_texts(120)
    first = prepare_rows(tmp_path, labelled(texts), split={"seed": 1})
    away = first.folder.rename(tmp_path / "away")
    looks = Looks(matcher=MATCHER, earlier=(EarlierRun(name="first-001", data=first.folder),))
    blind = prepare_rows(tmp_path, labelled(texts), split={"seed": 2}, looks=looks)
    assert any("first-001" in note and "were not compared" in note for note in blind.report["notes"])
    away.rename(first.folder)
    seeing = prepare_rows(tmp_path, labelled(texts), split={"seed": 2}, looks=looks)
    assert seeing.key != blind.key
    assert any("are in train because they belong with" in note for note in seeing.report["notes"])


def test_a_label_that_an_earlier_run_learnt_wholly_stays_in_train(tmp_path: Path) -> None:
    texts = far_texts(160)
    old = [{"text": text, "label": "z"} for text in texts[:30]] + labelled(texts[30:60])
    first = prepare_rows(tmp_path, old, split={"seed": 1}, min_label_rows=3)
    learnt = {text for text, _ in parts(first)["train"]}
    rows = [row for row in old if row["label"] != "z" or row["text"] in learnt] + labelled(texts[60:])
    looks = Looks(matcher=MATCHER, earlier=(EarlierRun(name="first-001", data=first.folder),))
    data = prepare_rows(tmp_path, rows, looks=looks)
    assert data.report["dropped"] == {}
    assert "z" in data.report["labels"]["train"] and "z" not in data.report["labels"]["test"]
    with pytest.raises(UserError, match="every usable record nearly repeats one of the training data of first-001"):
        prepare_rows(tmp_path, [row for row in rows if row["text"] in learnt], looks=looks)


def test_a_column_of_bytes_hides_no_group(tmp_path: Path) -> None:
    rows = labelled(far_texts(250))
    table = pa.table(
        {name: [row[name] for row in rows] for name in ("text", "label")}
        | {"user_id": [f"u{i // 5}" for i in range(250)], "picture": [b"\xff\x00"] * 250}
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    sources = [{"path": str(tmp_path / "rows.parquet")}]
    data = prepare_rows(tmp_path, rows, sources=sources)
    assert data.report["split"]["group"] == "user_id", data.report["split"]["why"]


def test_the_twin_of_a_leak_may_be_gone_itself(tmp_path: Path) -> None:
    texts = far_texts(60)
    rows = labelled(texts[:40], part="train", user="a") + labelled(texts[40:], part="test", user="b")
    rows += labelled(far_texts(4, seed=9), part="val", user="c")
    for number, row in enumerate(rows):
        row["user"] = f"u{number}"
    rows.append({"text": near_copy(texts[45]), "label": "x", "part": "val", "user": "shared"})
    rows.append({"text": texts[0] + " and more of it here", "label": "x", "part": "train", "user": "shared"})
    data = prepare_rows(tmp_path, rows, split={"column": "part", "group": "user"}, leakage="repair")
    assert all("in near_duplicate" not in row["reason"] for row in rejects(data))
