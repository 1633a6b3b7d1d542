"""Every record is in exactly one bucket, and it is the right one."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.data.tables import many_rows, parts, prepare_files, rejects, write_csv

from reglaj.core.errors import UserError
from reglaj.data.folding import fold
from reglaj.data.ledger import BUCKETS, REASONS

SOUND = [f'"sound text {i}, of {label}",{label}' for i in range(12) for label in ("x", "y")]
LINES = st.lists(
    st.sampled_from(
        [
            *SOUND[:10],
            '"Sound  TEXT 0, of x",x',
            '"sound text 0, of x",y',
            "one cell",
            "a,b,c",
            '"never closed,x',
            '"two\nlines",x',
            " ,x",
            '"",x',
            "text,",
            "text, \t",
            "rare,r",
            "out,left out",
            "caf\udcff,x",
            "",
        ]
    ),
    max_size=40,
)


@given(lines=LINES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_the_sum_is_right_whatever_the_file(tmp_path: Path, lines: list[str]) -> None:
    """read = train + validation + test + dropped, in the report, in records.parquet and in rejects.jsonl alike."""
    path = tmp_path / "rows.csv"
    text = "text,label\nă,x\nș,x\nț,y\n" + "\n".join(SOUND + lines) + "\n"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    data = prepare_files(path, exclude_labels=["left out"])
    report = data.report
    dropped = rejects(data)
    assert report["read"] == sum(report[part] for part in ("train", "validation", "test")) + sum(
        report["dropped"].values()
    )
    assert Counter(row["bucket"] for row in dropped) == report["dropped"]
    records = pq.read_table(data.folder / "records.parquet").to_pylist()
    assert len(records) == report["read"] == len({record["id"] for record in records})
    assert Counter(record["bucket"] for record in records) == report["dropped"] | {
        part: report[part] for part in ("train", "validation", "test")
    }
    assert [record["line"] for record in records] == sorted({record["line"] for record in records})
    assert all((record["reason"] is None) == (record["bucket"] not in REASONS) for record in records)
    physical = text.split("\n")
    for row in dropped:
        shown = physical[row["line"] - 1].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        assert row["text"].split("\n")[0].strip('"') in shown.replace('""', '"'), row
    # Nothing that is equal after folding is in two parts; no text has two labels.
    homes, labels = defaultdict(set), defaultdict(set)
    for part, rows in parts(data).items():
        assert len(rows) == report[part] == len(set(rows))
        for cell, label in rows:
            homes[fold(cell)].add(part)
            labels[cell].add(label)
    assert all(len(found) == 1 for found in [*homes.values(), *labels.values()])


def test_each_bucket_with_line_and_reason(tmp_path: Path) -> None:
    rows = many_rows()
    path = write_csv(tmp_path / "rows.csv", rows)
    bad = [
        b"only one cell",
        b"  ,label 0",
        b'"","label 0"',
        b"a text, ",
        b'"text 0 about 0",label 0',
        b'"both",label 0',
        b'"both",label 1',
        b"seldom,few",
        b"unknown,left out",
        b"caf\xff\xfe,label 0",
        b'"never closed,label 0',
        "știe,label 0".encode(),
        "țara,label 0".encode(),
    ]
    path.write_bytes(path.read_bytes() + b"\n".join(bad) + b"\n")
    data = prepare_files(path, exclude_labels=["left out"])
    found = {row["line"] - len(rows) - 1: (row["bucket"], row["reason"]) for row in rejects(data)}
    assert found == {
        1: ("ragged", "1 cell where the header has 2"),
        2: ("empty_text", "the cell for `text` holds white space only"),
        3: ("empty_text", "the cell for `text` is empty"),
        4: ("empty_label", "the cell for `label` holds white space only"),
        5: ("exact_duplicate", "same text and label as line 2 of " + str(path)),
        6: (
            "contradictory_label",
            f"same text as line {len(rows) + 8} of {path}, which has the label 'label 1' and not 'label 0'",
        ),
        7: (
            "contradictory_label",
            f"same text as line {len(rows) + 7} of {path}, which has the label 'label 0' and not 'label 1'",
        ),
        8: ("rare_label", "the label 'few' has 1 distinct texts of its own, too few to be in all three parts"),
        9: ("filtered", "the label 'left out' is in data.exclude_labels"),
        10: ("unreadable", "the line holds bytes that are not utf-8"),
        11: ("unreadable", "a quote is opened in this line and never closed"),
    }
    assert data.report["read"] == len(rows) + len(bad)
    # Conversations, leaks and what a recipe asks to be left out have tests of their own.
    assert {bucket for bucket, _ in found.values()} == set(REASONS[: REASONS.index("rare_label") + 1]) | {"filtered"}


def test_all_of_a_contradiction_goes_or_one_of_each_stays(tmp_path: Path) -> None:
    rows = [*many_rows(), ("both", "label 0"), ("both", "label 1"), ("both", "label 0"), ("Both", "label 2")]
    path = write_csv(tmp_path / "rows.csv", rows)
    dropped = prepare_files(path)
    assert dropped.report["dropped"] == {"contradictory_label": 3}
    assert dropped.report["contradictory_texts"] == 1
    kept = prepare_files(path, contradictory_labels="keep")
    assert kept.report["dropped"] == {"exact_duplicate": 1}
    homes = [part for part, found in parts(kept).items() for text, _ in found if text.casefold() == "both"]
    assert len(homes) == 3 and len(set(homes)) == 1
    assert kept.key != dropped.key


def test_what_is_filtered_contradicts_nothing(tmp_path: Path) -> None:
    rows = [*many_rows(), ("both", "label 0"), ("both", "Unknown")]
    report = prepare_files(write_csv(tmp_path / "rows.csv", rows), exclude_labels=["Unknown"]).report
    assert report["dropped"] == {"filtered": 1}


def test_an_excluded_label_that_nothing_has_is_noted(tmp_path: Path) -> None:
    report = prepare_files(write_csv(tmp_path / "rows.csv", many_rows()), exclude_labels=["lable 1"]).report
    assert any("'lable 1', which no record has (did you mean 'label 1'?)" in note for note in report["notes"])


def test_duplicates_after_folding_are_kept_together_and_count_once(tmp_path: Path) -> None:
    rows = [*many_rows(2), *[(text, "few") for text in ("Same text", "same  text", "SAME TEXT", "other")]]
    report = prepare_files(write_csv(tmp_path / "rows.csv", rows)).report
    assert report["dropped"] == {"rare_label": 4}


def test_min_label_rows(tmp_path: Path) -> None:
    rows = [*many_rows(2, 30), *[(f"few {i}", "few") for i in range(9)]]
    path = write_csv(tmp_path / "rows.csv", rows)
    assert prepare_files(path).report["dropped"] == {}
    assert prepare_files(path, min_label_rows=10).report["dropped"] == {"rare_label": 9}


def test_labels_that_look_alike_are_noted_and_not_joined(tmp_path: Path) -> None:
    rows = [(f"{label} {i}", label) for label in ("Sports", "sports ", "news") for i in range(10)]
    report = prepare_files(write_csv(tmp_path / "rows.csv", rows)).report
    assert len(report["labels"]["train"]) == 3
    assert [note for note in report["notes"] if "differ only" in note] == [
        "the labels 'Sports', 'sports ' differ only by case or white space, and count as 2 labels"
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("", "a"), (" ", "b")], "none of the 2 records can be used"),
        ([(f"text {i}", "one") for i in range(20)], "all 20 usable records have the label 'one'"),
        ([(f"text {i}", f"label {i}") for i in range(20)], "0 of 20 labels have enough distinct texts"),
        ([*((f"text {i}", "a") for i in range(20)), ("x", "b")], "1 of 2 labels have enough distinct texts"),
        ([("same", "a"), ("same", "b")], "dropped: 2 contradictory_label"),
    ],
)
def test_too_little_to_learn_from(tmp_path: Path, rows: list[tuple[str, str]], message: str) -> None:
    path = write_csv(tmp_path / "rows.csv", rows)
    with pytest.raises(UserError, match=message) as error:
        prepare_files(path)
    (problem,) = error.value.problems
    assert problem.given and problem.allowed and problem.why and problem.remedy
    assert not (tmp_path / "runs").exists()


def test_the_report_is_json_and_names_every_figure(tmp_path: Path) -> None:
    data = prepare_files(write_csv(tmp_path / "rows.csv", many_rows()))
    report = json.loads((data.folder / "report.json").read_text(encoding="utf-8"))
    assert {**report, "split": {}} == {**data.report, "split": {}}
    assert report["labels"]["train"] == {f"label {i}": 16 for i in range(3)}
    assert report["labels"]["test"] == {f"label {i}": 2 for i in range(3)}
    assert report["lengths"]["text"] == {"min": 14.0, "median": 14.5, "mean": 14.5, "p95": 15.0, "max": 15.0}
    assert report["split"] == {
        "kind": "stratified",
        "train": None,
        "validation": 0.1,
        "test": 0.1,
        "seed": 0,
        "group": None,
        "time": None,
        "column": None,
        "distinct_folded_texts": 60,
        "units": 60,
        "kept": "",
    }
    assert data.report["split"] == {
        **report["split"],
        "why": "stratified split: the sources have no column beside those of the task",
    }
    (source,) = report["sources"]
    assert (source["kind"], source["encoding"], source["delimiter"], source["read"]) == ("csv", "utf-8", ",", 60)


def test_the_docs_explain_every_bucket() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert REASONS
    assert [name for name in BUCKETS if f"`{name}`" not in text] == []
