"""From files to a data folder: sources side by side, keys, the seal, and nothing left behind by a failure."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.data.tables import ROLES, many_rows, parts, prepare_files, rejects, write_csv

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import EnvironmentFault, UserError
from reglaj.data.config import DataConfig
from reglaj.data.examples import OPENINGS, load_prepared
from reglaj.data.prepare import prepare
from reglaj.data.roles import ColumnRoles
from reglaj.data.splits.base import PARTS

ROWS = many_rows(3, 30)


def test_the_folder_has_what_the_design_says(tmp_path: Path) -> None:
    data = prepare_files(write_csv(tmp_path / "rows.csv", ROWS))
    assert sorted(path.name for path in data.folder.iterdir()) == [
        "examples.parquet",
        "records.parquet",
        "rejects.jsonl",
        "report.json",
        "test.parquet",
        "train.parquet",
        "validation.parquet",
    ]
    assert data.folder.parent == tmp_path / "runs" / ".data"
    examples = pq.read_table(data.folder / "examples.parquet").to_pylist()
    assert len(examples) == len(ROWS)
    assert {example["part"] for example in examples} == set(PARTS)
    assert "text" not in examples[0], "the texts of the test part lie in test.parquet alone"


def test_examples(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", [("  NA ", "label 0"), *ROWS])
    train = prepare_files(path).train()
    assert len(train) == len(train.ids) == len(set(train.ids)) == len(train.column("text"))
    for text, label, source, line in zip(
        train.column("text"), train.column("label"), train.source, train.line, strict=True
    ):
        assert source == str(path)
        assert ([("  NA ", "label 0"), *ROWS])[line - 2] == (text, label)


def test_sources_of_every_kind_in_one_recipe(tmp_path: Path) -> None:
    pieces = [ROWS[i::5] for i in range(5)]
    write_csv(tmp_path / "one.csv", pieces[0])
    two = "body\tignored\tclass\n" + "".join(f"{text}\tx\t{label}\n" for text, label in pieces[1])
    (tmp_path / "two.tsv").write_bytes(two.encode("utf-16"))
    objects = [{"message": text, "intent": label, "n": 1} for text, label in pieces[2]]
    (tmp_path / "three.json").write_text(json.dumps({"data": objects}), encoding="utf-8")
    lines = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in pieces[3])
    (tmp_path / "four.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    texts, labels = zip(*pieces[4], strict=True)
    pq.write_table(pa.table({"label": labels, "text": texts}), tmp_path / "five.parquet")
    sources = [
        {"path": "one.csv"},
        {"path": "two.tsv", "columns": {"text": "body", "label": "class"}},
        {"path": "three.json", "columns": {"text": "message", "label": "intent"}},
        {"path": "four.jsonl.gz"},
        {"path": "five.parquet", "kind": "parquet"},
    ]
    data = prepare_files(tmp_path / "one.csv", sources=sources)
    assert sorted(row for rows in parts(data).values() for row in rows) == sorted(ROWS)
    found = [(source["name"], source["kind"], source["compression"]) for source in data.report["sources"]]
    assert found == [
        ("one.csv", "csv", None),
        ("two.tsv", "tsv", None),
        ("three.json", "json", None),
        ("four.jsonl.gz", "jsonl", "gzip"),
        ("five.parquet", "parquet", None),
    ]
    assert [source["read"] for source in data.report["sources"]] == [18] * 5
    whole = prepare_files(write_csv(tmp_path / "all.csv", ROWS), store=tmp_path / "other")
    assert {part: sorted(rows) for part, rows in parts(whole).items()} == {
        part: sorted(rows) for part, rows in parts(data).items()
    }, "the split depends on the rows, not on the files they came in"
    assert whole.test_hash == data.test_hash


def test_a_file_named_twice(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", ROWS)
    data = prepare_files(path, path)
    assert data.report["dropped"] == {"exact_duplicate": len(ROWS)}
    ids = pq.read_table(data.folder / "records.parquet")["id"].to_pylist()
    assert len(set(ids)) == 2 * len(ROWS)


def test_starters_are_located_by_whoever_knows_them(tmp_path: Path) -> None:
    write_csv(tmp_path / "starter-medical", ROWS)
    data = prepare_files(tmp_path / "x", sources=[{"path": "starter:medical"}])
    assert data.report["sources"][0]["name"] == "starter:medical"


def test_the_same_data_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_csv(tmp_path / "rows.csv", ROWS)
    first = prepare_files(path)
    elsewhere = tmp_path / "elsewhere.csv"
    elsewhere.write_bytes(path.read_bytes())
    monkeypatch.setattr("reglaj.data.prepare._fill", lambda *_: pytest.fail("it was read again"))
    assert prepare_files(path) == first
    assert prepare_files(elsewhere) == first, "the key is the content, not the path"


@pytest.mark.parametrize(
    "section",
    [
        {"split": {"seed": 1}},
        {"split": {"train": 0.7, "validation": 0.2}},
        {"exclude_labels": ["label 2"]},
        {"contradictory_labels": "keep"},
        {"min_label_rows": 4},
    ],
)
def test_other_settings_are_other_data(tmp_path: Path, section: dict[str, object]) -> None:
    path = write_csv(tmp_path / "rows.csv", ROWS)
    assert prepare_files(path, **section).key != prepare_files(path).key


def test_auto_is_the_split_of_the_task(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", ROWS)
    assert prepare_files(path).key == prepare_files(path, split={"kind": "stratified"}).key


def test_another_seed_is_another_split(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", ROWS)
    one, other = prepare_files(path), prepare_files(path, split={"seed": 1})
    assert set(parts(one)["test"]) != set(parts(other)["test"])
    assert one.test_hash != other.test_hash


def test_the_order_of_the_file_is_irrelevant(tmp_path: Path) -> None:
    one = prepare_files(write_csv(tmp_path / "one.csv", ROWS))
    other = prepare_files(write_csv(tmp_path / "other.csv", ROWS[::-1]))
    assert {part: set(rows) for part, rows in parts(one).items()} == {
        part: set(rows) for part, rows in parts(other).items()
    }
    assert one.test_hash == other.test_hash


def test_openings_are_counted_by_the_rows(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", ROWS)
    data = prepare_files(path)
    assert data.test_openings() == 0
    rows, count = data.open_test(opened_by="runs/a-001")
    assert (len(rows), count, data.test_openings()) == (9, 1, 1)
    reordered = prepare_files(write_csv(tmp_path / "other.csv", ROWS[::-1]))
    assert reordered.open_test(opened_by="runs/b-001")[1] == 2, "other data, the same test rows"
    assert prepare_files(path, split={"seed": 1}).test_openings() == 0
    lines = (data.folder.parent / OPENINGS).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["opened_by"] for line in lines] == ["runs/a-001", "runs/b-001"]


def test_a_torn_line_of_openings_hurts_nobody(tmp_path: Path) -> None:
    data = prepare_files(write_csv(tmp_path / "rows.csv", ROWS))
    data.open_test(opened_by="one")
    file = data.folder.parent / OPENINGS
    file.write_bytes(file.read_bytes() + b'{"test": "cut o')
    assert data.open_test(opened_by="two")[1] == 2
    assert data.test_openings() == 2


def test_openings_from_several_processes(tmp_path: Path) -> None:
    data = prepare_files(write_csv(tmp_path / "rows.csv", ROWS))
    with multiprocessing.get_context("fork").Pool(4) as pool:
        counts = pool.map(_open_once, [data.folder] * 12)
    assert sorted(counts) == list(range(1, 13))


def _open_once(folder: Path) -> int:
    data = load_prepared(folder)
    assert data
    return data.open_test(opened_by="process")[1]


def test_all_problems_of_all_sources_at_once(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", ROWS)
    (tmp_path / "empty.csv").touch()
    sources = [{"path": "rwos.csv"}, {"path": "empty.csv"}]
    with pytest.raises(UserError) as error:
        prepare_files(tmp_path / "x", sources=sources)
    assert len(error.value.problems) == 2
    assert "did you mean 'rows.csv'?" in str(error.value)
    sources = [{"path": "rows.csv", "columns": {"text": "txet"}}, {"path": "rows.csv", "columns": {"lable": "x"}}]
    with pytest.raises(UserError) as error:
        prepare_files(tmp_path / "x", sources=sources)
    assert [problem.where for problem in error.value.problems] == [
        "data.sources.0.columns.text",
        "data.sources.1.columns.lable",
    ]
    assert "has no column 'txet'" in str(error.value) and "did you mean 'text'?" in str(error.value)
    assert "unknown role 'lable'" in str(error.value) and "did you mean 'label'?" in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_a_column_that_is_there_twice_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label,text\na,b,c\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"choose one of text \(1\), text \(2\)"):
        prepare_files(path)


def test_a_missing_header_is_named_as_the_cause(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("".join(f"text {i},{'yes' if i % 2 else 'no'}\n" for i in range(20)), encoding="utf-8")
    with pytest.raises(UserError, match="the file may have no header"):
        prepare_files(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"text,label\n", "has no records"),
        ("a.json", b'[{"text": "a", "label": "b"}, {"text"]', "broken JSON at line 1"),
        ("a.json", b"[]", "has no records"),
        ("a.csv", b"text,label\n" + b"a\n" * 5, "dropped: 5 ragged"),
        ("a.csv", bytes(range(256)) * 9, "binary file"),
    ],
)
def test_bad_files_leave_nothing_behind(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        prepare_files(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_what_was_in_the_store_stays_when_the_next_data_fails(tmp_path: Path) -> None:
    data = prepare_files(write_csv(tmp_path / "rows.csv", ROWS))
    with pytest.raises(UserError):
        prepare_files(write_csv(tmp_path / "bad.csv", ROWS[:2]))
    assert [entry.name for entry in data.folder.parent.iterdir()] == [data.key]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_without_permission(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", ROWS)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(EnvironmentFault):
        prepare_files(path, store=locked / "runs" / ".data")


def test_a_store_that_cannot_be_a_folder(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", ROWS)
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(EnvironmentFault):
        prepare_files(path)


def test_texts_of_several_roles_and_no_target(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [(f"a{i}", f"b{i % 2}") for i in range(20)] + [("a0", "b0"), ("a0", "b1"), ("", "b")]
    path.write_text("first,second\n" + "".join(f"{one},{other}\n" for one, other in rows), encoding="utf-8")
    data = prepare_files(path, roles=ColumnRoles(inputs=("first", "second")))
    assert data.report["dropped"] == {"empty_text": 1, "exact_duplicate": 1}
    assert data.report["labels"] == {}
    assert (data.report["train"], data.report["validation"], data.report["test"]) == (17, 2, 2)
    assert [row["bucket"] for row in rejects(data)] == ["exact_duplicate", "empty_text"]


def test_progress_and_notes_are_shown(tmp_path: Path) -> None:
    import contextlib
    from collections.abc import Callable, Iterator

    shown: list[str] = []

    class Listener(Console):
        def warn(self, text: str) -> None:
            shown.append(text)

        @contextlib.contextmanager
        def progress(
            self, description: str, total: int | None = None, unit: str = "rows"
        ) -> Iterator[Callable[[int], None]]:
            done = [0]
            yield lambda count: done.append(count)
            shown.append(f"{description} {sum(done)} of {total} {unit}")

    rows = [*ROWS, *[(f"alike {i}", "Label 0") for i in range(9)]]
    write_csv(tmp_path / "rows.csv", rows)
    prepare(
        DataConfig.model_validate({"sources": [{"path": "rows.csv"}]}),
        ROLES,
        folder=tmp_path,
        store=tmp_path / "store",
        task="classify",
        default_split="stratified",
        resolve_starter=Path,
        console=Listener(),
    )
    assert SILENT.warn("x") is None
    assert [line.split(" ")[0] for line in shown] == ["checking", "reading", "writing", "the"]
    assert shown[2] == f"writing {len(rows)} of {len(rows)} rows"
    assert "differ only" in shown[3]
