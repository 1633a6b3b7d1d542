"""Copies of a sound run that were tampered with: each fails, and fails the promise that it breaks and no other."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.pipelines.verify.conftest import chat_recipe

import reglaj
from reglaj.core.files import canonical_hash, sha256_file
from reglaj.pipelines import verify as package
from reglaj.pipelines.verify import one_number, rehearsal
from reglaj.tasks.base import Encoded
from reglaj.tasks.chat import Chat

Copy = Callable[[str], Path]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = tuple(check for check in package.CHECKS if check.examine is not rehearsal.rehearsed)
    monkeypatch.setattr(package, "CHECKS", checks)
    monkeypatch.setattr(one_number, "ROWS", 3)


def failed(run: Path) -> dict[int, str]:
    """The promises that fail, with what is said of them."""
    found: dict[int, str] = {}
    for check in reglaj.verify(run)["checks"]:
        if check["verdict"] == "fail":
            found[check["promise"]] = f"{found.get(check['promise'], '')}{check['evidence']}\n"
    print("\n".join(f"{promise}: {told}" for promise, told in found.items()))
    return found


def verdict(run: Path, name: str) -> str:
    return next(check["verdict"] for check in reglaj.verify(run)["checks"] if name in check["name"])


def change(file: Path, edit: Callable[[Any], Any]) -> None:
    """Edit a JSON document in place."""
    document = json.loads(file.read_text())
    edit(document)
    file.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n")


def mend(run: Path, *names: str) -> None:
    """Make the manifest agree with the files, as somebody would who knows of it."""
    change(run / "manifest.json", lambda m: m["files"].update({name: sha256_file(run / name) for name in names}))


def data_of(run: Path) -> Path:
    return run.parent / ".data" / json.loads((run / "manifest.json").read_text())["data_key"]


def test_a_test_row_moved_to_train(copy: Copy) -> None:
    run = copy("sort-001")
    data = data_of(run)
    test, train = pq.read_table(data / "test.parquet"), pq.read_table(data / "train.parquet")
    line = test["line"][0].as_py()
    pq.write_table(pa.concat_tables([train, test.slice(0, 1)]), data / "train.parquet")
    pq.write_table(test.slice(1), data / "test.parquet")
    told = failed(run)
    assert set(told) == {1, 2}
    assert f"line {line} of" in told[2] and "is in train.parquet, and the ledger has it in test" in told[2]
    assert verdict(run, "test figures") == "not applicable"


def test_a_test_row_that_is_learnt_under_another_name(copy: Copy) -> None:
    """In all the files at once, with the case of its letters changed: folding sees it."""
    run = copy("sort-001")
    data = data_of(run)
    train = pq.read_table(data / "train.parquet")
    texts = train["text"].to_pylist()
    texts[0] = pq.read_table(data / "test.parquet")["text"][0].as_py().upper()
    pq.write_table(
        train.set_column(train.schema.get_field_index("text"), "text", pa.array(texts)), data / "train.parquet"
    )
    told = failed(run)
    assert set(told) == {1, 2} and "are the same text after folding" in told[2]


def test_a_near_copy_of_a_test_row_that_is_learnt(copy: Copy) -> None:
    run = copy("sort-001")
    data = data_of(run)
    train = pq.read_table(data / "train.parquet")
    texts = train["text"].to_pylist()
    texts[0] = pq.read_table(data / "test.parquet")["text"][0].as_py().replace(" ", ", ") + "!"
    pq.write_table(
        train.set_column(train.schema.get_field_index("text"), "text", pa.array(texts)), data / "train.parquet"
    )
    told = failed(run)
    assert set(told) == {1, 2} and "are near-duplicates of each other" in told[2]


@pytest.mark.parametrize(("bucket", "promises"), [("exact_duplicate", {1}), ("train", {1, 2})])
def test_a_dropped_ledger_line(copy: Copy, bucket: str, promises: set[int]) -> None:
    run = copy("sort-001")
    file = data_of(run) / "records.parquet"
    records = pq.read_table(file)
    place = records["bucket"].to_pylist().index(bucket)
    pq.write_table(pa.concat_tables([records.slice(0, place), records.slice(place + 1)]), file)
    told = failed(run)
    assert set(told) == promises and "the ledger has 121 lines, and 122 records were read" in told[1]


def test_a_part_that_cannot_be_read(copy: Copy) -> None:
    run = copy("sort-001")
    (data_of(run) / "test.parquet").write_bytes(b"PAR1")
    told = failed(run)
    assert set(told) == {1, 2, 7} and all("test.parquet cannot be read" in one for one in told.values())


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("is_mended", [False, True])
def test_a_changed_weight(copy: Copy, is_mended: bool) -> None:
    run = copy("talk-001")
    flip_a_bit(run / "model" / "model.safetensors")
    if is_mended:
        mend(run, "model/model.safetensors")
    told = failed(run)
    assert set(told) == {7} and "the weights have the sha256" in told[7]
    assert ("was changed" in told[7]) is not is_mended


@pytest.mark.parametrize("is_mended", [False, True])
def test_a_changed_template(copy: Copy, is_mended: bool) -> None:
    run = copy("talk-001")
    file = run / "model" / "chat_template.jinja"
    file.write_text(file.read_text().replace("message['role'] +", "message['role'] + ':' +"))
    if is_mended:
        mend(run, "model/chat_template.jinja")
    told = failed(run)
    # What the changed template makes of the data is not what was learnt from either.
    assert set(told) == {3, 7} and "golden prompt 1" in told[7] and "tokens and masks have the sha256" in told[3]
    assert ("was changed" in told[7]) is not is_mended


def shifted(encode: Callable[..., Encoded]) -> Callable[..., Encoded]:
    """Every mask one token to the right, within its row."""

    def encode_shifted(*given: Any) -> Encoded:
        encoded = encode(*given)
        flags, starts = encoded.targets.flags.copy(), encoded.rows.starts
        for start, end in pairwise(starts):
            flags[start:end] = np.concatenate(([False], flags[start : end - 1]))
        return dataclasses.replace(encoded, targets=dataclasses.replace(encoded.targets, flags=flags))

    return encode_shifted


def test_a_run_that_was_trained_with_a_shifted_mask(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as during:
        during.setattr(Chat, "encode", shifted(Chat.encode))
        run = reglaj.train(chat_recipe(place, max_steps=2), runs=tmp_path / "runs").path
    told = failed(run)
    assert set(told) == {3} and "tokens and masks have the sha256" in told[3]
    kept = json.loads((run / "supervision.json").read_text())
    digest = json.loads((place / "runs" / "talk-001" / "supervision.json").read_text())["sha256"]
    assert kept["sha256"] != digest
    # Even where the digest is made to fit, the rows that were written down do not decode to their answers.
    change(run / "supervision.json", lambda document: document.update(sha256=digest))
    mend(run, "supervision.json")
    told = failed(run)
    assert set(told) == {3} and "the first examples are not those of supervision.json" in told[3]


@pytest.mark.parametrize("is_mended", [False, True])
def test_a_shifted_mask_in_what_the_run_keeps(copy: Copy, is_mended: bool) -> None:
    run = copy("talk-001")

    def shift(document: Any) -> None:
        for example in document["examples"]:
            example["mask"] = [0, *example["mask"][:-1]]

    change(run / "supervision.json", shift)
    if is_mended:
        mend(run, "supervision.json")
    told = failed(run)
    assert set(told) == {3} and "does not end with an end-of-turn token" in told[3]
    assert ("was changed" in told[3]) is not is_mended


def raise_figure(report: Any) -> None:
    figure = report["test"]["log_loss"]
    figure["value"] = (figure["value"] + figure["high"]) / 2


def test_an_edited_figure(copy: Copy) -> None:
    run = copy("sort-001")
    change(run / "report.json", raise_figure)
    told = failed(run)
    assert set(told) == {7, 8} and "report.json was changed" in told[8]
    mend(run, "report.json")
    told = failed(run)
    assert set(told) == {7} and "test.log_loss.value is reported as" in told[7]


def test_a_figure_outside_of_its_interval(copy: Copy) -> None:
    run = copy("sort-001")
    change(run / "report.json", lambda report: report["baselines"]["majority"]["accuracy"].update(value=1.0))
    mend(run, "report.json")
    told = failed(run)
    assert set(told) == {8} and "baselines.majority.accuracy: 1.0 is not between" in told[8]


def test_an_older_checkpoint_in_place_of_the_newest(copy: Copy) -> None:
    run = copy("sort-001")
    older, newest = sorted((run / "checkpoints").iterdir())
    shutil.rmtree(newest)
    shutil.copytree(older, newest)
    names = [f"checkpoints/{newest.name}/{file.name}" for file in newest.iterdir()]
    assert set(failed(run)) == {5}
    mend(run, *names)
    told = failed(run)
    assert set(told) == {5} and f"manifest.json is that of step {int(older.name[5:])}" in told[5]

    def forge(manifest: Any) -> None:
        manifest["step"] = int(newest.name[5:])
        del manifest["digest"]
        manifest["digest"] = canonical_hash(manifest)

    change(newest / "manifest.json", forge)
    mend(run, *names)
    told = failed(run)
    assert set(told) == {5} and f"{newest.name} tells other metrics" in told[5]


def test_a_checkpoint_of_another_run(copy: Copy) -> None:
    run = copy("sort-001")
    newest, other = (sorted((run.parent / name / "checkpoints").iterdir())[-1] for name in ("sort-001", "talk-001"))
    shutil.rmtree(newest)
    shutil.copytree(other, newest.with_name(other.name))
    told = failed(run)
    assert set(told) == {5} and "it belongs to another run" in told[5]


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_source_that_changed_or_is_gone(copy: Copy, place: Path, is_gone: bool) -> None:
    run, source = copy("sort-001"), place / "rows.jsonl"
    kept = source.read_bytes()
    try:
        source.unlink()
        if is_gone:
            assert not failed(run) and verdict(run, "accounted") == "not applicable"
        else:
            source.write_bytes(kept.replace(b"fees", b"card", 1))
            told = failed(run)
            assert set(told) == {1} and "rows.jsonl has changed since" in told[1]
    finally:
        source.write_bytes(kept)


def test_metrics_with_a_gap(copy: Copy) -> None:
    run = copy("talk-001")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:2] + lines[3:]))
    told = failed(run)
    assert set(told) == {5} and "has step 4 where step 3 belongs" in told[5]


def test_a_number_that_is_not_finite(copy: Copy) -> None:
    from safetensors.torch import load_file, save_file

    run = copy("talk-001")
    file = run / "model" / "model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[3] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    told = failed(run)
    assert {6, 7} <= set(told) <= {4, 6, 7} and f"{name} is not finite" in told[6]


def test_code_in_the_model(copy: Copy) -> None:
    import pickle

    run = copy("sort-001")
    (run / "model" / "extra.json").write_bytes(pickle.dumps({"a": 1}))
    (run / "model" / "modeling.py").write_text("import os\n")
    change(run / "model" / "tokenizer_config.json", lambda config: config.update(auto_map={"AutoModel": "modeling.X"}))
    told = failed(run)
    assert set(told) == {7, 9} and "model/extra.json is there, and not in the manifest" in told[7]
    for problem in ("extra.json holds a pickle", "modeling.py is neither", "'auto_map', which names code"):
        assert problem in told[9]


def test_an_opening_that_is_not_counted(copy: Copy) -> None:
    run = copy("talk-001")
    file = run.parent / ".data" / "openings.jsonl"
    file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if "talk-001" not in line))
    told = failed(run)
    assert set(told) == {2} and "does not have the opening by talk-001" in told[2]
