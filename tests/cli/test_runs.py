"""`reglaj runs` and `reglaj runs rm` as a user sees them, and how quick the list is."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.run_folders import HEADLINE, created, locked_elsewhere, write_data, write_run

RUNS_SECONDS = 1.0
KEYS = {
    *("name", "path", "status", "task", "method", "headline", "created"),
    *("age_s", "size_bytes", "step", "total_steps", "process", "reason", "gate"),
}
A = "a" * 32


@pytest.fixture
def runs(tmp_path) -> Path:
    """A run of each kind, in the working directory of the `reglaj` fixture."""
    folder = tmp_path / "runs"
    write_run(folder, "done-001", created=created(5 * 86400), data_key=A)
    write_run(folder, "failed-001", created=created(7200), status="failed", reason="step 3: not finite\n  why: x")
    write_run(folder, "killed-001", created=created(600), status="running")
    write_run(folder, "late-001", created=created(-600), data_key=A)
    write_run(folder, "half-001")
    (folder / "half-001" / "manifest.json").unlink()
    write_data(folder, A, "tickets.csv", size=2_000_000)
    return folder


class Terminal(io.StringIO):
    """Standard input where somebody types."""

    def isatty(self) -> bool:
        return True


def test_each_run_says_how_far_it_is(reglaj, runs):
    outcome = reglaj("runs")
    assert outcome.code == 0
    lines = {line.split()[0]: " ".join(line.split()) for line in outcome.out.splitlines() if line}
    assert lines["done-001"].startswith("done-001 finished 5 days 167.0 kB classify lora accuracy 0.913 [0.894, 0.930]")
    assert lines["failed-001"].endswith("step 120 of 400, step 3: not finite")
    assert "interrupted 10 min" in lines["killed-001"] and lines["killed-001"].endswith("step 120 of 400")
    assert "just now" in lines["late-001"]
    assert "damaged ?" in lines["half-001"] and lines["half-001"].endswith("no manifest.json")
    assert outcome.out.splitlines()[-1] == "data: 1 set, 2.0 MB, in runs/.data"


def test_json_has_every_key(reglaj, runs):
    with locked_elsewhere(runs / "killed-001") as process:
        listed = {run["name"]: run for run in reglaj("runs", "--json").document}
        assert "in use" in reglaj("runs").out and f"process {process}, step 120 of 400" in reglaj("runs").out
    assert all(set(run) == KEYS for run in listed.values())
    assert listed["killed-001"]["status"] == "in use" and listed["killed-001"]["process"] == process
    assert listed["done-001"]["headline"] == HEADLINE and listed["done-001"]["path"] == "runs/done-001"
    assert listed["failed-001"]["reason"].startswith("step 3: not finite")
    assert (listed["half-001"]["status"], listed["half-001"]["age_s"]) == ("damaged", None)


def test_rm_asks_on_a_terminal_and_shows_what_goes(reglaj, runs, monkeypatch):
    for said in ("\n", "n\n", "", "yet\n"):
        monkeypatch.setattr("sys.stdin", Terminal(said))
        outcome = reglaj("runs", "rm", "done-001", "late-001")
        assert (outcome.code, outcome.out) == (0, "nothing was removed\n")
        assert all(text in outcome.err for text in ("done-001", "late-001", A, "2.0 MB, from tickets.csv", "[y/N]"))
    assert len(reglaj("runs", "--json").document) == 5
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    outcome = reglaj("runs", "rm", "done-001", "late-001")
    assert outcome.code == 0
    assert outcome.out == "removed done-001, late-001 and 1 data set: 2.3 MB\n"
    assert {run["name"] for run in reglaj("runs", "--json").document} == {"failed-001", "half-001", "killed-001"}


def test_rm_without_a_terminal_needs_yes(reglaj, runs):
    outcome = reglaj("runs", "rm", "done-001", "late-001", "--json")
    assert outcome.code == 2
    assert outcome.problems[0]["remedy"] == "reglaj runs rm done-001 late-001 --yes"
    elsewhere = reglaj("runs", "rm", "done-001", "--runs", runs)
    assert elsewhere.code == 2 and f"rm done-001 --runs {runs} --yes" in elsewhere.err
    assert (runs / "done-001").is_dir()
    gone = reglaj("runs", "rm", "done-001", "late-001", "--yes", "--json")
    assert gone.code == 0
    freed = gone.document["freed_bytes"]
    assert gone.document == {"removed": ["done-001", "late-001"], "data_removed": [A], "freed_bytes": freed}
    assert 2_300_000 < freed < 2_500_000


def test_rm_refuses_with_the_code_that_says_why(reglaj, runs):
    with locked_elsewhere(runs / "done-001") as process:
        busy = reglaj("runs", "rm", "done-001", "late-001", "--yes")
        assert busy.code == 4 and f"in use by process {process}" in busy.err
    wrong = reglaj("runs", "rm", "don-001", "half", "late-001", "--yes", "--json")
    assert wrong.code == 2 and len(wrong.problems) == 2
    assert wrong.problems[0]["remedy"] == "did you mean 'done-001'?"
    assert wrong.problems[1]["remedy"] == "name them: half-001"
    assert reglaj("runs", "rm").code == 2
    assert reglaj("runs", "rm", "x-001", "--yes", "--runs", "nowhere").code == 2
    assert not Path("nowhere").exists()
    assert "did you mean 'rm'" in reglaj("runs", "mr", "done-001").err
    assert len(reglaj("runs", "--json").document) == 5


@pytest.mark.alone
def test_five_hundred_runs_are_listed_at_once(tmp_path):
    for number in range(500):
        status = ("finished", "running", "failed")[number % 3]
        folder = write_run(tmp_path / "runs", f"support-intents-{number:03d}", status=status, data_key=f"{number:032x}")
        (folder / ".lock").write_text("1")
    for number in range(50):
        write_data(tmp_path / "runs", f"{number:032x}", "tickets.csv")
    command = [str(Path(sys.executable).with_name("reglaj")), "runs"]
    times = []
    for _ in range(5):
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        times.append(time.perf_counter() - started)
    assert len(done.stdout.splitlines()) == 1 + 500 + 2
    # The quickest: what slows one of them down is the machine.
    assert min(times) < RUNS_SECONDS, f"{min(times):.2f} s at best"
