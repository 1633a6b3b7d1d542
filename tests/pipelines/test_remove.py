"""Removing runs: what goes with them, what never does, and what a removal that dies leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.run_folders import created, dead_process, locked_elsewhere, write_data, write_run

from reglaj.core.errors import EnvironmentFault, UserError
from reglaj.core.run_listing import STATES, TOKENS, list_runs, size_of
from reglaj.core.runs import begin_run
from reglaj.pipelines.remove import _hide, plan_removal, remove_runs

A, B = "a" * 32, "b" * 32


@pytest.fixture
def runs(tmp_path) -> Path:
    """Two runs on one data set, a third on another, and the count of openings."""
    folder = tmp_path / "runs"
    for name, key in (("tiny-001", A), ("tiny-002", A), ("other-001", B)):
        write_run(folder, name, data_key=key)
    write_data(folder, A, "tickets.csv")
    write_data(folder, B, "old.csv", "new.csv")
    (folder / ".data" / "openings.jsonl").write_text("{}\n")
    return folder


def everything(folder: Path) -> set[str]:
    """Below a folder, but locks: taking one creates it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".lock"}


def test_data_goes_with_the_last_run_that_points_to_it(runs):
    before = size_of(runs)
    first = remove_runs(["tiny-001"], runs=runs)
    assert (first["removed"], first["data_removed"]) == (["tiny-001"], [])
    second = remove_runs(["tiny-002"], runs=runs)
    assert (second["removed"], second["data_removed"]) == (["tiny-002"], [A])
    names = {path.name for path in runs.iterdir()}
    assert names == {"other-001", ".data", ".lock"}
    assert {path.name for path in (runs / ".data").iterdir()} == {B, "openings.jsonl"}
    locks = size_of(runs) - size_of(runs / "other-001") - size_of(runs / ".data")
    assert abs(first["freed_bytes"] + second["freed_bytes"] - (before - size_of(runs) + locks)) < 20


@pytest.mark.parametrize("store", [STATES, TOKENS])
def test_what_is_kept_goes_with_the_data_that_it_was_made_of(runs, store):
    for name, key in (("one", A), ("two", B)):
        folder = runs / store / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"data_key": key}))
        (folder / "states.bin").write_bytes(bytes(5000))
    (runs / store / "broken").mkdir()
    assert {run.path.name for run in list_runs(runs)} == {"tiny-001", "tiny-002", "other-001"}
    remove_runs(["tiny-001"], runs=runs)
    assert {path.name for path in (runs / store).iterdir()} == {"one", "two", "broken"}
    removal = plan_removal(["tiny-002"], runs=runs)
    assert [path.name for path, _ in removal.states] == ["one"] and removal.states[0][1] > 5000
    remove_runs(["tiny-002"], runs=runs)
    assert {path.name for path in (runs / store).iterdir()} == {"two", "broken"}


def test_several_at_once_take_what_they_share(runs):
    gone = remove_runs(["tiny-001", str(runs / "tiny-002"), "tiny-001"], runs=runs)
    assert gone["removed"] == ["tiny-001", "tiny-002"] and gone["data_removed"] == [A]
    assert gone["freed_bytes"] > 300_000


def test_what_goes_is_shown_first_and_a_no_changes_nothing(runs):
    before, shown = everything(runs), []
    gone = remove_runs(["other-001"], runs=runs, agree=lambda removal: bool(shown.append(removal)))
    assert gone == {"removed": [], "data_removed": [], "freed_bytes": 0}
    assert everything(runs) == before
    (removal,) = shown
    assert [run.path.name for run in removal.runs] == ["other-001"]
    assert [data.sources for data in removal.data] == [("old.csv", "new.csv")]
    assert removal.size_bytes == removal.runs[0].size_bytes + removal.data[0].size_bytes


def test_what_has_changed_since_it_was_shown_is_not_removed(runs):
    def agree(removal):
        write_run(runs, "tiny-002", data_key=A, created=created(5))  # another one under the same number
        return True

    with pytest.raises(EnvironmentFault, match="changed meanwhile"):
        remove_runs(["tiny-001", "tiny-002"], runs=runs, agree=agree)
    assert (runs / "tiny-001").is_dir() and (runs / "tiny-002").is_dir()


def test_half_a_run_can_be_removed(runs):
    (runs / "tiny-001" / "manifest.json").unlink()
    (runs / "empty-007").mkdir()
    gone = remove_runs(["tiny-001", "empty-007"], runs=runs)
    assert gone["removed"] == ["tiny-001", "empty-007"] and gone["data_removed"] == []
    assert not (runs / "tiny-001").exists() and not (runs / "empty-007").exists()


def test_a_run_in_use_is_refused_and_so_are_the_others(runs):
    before = everything(runs)
    with locked_elsewhere(runs / "tiny-002") as process:
        with pytest.raises(EnvironmentFault, match=f"tiny-002' is in use by process {process}"):
            remove_runs(["tiny-001", "tiny-002"], runs=runs)
        assert everything(runs) == before
        # What it works on stays as well.
        assert remove_runs(["tiny-001"], runs=runs)["data_removed"] == []
        assert (runs / ".data" / A).is_dir()


def test_wrong_names_are_all_told_at_once_and_nothing_goes(runs, tmp_path):
    write_run(tmp_path / "elsewhere", "tiny-001")
    before = everything(tmp_path)
    wrong = [
        "tiny-01",
        "tiny",
        "",
        ".",
        "..",
        ".data",
        str(runs / ".data" / A),
        str(runs),
        str(runs / ".."),
        str(runs / "tiny-001" / ".."),
        str(runs / "tiny-001" / "model"),
        str(tmp_path / "elsewhere" / "tiny-001"),
        "../elsewhere/tiny-001",
        "tiny-*",
    ]
    with pytest.raises(UserError) as caught:
        remove_runs([*wrong, "tiny-001"], runs=runs)
    problems = caught.value.problems
    assert [problem.given for problem in problems] == [f"{name!r} is not a run that can be removed" for name in wrong]
    assert "did you mean 'tiny-001'" in problems[0].remedy
    assert problems[1].remedy == "name them: tiny-001 tiny-002"
    assert "does not lie in" in problems[-3].why
    assert everything(tmp_path) == before


def test_a_wrong_name_and_a_run_in_use_are_told_together(runs):
    with locked_elsewhere(runs / "tiny-002"), pytest.raises(UserError) as caught:
        remove_runs(["tyni-001", "tiny-002"], runs=runs)
    assert len(caught.value.problems) == 2


def test_paths_are_taken_as_they_are_meant(runs, monkeypatch):
    monkeypatch.chdir(runs)
    assert remove_runs(["./tiny-001"], runs=".")["removed"] == ["tiny-001"]
    assert remove_runs(["../runs/tiny-002/"], runs=".")["removed"] == ["tiny-002"]


def test_links_are_not_followed(runs, tmp_path):
    outside = write_run(tmp_path / "outside", "far-001")
    (runs / "far-001").symlink_to(outside)
    with pytest.raises(UserError, match="symbolic link"):
        remove_runs(["far-001"], runs=runs)
    (runs / "other-001" / "model" / "far").symlink_to(outside)
    kept = runs / ".data" / B
    kept.rename(tmp_path / "kept")
    kept.symlink_to(tmp_path / "kept")
    before = everything(tmp_path / "outside") | everything(tmp_path / "kept")
    assert remove_runs(["other-001"], runs=runs)["data_removed"] == []
    assert everything(tmp_path / "outside") | everything(tmp_path / "kept") == before


def test_a_runs_folder_behind_a_link_is_the_runs_folder(runs, tmp_path):
    (tmp_path / "link").symlink_to(runs)
    assert remove_runs([str(runs / "tiny-001"), "other-001"], runs=tmp_path / "link")["data_removed"] == [B]


@pytest.mark.parametrize("key", ["..", "../..", ".", "", "/etc", f"{A}/../{B}", "openings.jsonl"])
def test_a_manifest_cannot_name_other_folders_for_removal(runs, key):
    write_run(runs, "evil-001", data_key=key)
    before = everything(runs) - {path for path in everything(runs) if path.startswith("evil-001")}
    assert remove_runs(["evil-001"], runs=runs)["data_removed"] == []
    assert everything(runs) == before


def test_a_removal_that_is_killed_leaves_nothing_half_valid_and_the_next_one_ends_it(runs):
    program = f"""
import os, signal
from reglaj.core.console import Console
from reglaj.pipelines.remove import remove_runs
class Deadly(Console):
    def progress(self, *_, **__): os.kill(os.getpid(), signal.SIGKILL)
remove_runs(["tiny-001", "tiny-002"], runs={str(runs)!r}, console=Deadly())
"""
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode == -9
    assert {path.name for path in runs.iterdir() if not path.name.startswith(".")} == {"other-001"}
    left = [path for path in runs.rglob("*.old")]
    assert len(left) == 3, "the renaming was not reached"
    size = sum(map(size_of, left))
    write_run(runs, "new-001")
    gone = remove_runs(["new-001"], runs=runs)
    assert gone["removed"] == ["new-001"] and gone["freed_bytes"] > size
    assert not list(runs.rglob("*.old"))


def test_data_of_a_removal_that_died_in_the_middle_goes_with_the_next(runs):
    dead = dead_process()
    (runs / "other-001").rename(runs / f".other-001.{dead}.0123abcd.old")
    (runs / "tiny-001").rename(runs / f".tiny-001.{dead}.0123abcd.old")
    write_run(runs, "new-001")
    gone = remove_runs(["new-001"], runs=runs)
    assert gone["data_removed"] == [B], "tiny-002 still points to the other"
    assert {path.name for path in runs.iterdir()} == {"tiny-002", ".data", ".lock"}


def test_leftovers_of_killed_writers_are_swept_and_those_of_living_ones_stay(runs):
    dead, alive = dead_process(), os.getppid()
    swept = [f".data/.{A}.{dead}.0123abcd.tmp", f".data/.{A}.0123abcd.old", f".x-001.{dead}.01234567.tmp"]
    stay = [f".data/.{A}.{alive}.0123abcd.tmp", f".y-001.{alive}.0123abcd.old", ".mine", f".data/.{A}.0123abcd.tmp"]
    for name in (*swept, *stay):
        (runs / name).mkdir()
        (runs / name / "file").write_bytes(b"x" * 100)
    removal = plan_removal(["tiny-001"], runs=runs)
    assert {str(path.relative_to(runs)) for path, _ in removal.left} == set(swept)
    assert sum(size for _, size in removal.left) == 300
    remove_runs(["tiny-001"], runs=runs)
    assert all((runs / name / "file").is_file() for name in stay)
    assert not any((runs / name).exists() for name in swept)


def test_what_cannot_all_be_hidden_stays_as_it_was(runs):
    before = everything(runs)
    with pytest.raises(EnvironmentFault):
        _hide([runs / "tiny-001", runs / ".data" / A, runs / "gone-001"])
    assert everything(runs) == before


def test_a_run_that_was_never_locked_can_go_and_its_number_is_free(runs):
    folder, _ = begin_run(runs, "fresh", "identity")
    assert remove_runs([folder.name], runs=runs)["removed"] == ["fresh-001"]
    assert begin_run(runs, "fresh", "identity") == (folder, "new")
