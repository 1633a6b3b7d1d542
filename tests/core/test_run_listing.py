"""What can be told of runs from their folders alone, whatever state those are in."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tests.run_folders import HEADLINE, SIZE, created, dead_process, locked_elsewhere, write_run

from reglaj.core.errors import UserError
from reglaj.core.run_listing import data_folders, holder_of, list_runs, size_of
from reglaj.core.runs import LOCK, begin_run, locked


def only(runs):
    (summary,) = list_runs(runs)
    return summary


def tree(folder):
    return sorted((str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*"))


def test_a_finished_run_tells_all(tmp_path):
    folder = write_run(tmp_path, "tiny-001", created=created(7200), data_key="k")
    run = only(tmp_path)
    assert (run.path, run.status, run.task, run.method, run.headline) == (
        folder,
        "finished",
        "classify",
        "lora",
        HEADLINE,
    )
    assert 7200 <= run.age_s < 7260
    assert run.size_bytes == SIZE + (folder / "manifest.json").stat().st_size
    assert (run.step, run.total_steps, run.process, run.reason, run.data_key) == (120, 400, None, None, "k")


def test_a_run_that_was_killed_is_interrupted(tmp_path):
    folder = write_run(tmp_path, "tiny-001", status="running")
    (folder / LOCK).write_text(str(dead_process()))
    assert only(tmp_path).status == "interrupted"
    (folder / LOCK).write_text(str(os.getpid()))  # alive, but it does not hold the lock: the number was used again
    assert only(tmp_path).status == "interrupted"
    write_run(tmp_path, "tiny-001", status="interrupted", reason="")
    assert (only(tmp_path).status, only(tmp_path).reason) == ("interrupted", None)


@pytest.mark.parametrize("status", ["running", "failed", "finished"])
def test_a_run_that_another_process_holds_is_in_use(tmp_path, status):
    folder = write_run(tmp_path, "tiny-001", status=status)
    with locked_elsewhere(folder) as process:
        run = only(tmp_path)
        assert (run.status, run.process, run.reason) == ("in use", process, None)
    assert only(tmp_path).process is None


def test_a_run_that_we_hold_is_in_use_too_and_stays_ours(tmp_path):
    folder, _ = begin_run(tmp_path, "tiny", "a")
    with locked(folder):
        assert holder_of(folder) == os.getpid()
        assert only(tmp_path).status == "in use"
    assert holder_of(folder) is None


def test_looking_never_keeps_a_run_from_beginning(tmp_path):
    folder = write_run(tmp_path, "tiny-001", status="running")
    (folder / LOCK).touch()
    program = (
        "import sys, pathlib; from reglaj.core.run_listing import holder_of\n"
        "print('looks', flush=True)\nwhile True: holder_of(pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "looks\n"
        try:
            for _ in range(100):  # without patience some 20 of these would be refused
                with locked(folder):
                    pass
        finally:
            process.kill()


def test_a_failed_run_says_why(tmp_path):
    write_run(tmp_path, "tiny-001", status="failed", reason="step 3: loss is not finite\n  allowed: finite")
    run = only(tmp_path)
    assert run.status == "failed" and run.reason.startswith("step 3")


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (None, "no manifest.json"),
        (b"", "manifest.json cannot be read"),
        (b'{"status": "finished"', "manifest.json cannot be read"),
        (b"[]", "manifest.json cannot be read"),
        (b"\xff\xfe", "manifest.json cannot be read"),
        (b"[" * 100_000, "manifest.json cannot be read"),
        (b"{}", "manifest.json has no known status"),
        (b'{"status": ["finished"]}', "manifest.json has no known status"),
    ],
)
def test_half_a_run_is_shown_as_damaged(tmp_path, manifest, reason):
    folder = write_run(tmp_path, "tiny-001")
    (folder / "manifest.json").unlink()
    if manifest is not None:
        (folder / "manifest.json").write_bytes(manifest)
    run = only(tmp_path)
    assert (run.status, run.reason, run.age_s, run.created) == ("damaged", reason, None, "")
    assert run.size_bytes >= SIZE


def test_values_that_are_nonsense_hide_nothing(tmp_path):
    figures = {"a": {"value": float("nan"), "low": 0.0, "high": 1.0}, "b": {"value": 10**400, "low": 0, "high": 1}}
    wrong = {"headline": {**figures, **HEADLINE, "c": 3}, "created": "soon", "total_steps": "many", "task": None}
    write_run(tmp_path, "tiny-001", **wrong)
    run = only(tmp_path)
    assert (run.status, run.headline, run.age_s, run.total_steps, run.task) == ("finished", HEADLINE, None, None, "")


def test_a_clock_that_was_put_back_makes_nothing_younger_than_new(tmp_path):
    write_run(tmp_path, "tiny-001", created=created(-5000))
    write_run(tmp_path, "tiny-002", created="9999-12-31T23:59:59Z")
    write_run(tmp_path, "tiny-003", created="2020-01-01T00:00:00")
    assert [run.age_s == 0 for run in list_runs(tmp_path)] == [False, True, True]


def test_oldest_first_then_by_name(tmp_path):
    now = created()
    for name, moment in (("b-001", now), ("c-001", created(90)), ("a-001", now), ("half-001", "")):
        write_run(tmp_path, name, created=moment)
    assert [run.path.name for run in list_runs(tmp_path)] == ["half-001", "c-001", "a-001", "b-001"]


def test_what_is_no_run_is_not_listed(tmp_path):
    assert list_runs(tmp_path / "none") == []
    write_run(tmp_path, "best")  # a copy under a name of its own
    write_run(tmp_path, ".tiny-001.7.0123abcd.old")
    write_run(tmp_path, ".data/k")
    (tmp_path / "notes").mkdir()
    (tmp_path / "tiny-001").write_text("a file")
    assert [run.path.name for run in list_runs(tmp_path)] == ["best"]
    with pytest.raises(UserError, match="is a file"):
        list_runs(tmp_path / "tiny-001")


def test_listing_writes_nothing_and_needs_not_to(tmp_path):
    for number, status in enumerate(("finished", "running", "failed")):
        folder = write_run(tmp_path, f"tiny-00{number}", status=status)
        if number:
            (folder / LOCK).write_text("1")
            (folder / LOCK).chmod(0o444)
        folder.chmod(0o555)
    tmp_path.chmod(0o555)
    before = tree(tmp_path)
    assert [run.status for run in list_runs(tmp_path)] == ["finished", "interrupted", "failed"]
    assert tree(tmp_path) == before
    for folder in (tmp_path, *tmp_path.iterdir()):
        folder.chmod(0o755)


def test_sizes_follow_no_links(tmp_path):
    big = tmp_path / "elsewhere"
    big.mkdir()
    (big / "file").write_bytes(b"x" * 1_000_000)
    folder = write_run(tmp_path / "runs", "tiny-001")
    (folder / "model" / "link").symlink_to(big)
    (tmp_path / "runs" / "linked-001").symlink_to(big)
    linked, run = list_runs(tmp_path / "runs")
    assert run.size_bytes < SIZE + 10_000
    assert (linked.status, linked.size_bytes) == ("damaged", 0)
    assert size_of(tmp_path / "none") == 0


def test_data_folders_are_those_that_are_whole(tmp_path):
    assert data_folders(tmp_path) == []
    for name in ("b", "a", ".c.1.0123abcd.tmp"):
        (tmp_path / ".data" / name).mkdir(parents=True)
    (tmp_path / ".data" / "openings.jsonl").write_text(json.dumps({}))
    assert [folder.name for folder in data_folders(tmp_path)] == ["a", "b"]
