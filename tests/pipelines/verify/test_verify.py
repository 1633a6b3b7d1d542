"""`verify` on sound runs, on what is no run, and where a check itself breaks."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import reglaj
from reglaj.cli import main
from reglaj.core.errors import UserError
from reglaj.core.files import sha256_file
from reglaj.pipelines import verify as package
from reglaj.pipelines.verify import rehearsal
from reglaj.pipelines.verify.verdicts import FAIL, NOT_APPLICABLE, Check, Finding


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check but the rehearsal, which takes ten seconds."""
    checks = tuple(check for check in package.CHECKS if check.examine is not rehearsal.rehearsed)
    monkeypatch.setattr(package, "CHECKS", checks)


def by_verdict(document: dict[str, Any], verdict: str) -> set[int]:
    return {check["promise"] for check in document["checks"] if check["verdict"] == verdict}


def test_a_sound_run_passes_with_a_kill_rehearsed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "sort", "--runs", str(place / "runs")]) == 0
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line[:1].isdigit()]
    assert [line[0] for line in lines] == list("12345567789")
    assert "122 records of 1 source read again" in lines[0] and "120 kept, 2 dropped" in lines[0]
    assert "killed by SIGKILL after step 2" in " ".join(out.split())
    assert "nothing failed in 11 checks, 1 not applicable" in out


def test_a_sound_chat_run_passes(place: Path, quick: None) -> None:
    run = place / "runs" / "talk-001"
    before = {file: sha256_file(file) for file in run.rglob("*") if file.is_file()}
    document = reglaj.verify("talk-001", runs=place / "runs")
    assert {file: sha256_file(file) for file in run.rglob("*") if file.is_file()} == before
    assert document["verdict"] == "pass" and Path(document["run"]).name == "talk-001"
    assert by_verdict(document, "pass") == set(range(1, 10))
    answers = next(check for check in document["checks"] if check["promise"] == 3)
    assert set(answers) == {"promise", "name", "verdict", "evidence", "seconds"}
    assert "48 answers in 48 examples" in answers["evidence"]


def test_a_fail_is_printed_and_exits_with_3(
    copy: Callable[[str], Path], quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy("sort-001")
    with (run / "README.md").open("a") as file:
        file.write("much better than it was\n")
    assert main(["verify", str(run)]) == 3
    assert "promise 8 does not hold" in capsys.readouterr().out
    assert main(["verify", str(run), "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "fail" and by_verdict(document, FAIL) == {8}


def test_what_is_no_finished_run_is_refused(copy: Callable[[str], Path]) -> None:
    run = copy("sort-001")
    manifest = (run / "manifest.json").read_text()
    with pytest.raises(UserError, match="is not a run"):
        reglaj.verify(run.parent)
    (run / "manifest.json").write_text(manifest.replace('"finished"', '"interrupted"'))
    with pytest.raises(UserError, match="is not finished"):
        reglaj.verify(run)
    (run / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest.json cannot be read"):
        reglaj.verify(run)
    (run / "manifest.json").write_text(manifest)
    (run / "report.json").unlink()
    with pytest.raises(UserError, match=r"half a run(?s:.*)report.json"):
        reglaj.verify(run)


def test_without_its_data_the_rest_is_still_shown(copy: Callable[[str], Path], quick: None) -> None:
    run = copy("talk-001")
    shutil.rmtree(run.parent / ".data")
    document = reglaj.verify(run)
    assert document["verdict"] == "pass"
    assert by_verdict(document, NOT_APPLICABLE) == {1, 2, 3, 4, 7}
    assert "talks.jsonl (sha256" in document["checks"][0]["evidence"]


def test_a_check_that_breaks_is_a_fail(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(subject: object) -> Finding:
        raise ZeroDivisionError("no rows at all")

    monkeypatch.setattr(package, "CHECKS", (Check(4, broken),))
    (check,) = reglaj.verify("sort-001", runs=place / "runs")["checks"]
    assert check["verdict"] == FAIL
    assert "the check itself broke" in check["evidence"] and "no rows at all (test_verify.py" in check["evidence"]


def test_a_rehearsal_that_cannot_start_is_a_fail(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    monkeypatch.setattr(package, "CHECKS", (Check(5, rehearsal.rehearsed),))
    (check,) = reglaj.verify("sort-001", runs=place / "runs")["checks"]
    assert check["verdict"] == FAIL and "did not come to its end" in check["evidence"]


def test_a_training_that_ends_otherwise_after_a_kill_is_found(tmp_path: Path) -> None:
    for name, loss in (("calm", 1.5), ("killed", 1.25)):
        step = tmp_path / name / "checkpoints" / f"step-{rehearsal.STEPS:06d}"
        step.mkdir(parents=True)
        for part in ("weights", "optimizer"):
            (step / f"{part}.safetensors").write_text(f"{part} {loss}")
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": loss, "time": 0}) + "\n")
        (tmp_path / name / rehearsal.RESULT).write_text(json.dumps({"weights_sha256": str(loss)}))
    told = list(rehearsal._differences(tmp_path / "calm", tmp_path / "killed"))
    assert len(told) == 4
    assert not list(rehearsal._differences(tmp_path / "calm", tmp_path / "calm"))
